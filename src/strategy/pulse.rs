//! The pulse of an instance: its heartbeats, which count the live instances and probe a store that is given a rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::breaker::{Breaker, State};
use super::redis::{Heart, Link, Pool, inspect};
use super::{Fallback, Fault, Members, Scope};
use crate::domain::Clock;

/// Pause between heartbeats.
const EVERY: Duration = Duration::from_secs(1);
/// Longest pause between probes of a store that did not answer the last heartbeat.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// The code of a server that allows this user other commands, but not these.
const NO_PERMISSION: &str = "NOPERM";

/// Beats until it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    pub(super) heart: Arc<Heart>,
    pub(super) link: Link,
    pub(super) breaker: Arc<Breaker>,
    pub(super) members: Arc<Members>,
    pub(super) fallback: Arc<Fallback>,
    /// Connections that may be stuck when the store was.
    pub(super) pool: Option<Pool>,
    pub(super) within: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: fastrand::Rng,
}

impl Pulse {
    pub(super) async fn run(mut self) {
        let (mut told, mut inspected) = (false, false);
        loop {
            let beat = match timeout(self.within, self.heart.beat()).await {
                Ok(beat) => beat,
                Err(_) => Err(Fault::Timeout(self.within)),
            };
            match &beat {
                Ok(count) => {
                    self.members.heard(*count, self.clock.now_us());
                    // Before requests go to the store again, it is told what was spent without it.
                    self.fallback.write_back().await;
                    self.breaker.probed(Ok(()));
                }
                Err(fault) if speaks_of_heartbeats_alone(fault) => {
                    if !std::mem::replace(&mut told, true) {
                        let advice = fault.advice();
                        warn!(%fault, advice, "heartbeats are refused: the number of instances is not known");
                    }
                    // Before requests go to the store again, it is told what was spent without it.
                    self.fallback.write_back().await;
                    self.breaker.probed(Ok(()));
                }
                Err(fault) => self.breaker.probed(Err(fault)),
            }
            if beat.is_ok() && !std::mem::replace(&mut inspected, true) {
                inspect(&self.link, EVERY, self.clock.now_us()).await;
            }
            self.rest(beat.is_err()).await;
        }
    }

    async fn rest(&mut self, in_trouble: bool) {
        let longest = if in_trouble || self.breaker.state() == State::Open {
            PROBE_EVERY
        } else {
            EVERY
        };
        let pause = longest.mul_f64(0.5 + self.rng.f64() / 2.0);
        tokio::select! {
            () = sleep(pause) => {}
            () = self.breaker.opened() => {
                if let Some(pool) = &self.pool {
                    pool.close_idle();
                }
            }
        }
    }
}

/// Whether only heartbeats meet this fault: the store answers, so requests may well be decided.
fn speaks_of_heartbeats_alone(fault: &Fault) -> bool {
    fault.scope() == Scope::Request || fault.kind() == NO_PERMISSION
}
