//! Instances that share a store at some distance, on one clock that moves only when told to.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::purse::MOST_KEYS;
use super::*;
use crate::algorithm::{Remembered, judge_one, lend};
use crate::domain::{Cost, Identity, Limit, ManualClock, Quota, RuleName};
use crate::strategy::Memory;

mod law;

const NOON: u64 = 1_762_668_474_000_000;
const SHARE: u64 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// One record, in a store that is some time away in each direction and counts what it is asked.
#[derive(Debug)]
struct Store {
    record: Mutex<Remembered>,
    /// The instances'; the store's is ahead of it by so many microseconds.
    clock: Arc<ManualClock>,
    ahead_us: AtomicU64,
    away: Duration,
    exact: AtomicU64,
    lent: AtomicU64,
    loses_replies: AtomicBool,
}

impl Store {
    fn at_once(away: Duration) -> Arc<Self> {
        Arc::new(Self {
            record: Mutex::new(Remembered::Nothing),
            clock: Arc::new(ManualClock::at_us(NOON)),
            ahead_us: 0.into(),
            away,
            exact: 0.into(),
            lent: 0.into(),
            loses_replies: false.into(),
        })
    }

    fn instance(self: &Arc<Self>) -> Lease {
        let (strategy, lender) = (self.clone(), self.clone());
        Lease::new(
            strategy,
            lender,
            self.clock.clone(),
            SHARE,
            &RandomState::new(),
        )
    }

    fn now_us(&self) -> u64 {
        self.clock.now_us() + self.ahead_us.load(Ordering::Relaxed)
    }

    fn travel(&self) {
        self.clock.advance(self.away);
    }

    /// Exact requests, and commands that lend, until now.
    fn asked(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.exact), read(&self.lent))
    }
}

impl Strategy for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        self.exact.fetch_add(1, Ordering::Relaxed);
        self.travel();
        let mut record = self.record.lock().unwrap();
        let (before, now_us) = (*record, self.now_us());
        let (verdict, _) = judge_one(&charges[0], intent, &before, now_us, |kept| {
            *record = Remembered::State(kept.state);
        });
        self.travel();
        Deciding::ready(Ok(verdict))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        let mut record = self.record.lock().unwrap();
        for receipt in receipts {
            let Remembered::State(state) = *record else {
                continue;
            };
            let Limit { algorithm, quota } = receipt.limit;
            let (now_us, at_us) = (self.now_us(), receipt.charged_at_us);
            if let Some(kept) = algorithm.credit(&quota, state, now_us, at_us, receipt.tokens) {
                *record = Remembered::State(kept.state);
            }
        }
        Deciding::ready(Ok(()))
    }

    fn reset<'a>(&'a self, _: &'a Key) -> Deciding<'a, ()> {
        *self.record.lock().unwrap() = Remembered::Nothing;
        Deciding::ready(Ok(()))
    }
}

impl Lends for Store {
    fn lend<'a>(&'a self, charge: &'a Charge, ask: LeaseAsk) -> Deciding<'a, Lent> {
        self.lent.fetch_add(1, Ordering::Relaxed);
        self.travel();
        let (quota, now_us) = (charge.limit().quota, self.now_us());
        let mut record = self.record.lock().unwrap();
        let lending = lend(&quota, *record, now_us, charge.cost(), &ask);
        if let Some(kept) = lending.kept {
            *record = Remembered::State(kept.state);
        }
        self.travel();
        if self.loses_replies.load(Ordering::Relaxed) {
            return Deciding::ready(Err(Fault::Lost("the reply".to_owned())));
        }
        let (standing, retry_after_us) = match lending.step.outcome {
            Ok(taken) => (taken.after, 0),
            Err(refused) => (refused.before, refused.retry_after_us),
        };
        Deciding::ready(Ok(Lent {
            now_us,
            retry_after_us,
            remaining: standing.remaining,
            reset_after_us: standing.reset_after_us,
            next_after_us: standing.next_after_us,
            granted: lending.granted,
            until_us: lending.until_us,
            lasts_us: lending.lasts_us,
        }))
    }
}

fn charge(quota: Quota, cost: u64) -> [Charge; 1] {
    let identity = Identity::new().with_part(b"a");
    let key = Key::new("t:", &TokenBucket, &RuleName::default_rule(), &identity);
    let limit = Limit {
        algorithm: &TokenBucket,
        quota,
    };
    [Charge::new(key, limit, Cost::new(cost).unwrap()).unwrap()]
}

