//! What `local` may add over an outage, and what is written back after it: properties of several instances, one store and
//! one clock, in which nothing but the numbers is left to chance.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::{Just, any, prop_assert, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::strategy::Strategy as _;

use super::{Deciding, Fallback, Fault, Members, Memory, Strategy};
use crate::algorithm::{ALL, Algorithm, Intent};
use crate::domain::{
    Charge, Clock, Cost, Identity, Key, Limit, ManualClock, Quota, Receipt, RuleName, Source,
    Verdict,
};

const NOON: u64 = 1_762_668_474_000_000;

/// How the way of one instance to the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open = 0,
    /// Nothing is sent.
    Shut = 1,
    /// What is sent is executed, and its answer lost.
    Mute = 2,
}

/// The store as one instance reaches it.
#[derive(Debug)]
struct Path {
    store: Arc<Memory>,
    way: AtomicU8,
    debited: AtomicU64,
}

impl Path {
    fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::Relaxed);
    }

    fn through<T>(&self, ask: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        match self.way.load(Ordering::Relaxed) {
            0 => ask(),
            1 => Err(Fault::Unreachable("shut".to_owned())),
            _ => ask().and(Err(Fault::Timeout(Duration::ZERO))),
        }
    }
}

impl Strategy for Path {
    fn name(&self) -> &'static str {
        "path"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        if intent == Intent::Debit {
            let tokens = charges.iter().map(|charge| charge.cost().get()).sum();
            self.debited.fetch_add(tokens, Ordering::Relaxed);
        }
        Deciding::ready(self.through(|| self.store.ask_now(charges, intent)))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        for receipt in &receipts {
            self.store.credit(receipt);
        }
        Deciding::ready(Ok(()))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.store.forget(key);
        Deciding::ready(Ok(()))
    }
}

/// Instances of a service that share a store.
struct Service {
    clock: Arc<ManualClock>,
    store: Arc<Memory>,
    instances: Vec<(Arc<Path>, Fallback)>,
    charge: [Charge; 1],
    /// When tokens were admitted, and how many.
    admitted: Vec<(u64, u64)>,
}

impl Service {
    fn new(instances: u64, algorithm: &'static dyn Algorithm, quota: Quota) -> Self {
        let clock = Arc::new(ManualClock::at_us(NOON));
        let memory = || Memory::new(100, clock.clone(), RandomState::new());
        let store = Arc::new(memory());
        let instance = |_| {
            let path = Arc::new(Path {
                store: store.clone(),
                way: AtomicU8::new(0),
                debited: AtomicU64::new(0),
            });
            let members = Arc::new(Members::new(instances));
            let fallback = Fallback::new(path.clone(), path.clone(), memory(), members);
            (path, fallback)
        };
        Self {
            instances: (0..instances).map(instance).collect(),
            charge: charge(algorithm, quota, 1),
            admitted: Vec::new(),
            clock,
            store,
        }
    }

    fn set(&self, way: Way, instances: usize) {
        let paths = self.instances.iter().take(instances);
        paths.for_each(|(path, _)| path.set(way));
    }

    fn ask(&mut self, instance: usize) -> Verdict {
        let verdict = now(self.instances[instance].1.decide(&self.charge)).unwrap();
        if verdict.admitted {
            self.admitted
                .push((self.clock.now_us(), self.charge[0].cost().get()));
        }
        verdict
    }

    /// Requests of some instances, each some time after the one before.
    fn serve(&mut self, requests: &[(Index, u64)]) {
        for (instance, later_us) in requests {
            self.clock.advance(Duration::from_micros(*later_us));
            self.ask(instance.index(self.instances.len()));
        }
    }

    fn recover(&self) {
        self.set(Way::Open, self.instances.len());
        for (_, fallback) in &self.instances {
            now_or(fallback.write_back());
        }
    }

    /// The most tokens above the law in any interval.
    fn above_the_law(&self) -> u64 {
        let Limit { algorithm, quota } = self.charge[0].limit();
        // Two windows meet at any instant: a burst may stand on either side.
        let bursts = 1 + u64::from(algorithm.name() == "fixedwindow");
        let mut most = 0;
        for (i, (from_us, _)) in self.admitted.iter().enumerate() {
            let mut tokens = 0;
            for (to_us, cost) in &self.admitted[i..] {
                tokens += cost;
                let gained = (to_us - from_us) * quota.gain() / quota.unit();
                most = most.max(tokens.saturating_sub(bursts * quota.capacity() + gained));
            }
        }
        most
    }
}

