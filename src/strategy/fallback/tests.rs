//! What limiting alone may add, as properties over every algorithm, and what is written back.

use std::hash::RandomState;
use std::time::Duration;

use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::debts::MOST_DEBTS;
use super::*;
use crate::algorithm::{ALL, Algorithm};
use crate::domain::{Clock, Identity, ManualClock, Quota, RuleName};

const NOON: u64 = 1_762_668_474_000_000;

/// How the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    /// Nothing is executed, and that is known.
    Away,
    /// Nothing is executed, and nobody knows.
    Silent,
    /// Everything is executed, and nobody knows.
    Deaf,
    /// One key is not what it should be.
    Spoilt,
    /// A mistake of this program's: the task that charges one key panics.
    Mistaken,
}

/// A store that fails as it is told, and remembers what it was charged afterwards.
#[derive(Debug)]
struct Store {
    clock: Arc<ManualClock>,
    state: Mutex<(Mode, Arc<Memory>)>,
    debits: Mutex<Vec<(Key, u64)>>,
}

/// An instance's clock: always so much ahead of the store's.
#[derive(Debug)]
struct Ahead(Arc<ManualClock>, u64);

impl Clock for Ahead {
    fn now_us(&self) -> u64 {
        self.0.now_us() + self.1
    }
}

fn memory(clock: Arc<dyn Clock>) -> Memory {
    Memory::new(1_000_000, clock, &RandomState::new())
}

fn lost() -> Fault {
    Fault::Lost("cut".to_owned())
}

fn wrong_type() -> Fault {
    let (code, message) = ("WRONGTYPE".to_owned(), String::new());
    Fault::Refused { code, message }
}

impl Store {
    fn set(&self, mode: Mode) {
        self.state.lock().unwrap().0 = mode;
    }

    fn lose_records(&self) {
        self.state.lock().unwrap().1 = Arc::new(memory(self.clock.clone()));
    }

    fn table(&self) -> Arc<Memory> {
        self.state.lock().unwrap().1.clone()
    }

    fn left(&self, charge: &Charge) -> u64 {
        let peeked = self
            .table()
            .ask_now(std::slice::from_ref(charge), Intent::Peek);
        peeked.unwrap().decisions[0].remaining
    }

    fn debits(&self) -> Vec<(Key, u64)> {
        self.debits.lock().unwrap().clone()
    }
}

impl Strategy for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let (mode, table) = self.state.lock().unwrap().clone();
        if intent == Intent::Debit && mode != Mode::Away {
            let sent = charges.iter().map(|c| (c.key().clone(), c.cost().get()));
            self.debits.lock().unwrap().extend(sent);
        }
        Deciding::ready(match mode {
            Mode::Up => table.ask_now(charges, intent),
            Mode::Away => Err(Fault::Unreachable("away".to_owned())),
            Mode::Silent => Err(lost()),
            Mode::Deaf => table.ask_now(charges, intent).and(Err(lost())),
            Mode::Spoilt
                if charges
                    .iter()
                    .any(|c| *c.key() == key(c.limit().algorithm, "bad")) =>
            {
                Err(wrong_type())
            }
            Mode::Mistaken => {
                let is_bad = |c: &Charge| *c.key() == key(c.limit().algorithm, "bad");
                assert!(!charges.iter().any(is_bad), "a mistake");
                table.ask_now(charges, intent)
            }
            Mode::Spoilt => table.ask_now(charges, intent),
        })
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        let table = self.table();
        receipts.iter().for_each(|receipt| table.credit(receipt));
        Deciding::ready(Ok(()))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.table().forget(key);
        Deciding::ready(Ok(()))
    }
}

/// Instances on one store.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    instances: Vec<Fallback>,
}

impl World {
    /// All on one clock.
    fn of(instances: u64) -> Self {
        Self::apart(&vec![0; usize::try_from(instances).unwrap()])
    }