fn now<T: Unpin>(deciding: Deciding<'_, T>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(deciding)
}

/// A bucket that gains nothing while a test runs.
fn still(capacity: u64) -> Quota {
    Quota::new(capacity, 1, Duration::from_secs(36_000)).unwrap()
}

/// Asks for one token so often; how many were admitted.
fn ask(lease: &Lease, quota: Quota, times: u64) -> u64 {
    let one = charge(quota, 1);
    let admitted = |_: &u64| now(lease.decide(&one)).is_ok_and(|verdict| verdict.admitted);
    (0..times).filter(admitted).count() as u64
}

fn source(lease: &Lease, quota: Quota) -> Source {
    now(lease.decide(&charge(quota, 1))).unwrap().decisions[0].source
}

#[test]
fn a_hot_key_costs_the_store_few_commands_and_is_admitted_no_more() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    let quota = still(10_000);
    assert_eq!(ask(&lease, quota, 12_000), 10_000);
    let (exact, lent) = store.asked();
    assert!(lent < 30, "{lent} commands that lend");
    // The denials, the first few, and the last few tokens, of which too little is left to lend.
    assert!(exact < 2_000 + 40, "{exact} exact requests");
}

#[test]
fn cold_keys_and_small_limits_ask_exactly() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    ask(&lease, still(1_000), LEAST - 1);
    assert_eq!(store.asked(), (LEAST - 1, 0));
    store.clock.advance(2 * SECOND);
    ask(&lease, still(1_000), LEAST - 1);
    assert_eq!(store.asked(), (2 * (LEAST - 1), 0));

    let store = Store::at_once(Duration::ZERO);
    assert_eq!(
        ask(&store.instance(), still(2 * LEAST - 1), 100),
        2 * LEAST - 1
    );
    assert_eq!(store.asked(), (100, 0));
}

#[test]
fn a_lease_is_not_spent_after_its_end_counted_from_when_it_was_asked_for() {
    let away = Duration::from_millis(100);
    for (later, expected) in [
        // 99 % of a second, less 200 ms for the way there and back.
        (Duration::from_micros(789_999), Source::Lease),
        (Duration::from_micros(790_000), Source::Store),
    ] {
        let store = Store::at_once(away);
        let lease = store.instance();
        // The distance spreads the first ones over more than a period, so they come at once.
        let eight = charge(still(1_000), LEAST);
        now(lease.decide(&eight)).unwrap();
        assert_eq!(store.asked(), (0, 1));
        // It was asked for at noon, was taken 100 ms later and was told after another 100 ms; it lasts 990 ms from noon.
        store.clock.advance(later);
        assert_eq!(source(&lease, still(1_000)), expected, "{later:?}");
    }
}

#[test]
fn a_lease_whose_reply_is_lost_is_not_spent() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    let quota = still(1_000);
    ask(&lease, quota, LEAST - 1);
    store.loses_replies.store(true, Ordering::Relaxed);
    assert_eq!(ask(&lease, quota, 1), 0);
    store.loses_replies.store(false, Ordering::Relaxed);
    let Remembered::State(before) = *store.record.lock().unwrap() else {
        panic!("a record")
    };
    assert_eq!(before.0[4], LEAST, "it was lent");
    // Whatever is spent now is what another command brought.
    let (_, lent) = store.asked();
    assert_eq!(source(&lease, quota), Source::Store);
    assert_eq!(store.asked().1, lent + 1);
    let Remembered::State(after) = *store.record.lock().unwrap() else {
        panic!("a record")
    };
    let granted = after.0[4] - before.0[4];
    let paid = (0..granted + 1).take_while(|_| source(&lease, quota) == Source::Lease);
    assert_eq!(paid.count() as u64, granted, "and no token of the lost one");
}

#[test]
fn what_is_lost_comes_back_when_the_lease_ends() {
    let store = Store::at_once(Duration::ZERO);
    let dead = store.instance();
    let quota = Quota::new(100, 1_000, SECOND).unwrap();
    ask(&dead, quota, LEAST);
    drop(dead);
    let other = store.instance();
    let left = || now(other.peek(&charge(quota, 1))).unwrap().decisions[0].remaining;
    // Long enough to fill the bucket: to what the dead instance leaves of it.
    store.clock.advance(Duration::from_micros(PERIOD_US - 1));
    assert_eq!(left(), 100 - LEAST);
    store.clock.advance(SECOND);
    assert_eq!(left(), 100);
}

