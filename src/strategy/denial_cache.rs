//! Remembers what the store denied, so that a flood from one client costs it a command or two per refilled token.
//!
//! What the store says of a bucket is an upper bound on it until the next token is there: others can only take from it.
//! So the same cost under the same limit is denied here, with the store's own numbers, until that time, counted from when
//! the command was *sent*; the waits that are told count from when the answer *came*, so that who waits them is admitted.
//! An admitted request that took the last tokens says as much about the next one.
//!
//! When the time has come, one request at a time asks the store. What it hears is true of those that wait behind it.
//!
//! A reset or a give-back by this instance drops what was remembered, and another quota does not match it. Nothing is
//! remembered for longer than a second (settable): so long can such a change elsewhere go unnoticed. Only requests with
//! a single charge are denied here: those with more need the store's numbers on the others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::{Deciding, Fault, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Clock, Cost, Decision, Key, Limit, Outcome, Receipt, Source, Verdict};

/// Most keys with a denial that are remembered.
const MOST_KEYS: usize = 65_536;
const SHARDS: usize = 16;
/// Most costs of one key that are remembered.
const MOST_COSTS: usize = 4;
/// The dead are looked for at most this often, in microseconds, in each shard.
const SWEEP_EVERY_US: u64 = 100_000;

/// A strategy that remembers denials.
#[derive(Debug)]
pub struct DenialCache {
    inner: Arc<dyn Strategy>,
    clock: Arc<dyn Clock>,
    longest_us: u64,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    gates: HashMap<Key, Arc<Gate>>,
    /// Counts resets and give-backs: what was asked before one and answered after it is not remembered.
    changes: u64,
    swept_us: u64,
}

/// A key that was denied, and whose turn it is to ask again.
#[derive(Debug, Default)]
struct Gate {
    turn: tokio::sync::Mutex<()>,
    /// Nobody need wait for a turn any more.
    open: AtomicBool,
    denials: Mutex<SmallVec<[Denial; 1]>>,
}

/// What the store said of one cost.
#[derive(Debug, Clone, Copy)]
struct Denial {
    limit: Limit,
    cost: Cost,
    /// Until when it is surely denied, on this instance's clock.
    until_us: u64,
    /// When the answer came, on this instance's clock and on the store's.
    told_us: u64,
    store_us: u64,
    /// The decision at that time.
    decision: Decision,
}

impl Denial {
    /// What `verdict`, which was asked for at `sent_us`, says about the next request of the same cost.
    fn learned(
        charge: &Charge,
        verdict: &Verdict,
        sent_us: u64,
        told_us: u64,
        longest_us: u64,
    ) -> Option<Self> {
        let mut decision = *verdict.decisions.first()?;
        let next_after = decision.next_after;
        if decision.is_allowed() {
            if charge.cost().get() != decision.remaining + 1 {
                return None;
            }
            decision.outcome = Outcome::Denied {
                retry_after: next_after,
            };
        }
        let lasts = micros(next_after.min(decision.retry_after()?)).min(longest_us);
        decision.source = Source::Cache;
        Some(Self {
            limit: charge.limit(),
            cost: charge.cost(),
            until_us: sent_us.saturating_add(lasts),
            told_us,
            store_us: verdict.now_us,
            decision,
        })
    }

    fn verdict(&self, now_us: u64) -> Verdict {
        let elapsed_us = now_us.saturating_sub(self.told_us);
        let elapsed = Duration::from_micros(elapsed_us);
        let Decision {
            reset_after,
            next_after,
            ..
        } = self.decision;
        let retry_after = self.decision.retry_after().unwrap_or(next_after);
        let decision = Decision {
            outcome: Outcome::Denied {
                retry_after: retry_after.saturating_sub(elapsed),
            },
            reset_after: reset_after.saturating_sub(elapsed),
            next_after: next_after.saturating_sub(elapsed),
            ..self.decision
        };
        Verdict {
            decisions: smallvec![decision],
            admitted: false,
            now_us: self.store_us.saturating_add(elapsed_us),
        }
    }
}