fn charge(algorithm: &'static dyn Algorithm, quota: Quota, cost: u64) -> [Charge; 1] {
    let identity = Identity::new().with_part(b"a");
    let key = Key::new("t:", algorithm, &RuleName::default_rule(), &identity);
    let cost = Cost::new(cost).unwrap();
    [Charge::new(key, Limit { algorithm, quota }, cost).unwrap()]
}

/// Tokens that so many of `instances` admit where their share is below one request: one each, and with `fixedwindow`,
/// whose window then is as long as it takes to refill one for all, one each on either side of where two windows meet.
fn a_request_each(of: u64, instances: u64, limit: Limit) -> u64 {
    let is_stretched = instances > limit.quota.capacity();
    let sides = 1 + u64::from(is_stretched && limit.algorithm.name() == "fixedwindow");
    of * sides
}

fn now<T: Unpin>(deciding: Deciding<'_, T>) -> Result<T, Fault> {
    now_or(deciding)
}

fn now_or<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn quotas() -> impl proptest::strategy::Strategy<Value = Quota> {
    (1_u64..30, 1_u64..50, 100_000_u64..5_000_000)
        .prop_map(|(c, t, p)| Quota::new(c, t, Duration::from_micros(p)).unwrap())
}

fn requests() -> impl proptest::strategy::Strategy<Value = Vec<(Index, u64)>> {
    proptest::collection::vec(
        (any::<Index>(), prop_oneof![Just(0_u64), 0_u64..200_000]),
        0..60,
    )
}

proptest! {
    /// One capacity (or one request an instance, where that is more); one capacity more if the store comes back empty.
    #[test]
    fn an_outage_of_all_adds_at_most_one_capacity(
        which in 0..ALL.len(), quota in quotas(), instances in 1_u64..6, empty: bool,
        before in requests(), during in requests(), after in requests(),
    ) {
        let mut service = Service::new(instances, ALL[which], quota);
        service.serve(&before);
        service.set(Way::Shut, service.instances.len());
        service.serve(&during);
        if empty {
            service.store.forget(service.charge[0].key());
        }
        service.recover();
        service.serve(&after);
        let each = a_request_each(instances, instances, service.charge[0].limit());
        let allowed = quota.capacity().max(each) + u64::from(empty) * quota.capacity();
        prop_assert!(service.above_the_law() <= allowed, "{} of {allowed}", service.above_the_law());
    }

    /// Where the last that each instance heard was a denial, one request each.
    #[test]
    fn after_denials_an_outage_adds_at_most_a_request_each(
        which in 0..ALL.len(), quota in quotas(), instances in 1_u64..6, during in requests(),
    ) {
        let mut service = Service::new(instances, ALL[which], quota);
        while service.ask(0).admitted {}
        for instance in 0..service.instances.len() {
            prop_assert!(!service.ask(instance).admitted);
        }
        service.set(Way::Shut, service.instances.len());
        service.serve(&during);
        let each = a_request_each(instances, instances, service.charge[0].limit());
        prop_assert!(service.above_the_law() <= each, "{} of {each}", service.above_the_law());
    }

    /// The share of those that are cut off, and no more.
    #[test]
    fn a_part_that_is_cut_off_adds_at_most_its_share(
        which in 0..ALL.len(), quota in quotas(), instances in 2_u64..6, cut in any::<Index>(),
        before in requests(), during in requests(), after in requests(),
    ) {
        let mut service = Service::new(instances, ALL[which], quota);
        service.serve(&before);
        let cut = 1 + cut.index(service.instances.len() - 1);
        service.set(Way::Shut, cut);
        let from_us = service.clock.now_us();
        service.serve(&during);
        let lasted = u128::from(service.clock.now_us() - from_us);
        service.recover();
        service.serve(&after);
        let k = u64::try_from(cut).unwrap();
        let gained = lasted * u128::from(quota.gain()) / u128::from(quota.unit());
        // A window may begin in it, and then holds its whole share.
        let windows = 1 + u64::from(ALL[which].name().ends_with("window"));
        let share = k * (windows * quota.capacity() + u64::try_from(gained).unwrap());
        let each = a_request_each(k, instances, service.charge[0].limit());
        let allowed = share.div_ceil(instances).max(each);
        prop_assert!(service.above_the_law() <= allowed, "{} of {allowed}", service.above_the_law());
    }

    /// What was spent is charged to the store once; what followed a command that may have been executed never is.
    #[test]
    fn what_was_spent_is_written_back_once(
        which in 0..ALL.len(), quota in quotas(), instances in 1_u64..6, mute: bool, during in requests(),
    ) {
        let mut service = Service::new(instances, ALL[which], quota);
        service.set(if mute { Way::Mute } else { Way::Shut }, service.instances.len());
        service.serve(&during);
        let spent: u64 = service.admitted.iter().map(|(_, cost)| cost).sum();
        service.recover();
        service.recover();
        let debited: u64 = service
            .instances
            .iter()
            .map(|(path, _)| path.debited.load(Ordering::Relaxed))
            .sum();
        let owed = if mute { 0 } else { spent };
        prop_assert!(debited <= owed);
        // Whole, unless there is more than a bucket holds.
        let most = quota.capacity();
        prop_assert!(mute || spent > most || debited == spent);
    }
}

