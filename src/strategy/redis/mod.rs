//! Strategies that remember in Redis, on the server's clock.

mod connection;
mod fault;
mod hash;
mod lua;
mod record;
mod transaction;

pub use connection::{Link, LinkStatus, Settings};
pub use hash::Hash;
pub use lua::Lua;
pub use transaction::{Transaction, pool};
