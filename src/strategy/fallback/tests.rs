//! A world of instances, their clocks and a store that fails as it is told; what is tested in it stands in files of its own.

use std::hash::RandomState;
use std::time::Duration;

use proptest::prelude::{Just, prop_oneof};
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::algorithm::{ALL, Algorithm};
use crate::domain::{Clock, Identity, ManualClock, Quota, RuleName};

mod bounds;
mod write_back;

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
