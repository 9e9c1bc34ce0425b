//! A record on the wire: the hash of an algorithm's fields, its expiry, and the notices about it.

use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Pipeline, Value};
use tracing::warn;

use crate::algorithm::{Notice, Remembered, State, Write};
use crate::domain::Charge;
use crate::strategy::Fault;

/// How long a record outlives its use, in milliseconds: as in the script.
const EXPIRY_MARGIN_MS: u64 = 1_000;

/// Appends the commands that read every record, then the server's time.
pub(super) fn read(pipeline: &mut Pipeline, charges: &[Charge]) {
    for charge in charges {
        pipeline
            .cmd("HMGET")
            .arg(charge.key().as_str())
            .arg(charge.limit().algorithm.fields());
    }
    pipeline.cmd("TIME");
}

/// What [`read`] brought: what each charge's record holds, and the server's time in microseconds.
pub(super) fn parse(
    mut replies: Vec<Value>,
    charges: &[Charge],
) -> Result<(Vec<Remembered>, u64), Fault> {
    if replies.len() != charges.len() + 1 {
        return Err(Fault::BadReply(format!(
            "{} replies to {} reads",
            replies.len(),
            charges.len() + 1
        )));
    }
    let time: Option<(u64, u64)> = replies
        .pop()
        .and_then(|value| redis::from_redis_value(value).ok());
    let (seconds, micros) = time.ok_or_else(|| Fault::BadReply("not a time".to_owned()))?;
    let remembered: Option<Vec<_>> = replies.iter().map(remembered).collect();
    let remembered =
        remembered.ok_or_else(|| Fault::BadReply("not the fields of a hash".to_owned()))?;
    Ok((remembered, seconds * 1_000_000 + micros))
}

fn remembered(fields: &Value) -> Option<Remembered> {
    let Value::Array(fields) = fields else {
        return None;
    };
    if fields.iter().all(|field| *field == Value::Nil) {
        return Some(Remembered::Nothing);
    }
    let text = fields.iter().map(|field| match field {
        Value::BulkString(bytes) => Some(&bytes[..]),
        _ => None,
    });
    Some(State::parse(text).map_or(Remembered::Foreign, Remembered::State))
}

/// Appends the commands that write one record with its expiry. The caller makes them one atomic step.
///
/// The expiry is absolute: a relative one would forget a record too early after the server's clock stepped back.
pub(super) fn write(pipeline: &mut Pipeline, charges: &[Charge], write: &Write) {
    let charge = &charges[write.charge];
    let key = charge.key().as_str();
    let hset = pipeline.cmd("HSET").arg(key);
    for (field, value) in charge.limit().algorithm.fields().iter().zip(write.state.0) {
        hset.arg(field).arg(value);
    }
    let expire_at_ms = write.fresh_at_us.div_ceil(1_000) + EXPIRY_MARGIN_MS;
    pipeline.cmd("PEXPIREAT").arg(key).arg(expire_at_ms);
}

/// Tells an operator of each notice once.
#[derive(Debug, Default)]
pub(super) struct Notices {
    foreign: AtomicBool,
    behind: AtomicBool,
}

impl Notices {
    pub(super) fn tell(&self, notice: Notice) {
        match notice {
            Notice::ForeignRecord if !self.foreign.swap(true, Ordering::Relaxed) => {
                warn!(
                    "found a record that is not ours under a key of ours: it counts as fresh and is replaced"
                );
            }
            Notice::ClockBehind if !self.behind.swap(true, Ordering::Relaxed) => {
                warn!(
                    "the store's clock stepped back: buckets stand still until it is past their last use again; \
                     deleting a key resets it"
                );
            }
            Notice::ForeignRecord | Notice::ClockBehind => {}
        }
    }
}