    /// An instance for each of these, so far ahead of the store.
    fn apart(ahead_us: &[u64]) -> Self {
        let clock = Arc::new(ManualClock::at_us(NOON));
        let store = Arc::new(Store {
            clock: clock.clone(),
            state: Mutex::new((Mode::Up, Arc::new(memory(clock.clone())))),
            debits: Mutex::default(),
        });
        let instance = |by_us: &u64| {
            let members = Arc::new(Members::new(1));
            members.heard(ahead_us.len() as u64, NOON);
            let local = memory(Arc::new(Ahead(clock.clone(), *by_us)));
            Fallback::new(store.clone(), store.clone(), local, members)
        };
        let instances = ahead_us.iter().map(instance).collect();
        Self {
            clock,
            store,
            instances,
        }
    }

    /// What that instance decides.
    fn ask(&self, instance: usize, charges: &[Charge]) -> Verdict {
        now(self.instances[instance % self.instances.len()].ask(charges, Intent::Charge)).unwrap()
    }

    fn write_back(&self) {
        self.instances
            .iter()
            .for_each(|instance| now(instance.write_back()));
    }

    /// Runs requests: a pause, an instance and a cost each.
    fn run(&self, limit: Limit, requests: &[(u64, usize, u64)], admitted: &mut Vec<Admitted>) {
        for &(pause_us, instance, cost) in requests {
            self.clock.advance(Duration::from_micros(pause_us));
            let charge = costing(limit, "a", cost.min(limit.quota.capacity()));
            let verdict = self.ask(instance, std::slice::from_ref(&charge));
            if verdict.admitted {
                admitted.push(Admitted {
                    at_us: self.clock.now_us(),
                    cost: charge.cost().get(),
                    is_local: verdict.is_from(Source::Local),
                });
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Admitted {
    at_us: u64,
    cost: u64,
    is_local: bool,
}

/// Runs on a runtime that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn key(algorithm: &'static dyn Algorithm, name: &str) -> Key {
    let identity = Identity::new().with_part(name.as_bytes());
    Key::new("t:", algorithm, &RuleName::default_rule(), &identity)
}

fn costing(limit: Limit, name: &str, cost: u64) -> Charge {
    let key = key(limit.algorithm, name);
    Charge::new(key, limit, Cost::new(cost).unwrap()).unwrap()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

/// A bucket that gains nothing while a test runs.
fn still(algorithm: &'static dyn Algorithm, capacity: u64) -> Limit {
    let quota = Quota::new(capacity, 1, Duration::from_secs(360_000)).unwrap();
    Limit { algorithm, quota }
}

/// Whether so many tokens are at most what the law gives in that time and `more`: times one token's units.
fn lawful(limit: Limit, tokens: u64, from_us: u64, to_us: u64, more: u64) -> bool {
    let quota = limit.quota;
    let (capacity, unit) = (quota.capacity(), quota.unit());
    if limit.algorithm.name() == "fixedwindow" {
        let window = quota.fill_time_us();
        let windows = to_us / window - from_us / window + 1;
        return tokens <= windows * capacity + more;
    }
    tokens * unit <= (capacity + more) * unit + (to_us - from_us) * quota.gain()
}

/// Whether every stretch of that history is lawful with `more`.
fn is_lawful(limit: Limit, admitted: &[Admitted], more: u64) -> bool {
    admitted.iter().enumerate().all(|(i, first)| {
        let mut sum = 0;
        admitted[i..].iter().all(|one| {
            sum += one.cost;
            lawful(limit, sum, first.at_us, one.at_us, more)
        })
    })
}

/// Most tokens that instances which nobody else counts for can burst: a capacity, or a request each.
fn burst(limit: Limit, instances: u64, cost: u64) -> u64 {
    limit
        .quota
        .capacity()
        .max(instances * cost.min(limit.quota.capacity()))
}

/// The windows of a share are longer where a request costs more than one: they are not those of the law.
fn has_other_windows(limit: Limit, instances: u64, cost: u64) -> bool {
    limit.algorithm.name() == "fixedwindow"
        && burst(limit, instances, cost) > limit.quota.capacity()
}

fn limits() -> impl Generator<Value = Limit> {
    let quotas = (1_u64..40, 1_u64..20, 100_000_u64..4_000_000);
    (proptest::sample::select(ALL), quotas).prop_map(
        |(algorithm, (capacity, tokens, period_us))| Limit {
            algorithm,
            quota: Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap(),
        },
    )
}

fn requests(costs: std::ops::Range<u64>) -> impl Generator<Value = Vec<(u64, usize, u64)>> {
    let pauses = prop_oneof![3 => Just(0_u64), 1 => 0_u64..2_000_000];
    proptest::collection::vec((pauses, 0_usize..6, costs), 0..60)
}

fn all_costing(requests: Vec<(u64, usize, u64)>, cost: u64) -> Vec<(u64, usize, u64)> {
    let all = requests.into_iter();
    all.map(|(pause, instance, _)| (pause, instance, cost))
        .collect()
}

/// So far is each instance ahead of the store: not at all, or by anything up to some windows.
fn clocks(instances: std::ops::Range<usize>) -> impl Generator<Value = Vec<u64>> {
    let apart = proptest::collection::vec(0_u64..10_000_000, instances.clone());
    prop_oneof![instances.prop_map(|count| vec![0; count]), apart]
}

/// What windows that do not begin when the store's do add: a burst more, of another window within one of the law's.
fn misaligned(limit: Limit, ahead_us: &[u64], burst: u64) -> u64 {
    let is_apart = ahead_us.iter().any(|us| *us > 0);
    u64::from(is_apart && limit.algorithm.name() == "fixedwindow") * burst
}

proptest! {
    /// Before, while and after the store is away for everybody: the law and one capacity, or a request of each instance
    /// where that is more; one capacity more if it comes back empty. Where clocks differ, `fixedwindow` adds one more.
    #[test]
    fn an_outage_adds_one_capacity(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5, comes_back_empty in proptest::bool::ANY,
        before in requests(1..2), during in requests(1..2), after in requests(1..2),
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        if comes_back_empty { world.store.lose_records() }
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        let burst = burst(limit, instances, cost);
        let more = burst + misaligned(limit, &ahead_us, burst) + if comes_back_empty { limit.quota.capacity() } else { 0 };
        prop_assert!(is_lawful(limit, &admitted, more), "{admitted:?}");
    }

    /// The same where requests cost this and that.
    #[test]
    fn requests_of_many_costs_add_no_more(
        limit in limits(), ahead_us in clocks(1..6), before in requests(1..8), during in requests(1..8)
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, 7) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &before, &mut admitted);
        world.store.set(Mode::Away);
        world.run(limit, &during, &mut admitted);
        world.run(limit, &during, &mut admitted);
        let burst = burst(limit, instances, 7);
        prop_assert!(is_lawful(limit, &admitted, burst + misaligned(limit, &ahead_us, burst)), "{admitted:?}");
    }

    /// Over an outage itself, however its faults look and although the store answers now and then.
    #[test]
    fn a_store_that_comes_and_goes_adds_no_more(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5,
        turns in proptest::collection::vec((proptest::bool::ANY, requests(1..2)), 1..8),
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        for (is_up, requests) in turns {
            world.store.set(if is_up { Mode::Up } else { Mode::Away });
            world.run(limit, &all_costing(requests, cost), &mut admitted);
        }
        admitted.retain(|one| one.is_local);
        let burst = burst(limit, instances, cost);
        let more = burst - limit.quota.capacity() + misaligned(limit, &ahead_us, burst);
        prop_assert!(is_lawful(limit, &admitted, more), "{admitted:?}");
    }

    /// Where each instance's last answer was a denial, an outage admits what is refilled and one request of each.
    #[test]
    fn after_denials_an_outage_adds_a_request_of_each_instance(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5, during in requests(1..2), after in requests(1..2)
    ) {
        if limit.algorithm.name() == "fixedwindow" { return Ok(()); }
        let instances = ahead_us.len() as u64;
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        let cost = cost.min(limit.quota.capacity());
        let charge = costing(limit, "a", cost);
        while world.ask(0, std::slice::from_ref(&charge)).admitted {}
        for instance in 0..world.instances.len() {
            prop_assert!(!world.ask(instance, std::slice::from_ref(&charge)).admitted);
        }
        let from_us = world.clock.now_us();
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        let mut sum = 0;
        for one in &admitted {
            sum += one.cost;
            let gained = (one.at_us - from_us) * limit.quota.gain();
            prop_assert!(sum * limit.quota.unit() <= instances * cost * limit.quota.unit() + gained);
        }
        // And when the store is back, no more than that.
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        prop_assert!(is_lawful(limit, &admitted, instances * cost), "{admitted:?}");
    }

    /// Where N requests cost more than a capacity the windows of `fixedwindow` are longer than the law's, so the properties
    /// above leave it to this one: a request of each on either side of where two windows meet.
    #[test]
    fn longer_windows_add_a_request_of_each_on_either_side(
        quota in (1_u64..12, 1_u64..20, 100_000_u64..4_000_000), instances in 2_u64..8, cost in 1_u64..5,
        after_denials in proptest::bool::ANY, before in requests(1..2), during in requests(1..2), after in requests(1..2),
    ) {
        let (capacity, tokens, period_us) = quota;
        let quota = Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap();
        let limit = Limit { algorithm: crate::algorithm::named("fixedwindow").unwrap(), quota };
        let cost = cost.min(capacity);
        proptest::prop_assume!(has_other_windows(limit, instances, cost));
        let (world, mut admitted) = (World::of(instances), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        if after_denials {
            let all = (0..world.instances.len()).flat_map(|instance| (0..=capacity).map(move |_| (0, instance, cost)));
            world.run(limit, &all.collect::<Vec<_>>(), &mut admitted);
        }
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        for (i, first) in admitted.iter().enumerate() {
            let mut sum = 0;
            for one in &admitted[i..] {
                sum += one.cost;
                // The law's own windows may have a capacity on either side too.
                let most = 2 * (capacity + instances * cost) * quota.unit();
                let gained = (one.at_us - first.at_us) * quota.gain();
                prop_assert!(sum * quota.unit() <= most + gained, "{sum} in {admitted:?}");
            }
        }
        // What is admitted alone, by itself: no more than a request of each in each of the longer windows.
        let stretched_us = quota.holding(instances * cost).unwrap().fill_time_us();
        let local: Vec<_> = admitted.iter().filter(|one| one.is_local).collect();
        for first in &local {
            let in_window = local.iter().filter(|one| one.at_us / stretched_us == first.at_us / stretched_us);
            let sum: u64 = in_window.map(|one| one.cost).sum();
            prop_assert!(sum <= instances * cost, "{sum} in one window: {admitted:?}");
        }
    }

    /// While k of N are cut off, these admit k/N of a capacity and of the rate, and the others keep the law.
    #[test]
    fn some_that_are_cut_off_admit_their_share(
        limit in limits(), ahead_us in clocks(1..6), cut_off in 1_u64..6, cost in 1_u64..5,
        before in requests(1..2), during in requests(1..2),
    ) {
        let instances = ahead_us.len() as u64;
        let cut_off = cut_off.min(instances);
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        let from_us = world.clock.now_us();
        for (pause_us, instance, _) in during {
            let instance = instance % world.instances.len();
            let is_cut_off = (instance as u64) < cut_off;
            world.store.set(if is_cut_off { Mode::Away } else { Mode::Up });
            world.run(limit, &[(pause_us, instance, cost)], &mut admitted);
        }
        let (local, stored): (Vec<_>, Vec<_>) = admitted.into_iter().partition(|one| one.is_local);
        prop_assert!(is_lawful(limit, &stored, 0));
        let mut sum = 0;
        for one in &local {
            sum += one.cost;
            let (quota, burst) = (limit.quota, burst(limit, instances, cost));
            let most = if limit.algorithm.name() == "fixedwindow" {
                let windows = one.at_us / quota.fill_time_us() - from_us / quota.fill_time_us() + 1;
                (burst * windows + misaligned(limit, &ahead_us, burst)) * quota.unit()
            } else {
                burst * quota.unit() + (one.at_us - from_us) * quota.gain()
            };
            prop_assert!(sum * instances * quota.unit() <= cut_off * most);
        }
    }

    /// A known key starts at floor(remaining / N).
    #[test]
    fn a_warm_key_starts_at_its_share_of_what_is_left(
        which in 0..ALL.len(), instances in 1_u64..6, capacity in 6_u64..60, used in 1_u64..60
    ) {
        let (world, limit, used) = (World::of(instances), still(ALL[which], capacity), used.min(capacity));
        prop_assert!(world.ask(0, &[costing(limit, "a", used)]).admitted);
        world.store.set(Mode::Away);
        let share = (capacity - used) / instances;
        for left in (0..share).rev() {
            let verdict = world.ask(0, &[costing(limit, "a", 1)]);
            prop_assert!(verdict.admitted);
            prop_assert_eq!(verdict.decisions[0].remaining, left);
        }
        prop_assert!(!world.ask(0, &[costing(limit, "a", 1)]).admitted);
    }

    /// A cost above the share but within the quota is admitted or denied, and never inadmissible; a lone client that
    /// waits as long as it is told is admitted. Every decision says that it is local.
    #[test]
    fn no_cost_within_the_quota_is_inadmissible(
        limit in limits(), instances in 1_u64..200, cost in 1_u64..40, asked in 1_usize..6
    ) {
        let world = World::of(instances);
        world.store.set(Mode::Away);
        let charge = [costing(limit, "a", cost.min(limit.quota.capacity()))];
        for _ in 0..asked {
            let verdict = world.ask(0, &charge);
            let decision = verdict.decisions[0];
            prop_assert_eq!(decision.source, Source::Local);
            prop_assert_eq!(decision.limit, limit.quota.capacity());
            prop_assert!(decision.remaining <= decision.limit);
            if let Some(wait) = decision.retry_after() {
                world.clock.advance(wait - Duration::from_micros(1));
                prop_assert!(!world.ask(0, &charge).admitted);
                world.clock.advance(Duration::from_micros(1));
                prop_assert!(world.ask(0, &charge).admitted);
            }
        }
    }

    /// What is spent is sent once a key, never more than was spent, and leaves what the store has less that.
    #[test]
    fn a_debt_is_written_back_once_and_never_below_zero(
        which in 0..ALL.len(), capacity in 6_u64..60, used in 1_u64..60, taken_by_others in 0_u64..60, asked in 1_u64..60
    ) {
        let (world, limit) = (World::of(1), still(ALL[which], capacity));
        prop_assert!(world.ask(0, &[costing(limit, "a", used.min(capacity))]).admitted);
        world.store.set(Mode::Away);
        let spent = (0..asked).filter(|_| world.ask(0, &[costing(limit, "a", 1)]).admitted).count() as u64;
        world.store.set(Mode::Up);
        if let Some(taken) = Cost::new(taken_by_others.min(capacity)) {
            let _ = world.store.table().ask_now(&[costing(limit, "a", taken.get())], Intent::Debit);
        }
        let before = world.store.left(&costing(limit, "a", 1));
        world.write_back();
        world.write_back();
        let sent: Vec<u64> = world.store.debits().into_iter().map(|(_, tokens)| tokens).collect();
        prop_assert_eq!(sent, Vec::from_iter((spent > 0).then_some(spent)));
        prop_assert_eq!(world.store.left(&costing(limit, "a", 1)), before.saturating_sub(spent));
        prop_assert_eq!(world.instances[0].lock().lost, 0);
    }
}

/// Large requests have a larger bucket than small ones; between them the record of a small one must not be forgotten.
#[test]
fn costs_that_alternate_gain_no_more_than_the_rate() {
    for algorithm in ALL.iter().filter(|it| it.name() != "fixedwindow") {
        let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
        let (limit, world) = (
            Limit {
                algorithm: *algorithm,
                quota,
            },
            World::of(3),
        );
        world.store.set(Mode::Away);
        let (mut sum, from_us) = (0, world.clock.now_us());
        for _ in 0..200 {
            for cost in [10, 1] {
                while world.ask(0, &[costing(limit, "a", cost)]).admitted {
                    sum += cost;
                }
            }
            world.clock.advance(Duration::from_secs(10));
        }
        let seconds = (world.clock.now_us() - from_us) / 1_000_000;
        assert!(sum * 3 <= 30 + seconds, "{algorithm:?}: {sum}");
        assert!(sum * 3 * 2 >= seconds, "{algorithm:?}: {sum}");
    }
}

#[test]
fn an_answer_after_an_ambiguous_fault_is_never_written_back() {
    for algorithm in ALL {
        for mode in [Mode::Silent, Mode::Deaf] {
            let (world, limit) = (World::of(1), still(*algorithm, 10));
            world.store.set(mode);
            let verdict = world.ask(0, &[costing(limit, "a", 3)]);
            assert!(verdict.admitted && verdict.is_from(Source::Local));
            let before = world.store.left(&costing(limit, "a", 1));
            world.store.set(Mode::Up);
            world.write_back();
            assert_eq!(world.store.debits(), []);
            assert_eq!(world.store.left(&costing(limit, "a", 1)), before);
        }
    }
}

#[test]
fn a_denial_and_a_peek_owe_nothing() {
    let (world, limit) = (World::of(1), still(ALL[0], 2));
    world.store.set(Mode::Away);
    assert!(world.ask(0, &[costing(limit, "a", 2)]).admitted);
    assert!(!world.ask(0, &[costing(limit, "a", 1)]).admitted);
    let peeked = [costing(limit, "b", 1)];
    assert!(now(world.instances[0].peek(&peeked)).unwrap().admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 2)]);
}

/// More than a capacity is never owed: what is above it was refilled meanwhile.
#[test]
fn a_long_outage_owes_a_capacity() {
    let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
    let limit = Limit {
        algorithm: ALL[0],
        quota,
    };
    let world = World::of(1);
    world.store.set(Mode::Away);
    for _ in 0..50 {
        world.clock.advance(Duration::from_secs(1));
        assert!(world.ask(0, &[costing(limit, "a", 1)]).admitted);
    }
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 10)]);
    assert_eq!(world.store.left(&costing(limit, "a", 1)), 0);
}

