//! Heartbeats: how instances that share a store count each other.
//!
//! One sorted set, `<prefix>!instances`: a member for each instance, scored with the store's time of its last heartbeat in
//! milliseconds. Every heartbeat removes who was not heard of for [`LIVE_FOR`], so the set is as large as the service,
//! and it expires by itself. A heartbeat is a write, so it fails where a PING would still be answered.

use std::time::Duration;

use super::connection::Link;
use super::fault::classify;
use crate::strategy::{Fault, LIVE_FOR};

/// Most instances that are counted; the longest silent go first.
const MOST_INSTANCES: i64 = 10_000;

/// This instance's heartbeat.
#[derive(Debug)]
pub struct Heart {
    link: Link,
    key: String,
    member: String,
}

impl Heart {
    /// Beats over `link` in the set under `prefix`. `nonce` tells apart instances that were given one name.
    pub fn new(link: Link, prefix: &str, instance: &str, nonce: u64) -> Self {
        Self {
            link,
            key: format!("{prefix}!instances"),
            member: format!("{instance}#{nonce:016x}"),
        }
    }

    /// Says that this instance is live, and hears how many are.
    ///
    /// # Errors
    ///
    /// Why the store did not take it.
    pub async fn beat(&self) -> Result<u64, Fault> {
        let mut connection = self.link.connection().await?;
        let told = |error| classify(&error);
        let (seconds, micros): (u64, u64) = connection
            .command(&redis::cmd("TIME"))
            .await
            .map_err(told)?;
        let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut beat = redis::pipe();
        beat.atomic();
        let trim = beat.cmd("ZREMRANGEBYSCORE").arg(&self.key);
        trim.arg("-inf")
            .arg(ms(now.saturating_sub(LIVE_FOR)))
            .ignore();
        // Of a time before the clock stepped back.
        let trim = beat.cmd("ZREMRANGEBYSCORE").arg(&self.key);
        trim.arg(ms(now + LIVE_FOR)).arg("+inf").ignore();
        let add = beat.cmd("ZADD").arg(&self.key);
        add.arg(ms(now)).arg(&self.member).ignore();
        let trim = beat.cmd("ZREMRANGEBYRANK").arg(&self.key);
        trim.arg(0).arg(-MOST_INSTANCES - 1).ignore();
        let expire = beat.cmd("PEXPIREAT").arg(&self.key);
        expire.arg(ms(now + LIVE_FOR * 2)).ignore();
        beat.cmd("ZCARD").arg(&self.key);
        let (count,): (u64,) = connection.pipeline(&beat).await.map_err(told)?;
        Ok(count)
    }

    /// Says that this instance is live no more.
    ///
    /// # Errors
    ///
    /// Why the store did not take it; then it is forgotten after [`LIVE_FOR`].
    pub async fn stop(&self) -> Result<(), Fault> {
        let mut leave = redis::cmd("ZREM");
        leave.arg(&self.key).arg(&self.member);
        let mut connection = self.link.connection().await?;
        connection
            .command(&leave)
            .await
            .map_err(|error| classify(&error))
    }
}
