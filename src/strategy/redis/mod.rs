//! Strategies that remember in Redis, on the server's clock.

mod connection;
mod fault;
mod hash;
mod lua;
mod record;
#[cfg(feature = "planted-faults")]
mod shared_watch;
mod transaction;

pub use connection::{Link, LinkStatus, Settings};
pub use hash::Hash;
pub use lua::Lua;
#[cfg(feature = "planted-faults")]
pub use shared_watch::SharedWatch;
pub use transaction::{Transaction, pool};
