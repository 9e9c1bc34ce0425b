//! How steps are remembered and committed: this is where atomicity lives.
//!
//! A [`Strategy`] answers a slice of charges, all or nothing. Decorators such as [`Deadline`] are strategies too; one
//! [`factory`] builds the whole stack.

mod alarms;
pub mod breaker;
mod deciding;
mod denial_cache;
pub mod factory;
mod fallback;
mod fault;
mod guarded;
pub mod lease;
mod members;
mod memory;
mod merge;
#[cfg(feature = "planted-faults")]
pub mod planted;
mod pulse;
pub mod redis;
mod refusal;
mod supervisor;
mod tag;

use std::fmt;

use crate::algorithm::Intent;
use crate::domain::{Charge, Key, Receipt, Verdict};

pub(crate) use alarms::{Alarm, Alarms};
pub use deciding::Deciding;
pub use denial_cache::DenialCache;
pub use fallback::Fallback;
pub use fault::Fault;
pub use guarded::Deadline;
pub use lease::Lease;
pub use members::{LIVE_FOR, Members};
pub use memory::Memory;
pub use refusal::{REFUSALS, Refusal, Remedy, Scope};

/// Most charges that one request may have.
pub const MAX_CHARGES: usize = 16;

/// Remembers what was charged and commits new charges, all of a request's or none.
///
/// Dropping one of its futures early never leaves half of a request done, but the whole may be.
pub trait Strategy: Send + Sync + fmt::Debug {
    /// The word by which it is chosen, such as `lua`.
    fn name(&self) -> &'static str;

    /// Decides one request whose keys all differ: what a strategy implements of [`decide`](Self::decide) and
    /// [`peek`](Self::peek), for whom [`ask_at_once`](Self::ask_at_once) had no answer.
    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a>;

    /// The same where nobody needs to be waited for; `None` where somebody does, and then nothing was charged.
    ///
    /// Asked once before each [`ask`](Self::ask), whose answer a strategy around another must not change: it passes this on
    /// as it is, and what comes of it says nothing about how the store is now.
    fn ask_at_once(&self, _charges: &[Charge], _intent: Intent) -> Option<Result<Verdict, Fault>> {
        None
    }

    /// Gives back what receipts say to the buckets and windows that were charged: never above their capacity, and never
    /// creating a record. Those of one request go in one step; of more than 512 receipts `lua` gives back 512 at a time, and
    /// whoever drops the future then may leave the rest. What is forgotten already is given back by that. Several receipts of one key
    /// are all given back.
    ///
    /// # Errors
    ///
    /// A [`Fault`]; after an ambiguous one it may have been given back. The receipts are gone either way.
    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()>;

    /// Forgets a key: its next request finds a full bucket.
    ///
    /// # Errors
    ///
    /// A [`Fault`]; after an ambiguous one it may be forgotten.
    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()>;

    /// Decides one request and charges it if it is admitted. The same key twice under one limit is charged as the sum.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when no decision could be had: [`Fault::Malformed`] for no charge, for more than [`MAX_CHARGES`] and
    /// for a key under two limits or in two modes; [`Fault::Inadmissible`] for a sum above the capacity.
    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        merge::asked(self, charges, Intent::Charge)
    }

    /// The same where nobody needs to be waited for, without a future; else `None`, and then nothing was charged and
    /// [`decide_later`](Self::decide_later) will know.
    fn decide_at_once(&self, charges: &[Charge]) -> Option<Result<Verdict, Fault>> {
        merge::at_once(self, charges, Intent::Charge)
    }

    /// [`decide`](Self::decide) for whom [`decide_at_once`](Self::decide_at_once) had no answer.
    fn decide_later<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        merge::later(self, charges, Intent::Charge)
    }

    /// Tells what [`decide`](Self::decide) would, and charges nothing.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    fn peek<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        merge::asked(self, charges, Intent::Peek)
    }

    /// Charges what was already done: of each cost as much as there is, and no more than that.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    fn debit<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        merge::asked(self, charges, Intent::Debit)
    }
}