impl Gate {
    fn denied(&self, charge: &Charge, now_us: u64) -> Option<Verdict> {
        let denials = lock(&self.denials);
        let denial = denials.iter().find(|denial| {
            denial.cost == charge.cost()
                && denial.limit == charge.limit()
                && now_us < denial.until_us
        });
        denial.map(|denial| denial.verdict(now_us))
    }

    /// Remembers what was said of one cost; of the others too, unless the record has `changed` since.
    fn remember(&self, denial: Denial, changed: bool) {
        let mut denials = lock(&self.denials);
        denials
            .retain(|other| !changed && other.limit == denial.limit && other.cost != denial.cost);
        if denials.len() >= MOST_COSTS {
            denials.remove(0);
        }
        denials.push(denial);
    }

    fn is_dead(&self, now_us: u64) -> bool {
        lock(&self.denials)
            .iter()
            .all(|denial| denial.until_us <= now_us)
    }
}

impl DenialCache {
    /// Remembers what `inner` denies, for `longest` at the most, on `clock`, which should never step back.
    pub fn new(
        inner: Arc<dyn Strategy>,
        clock: Arc<dyn Clock>,
        longest: Duration,
        hasher: RandomState,
    ) -> Self {
        Self {
            inner,
            clock,
            longest_us: micros(longest),
            hasher,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    async fn ask_in_turn(
        &self,
        gate: Option<Arc<Gate>>,
        charges: &[Charge],
        intent: Intent,
    ) -> Result<Verdict, Fault> {
        let Some(gate) = gate else {
            return self.ask_store(charges, intent).await;
        };
        let turn = gate.turn.lock().await;
        if let Some(verdict) = gate.denied(&charges[0], self.clock.now_us()) {
            return Ok(verdict);
        }
        if gate.open.load(Ordering::Relaxed) {
            drop(turn);
        }
        self.ask_store(charges, intent).await
    }

    async fn ask_store(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let charge = &charges[0];
        let sent_us = self.clock.now_us();
        let changes = self.shard(charge.key()).changes;
        let verdict = self.inner.ask(charges, intent).await?;
        if !verdict.admitted || intent == Intent::Charge {
            let now_us = self.clock.now_us();
            let denial = Denial::learned(charge, &verdict, sent_us, now_us, self.longest_us);
            let mut shard = self.shard(charge.key());
            match denial {
                Some(denial) if shard.changes == changes => {
                    shard.remember(charge.key(), denial, verdict.admitted, now_us);
                }
                None if verdict.admitted => shard.forget(charge.key()),
                _ => {}
            }
        }
        Ok(verdict)
    }

    /// The store's record of this key changes in another way than by a charge.
    fn changed(&self, key: &Key) {
        let mut shard = self.shard(key);
        shard.changes += 1;
        shard.forget(key);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let place = self.hasher.hash_one(key) % SHARDS as u64;
        lock(&self.shards[usize::try_from(place).expect("below the number of shards")])
    }
}

impl Shard {
    /// Remembers it if there is room for its key.
    fn remember(&mut self, key: &Key, denial: Denial, changed: bool, now_us: u64) {
        if let Some(gate) = self.gates.get(key) {
            return gate.remember(denial, changed);
        }
        let room = MOST_KEYS / SHARDS;
        if self.gates.len() >= room && now_us >= self.swept_us.saturating_add(SWEEP_EVERY_US) {
            self.swept_us = now_us;
            self.gates.retain(|_, gate| !gate.is_dead(now_us));
        }
        if self.gates.len() < room {
            self.gates
                .entry(key.clone())
                .or_default()
                .remember(denial, changed);
        }
    }

    /// Forgets a key; who waits for a turn need not.
    fn forget(&mut self, key: &Key) {
        if let Some(gate) = self.gates.remove(key) {
            gate.open.store(true, Ordering::Relaxed);
        }
    }
}

impl Strategy for DenialCache {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let [charge] = charges else {
            return self.inner.ask(charges, intent);
        };
        if !charge.is_enforced() || intent == Intent::Debit {
            return self.inner.ask(charges, intent);
        }
        let gate = self.shard(charge.key()).gates.get(charge.key()).cloned();
        let denied = gate
            .as_ref()
            .and_then(|gate| gate.denied(charge, self.clock.now_us()));
        match denied {
            Some(verdict) => Deciding::ready(Ok(verdict)),
            None => Deciding::waiting(self.ask_in_turn(gate, charges, intent)),
        }
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        Deciding::waiting(async move {
            let keys: Vec<Key> = receipts.iter().map(|receipt| receipt.key.clone()).collect();
            let answer = self.inner.give_back(receipts).await;
            keys.iter().for_each(|key| self.changed(key));
            answer
        })
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(async move {
            let answer = self.inner.reset(key).await;
            self.changed(key);
            answer
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use proptest::strategy::Strategy as _;

    use super::*;
    use crate::algorithm::{ALL, Algorithm};
    use crate::domain::{Identity, ManualClock, Quota, RuleName};
    use crate::strategy::Memory;

    const NOON: u64 = 1_762_668_474_000_000;
    const LONGEST: Duration = Duration::from_secs(1);

    /// A store that is some time away in each direction, and counts what it is asked.
    #[derive(Debug)]
    struct Distant {
        memory: Memory,
        clock: Arc<ManualClock>,
        away: Duration,
        asked: std::sync::atomic::AtomicU64,
    }

    impl Strategy for Distant {
        fn name(&self) -> &'static str {
            "distant"
        }

        fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.clock.advance(self.away);
            let answer = self.memory.ask_now(charges, intent);
            self.clock.advance(self.away);
            Deciding::ready(answer)
        }

        fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
            self.memory.give_back(receipts)
        }

        fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
            self.memory.reset(key)
        }
    }