/// A bucket that is full again here is one that the store, which gained as much, need not be told of.
#[test]
fn what_was_refilled_meanwhile_is_not_owed() {
    let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
    for algorithm in ALL {
        let algorithm = *algorithm;
        let (limit, world) = (Limit { algorithm, quota }, World::of(3));
        world.store.set(Mode::Away);
        let names: Vec<String> = (0..3 * WRITTEN_AT_ONCE).map(|i| i.to_string()).collect();
        let mut waits = 0;
        for name in &names {
            let verdict = world.ask(0, &[costing(limit, name, 2)]);
            waits = waits.max(micros(verdict.decisions[0].reset_after));
        }
        world.clock.advance(Duration::from_micros(waits - 1));
        assert!(world.ask(0, &[costing(limit, "a", 1)]).admitted);
        assert!(names.iter().all(|name| {
            let debt = costing(limit, name, 2);
            !world.instances[0].is_refilled(&debt)
        }));
        world.clock.advance(Duration::from_micros(1));
        world.store.set(Mode::Up);
        world.write_back();
        let sent = world.store.debits();
        // Where windows are aligned they all end at once.
        let expected = match algorithm.name() {
            "fixedwindow" => vec![],
            _ => vec![(key(algorithm, "a"), 1)],
        };
        assert_eq!(sent, expected, "{algorithm:?}");
        assert_eq!(world.instances[0].lock().lost, 0);
    }
}

