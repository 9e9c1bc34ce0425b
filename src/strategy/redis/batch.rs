//! Requests that travel in one call of the script.
//!
//! They were all asked before the call leaves and none was answered, so any order of them is one in which they could
//! have come. Those that ask alike are made a group, whose head is sent once, and in a group those of one key stand side
//! by side, in the order in which they came: the script reads and writes that record once.

use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::fault::classify_text;
use super::question::{Answer, NUMBERS, Question, Told, hashed};
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
        group[0].head(group.len(), &repeated(group), &mut cmd);
    }
    cmd
}

/// A place, counted from 1, of each key that stands in a group more than once; of the usual requests the script needs none,
/// for these stand side by side. One more does no harm, so hashes are enough.
fn repeated(group: &[&Question]) -> SmallVec<[usize; 4]> {
    if group[0].is_usual() {
        return SmallVec::new();
    }
    let keys = group.iter().flat_map(|question| question.keys());
    let hashes = keys.map(|key| hashed(key.as_str())).zip(1..);
    let mut places: SmallVec<[(u64, usize); MOST_REQUESTS]> = hashes.collect();
    places.sort_unstable();
    let same = places.chunk_by(|(one, _), (next, _)| one == next);
    same.filter(|places| places.len() > 1)
        .map(|places| places[0].1)
        .collect()
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
    let [now, notices, Value::BulkString(answers), failures @ ..] = values.as_slice() else {
        return None;
    };
    let (now_us, notices) = (number(now)?, number(notices)?);
    let (numbers, rest) = answers.as_chunks();
    let (mut charges, others) = numbers.as_chunks::<NUMBERS>();
    let (failures, odd) = failures.as_chunks();
    if !rest.is_empty() || !others.is_empty() || !odd.is_empty() {
        return None;
    }
    let failures: SmallVec<[_; 1]> = failures.iter().map(failure).collect::<Option<_>>()?;
    let (mut told, mut first, mut failed) = (Vec::with_capacity(questions.len()), 1, 0);
    for question in questions {
        let (own, others) = charges.split_at_checked(question.len())?;
        let failure = failures.iter().find(|(charge, _)| *charge == first);
        failed += usize::from(failure.is_some());
        told.push(match failure {
            Some((_, error)) => Err(classify_text(error)),
            None => Ok(Told {
                now_us,
                numbers: all_numbers_of(own)?,
            }),
        });
        first += question.len() as u64;
        charges = others;
    }
    let notices = [1, 2].into_iter().filter(|bit| notices & bit != 0);
    (charges.is_empty() && failed == failures.len())
        .then(|| (told, notices.filter_map(Notice::from_number).collect()))
}

/// The first charge of a request that failed, counted from 1, and the error.
fn failure([charge, error]: &[Value; 2]) -> Option<(u64, &[u8])> {
    match error {
        Value::BulkString(error) => Some((number(charge)?, error)),
        _ => None,
    }
}

/// Room for all of them is made at once, which collecting what may fail does not.
fn all_numbers_of(charges: &[[[u8; 8]; NUMBERS]]) -> Option<SmallVec<[[u64; NUMBERS]; 1]>> {
    let mut numbers = SmallVec::with_capacity(charges.len());
    for doubles in charges {
        numbers.push(numbers_of(doubles)?);
    }
    Some(numbers)
}

fn numbers_of(doubles: &[[u8; 8]; NUMBERS]) -> Option<[u64; NUMBERS]> {
    let mut numbers = [0; NUMBERS];
    for (place, double) in numbers.iter_mut().zip(doubles) {
        *place = integer(f64::from_le_bytes(*double))?;
    }
    Some(numbers)
}

