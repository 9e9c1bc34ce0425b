//! What happens when the store cannot decide, and one line per change about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{debug, info, warn};

use crate::domain::Clock;
use crate::strategy::{Fault, Scope};

/// What a request is answered when the store cannot decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnStoreError {
    /// It passes, uncounted.
    Allow,
    /// It is refused with 503.
    Deny,
}

impl OnStoreError {
    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How long the store must have been without a fault before it is told to be well again, in microseconds.
const CALM_US: u64 = 1_000_000;

/// Tells of the store's faults when they begin, change and end; never once per request.
#[derive(Debug)]
pub(super) struct FaultLog {
    clock: Arc<dyn Clock>,
    /// Whether a trouble stands; read without the lock by every request that goes well.
    troubled: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    told_of_requests: AtomicBool,
}

#[derive(Debug)]
struct Trouble {
    kind: String,
    since_us: u64,
    last_us: u64,
    faults: u64,
}

impl FaultLog {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            troubled: AtomicBool::new(false),
            trouble: Mutex::new(None),
            told_of_requests: AtomicBool::new(false),
        }
    }

    /// A decision was had.
    pub(super) fn cleared(&self) {
        if !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let now_us = self.clock.now_us();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(past) =
            trouble.take_if(|trouble| now_us >= trouble.last_us.saturating_add(CALM_US))
        {
            self.troubled.store(false, Ordering::Relaxed);
            let seconds = past.last_us.saturating_sub(past.since_us) / 1_000_000;
            info!(seconds, faults = past.faults, "the store decides again");
        }
    }

    /// No decision could be had.
    pub(super) fn met(&self, fault: &Fault, policy: OnStoreError) {
        debug!(%fault, ambiguous = fault.is_ambiguous(), "no decision");
        match fault.scope() {
            Scope::Store => self.met_by_all(fault, policy),
            Scope::Request => {
                if !self.told_of_requests.swap(true, Ordering::Relaxed) {
                    warn!(%fault, policy = policy.name(), "a request could not be decided; told once, others at debug level");
                }
            }
        }
    }

    fn met_by_all(&self, fault: &Fault, policy: OnStoreError) {
        let now_us = self.clock.now_us();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *trouble {
            Some(known) if known.kind == fault.kind() => {
                known.last_us = now_us;
                known.faults += 1;
            }
            Some(known) => {
                // Two kinds in turns are one trouble: the change is told at most once a second.
                if now_us >= known.last_us.saturating_add(CALM_US) {
                    warn!(%fault, policy = policy.name(), "the store still cannot decide");
                    known.kind = fault.kind().to_owned();
                }
                known.last_us = now_us;
                known.faults += 1;
            }
            None => {
                warn!(%fault, policy = policy.name(), "the store cannot decide");
                let kind = fault.kind().to_owned();
                *trouble = Some(Trouble {
                    kind,
                    since_us: now_us,
                    last_us: now_us,
                    faults: 1,
                });
                self.troubled.store(true, Ordering::Relaxed);
            }
        }
    }
}