/// It was sent, so it is not sent again; it may not have been charged, so it is counted.
#[test]
fn a_debt_whose_fate_is_unknown_is_counted_as_lost() {
    for mode in [Mode::Silent, Mode::Deaf] {
        let (world, limit) = (World::of(1), still(ALL[0], 10));
        world.store.set(Mode::Away);
        assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
        world.store.set(mode);
        world.write_back();
        world.store.set(Mode::Up);
        world.write_back();
        assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 3)]);
        assert_eq!(world.instances[0].lock().lost, 3);
    }
}

/// A line for each outage, not for each try.
#[test]
fn what_was_written_back_is_news_once() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    for (spent, mode) in [(3, Mode::Up), (2, Mode::Silent)] {
        world.store.set(Mode::Away);
        assert!(world.ask(0, &[costing(limit, "a", spent)]).admitted);
        world.store.set(mode);
        world.write_back();
    }
    let (keys, tokens, lost) = (1, 3, 2);
    let news = world.instances[0].lock().news();
    assert_eq!(news, Some(Settled { keys, tokens, lost }));
    assert_eq!(world.instances[0].lock().news(), None);
}

/// Nobody knows how far it came. The others are charged all the same, and it is not sent again.
#[test]
fn a_debt_whose_task_panics_is_counted_as_lost() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    for name in ["bad", "good"] {
        assert!(world.ask(0, &[costing(limit, name, 3)]).admitted);
    }
    world.store.set(Mode::Mistaken);
    world.write_back();
    world.write_back();
    assert_eq!(world.instances[0].lock().lost, 3);
    assert_eq!(world.store.left(&costing(limit, "good", 1)), 7);
    assert_eq!(world.store.debits().len(), 2);
}