#[test]
fn a_known_key_starts_at_its_share_of_what_was_left() {
    let quota = Quota::new(100, 1, Duration::from_secs(1_000)).unwrap();
    for (which, algorithm) in ALL.iter().enumerate() {
        for (left, share) in [(17, 5), (3, 1), (2, 0)] {
            let mut service = Service::new(3, *algorithm, quota);
            let drain = charge(*algorithm, quota, 100 - left);
            now(service.instances[0].1.decide(&drain)).unwrap();
            service.set(Way::Shut, 3);
            let admitted = (0..20).filter(|_| service.ask(0).admitted).count();
            assert_eq!(admitted, share, "{which} with {left} left");
        }
    }
}

#[test]
fn every_local_decision_says_so_in_the_words_of_the_quota() {
    let quota = Quota::new(9, 1, Duration::from_secs(1_000)).unwrap();
    for algorithm in ALL {
        let mut service = Service::new(3, *algorithm, quota);
        service.set(Way::Shut, 3);
        for (admitted, remaining) in [(true, 2), (true, 1), (true, 0), (false, 0)] {
            let verdict = service.ask(1);
            let decision = verdict.decisions[0];
            assert_eq!(
                (verdict.admitted, decision.remaining, decision.limit),
                (admitted, remaining, 9)
            );
            assert_eq!(decision.source, Source::Local);
        }
    }
}

/// It could pass in the store, so it is told to wait, not that it never can.
#[test]
fn a_cost_above_the_share_is_admitted_or_denied_but_never_inadmissible() {
    let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
    for algorithm in ALL {
        let service = Service::new(5, *algorithm, quota);
        service.set(Way::Shut, 5);
        let whole = charge(*algorithm, quota, 10);
        let asked = || now(service.instances[0].1.decide(&whole)).unwrap();
        assert!(
            asked().admitted,
            "a share is never below one request's cost"
        );
        assert!(asked().decisions[0].retry_after().is_some());
    }
}

#[test]
fn what_is_given_back_locally_can_be_taken_again_and_is_owed_no_more() {
    let quota = Quota::new(4, 1, Duration::from_secs(1_000)).unwrap();
    for algorithm in ALL {
        let mut service = Service::new(2, *algorithm, quota);
        service.set(Way::Shut, 2);
        let verdict = service.ask(0);
        let receipts = verdict.into_receipts(&service.charge);
        now(service.instances[0].1.give_back(receipts)).unwrap();
        let again = (0..9).filter(|_| service.ask(0).admitted).count();
        assert_eq!(again, 2, "the whole share");
        service.recover();
        let debited = service.instances[0].0.debited.load(Ordering::Relaxed);
        assert_eq!(debited, 2, "{algorithm:?}");
    }
}
