//! What one request asks of the script, and what it is told.

use smallvec::SmallVec;

use crate::algorithm::{Algorithm, Intent};
use crate::domain::{Charge, Key, Limit, Quota, Receipt};
use crate::strategy::Fault;

/// Numbers in the script's reply for each charge: `retry_after` (0 when allowed), `remaining`, `reset_after`, `next_after`.
pub(super) const NUMBERS: usize = 4;

/// What one request asks of the script. Those of one [`kind`](Self::kind) stand in one group of a call.
#[derive(Debug)]
pub(super) struct Question {
    operation: &'static str,
    parts: SmallVec<[Part; 1]>,
    /// The same for questions that ask alike; then, perhaps, for others.
    kind: u64,
    /// The same for questions whose first key is the same; then, perhaps, for others.
    place: u64,
}

/// One charge, or what is given back of one.
#[derive(Debug)]
struct Part {
    key: Key,
    algorithm: &'static dyn Algorithm,
    /// 1 for an enforced charge, 0 for an observed one; the time of a charge that is given back.
    mode: u64,
    tokens: u64,
    quota: Quota,
}

impl Part {
    fn is_like(&self, other: &Self) -> bool {
        self.algorithm.name() == other.algorithm.name()
            && self.mode == other.mode
            && self.tokens == other.tokens
            && self.quota == other.quota
    }
}

/// What the script says of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The server's time, in microseconds since 1970.
    pub(super) now_us: u64,
    /// One for each charge.
    pub(super) numbers: SmallVec<[[u64; NUMBERS]; 1]>,
}

/// What one request hears.
pub(super) type Answer = Result<Told, Fault>;

impl Question {
    /// What to decide of charges whose keys all differ.
    pub(super) fn asking(charges: &[Charge], intent: Intent) -> Self {
        let operation = match intent {
            Intent::Charge => "charge",
            Intent::Peek => "peek",
            Intent::Debit => "debit",
        };
        let parts = charges.iter().map(|charge| {
            let Limit { algorithm, quota } = charge.limit();
            Part {
                key: charge.key().clone(),
                algorithm,
                mode: u64::from(charge.is_enforced()),
                tokens: charge.cost().get(),
                quota,
            }
        });
        Self::of(operation, parts.collect())
    }

    /// What to give back.
    pub(super) fn giving_back(receipts: Vec<Receipt>) -> Self {
        let parts = receipts.into_iter().map(|receipt| Part {
            key: receipt.key,
            algorithm: receipt.limit.algorithm,
            mode: receipt.charged_at_us,
            tokens: receipt.tokens.get(),
            quota: receipt.limit.quota,
        });
        Self::of("give_back", parts.collect())
    }

    fn of(operation: &'static str, parts: SmallVec<[Part; 1]>) -> Self {
        let place = parts.first().map_or(0, |first| hashed(first.key.as_str()));
        let kind = parts.iter().fold(hashed(operation), |kind, part| {
            let of = [
                hashed(part.algorithm.name()),
                part.mode,
                part.tokens,
                part.quota.capacity(),
                part.quota.gain(),
                part.quota.unit(),
            ];
            of.into_iter().fold(kind, mixed)
        });
        Self {
            operation,
            parts,
            kind,
            place,
        }
    }

    /// By which those that ask alike, and of these those of one key, come to stand side by side.
    pub(super) fn order(&self) -> (u64, u64) {
        (self.kind, self.place)
    }

    /// Whether both ask the same, of whatever keys.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.parts.len() == other.parts.len()
            && (self.parts.iter().zip(&other.parts)).all(|(part, other)| part.is_like(other))
    }

    /// Whether it is one of those that the script has a straight path for.
    pub(super) fn is_usual(&self) -> bool {
        self.operation == "charge" && self.parts.len() == 1
    }

    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Its keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.parts.iter().map(|part| &part.key)
    }

    /// Appends the head of a group of `count` questions like this one, of which the keys at these places stand elsewhere too,
    /// as `driver.lua` reads it.
    pub(super) fn head(&self, count: usize, repeated: &[usize], cmd: &mut redis::Cmd) {
        cmd.arg(self.operation).arg(count).arg(self.parts.len());
        cmd.arg(repeated.len()).arg(repeated);
        for part in &self.parts {
            cmd.arg(part.algorithm.name())
                .arg(part.mode)
                .arg(part.tokens);
            cmd.arg(part.quota.capacity())
                .arg(part.quota.gain())
                .arg(part.quota.unit());
        }
    }
}

/// A hash that is cheap. Who finds collisions gains nothing: what it brings together is compared before it counts as one, or
/// need not be one.
pub(super) fn hashed(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let hash = (words.iter()).fold(text.len() as u64, |hash, word| {
        mixed(hash, u64::from_le_bytes(*word))
    });
    rest.iter()
        .fold(hash, |hash, byte| mixed(hash, u64::from(*byte)))
}

fn mixed(hash: u64, word: u64) -> u64 {
    // 2^64 divided by the golden ratio, as in Knuth, TAOCP 3, 6.4.
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