#[test]
fn a_debt_that_was_surely_not_charged_is_kept() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
    world.write_back();
    assert!(world.ask(0, &[costing(limit, "a", 2)]).admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 5)]);
    assert_eq!(world.instances[0].lock().lost, 0);
}

#[test]
fn what_does_not_fit_among_the_debts_is_counted_as_lost() {
    let mut debts = Debts::default();
    for i in 0..MOST_DEBTS + 5 {
        debts.add(&costing(still(ALL[0], 10), &i.to_string(), 2));
    }
    assert_eq!((debts.by_key.len(), debts.lost), (MOST_DEBTS, 10));
    debts.add(&costing(still(ALL[0], 20), "0", 3));
    assert_eq!(debts.lost, 12, "what was spent under another quota");
}

/// One key that the store cannot charge holds up no other, however many there are, and is not asked for for ever.
#[test]
fn a_key_that_is_refused_holds_up_no_other() {
    assert_eq!(wrong_type().scope(), Scope::Request);
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    let names: Vec<String> = (0..3 * WRITTEN_AT_ONCE).map(|i| i.to_string()).collect();
    for name in names.iter().map(String::as_str).chain(["bad"]) {
        assert!(world.ask(0, &[costing(limit, name, 3)]).admitted);
    }
    world.store.set(Mode::Spoilt);
    world.write_back();
    for name in &names {
        assert_eq!(world.store.left(&costing(limit, name, 1)), 7, "{name}");
    }
    assert_eq!(world.instances[0].lock().lost, 3);
    let sent = world.store.debits().len();
    world.write_back();
    assert_eq!(world.store.debits().len(), sent);
}

