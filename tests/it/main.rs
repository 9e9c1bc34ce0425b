//! Everything against the real thing: redis-server processes of the tests' own, real sockets, real server processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod bench;
#[cfg(target_os = "linux")]
mod clocks;
mod coalescing;
mod command_line;
mod conformance;
#[cfg(target_os = "linux")]
mod cookbook;
mod explain;
mod fault_table;
mod faults;
mod held_replies;
mod http;
mod instances;
mod lease;
mod lua_batch;
mod lua_twin;
mod operations;
mod outage;
mod refused_writes;
mod reload;
mod rules;
mod rules_file;
mod rules_watch;
mod serving;
