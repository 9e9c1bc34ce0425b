//! `local`: when the store cannot decide, this instance limits by itself, at its share of the quota.
//!
//! An instance of N counts in a table of its own as if all N spent what it spends: each local charge costs N times its
//! tokens. So it admits a share of the capacity and of the rate, in the store's own arithmetic. The table is kept warm
//! with what the store says is left of each key, so that a client that had 3 tokens left has no more when the store
//! fails. Where the capacity is below N times the cost, the bucket is made just large enough for one request; the rate
//! stays. So requests of one key may meet buckets of several sizes, and a record is kept for as long as the largest takes
//! to fill: under a larger quota a forgotten record would be more than it was when it was forgotten.
//!
//! What was spent without the store is charged to it when it is back: once per key, never more than there is, never what
//! was refilled here meanwhile, and never for an answer that followed a command that may have been executed. Until then what this instance hears of the store is
//! taken less what it owes, so a store that answers now and then does not fill the table anew each time.
//!
//! Over an outage of all instances a key is admitted at most what the law says and one capacity (or N requests, where that is
//! more; with `fixedwindow` then N on either side of where two windows meet); one capacity more if the store comes back empty.
//! The windows of `fixedwindow` are those of this instance's clock: where it differs from the store's, one capacity more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{Deciding, Fault, Members, Memory, Remedy, Scope, Strategy};
use crate::algorithm::Intent;
use crate::domain::{
    Charge, Cost, Decision, Key, Limit, OnStoreError, Outcome, Receipt, Source, Verdict,
};

mod debts;
#[cfg(test)]
mod tests;

use debts::{Debts, Settled};

/// Keys that are written back at a time.
const WRITTEN_AT_ONCE: usize = 64;

/// Asks the store and, where it has no decision, decides by itself.
#[derive(Debug)]
pub struct Fallback {
    /// The store, with a breaker before it.
    store: Arc<dyn Strategy>,
    /// The store without the breaker: what was spent is written back while no request goes there yet.
    direct: Arc<dyn Strategy>,
    local: Memory,
    members: Arc<Members>,
    debts: Mutex<Debts>,
    owes: AtomicBool,
    told_unknown: AtomicBool,
}

impl Fallback {
    /// Asks `store`; decides in `local` where it has no decision; writes back to `direct`, which is the same store
    /// without a breaker. `members` says how many share the quota.
    pub fn new(
        store: Arc<dyn Strategy>,
        direct: Arc<dyn Strategy>,
        local: Memory,
        members: Arc<Members>,
    ) -> Self {
        Self {
            store,
            direct,
            local,
            members,
            debts: Mutex::default(),
            owes: AtomicBool::new(false),
            told_unknown: AtomicBool::new(false),
        }
    }

    /// What is said of a request of which the store said that.
    fn decided(
        &self,
        said: Result<Verdict, Fault>,
        charges: &[Charge],
        intent: Intent,
    ) -> Result<Verdict, Fault> {
        match said {
            // What was remembered of the store, or taken ahead there, is no news.
            Ok(verdict) if !verdict.is_news() => Ok(verdict),
            Ok(verdict) => {
                for (charge, decision) in charges.iter().zip(&verdict.decisions) {
                    if is_local(charge) {
                        self.learn(charge, decision.remaining);
                    }
                }
                Ok(verdict)
            }
            Err(fault) if fault.is_of_the_request() => Err(fault),
            Err(fault) => match OnStoreError::strictest(charges) {
                OnStoreError::Deny | OnStoreError::Allow => Err(fault),
                OnStoreError::Local => self.decide_alone(charges, intent, fault.is_ambiguous()),
            },
        }
    }

    /// Remembers what the store has left of a key, less what it is owed.
    fn learn(&self, charge: &Charge, remaining: u64) {
        let (key, limit) = (charge.key(), charge.limit());
        let owed = if self.owes.load(Ordering::Relaxed) {
            self.lock().of(key)
        } else {
            0
        };
        let instances = self.members.count();
        let spent = owed.saturating_mul(instances);
        self.local
            .learn(key, limit, remaining.saturating_sub(spent));
        if owed > 0 {
            self.hold(key, limit, instances);
        }
    }

    /// Keeps a local record until the largest bucket that this quota can be given here would be full.
    fn hold(&self, key: &Key, limit: Limit, instances: u64) {
        let longest_us = limit.quota.fill_time_us().saturating_mul(instances);
        let until_us = self.local.now_us().saturating_add(longest_us);
        self.local.hold(key, until_us);
    }

