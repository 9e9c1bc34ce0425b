//! Replays the history of one key against the algorithm as a model: each decision and number, to the microsecond.
//!
//! What was admitted is replayed in the order of the store's time and, within a microsecond, of what was left. A denial
//! changes nothing, so it only has to be right at a point where it can have been decided: after all that was admitted at
//! an earlier time and, within its own microsecond, anywhere. A transaction tells the time before it commits, so of what
//! was admitted at an earlier time some may have been committed later; there, a denial may also stand before whatever had
//! not ended when it began.

use tollgate::algorithm::{Algorithm, Remembered, Standing, Step};
use tollgate::{Cost, Quota};

use crate::history::Op;

/// What the replay found to differ from the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Admitted where the model denies.
    pub(crate) wrong_grants: u64,
    /// Denied where the model admits.
    pub(crate) wrong_denials: u64,
    /// Rightly decided, with another `remaining`, `retry_after` or `reset_after` than the model's.
    pub(crate) wrong_numbers: u64,
}

/// Replays all requests of one key. `commits_later` where the time of a decision is told before it is committed.
pub(crate) fn differences(
    algorithm: &dyn Algorithm,
    quota: &Quota,
    ops: &[Op],
    commits_later: bool,
) -> Differences {
    let (mut admitted, denied): (Vec<Op>, Vec<Op>) = ops.iter().partition(|op| op.admitted);
    admitted.sort_unstable_by_key(|op| (op.now_us, u64::MAX - op.remaining));
    let mut found = Differences::default();
    // What the record holds before each admitted request, and after the last.
    let mut states = vec![Remembered::Nothing];
    for op in &admitted {
        let before = states[states.len() - 1];
        states.push(match step(algorithm, quota, &before, op).outcome {
            Err(_) => {
                found.wrong_grants += 1;
                before
            }
            Ok(taken) => {
                found.wrong_numbers += u64::from(!is_told(op, &taken.after, 0));
                Remembered::State(taken.kept.state)
            }
        });
    }
    for op in &denied {
        let last = admitted.partition_point(|other| other.now_us <= op.now_us);
        let mut first = admitted.partition_point(|other| other.now_us < op.now_us);
        while commits_later && first > 0 && admitted[first - 1].returned_us >= op.invoked_us {
            first -= 1;
        }
        let refusals: Vec<_> = states[first..=last]
            .iter()
            .filter_map(|state| step(algorithm, quota, state, op).outcome.err())
            .collect();
        if refusals.is_empty() {
            found.wrong_denials += 1;
        } else if !refusals
            .iter()
            .any(|refused| is_told(op, &refused.before, refused.retry_after_us))
        {
            found.wrong_numbers += 1;
        }
    }
    found
}

fn step(algorithm: &dyn Algorithm, quota: &Quota, remembered: &Remembered, op: &Op) -> Step {
    let cost = Cost::new(op.cost).expect("costs are 1 or more");
    algorithm.step(quota, remembered, op.now_us, cost)
}

fn is_told(op: &Op, standing: &Standing, retry_after_us: u64) -> bool {
    op.remaining == standing.remaining
        && op.reset_after_us == standing.reset_after_us
        && op.retry_after_us == retry_after_us
}