/// A double that is an integer from 0 to 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "neither is cut off of such an integer"
)]
fn integer(double: f64) -> Option<u64> {
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    let is_integer = (0.0..=EXACT).contains(&double) && double.fract() == 0.0;
    is_integer.then_some(double as u64)
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::{Intent, TokenBucket};
    use crate::domain::{Charge, Cost, Identity, Key, Limit, Quota, RuleName};
    use crate::strategy::Fault;

    fn question(charges: usize) -> Question {
        asking(&(0..charges).collect::<Vec<_>>())
    }

    fn asking(names: &[usize]) -> Question {
        let quota = Quota::new(9, 1, Duration::from_secs(1)).unwrap();
        let algorithm = &TokenBucket;
        let charge = |i: &usize| {
            let identity = Identity::new().with_part(i.to_string().as_bytes());
            let key = Key::new("t:", algorithm, &RuleName::default_rule(), &identity);
            Charge::new(key, Limit { algorithm, quota }, Cost::MIN).unwrap()
        };
        let charges: Vec<_> = names.iter().map(charge).collect();
        Question::asking(&charges, Intent::Charge)
    }

    fn packed(numbers: &[f64]) -> Value {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        Value::BulkString(bytes.collect())
    }

    fn error(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn a_key_that_stands_there_again_has_a_place() {
        for (group, expected) in [
            (&[[1, 2], [3, 4], [5, 6]], &[][..]),
            (&[[1, 2], [3, 1], [1, 2]], &[1, 2]),
        ] {
            let questions = group.each_ref().map(|names| asking(names));
            let mut places = repeated(&questions.each_ref());
            places.sort_unstable();
            assert_eq!(&*places, expected);
        }
    }

    #[test]
    fn each_request_is_told_its_own_numbers_or_error() {
        let questions = [question(1), question(2), question(1)];
        let questions: Vec<_> = questions.iter().collect();
        let numbers: Vec<f64> = (0..16).map(f64::from).collect();
        let reply = [Value::Int(77), Value::Int(2), packed(&numbers)].into();
        let (told, notices) = read(&Value::Array(reply), &questions).unwrap();
        let numbers: Vec<_> = told
            .into_iter()
            .flat_map(|told| told.unwrap().numbers)
            .collect();
        assert_eq!(numbers[1..3], [[4, 5, 6, 7], [8, 9, 10, 11]]);
        assert_eq!((numbers.len(), notices[0]), (4, Notice::ClockBehind));

        // Of the second request, and of the third behind its two charges.
        let failures = [4, 2].map(Value::Int).into_iter();
        let failures = failures.zip(["OOM no room", "WRONGTYPE no hash"].map(error));
        let failures = failures.flat_map(|(first, error)| [first, error]);
        let start = [Value::Int(77), Value::Int(0), packed(&[0.0; 16])];
        let reply = Value::Array(start.into_iter().chain(failures).collect());
        let (told, _) = read(&reply, &questions).unwrap();
        let kinds: Vec<_> = told
            .iter()
            .map(|told| told.as_ref().err().map(Fault::kind))
            .collect();
        assert_eq!(kinds, [None, Some("WRONGTYPE"), Some("OOM")]);
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        let question = question(1);
        let is_read = |values: &[Value]| read(&Value::Array(values.into()), &[&question]).is_some();
        let (zero, good) = (Value::Int(0), packed(&[0.0, 1.0, 2.0, 3.0]));
        assert!(is_read(&[zero.clone(), zero.clone(), good.clone()]));
        assert!(!is_read(&[zero.clone(), zero.clone()]));
        assert!(!is_read(&[zero.clone(), Value::Int(-1), good.clone()]));
        for answers in [
            packed(&[0.0, 1.0, 2.0]),
            packed(&[0.0; 8]),
            packed(&[0.0, 1.0, 2.0, 0.5]),
            packed(&[0.0, 1.0, 2.0, -1.0]),
            packed(&[0.0, 1.0, 2.0, f64::NAN]),
            packed(&[0.0, 1.0, 2.0, 1e300]),
            error("thirty-three bytes, not a multiple"),
            zero.clone(),
        ] {
            assert!(!is_read(&[zero.clone(), zero.clone(), answers]));
        }
        let of_nobody = vec![Value::Int(2), error("OOM no room")];
        for failure in [vec![zero.clone()], vec![zero.clone(); 2], of_nobody] {
            let start = [zero.clone(), zero.clone(), good.clone()];
            let reply: Vec<_> = start.into_iter().chain(failure).collect();
            assert!(!is_read(&reply));
        }
    }
}