/// The store ends all leases then and the instances do not notice: what they hold comes on top.
#[test]
fn a_step_ahead_of_the_stores_clock_admits_at_most_what_all_may_hold_on_top() {
    let (store, quota) = (Store::at_once(Duration::ZERO), still(1_000));
    let instances = [(); 3].map(|()| store.instance());
    // Each is asked for more than there is, so that it would take all it can.
    for lease in &instances {
        assert_eq!(ask(lease, quota, 1), 1);
        assert!(!now(lease.decide(&charge(quota, 1_000))).unwrap().admitted);
    }
    store.clock.advance(SECOND);
    for lease in &instances {
        assert_eq!(ask(lease, quota, 1), 1);
    }
    let year_us = 365 * 86_400_000_000;
    store.ahead_us.store(2 * year_us, Ordering::Relaxed);
    let exact = store.instance();
    let denied = |lease: &Lease| ask(lease, quota, 1) == 0;
    let mut admitted = 0;
    // By who holds nothing first: he takes all that the store believes to have.
    for lease in [&exact].into_iter().chain(&instances) {
        while !denied(lease) {
            admitted += 1;
        }
    }
    let most = 1_000 + 1_000 * SHARE / 100;
    assert!((most - 10..=most).contains(&admitted), "{admitted}");
}

#[test]
fn a_reset_forgets_the_lease() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    let quota = still(1_000);
    ask(&lease, quota, LEAST);
    assert_eq!(source(&lease, quota), Source::Lease);
    now(lease.reset(charge(quota, 1)[0].key())).unwrap();
    assert_eq!(source(&lease, quota), Source::Store);
}

#[test]
fn a_future_that_is_dropped_leaves_the_way_free() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    let quota = still(1_000);
    ask(&lease, quota, LEAST - 1);
    let one = charge(quota, 1);
    drop(lease.decide(&one));
    assert_eq!(source(&lease, quota), Source::Store);
    assert_eq!(store.asked().1, 1, "another could borrow");
}

/// Whoever is asked for all else may know the answer at once; of a hot key it is not asked.
#[test]
fn a_hot_key_borrows_where_the_others_need_no_waiting() {
    let store = Store::at_once(Duration::ZERO);
    let memory = Memory::new(9, store.clock.clone(), &RandomState::new());
    let clock = store.clock.clone();
    let lease = Lease::new(
        Arc::new(memory),
        store.clone(),
        clock,
        SHARE,
        &RandomState::new(),
    );
    ask(&lease, still(1_000), LEAST);
    assert_eq!(source(&lease, still(1_000)), Source::Lease);
}

#[test]
fn the_table_is_bounded() {
    let store = Store::at_once(Duration::ZERO);
    let lease = store.instance();
    let quota = still(1_000);
    let limit = charge(quota, 1)[0].limit();
    for i in 0..2 * MOST_KEYS {
        let identity = Identity::new().with_part(i.to_string().as_bytes());
        let key = Key::new("t:", &TokenBucket, &RuleName::default_rule(), &identity);
        let one = [Charge::new(key, limit, Cost::MIN).unwrap()];
        let _ = now(lease.decide(&one));
    }
    let kept = lease.purses.len();
    assert!(kept <= MOST_KEYS, "{kept}");
}

#[test]
fn each_of_many_keys_has_a_purse_of_its_own() {
    let (purses, clock) = (Purses::new(&RandomState::new()), ManualClock::at_us(NOON));
    let of = |i: u64| {
        let identity = Identity::new().with_part(i.to_string().as_bytes());
        let key = Key::new("t:", &TokenBucket, &RuleName::default_rule(), &identity);
        let [any] = charge(still(1_000), 1);
        Charge::new(key, any.limit(), any.cost()).unwrap()
    };
    let asked = |i: u64| i % 3 + 1;
    for i in 0..900 {
        for _ in 0..asked(i) {
            purses.open(&of(i), &clock, |purse, now_us| purse.count(&of(i), now_us));
        }
    }
    for i in 0..900 {
        let wanted = purses.open(&of(i), &clock, |purse, _| purse.wanted());
        assert_eq!(wanted, Some(asked(i)), "{i}");
    }
    assert_eq!(purses.len(), 900);
}
