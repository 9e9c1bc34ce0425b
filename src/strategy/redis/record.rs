//! A record on the wire: the hash of an algorithm's fields, its expiry, and the notices about it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Pipeline, Value};
use tracing::warn;

use crate::algorithm::{Algorithm, Kept, Notice, Remembered, State};
use crate::domain::{Charge, Key, Receipt};
use crate::strategy::Fault;

/// How long a record outlives its use, in milliseconds: as in the script.
const EXPIRY_MARGIN_MS: u64 = 1_000;

/// Whose record, and in whose fields.
pub(super) type Place<'a> = (&'a Key, &'static dyn Algorithm);

/// Where charges are counted.
pub(super) fn places_of_charges(charges: &[Charge]) -> Vec<Place<'_>> {
    charges
        .iter()
        .map(|charge| (charge.key(), charge.limit().algorithm))
        .collect()
}

/// Where receipts were counted.
pub(super) fn places_of_receipts(receipts: &[Receipt]) -> Vec<Place<'_>> {
    receipts
        .iter()
        .map(|receipt| (&receipt.key, receipt.limit.algorithm))
        .collect()
}

/// What is to be kept of receipts whose records were read: which of them, and the record. Of those of one key each finds
/// what the one before it left.
pub(super) fn credits(
    receipts: &[Receipt],
    remembered: &[Remembered],
    now_us: u64,
) -> Vec<(usize, Kept)> {
    let mut left: HashMap<&Key, State> = HashMap::new();
    let mut writes = Vec::new();
    for (i, (receipt, remembered)) in receipts.iter().zip(remembered).enumerate() {
        let Receipt {
            key,
            limit,
            tokens,
            charged_at_us,
            ..
        } = receipt;
        let read = match remembered {
            Remembered::State(state) => Some(*state),
            Remembered::Nothing | Remembered::Foreign => None,
        };
        let kept = left.get(key).copied().or(read).and_then(|state| {
            (limit.algorithm).credit(&limit.quota, state, now_us, *charged_at_us, *tokens)
        });
        if let Some(kept) = kept {
            left.insert(key, kept.state);
            writes.push((i, kept));
        }
    }
    writes
}

/// Appends the commands that read every record, then the server's time.
pub(super) fn read(pipeline: &mut Pipeline, places: &[Place<'_>]) {
    for (key, algorithm) in places {
        pipeline
            .cmd("HMGET")
            .arg(key.as_str())
            .arg(algorithm.fields())
            .arg(algorithm.optional_fields());
    }
    pipeline.cmd("TIME");
}

/// What [`read`] brought: what each record holds, and the server's time in microseconds.
pub(super) fn parse(
    mut replies: Vec<Value>,
    places: &[Place<'_>],
) -> Result<(Vec<Remembered>, u64), Fault> {
    let records = places.len();
    if replies.len() != records + 1 {
        return Err(Fault::BadReply(format!(
            "{} replies to {} reads",
            replies.len(),
            records + 1
        )));
    }
    let time: Option<(u64, u64)> = replies
        .pop()
        .and_then(|value| redis::from_redis_value(value).ok());
    let (seconds, micros) = time.ok_or_else(|| Fault::BadReply("not a time".to_owned()))?;
    let records = replies.iter().zip(places);
    let remembered: Option<Vec<_>> = records
        .map(|(fields, (_, algorithm))| remembered(fields, algorithm.fields().len()))
        .collect();
    let remembered =
        remembered.ok_or_else(|| Fault::BadReply("not the fields of a hash".to_owned()))?;
    Ok((remembered, seconds * 1_000_000 + micros))
}

fn remembered(fields: &Value, required: usize) -> Option<Remembered> {
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
    Some(State::parse(text, required).map_or(Remembered::Foreign, Remembered::State))
}

/// Appends the commands that write one record with its expiry. The caller makes them one atomic step.
///
/// Optional fields stay as they are: no step changes them. The expiry is absolute: a relative one would forget a record too early after the server's clock stepped back.
pub(super) fn write(pipeline: &mut Pipeline, (key, algorithm): Place<'_>, kept: &Kept) {
    let hset = pipeline.cmd("HSET").arg(key.as_str());
    for (field, value) in algorithm.fields().iter().zip(kept.state.0) {
        hset.arg(field).arg(value);
    }
    let expire_at_ms = kept.fresh_at_us.div_ceil(1_000) + EXPIRY_MARGIN_MS;
    pipeline
        .cmd("PEXPIREAT")
        .arg(key.as_str())
        .arg(expire_at_ms);
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