/// What was given back is given back: to the table here, and off the debt.
#[test]
fn a_local_receipt_returns_to_the_local_table_and_reduces_the_debt() {
    for algorithm in ALL {
        for (instances, capacity) in [(1, 10), (3, 12), (5, 4)] {
            let (world, limit) = (World::of(instances), still(*algorithm, capacity));
            world.store.set(Mode::Away);
            let charge = [costing(limit, "a", 1)];
            let share = (0..).take_while(|_| world.ask(0, &charge).admitted).count();
            assert!(share >= 1);
            let world = World::of(instances);
            world.store.set(Mode::Away);
            let mut last = world.ask(0, &charge);
            (1..share).for_each(|_| last = world.ask(0, &charge));
            assert!(last.admitted && !world.ask(0, &charge).admitted);
            now(world.instances[0].give_back(last.into_receipts(&charge))).unwrap();
            assert!(world.ask(0, &charge).admitted, "{algorithm:?} {instances}");
            assert!(!world.ask(0, &charge).admitted);
            world.store.set(Mode::Up);
            world.write_back();
            let debt: u64 = world.store.debits().iter().map(|(_, tokens)| tokens).sum();
            assert_eq!(debt, share as u64, "{algorithm:?} {instances}");
        }
    }
}

/// Keys that owe nothing any more hide no other.
#[test]
fn what_was_given_back_holds_up_no_debt() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    for i in 0..20 * WRITTEN_AT_ONCE {
        let charge = [costing(limit, &i.to_string(), 1)];
        let receipts = world.ask(0, &charge).into_receipts(&charge);
        now(world.instances[0].give_back(receipts)).unwrap();
    }
    assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 3)]);
}