    fn decide_alone(
        &self,
        charges: &[Charge],
        intent: Intent,
        may_be_charged: bool,
    ) -> Result<Verdict, Fault> {
        let instances = self.instances();
        let shares = charges
            .iter()
            .filter(|charge| is_local(charge))
            .map(|charge| share(charge, instances))
            .collect::<Vec<_>>();
        let alone = self.local.ask_now(&shares, intent)?;
        let mut verdict = Verdict {
            decisions: charges.iter().map(uncounted).collect(),
            ..alone
        };
        let answers = charges.iter().zip(&mut verdict.decisions);
        let answers = answers.filter(|(charge, _)| is_local(charge));
        for (((charge, decision), share), told) in answers.zip(&shares).zip(alone.decisions) {
            *decision = self.told(charge, share, instances, told);
            let charged = verdict.admitted && decision.is_allowed() && intent == Intent::Charge;
            if charged && instances > 1 {
                self.hold(charge.key(), charge.limit(), instances);
            }
            if charged && !may_be_charged {
                self.lock().add(charge);
                self.owes.store(true, Ordering::Relaxed);
            }
        }
        Ok(verdict)
    }

    /// A decision on N times the cost in the words of the quota itself.
    fn told(
        &self,
        charge: &Charge,
        share: &Charge,
        instances: u64,
        decision: Decision,
    ) -> Decision {
        let remaining = decision.remaining / instances;
        let next_after = (remaining + 1)
            .checked_mul(instances)
            .and_then(Cost::new)
            .and_then(|cost| Charge::new(share.key().clone(), share.limit(), cost).ok())
            .and_then(|next| self.local.ask_now(&[next], Intent::Peek).ok())
            .and_then(|verdict| verdict.decisions[0].retry_after());
        Decision {
            limit: charge.limit().quota.capacity(),
            remaining,
            next_after: next_after.unwrap_or(decision.reset_after),
            source: Source::Local,
            ..decision
        }
    }

    fn instances(&self) -> u64 {
        if !self.members.is_known() && !self.told_unknown.swap(true, Ordering::Relaxed) {
            warn!(
                instances = self.members.count(),
                "no heartbeat was heard yet: the quota is divided by LIMITER_INSTANCES, else by 1"
            );
        }
        self.members.count()
    }

    /// Charges the store with what was spent without it, as long as it answers. Each key's debt is sent at most once,
    /// unless it surely was not executed; what the store will not have for this key, whoever asks, is lost. What came of
    /// it is told when this is called and nothing is owed.
    pub async fn write_back(&self) {
        if !self.owes.swap(false, Ordering::Relaxed) {
            return self.tell();
        }
        let (mut kept, mut trouble) = (Vec::new(), false);
        while let Some(batch) = self.take_batch() {
            if batch.is_empty() {
                // There may be many such, and no wait between them.
                tokio::task::yield_now().await;
            }
            let (mut sending, mut sent) = (JoinSet::new(), HashMap::new());
            for debt in batch {
                let tokens = debt.cost().get();
                let task = sending.spawn(settle(self.direct.clone(), debt));
                sent.insert(task.id(), tokens);
            }
            while let Some(settled) = sending.join_next().await {
                let (charge, answer) = match settled {
                    Ok(settled) => settled,
                    // It panicked, perhaps after it had sent it.
                    Err(error) => {
                        self.lock().lost += sent.get(&error.id()).copied().unwrap_or(0);
                        continue;
                    }
                };
                match answer {
                    Ok(()) => self.lock().was_written_back(charge.cost().get()),
                    Err(fault) if fault.is_ambiguous() => {
                        trouble = true;
                        self.lock().lost += charge.cost().get();
                    }
                    Err(fault) if is_final(&fault) => self.lock().lost += charge.cost().get(),
                    Err(fault) => {
                        trouble |= fault.scope() == Scope::Store;
                        kept.push(charge);
                    }
                }
            }
            if trouble {
                break;
            }
        }
        if trouble || !kept.is_empty() {
            let mut debts = self.lock();
            kept.iter().for_each(|debt| debts.add(debt));
            self.owes.store(true, Ordering::Relaxed);
        }
    }

    /// Tells what came of an outage: once nothing is owed any more, so that a store that comes and goes does not fill the log.
    fn tell(&self) {
        if let Some(Settled { keys, tokens, lost }) = self.lock().news() {
            info!(
                keys,
                tokens, lost, "charged the store for what was admitted without it"
            );
        }
    }

