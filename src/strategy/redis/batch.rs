//! Requests that travel in one call of the script.
//!
//! They were all asked before the call leaves and none was answered, so any order of them is one in which they could
//! have come. Those that ask alike are made a group, whose head is sent once, and in a group those of one key stand side
//! by side, in the order in which they came: the script reads and writes that record once.

use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::fault::classify_text;
use super::question::{Answer, NUMBERS, Question, Told};
use crate::algorithm::Notice;

/// Most requests, and most keys, of one call.
pub(super) const MOST_REQUESTS: usize = 128;
pub(super) const MOST_KEYS: usize = 512;

/// Bytes that a usual call takes besides its keys, for each group and in all; more are made room for.
const HEAD: usize = 64;

/// The call of a script, by its hash or its text, that asks `questions` in their order.
pub(super) fn call(command: &str, script: &str, questions: &[&Question]) -> Cmd {
    let keys: usize = questions.iter().map(|question| question.len()).sum();
    let bytes = HEAD * (keys + 2) + script.len();
    let mut cmd = Cmd::with_capacity(keys + 16, bytes);
    cmd.arg(command).arg(script).arg(keys);
    for key in questions.iter().flat_map(|question| question.keys()) {
        cmd.arg(key.as_str());
    }
    for group in questions.chunk_by(|one, next| one.is_like(next)) {
        group[0].head(group.len(), &mut cmd);
    }
    cmd
}

/// What a call told each question, in their order, and what an operator should hear of once; `None` when it makes no
/// sense.
pub(super) fn read(
    reply: &Value,
    questions: &[&Question],
) -> Option<(Vec<Answer>, SmallVec<[Notice; 2]>)> {
    let Value::Array(values) = reply else {
        return None;
    };
    let ([now, notices], numbers) = values.split_first_chunk()?;
    let (now_us, notices) = (number(now)?, number(notices)?);
    let (mut charges, rest) = numbers.as_chunks::<NUMBERS>();
    if !rest.is_empty() {
        return None;
    }
    let mut told = Vec::with_capacity(questions.len());
    for question in questions {
        let (own, others) = charges.split_at_checked(question.len())?;
        charges = others;
        told.push(match own.first() {
            Some([Value::BulkString(error), ..]) => Err(classify_text(error)),
            _ => Ok(Told {
                now_us,
                numbers: all_numbers_of(own)?,
            }),
        });
    }
    let notices = [1, 2].into_iter().filter(|bit| notices & bit != 0);
    charges
        .is_empty()
        .then(|| (told, notices.filter_map(Notice::from_number).collect()))
}

/// Room for all of them is made at once, which collecting what may fail does not.
fn all_numbers_of(charges: &[[Value; NUMBERS]]) -> Option<SmallVec<[[u64; NUMBERS]; 1]>> {
    let mut numbers = SmallVec::with_capacity(charges.len());
    for values in charges {
        numbers.push(numbers_of(values)?);
    }
    Some(numbers)
}

fn numbers_of(values: &[Value; NUMBERS]) -> Option<[u64; NUMBERS]> {
    let mut numbers = [0; NUMBERS];
    for (place, value) in numbers.iter_mut().zip(values) {
        *place = number(value)?;
    }
    Some(numbers)
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
