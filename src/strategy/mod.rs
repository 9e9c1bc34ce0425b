//! How steps are remembered and committed: this is where atomicity lives.
//!
//! A [`Strategy`] answers a slice of charges, all or nothing. Decorators such as [`Deadline`] are strategies too; one
//! [`factory`] builds the whole stack.

mod deciding;
pub mod factory;
mod fault;
mod guarded;
mod memory;
pub mod redis;

use std::fmt;

use crate::domain::Charge;

pub use deciding::Deciding;
pub use fault::{Fault, Scope};
pub use guarded::Deadline;
pub use memory::Memory;

/// Most charges that one request may have.
pub const MAX_CHARGES: usize = 16;

/// Remembers what was charged and commits new charges, all of a request's or none.
pub trait Strategy: Send + Sync + fmt::Debug {
    /// The word by which it is chosen, such as `lua`.
    fn name(&self) -> &'static str;

    /// Decides one request. Dropping the future early never leaves half a request charged, but the whole may be.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when no decision could be had. The future resolves to [`Fault::Malformed`] for no charge, for
    /// more than [`MAX_CHARGES`] and for the same key twice.
    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a>;
}

/// Refuses what no strategy can decide.
pub(crate) fn check(charges: &[Charge]) -> Result<(), Fault> {
    if charges.is_empty() || charges.len() > MAX_CHARGES {
        return Err(Fault::Malformed(format!(
            "{} charges: 1 to {MAX_CHARGES} are allowed",
            charges.len()
        )));
    }
    let twice = charges
        .iter()
        .enumerate()
        .any(|(i, a)| charges[..i].iter().any(|b| a.key() == b.key()));
    if twice {
        Err(Fault::Malformed("the same key twice".to_owned()))
    } else {
        Ok(())
    }
}
