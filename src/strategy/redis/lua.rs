//! `lua`: one atomic script decides whole requests inside Redis, in one round trip. The default with Redis.
//!
//! Requests that are under way at the same time share a call of the script; see `lane.rs`. What each is told, and what it
//! changes, is what it would have been in a call of its own.

use std::time::Duration;

use smallvec::SmallVec;

use super::batch::MOST_KEYS;
use super::connection::Link;
use super::lane::Lane;
use super::question::{NUMBERS, Question, Told};
use super::script::Script;
use crate::algorithm::Intent;
use crate::domain::{Charge, Decision, Key, Outcome, Receipt, Source, Verdict};
use crate::strategy::{Deciding, Fault, Strategy};

/// The atomic script.
#[derive(Debug)]
pub struct Lua {
    link: Link,
    lane: Lane,
}

impl Lua {
    /// Remembers over `link`.
    pub fn new(link: Link) -> Self {
        Self::with_script(link, Self::script())
    }

    /// The text of the script.
    pub(in crate::strategy) fn script() -> String {
        Script::text()
    }

    /// Runs `text` as the script.
    pub(in crate::strategy) fn with_script(link: Link, text: String) -> Self {
        let lane = Lane::new(link.clone(), Script::new(text));
        Self { link, lane }
    }

    async fn decide(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let told = self.lane.ask(Question::asking(charges, intent)).await?;
        Ok(verdict(charges, &told))
    }
}

fn verdict(charges: &[Charge], told: &Told) -> Verdict {
    let decisions: SmallVec<[Decision; 1]> = charges
        .iter()
        .zip(&told.numbers)
        .map(|(charge, numbers)| decision(charge, *numbers))
        .collect();
    let admitted = charges
        .iter()
        .zip(&decisions)
        .all(|(charge, decision)| decision.is_allowed() || !charge.is_enforced());
    Verdict {
        decisions,
        admitted,
        now_us: told.now_us,
    }
}

fn decision(charge: &Charge, numbers: [u64; NUMBERS]) -> Decision {
    let [retry_after, remaining, reset_after, next_after] = numbers;
    let outcome = match retry_after {
        0 => Outcome::Allowed,
        wait => Outcome::Denied {
            retry_after: Duration::from_micros(wait),
        },
    };
    Decision {
        outcome,
        limit: charge.limit().quota.capacity(),
        remaining,
        reset_after: Duration::from_micros(reset_after),
        next_after: Duration::from_micros(next_after),
        source: Source::Store,
    }
}

impl Strategy for Lua {
    fn name(&self) -> &'static str {
        "lua"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges, intent))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        if receipts.is_empty() {
            return Deciding::ready(Ok(()));
        }
        Deciding::waiting(async move {
            let mut rest = receipts.into_iter();
            let mut done = Ok(());
            // As many at a time as a call may have keys; that some could not be given back is no reason to keep the others.
            while !rest.as_slice().is_empty() {
                let some = rest.by_ref().take(MOST_KEYS).collect();
                let given = self.lane.ask(Question::giving_back(some)).await;
                done = done.and(given.map(|_| ()));
            }
            done
        })
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(self.link.delete(key))
    }
}
