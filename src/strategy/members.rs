//! How many instances share the store, as heartbeats tell: what an instance that must decide alone divides a quota by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an instance counts as live after its last heartbeat.
pub const LIVE_FOR: Duration = Duration::from_secs(5);
const LIVE_FOR_US: u64 = 5_000_000;

/// How many instances are live. The last number heard is kept through an outage.
///
/// A larger number counts at once. A smaller one counts after it was heard for as long as an instance is live: for after
/// an outage the first to come back hears of itself alone.
#[derive(Debug)]
pub struct Members {
    count: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    any: bool,
    fewer: Option<Fewer>,
}

/// Fewer were heard since then, and at most so many.
#[derive(Debug, Clone, Copy)]
struct Fewer {
    since_us: u64,
    most: u64,
}

impl Members {
    /// Until a heartbeat is heard there are `configured` (at least 1).
    pub fn new(configured: u64) -> Self {
        Self {
            count: AtomicU64::new(configured.max(1)),
            heard: Mutex::default(),
        }
    }

    /// How many instances share the store. At least 1.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a heartbeat was ever heard.
    pub fn is_known(&self) -> bool {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .any
    }

    /// A heartbeat told of so many at that time, on a clock that does not step back.
    pub fn heard(&self, count: u64, now_us: u64) {
        let count = count.max(1);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !std::mem::replace(&mut heard.any, true);
        if first || count >= self.count() {
            heard.fewer = None;
            self.count.store(count, Ordering::Relaxed);
            return;
        }
        let fewer = heard.fewer.get_or_insert(Fewer {
            since_us: now_us,
            most: count,
        });
        fewer.most = fewer.most.max(count);
        if now_us.saturating_sub(fewer.since_us) >= LIVE_FOR_US {
            self.count.store(fewer.most, Ordering::Relaxed);
            heard.fewer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_first_number_heard_counts_and_more_count_at_once() {
        let members = Members::new(4);
        assert_eq!((members.count(), members.is_known()), (4, false));
        members.heard(1, 0);
        assert_eq!((members.count(), members.is_known()), (1, true));
        members.heard(3, 0);
        assert_eq!(members.count(), 3);
    }

    #[test]
    fn fewer_count_only_after_they_were_heard_for_long_enough() {
        let members = Members::new(1);
        members.heard(3, 0);
        members.heard(1, 60 * SECOND);
        members.heard(2, 64 * SECOND);
        assert_eq!(members.count(), 3);
        members.heard(1, 65 * SECOND);
        assert_eq!(members.count(), 2, "the most of what was heard meanwhile");
    }

    #[test]
    fn all_back_in_time_forgets_the_fewer() {
        let members = Members::new(1);
        members.heard(3, 0);
        members.heard(1, 60 * SECOND);
        members.heard(3, 61 * SECOND);
        members.heard(1, 66 * SECOND);
        assert_eq!(members.count(), 3);
    }
}