    /// Some of the debts, those that were refilled meanwhile left out; `None` when there are no more.
    fn take_batch(&self) -> Option<Vec<Charge>> {
        let taken: Vec<(Key, Limit, u64)> = {
            let mut debts = self.lock();
            let keys: Vec<Key> = debts.by_key.keys().take(WRITTEN_AT_ONCE).cloned().collect();
            let take = |key: Key| {
                debts
                    .by_key
                    .remove(&key)
                    .map(|(limit, owed)| (key, limit, owed))
            };
            keys.into_iter().filter_map(take).collect()
        };
        if taken.is_empty() {
            return None;
        }
        let batch = taken.into_iter().filter_map(|(key, limit, tokens)| {
            // What is above the capacity was refilled too.
            let cost = Cost::new(tokens.min(limit.quota.capacity()))?;
            let debt = Charge::new(key, limit, cost).ok()?;
            (!self.is_refilled(&debt)).then_some(debt)
        });
        Some(batch.collect())
    }

    /// Whether the bucket here is full: then the store's refilled as much as was spent here, and owes nothing to the law.
    fn is_refilled(&self, debt: &Charge) -> bool {
        let Ok(one) = Charge::new(debt.key().clone(), debt.limit(), Cost::MIN) else {
            return false;
        };
        let share = share(&one, self.members.count());
        let full = share.limit().quota.capacity();
        let peeked = self.local.ask_now(&[share], Intent::Peek);
        peeked.is_ok_and(|verdict| verdict.decisions[0].remaining == full)
    }

    fn lock(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the store would say the same of this key again and again.
fn is_final(fault: &Fault) -> bool {
    let is_refused = matches!(fault, Fault::Refused { .. }) && fault.remedy() != Remedy::TryAgain;
    fault.is_of_the_request() || (is_refused && fault.scope() == Scope::Request)
}

async fn settle(store: Arc<dyn Strategy>, debt: Charge) -> (Charge, Result<(), Fault>) {
    let answer = store.debit(std::slice::from_ref(&debt)).await.map(|_| ());
    (debt, answer)
}

impl Strategy for Fallback {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let mut asked = self.store.ask(charges, intent);
        Deciding::waiting(async move {
            // Where it is, so that no room is kept for it twice.
            let said = (&mut asked).await;
            self.decided(said, charges, intent)
        })
    }

    fn ask_at_once(&self, charges: &[Charge], intent: Intent) -> Option<Result<Verdict, Fault>> {
        self.store.ask_at_once(charges, intent)
    }

    /// What was charged here is given back here, and is owed no more; what the store charged goes back to the store.
    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        let (local, store): (Vec<_>, Vec<_>) = receipts
            .into_iter()
            .partition(|receipt| receipt.source == Source::Local);
        let instances = self.members.count();
        for mut receipt in local {
            self.lock().subtract(&receipt);
            let of = receipt.limit;
            if let Ok(charge) = Charge::new(receipt.key.clone(), of, receipt.tokens) {
                let share = share(&charge, instances);
                (receipt.limit, receipt.tokens) = (share.limit(), share.cost());
            }
            self.local.credit(&receipt);
            self.hold(&receipt.key, of, instances);
        }
        if store.is_empty() {
            return Deciding::ready(Ok(()));
        }
        self.store.give_back(store)
    }

    /// Forgets it here at once; in the store, if that can be reached.
    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.local.forget(key);
        self.lock().by_key.remove(key);
        self.store.reset(key)
    }
}

fn is_local(charge: &Charge) -> bool {
    charge.on_store_error() == OnStoreError::Local
}

/// What is said of a charge that nobody counts.
fn uncounted(charge: &Charge) -> Decision {
    let limit = charge.limit().quota.capacity();
    Decision {
        outcome: Outcome::Allowed,
        limit,
        remaining: limit,
        reset_after: Duration::ZERO,
        next_after: Duration::ZERO,
        source: Source::Nobody,
    }
}

/// What one of N instances charges in its own table: N times the cost, under a quota in which that fits.
fn share(charge: &Charge, instances: u64) -> Charge {
    let Limit { algorithm, quota } = charge.limit();
    let whole = charge.cost().saturating_mul(cost_of(instances));
    // Where not even that can be counted, filling takes decades: then one request a bucket is close enough.
    let quota = quota
        .holding(whole.get().max(quota.capacity()))
        .unwrap_or(quota);
    let cost = whole.min(cost_of(quota.capacity()));
    let limit = Limit { algorithm, quota };
    let share = Charge::new(charge.key().clone(), limit, cost).expect("at most the capacity");
    if charge.is_enforced() {
        share
    } else {
        share.observed()
    }
}

fn cost_of(count: u64) -> Cost {
    Cost::new(count).unwrap_or(Cost::MIN)
}