#[test]
fn a_store_receipt_goes_back_to_the_store() {
    let (world, limit) = (World::of(2), still(ALL[0], 10));
    let charge = [costing(limit, "a", 4)];
    let receipts = world.ask(0, &charge).into_receipts(&charge);
    now(world.instances[0].give_back(receipts)).unwrap();
    assert_eq!(world.store.left(&charge[0]), 10);
}

#[test]
fn a_reset_forgets_the_debt_too() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    let charge = [costing(limit, "a", 10)];
    assert!(world.ask(0, &charge).admitted);
    now(world.instances[0].reset(charge[0].key())).unwrap();
    assert!(world.ask(0, &charge).admitted, "a full bucket");
    now(world.instances[0].reset(charge[0].key())).unwrap();
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), []);
}

#[test]
fn an_observed_charge_denies_nobody_here_either() {
    let (world, limit) = (World::of(2), still(ALL[0], 2));
    world.store.set(Mode::Away);
    let charges = [
        costing(still(ALL[0], 10), "a", 1),
        costing(limit, "b", 2).observed(),
    ];
    assert!(world.ask(0, &charges).decisions[1].is_allowed());
    let verdict = world.ask(0, &charges);
    assert!(verdict.admitted && !verdict.decisions[1].is_allowed());
    world.store.set(Mode::Up);
    world.write_back();
    let mut debits = world.store.debits();
    debits.sort();
    assert_eq!(debits, [(key(ALL[0], "a"), 2), (key(ALL[0], "b"), 2)]);
}

/// Rules with different policies meet in one request: what says `allow` is neither counted here nor owed.
#[test]
fn beside_a_local_charge_one_that_allows_is_not_counted() {
    let (world, limit) = (World::of(1), still(ALL[0], 3));
    let charges = [
        costing(limit, "open", 1).with_on_store_error(OnStoreError::Allow),
        costing(limit, "here", 1),
    ];
    assert!(world.ask(0, &charges).admitted);
    let known = |name| {
        let peeked = world.instances[0]
            .local
            .ask_now(&[costing(limit, name, 1)], Intent::Peek);
        peeked.unwrap().decisions[0].remaining
    };
    assert_eq!((known("open"), known("here")), (3, 2), "no use for it here");

    world.store.set(Mode::Away);
    let away = world.ask(0, &charges);
    let sources: Vec<_> = away.decisions.iter().map(|told| told.source).collect();
    assert_eq!(sources, [Source::Nobody, Source::Local]);
    assert_eq!(away.decisions[1].remaining, 1);
    assert!(world.ask(0, &charges).admitted);
    let denied = world.ask(0, &charges);
    assert!(!denied.admitted && denied.decisions[0].is_allowed());

    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "here"), 2)]);
}
