//! How long and how often is measured.
//!
//! Short and often: where the host's other guests slow a core down, it is for seconds at a time, so of two short turns,
//! one after the other, mostly both are slowed or neither is.

use std::time::Duration;

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// Rounds of what shows how the cost grows.
    pub(crate) sweep_rounds: usize,
    /// Load before anything is counted.
    pub(crate) warm_up: Duration,
    /// The same for those that take longer until they go on alike. After it a client of ten tokens a second is as far from the
    /// next one as after the short one.
    pub(crate) long_warm_up: Duration,
    /// What is counted.
    pub(crate) window: Duration,
    /// Starts of an idle instance.
    pub(crate) starts: usize,
    /// Decisions of one turn in process, by each thread.
    pub(crate) decisions: u32,
}

impl Plan {
    pub(crate) fn new(quick: bool) -> Self {
        let millis = Duration::from_millis;
        if quick {
            Self {
                quick,
                rounds: 4,
                sweep_rounds: 3,
                warm_up: millis(60),
                long_warm_up: millis(460),
                window: millis(100),
                starts: 3,
                decisions: 100_000,
            }
        } else {
            Self {
                quick,
                rounds: 25,
                sweep_rounds: 18,
                warm_up: millis(60),
                long_warm_up: millis(460),
                window: millis(200),
                starts: 10,
                decisions: 300_000,
            }
        }
    }
}
