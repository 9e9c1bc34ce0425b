//! Several charges, one decision: all enforced limits admit the request, or none is charged.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::{Kept, Notice, Refused, Remembered, Standing, Step, Taken};
use crate::domain::{Charge, Cost, Decision, FEW_CHARGES, Outcome, Source, Verdict};

/// What a request is told and what it changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The answer.
    pub verdict: Verdict,
    /// What to remember, in the order of the charges; empty when the request is denied.
    pub writes: SmallVec<[Write; FEW_CHARGES]>,
    /// What an operator should hear of once.
    pub notices: SmallVec<[Notice; FEW_CHARGES]>,
}

/// A record to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Which of the charges it belongs to.
    pub charge: usize,
    /// What to remember.
    pub kept: Kept,
}

/// What a request is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// To be charged, if it is admitted.
    Charge,
    /// To be told what would happen; nothing is charged.
    Peek,
    /// To be charged afterwards for what was done already: each charge as far as its tokens go, whatever the others do.
    Debit,
}

/// Decides a request from what was remembered for each of its charges, whose keys all differ.
///
/// `remembered(i)` is what the store held for `charges[i]`, all read at the same point of its history.
pub fn judge(
    charges: &[Charge],
    intent: Intent,
    remembered: impl Fn(usize) -> Remembered,
    now_us: u64,
) -> Judgement {
    let steps: SmallVec<[Step; FEW_CHARGES]> = charges
        .iter()
        .enumerate()
        .map(|(i, charge)| step(charge, intent, &remembered(i), now_us))
        .collect();
    let mut pairs = charges.iter().zip(&steps);
    let admitted = pairs.all(|(charge, step)| admits(charge, step));
    let takes = intent.takes(admitted);
    let writes = steps.iter().enumerate().filter_map(|(charge, step)| {
        taken(step, takes).map(|taken| Write {
            charge,
            kept: taken.kept,
        })
    });
    let decisions = charges.iter().zip(&steps).enumerate();
    let decisions = decisions.map(|(i, (charge, step))| {
        let before = || standing(charge, &remembered(i), now_us);
        told(charge, step, takes, before)
    });
    Judgement {
        verdict: Verdict {
            decisions: decisions.collect(),
            admitted,
            now_us,
        },
        writes: writes.collect(),
        notices: steps.iter().filter_map(|step| step.notice).collect(),
    }
}

/// The same for a request with a single charge: its answer, and what to tell once. `remember` is called with what to
/// remember, if anything.
pub fn judge_one(
    charge: &Charge,
    intent: Intent,
    remembered: &Remembered,
    now_us: u64,
    remember: impl FnOnce(&Kept),
) -> (Verdict, Option<Notice>) {
    let step = step(charge, intent, remembered, now_us);
    let admitted = admits(charge, &step);
    let takes = intent.takes(admitted);
    if let Some(taken) = taken(&step, takes) {
        remember(&taken.kept);
    }
    let before = || standing(charge, remembered, now_us);
    let verdict = Verdict {
        decisions: smallvec![told(charge, &step, takes, before)],
        admitted,
        now_us,
    };
    (verdict, step.notice)
}

impl Intent {
    /// Whether what fits is charged.
    fn takes(self, admitted: bool) -> bool {
        match self {
            Self::Charge => admitted,
            Self::Peek => false,
            Self::Debit => true,
        }
    }
}

/// Whether a charge lets its request pass.
fn admits(charge: &Charge, step: &Step) -> bool {
    step.outcome.is_ok() || !charge.is_enforced()
}

fn taken(step: &Step, takes: bool) -> Option<&Taken> {
    step.outcome.as_ref().ok().filter(|_| takes)
}

/// `before` is how the record stands with nothing charged.
fn told(charge: &Charge, step: &Step, takes: bool, before: impl Fn() -> Standing) -> Decision {
    let (outcome, standing) = match &step.outcome {
        Ok(taken) if takes => (Outcome::Allowed, taken.after),
        Ok(_) => (Outcome::Allowed, before()),
        Err(refused) => {
            let retry_after = Duration::from_micros(refused.retry_after_us);
            (Outcome::Denied { retry_after }, refused.before)
        }
    };
    Decision {
        outcome,
        limit: charge.limit().quota.capacity(),
        remaining: standing.remaining,
        reset_after: Duration::from_micros(standing.reset_after_us),
        next_after: Duration::from_micros(standing.next_after_us),
        source: Source::Store,
    }
}

