//! Strategies that remember in Redis, on the server's clock.

mod batch;
mod connection;
mod fault;
mod hash;
mod heartbeat;
mod inspect;
mod keeper;
mod lane;
mod lender;
mod lua;
mod pool;
mod question;
mod queue;
mod record;
mod script;
mod settings;
#[cfg(feature = "planted-faults")]
mod shared_watch;
mod transaction;

pub use connection::{Link, LinkStatus};
pub use hash::Hash;
pub use heartbeat::Heart;
pub(super) use inspect::inspect;
pub use lender::Lender;
pub use lua::Lua;
pub use pool::{Pool, pool};
pub use settings::Settings;
#[cfg(feature = "planted-faults")]
pub use shared_watch::SharedWatch;
pub use transaction::Transaction;