    fn cached(away_us: u64) -> (DenialCache, Arc<Distant>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at_us(NOON));
        let distant = Arc::new(Distant {
            memory: Memory::new(100, clock.clone(), &RandomState::new()),
            clock: clock.clone(),
            away: Duration::from_micros(away_us),
            asked: 0.into(),
        });
        let cache = DenialCache::new(distant.clone(), clock.clone(), LONGEST, RandomState::new());
        (cache, distant, clock)
    }

    fn charge(algorithm: &'static dyn Algorithm, quota: Quota, cost: u64) -> [Charge; 1] {
        let identity = Identity::new().with_part(b"a");
        let key = Key::new("t:", algorithm, &RuleName::default_rule(), &identity);
        let cost = Cost::new(cost.min(quota.capacity())).unwrap();
        [Charge::new(key, Limit { algorithm, quota }, cost).unwrap()]
    }

    fn now<T: Unpin>(deciding: Deciding<'_, T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(deciding).unwrap()
    }

    fn quotas() -> impl proptest::strategy::Strategy<Value = Quota> {
        (1_u64..20, 1_u64..50, 1_000_u64..5_000_000)
            .prop_map(|(c, t, p)| Quota::new(c, t, Duration::from_micros(p)).unwrap())
    }

    proptest! {
        /// With a store at no distance nobody could tell whether denials are remembered.
        #[test]
        fn says_what_the_store_would_say(
            which in 0..ALL.len(),
            quota in quotas(),
            requests in proptest::collection::vec((0_u64..300_000, 1_u64..5), 1..80),
        ) {
            let (cache, distant, clock) = cached(0);
            for (later_us, cost) in requests {
                clock.advance(Duration::from_micros(later_us));
                let charges = charge(ALL[which], quota, cost);
                let mut expected = now(distant.memory.peek(&charges));
                let told = now(cache.decide(&charges));
                prop_assert_eq!(told.admitted, expected.admitted);
                if !told.admitted {
                    expected.decisions[0].source = told.decisions[0].source;
                    prop_assert_eq!(told, expected);
                }
            }
        }

        /// Others take tokens too and the store is away: who is denied here would be denied there, and who waits as long as
        /// he is told is admitted if nobody else comes.
        #[test]
        fn denies_nobody_whom_the_store_would_admit(
            which in 0..ALL.len(),
            quota in quotas(),
            away_us in 0_u64..50_000,
            requests in proptest::collection::vec((0_u64..300_000, 1_u64..5, any::<bool>()), 1..60),
        ) {
            let (cache, distant, clock) = cached(away_us);
            for (later_us, cost, of_another) in requests {
                clock.advance(Duration::from_micros(later_us));
                let charges = charge(ALL[which], quota, cost);
                if of_another {
                    now(distant.memory.decide(&charges));
                    continue;
                }
                let there = now(distant.memory.peek(&charges));
                let told = now(cache.decide(&charges));
                if told.decisions[0].source == Source::Cache {
                    prop_assert!(!there.admitted);
                }
            }
            let charges = charge(ALL[which], quota, 1);
            if let Some(wait) = now(cache.decide(&charges)).decisions[0].retry_after() {
                clock.advance(wait);
                prop_assert!(now(cache.decide(&charges)).admitted);
            }
        }
    }

    #[test]
    fn a_flood_costs_the_store_one_command_a_token() {
        let quota = Quota::new(5, 10, Duration::from_secs(1)).unwrap();
        for algorithm in &ALL[..2] {
            let (cache, distant, clock) = cached(0);
            let charges = charge(*algorithm, quota, 1);
            for _ in 0..100_000 {
                now(cache.decide(&charges));
                clock.advance(Duration::from_micros(100));
            }
            let asked = distant.asked.load(Ordering::Relaxed);
            assert!(
                asked <= 5 + 100 + 1,
                "{asked} in 10 s at 10 tokens a second"
            );
        }
    }

    #[test]
    fn a_reset_a_give_back_and_another_quota_are_noticed_at_once() {
        let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
        for algorithm in ALL {
            let (cache, _, _) = cached(0);
            let charges = charge(*algorithm, quota, 1);
            let drained = || {
                let verdict = now(cache.decide(&charges));
                assert!(verdict.admitted);
                assert_eq!(
                    now(cache.decide(&charges)).decisions[0].source,
                    Source::Cache
                );
                verdict
            };
            drained();
            now(cache.reset(charges[0].key()));
            let receipts = drained().into_receipts(&charges);
            now(cache.give_back(receipts));
            drained();
            let other = Quota::new(2, 1, Duration::from_secs(100)).unwrap();
            let told = now(cache.decide(&charge(*algorithm, other, 1)));
            assert_eq!(told.decisions[0].source, Source::Store, "{algorithm:?}");
        }
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_it_may() {
        let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
        let (cache, _, clock) = cached(0);
        let charges = charge(ALL[0], quota, 1);
        now(cache.decide(&charges));
        let source = || now(cache.decide(&charges)).decisions[0].source;
        clock.advance(LONGEST - Duration::from_micros(1));
        assert_eq!(source(), Source::Cache);
        clock.advance(Duration::from_micros(1));
        assert_eq!(source(), Source::Store);
    }

    #[test]
    fn the_table_is_bounded() {
        let quota = Quota::new(1, 1, Duration::from_secs(100)).unwrap();
        let (cache, _, _) = cached(0);
        for i in 0..2 * MOST_KEYS {
            let identity = Identity::new().with_part(i.to_string().as_bytes());
            let key = Key::new("t:", ALL[0], &RuleName::default_rule(), &identity);
            let limit = Limit {
                algorithm: ALL[0],
                quota,
            };
            now(cache.decide(&[Charge::new(key, limit, Cost::MIN).unwrap()]));
        }
        let kept: usize = cache
            .shards
            .iter()
            .map(|shard| lock(shard).gates.len())
            .sum();
        assert!(kept <= MOST_KEYS, "{kept}");
    }
}