fn step(charge: &Charge, intent: Intent, remembered: &Remembered, now_us: u64) -> Step {
    let limit = charge.limit();
    let step = |cost| limit.algorithm.step(&limit.quota, remembered, now_us, cost);
    let mut asked = step(charge.cost());
    if intent == Intent::Debit
        && let Err(Refused { before, .. }) = &asked.outcome
        && let Some(rest) = Cost::new(before.remaining)
    {
        asked = step(rest);
    }
    asked
}

fn standing(charge: &Charge, remembered: &Remembered, now_us: u64) -> Standing {
    let limit = charge.limit();
    limit.algorithm.standing(&limit.quota, remembered, now_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{State, named};
    use crate::domain::{Cost, Identity, Key, Limit, Quota, RuleName};

    const NOW: u64 = 1_762_668_474_000_000;

    fn charge(name: &str, capacity: u64, cost: u64) -> Charge {
        let algorithm = named("tokenbucket").unwrap();
        let rule = RuleName::new(name).unwrap();
        let quota = Quota::new(capacity, 1, Duration::from_secs(1)).unwrap();
        let key = Key::new("t:", algorithm, &rule, &Identity::new());
        Charge::new(key, Limit { algorithm, quota }, Cost::new(cost).unwrap()).unwrap()
    }

    fn state_with(tokens: u64) -> Remembered {
        Remembered::State(State::new([tokens, NOW, 0, 1_000_000]))
    }

    #[test]
    fn one_refusal_charges_nobody() {
        let charges = [charge("roomy", 10, 1), charge("full", 10, 2)];
        let judged = judge(
            &charges,
            Intent::Charge,
            |i| {
                if i == 0 {
                    Remembered::Nothing
                } else {
                    state_with(1)
                }
            },
            NOW,
        );
        assert!(!judged.verdict.admitted);
        assert!(judged.writes.is_empty());
        let [roomy, full] = &judged.verdict.decisions[..] else {
            panic!("two decisions")
        };
        assert!(roomy.is_allowed());
        assert_eq!(roomy.remaining, 10, "nothing was charged");
        assert_eq!(
            (full.remaining, full.retry_after()),
            (1, Some(Duration::from_secs(1)))
        );
    }

    #[test]
    fn an_observed_refusal_denies_nobody_and_is_not_written() {
        let charges = [
            charge("enforced", 10, 1),
            charge("observed", 10, 2).observed(),
        ];
        let judged = judge(
            &charges,
            Intent::Charge,
            |i| {
                if i == 0 {
                    Remembered::Nothing
                } else {
                    state_with(1)
                }
            },
            NOW,
        );
        assert!(judged.verdict.admitted);
        assert_eq!(
            judged
                .writes
                .iter()
                .map(|write| write.charge)
                .collect::<Vec<_>>(),
            [0]
        );
        assert!(!judged.verdict.decisions[1].is_allowed());
    }

    #[test]
    fn an_observed_charge_of_a_denied_request_is_not_committed() {
        let charges = [
            charge("enforced", 10, 2),
            charge("observed", 10, 1).observed(),
        ];
        let judged = judge(
            &charges,
            Intent::Charge,
            |i| {
                if i == 0 {
                    state_with(1)
                } else {
                    Remembered::Nothing
                }
            },
            NOW,
        );
        assert!(!judged.verdict.admitted && judged.writes.is_empty());
        assert_eq!(judged.verdict.decisions[1].remaining, 10);
    }

    #[test]
    fn a_peek_tells_what_would_happen_and_writes_nothing() {
        let charges = [charge("a", 10, 3)];
        let judged = judge(&charges, Intent::Peek, |_| state_with(5), NOW);
        assert!(judged.verdict.admitted && judged.writes.is_empty());
        assert_eq!(judged.verdict.decisions[0].remaining, 5);
    }

    #[test]
    fn a_debit_takes_what_there_is_whatever_the_others_do() {
        let charges = [charge("a", 10, 3), charge("b", 10, 3), charge("c", 10, 3)];
        let levels = [5, 1, 0];
        let judged = judge(&charges, Intent::Debit, |i| state_with(levels[i]), NOW);
        let left: Vec<_> = judged
            .verdict
            .decisions
            .iter()
            .map(|decision| decision.remaining)
            .collect();
        assert_eq!(left, [2, 0, 0]);
        assert_eq!(
            judged
                .writes
                .iter()
                .map(|write| write.charge)
                .collect::<Vec<_>>(),
            [0, 1]
        );
    }
}
