//! The machine's clocks: the only place below `main` that reads them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::Clock;

/// The wall clock: for showing the time. It may step.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock;

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the wall clock is read"
    )]
    fn now_us(&self) -> u64 {
        micros(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }
}

/// The wall clock when it was started, and from then on the monotonic one: for counting. It never steps.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    started_us: u64,
    started: Instant,
}

impl MonotonicClock {
    /// Starts at the wall clock's time.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the monotonic clock is read"
    )]
    pub fn start() -> Self {
        Self {
            started_us: WallClock.now_us(),
            started: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now_us(&self) -> u64 {
        self.started_us
            .saturating_add(micros(self.started.elapsed()))
    }
}

fn micros(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(duration.subsec_micros().into())
}
