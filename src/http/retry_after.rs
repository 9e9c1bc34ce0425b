//! When to ask again: not all at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};

/// Longest wait that is named, in seconds; the shortest is 1.
const SPREAD: u64 = 3;

/// Names 1 to 3 seconds in turn, so that those who were turned away together do not come back together.
#[derive(Debug, Default)]
pub struct RetryAfter(AtomicU64);

impl RetryAfter {
    /// That answer, with `Retry-After`.
    pub fn on(&self, answer: impl IntoResponse) -> Response {
        let seconds = 1 + self.0.fetch_add(1, Ordering::Relaxed) % SPREAD;
        let mut response = answer.into_response();
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        response
    }
}

/// How much later than they could, denied clients are told to come back: anything up to the longest, at random.
#[derive(Debug)]
pub(super) struct Jitter {
    longest: Duration,
    rng: Mutex<fastrand::Rng>,
}

impl Jitter {
    pub(super) fn new(longest: Duration, seed: u64) -> Self {
        Self {
            longest,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// The next one.
    pub(super) fn next(&self) -> Duration {
        let longest_us = u64::try_from(self.longest.as_micros()).unwrap_or(u64::MAX);
        if longest_us == 0 {
            return Duration::ZERO;
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(rng.u64(..=longest_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_spread_over_its_range_and_off_is_none() {
        let jitter = Jitter::new(Duration::from_secs(10), 7);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            let later = jitter.next();
            assert!(later <= Duration::from_secs(10));
            counts[usize::try_from(later.as_secs().min(9)).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
        assert_eq!(Jitter::new(Duration::ZERO, 7).next(), Duration::ZERO);
    }
}
