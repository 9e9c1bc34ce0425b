//! How long and how often is measured.

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
                rounds: 2,
                sweep_rounds: 1,
                warm_up: millis(100),
                window: millis(300),
                starts: 3,
                decisions: 200_000,
            }
        } else {
            Self {
                quick,
                rounds: 7,
                sweep_rounds: 5,
                warm_up: millis(200),
                window: millis(800),
                starts: 10,
                decisions: 1_000_000,
            }
        }
    }
}
