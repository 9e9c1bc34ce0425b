//! What was promised, held against what was seen.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Observed;
use crate::experiments::{Allowance, Experiment};
use crate::fleet::{INSTANCES, Line};
use crate::generator::{Outcome, Record};
use crate::http::Failure;
use crate::law::Quota;
use crate::measures::{Measures, measure};
use crate::redis_server::CANARY;

/// `REDIS_TIMEOUT` of the instances.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(50);
/// What an answer may take besides the wait for the store, as long as the machine is not slower than that.
const MARGIN: Duration = Duration::from_millis(10);
/// What the slowest answer may take more.
const SLOWEST: Duration = Duration::from_millis(50);
/// Longest that turning a request away may take where there are too many at once, as long as the machine is not slower
/// when all is quiet.
const SHED_WITHIN: Duration = Duration::from_millis(5);
/// Most lines that all instances may log in one experiment, whatever the number of requests: they tell of changes.
const MOST_LINES: usize = 60;
/// Share of answers that must be in time, in thousandths.
const IN_TIME: u64 = 999;

/// The quiet run that times are compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline {
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
}

impl Baseline {
    /// Longest that an answer should take while the store fails.
    fn longest(&self) -> Duration {
        (TIMEOUT + MARGIN).max(self.p999 + TIMEOUT)
    }
}

/// What an experiment came to.
pub(crate) struct Judgement {
    pub(crate) experiment: Experiment,
    pub(crate) measures: Measures,
    pub(crate) notes: Vec<String>,
    /// What the instances logged, with their number.
    pub(crate) log: Vec<String>,
    /// Promises that were broken, each with its numbers.
    pub(crate) broken: Vec<String>,
}

/// Judges an experiment; its times only against a `baseline`.
pub(crate) fn judge(
    experiment: Experiment,
    observed: &Observed,
    baseline: Option<Baseline>,
) -> Judgement {
    let longest = baseline.map(|baseline| baseline.longest());
    let mut measures = measure(observed, longest);
    if !experiment.fault.harms_the_store() {
        measures.back_after = None;
    }
    let mut broken = observed.aftermath.broken.clone();
    broken.extend(answers(observed, experiment.sheds));
    broken.extend(law(experiment.allowance, observed.quota, &measures));
    if experiment.lends() && observed.lent_before == 0 {
        broken.push("nothing was lent before the fault".to_owned());
    }
    broken.extend(charges(observed, &measures));
    broken.extend(logs(&observed.lines));
    if observed.back.is_none() {
        broken.push("an instance never decided by the store again".to_owned());
    }
    if observed.running < INSTANCES {
        broken.push(format!("only {} instances are left", observed.running));
    }
    for instance in &observed.short_of_connections {
        broken.push(format!(
            "instance {instance} has lost connections of its pool"
        ));
    }
    if experiment.sheds && measures.shed == 0 {
        broken.push("no request was turned away: there were not too many".to_owned());
    }
    // Where the machine stalls, breakers open again and again.
    if let Some(baseline) = baseline {
        broken.extend(amount(&observed.lines));
        broken.extend(times(&experiment, &measures, baseline));
    }
    let mut notes = observed.aftermath.notes.clone();
    if let Some((p99, slowest)) = measures.p99_shed.zip(measures.slowest_shed) {
        notes.push(format!(
            "{} of {} turned away with 503 and Retry-After: p99 {p99:.1?}, slowest {slowest:.1?}",
            measures.shed, measures.requests
        ));
    }
    Judgement {
        experiment,
        measures,
        notes,
        log: observed
            .lines
            .iter()
            .map(|line| format!("{}: {}", line.instance, line.text))
            .collect(),
        broken,
    }
}

/// Whether a request need not have been answered: it was open on an instance that was killed.
pub(crate) fn is_excused(record: &Record, killed: Option<(usize, Instant)>) -> bool {
    killed.is_some_and(|(instance, at)| record.instance == instance && record.sent <= at)
}

/// Every request has exactly one well-formed answer, 200 or 429; or 503 where there are too many at once.
fn answers(observed: &Observed, sheds: bool) -> Vec<String> {
    let (mut wrong, mut first) = (0, None);
    for record in &observed.records {
        let what = match &record.outcome {
            Outcome::Answered(answer) if matches!(answer.status, 200 | 429) => continue,
            Outcome::Answered(answer) if sheds && answer.status == 503 => continue,
            Outcome::Aborted => continue,
            Outcome::Answered(answer) => format!("status {}", answer.status),
            Outcome::Failed(Failure::Lost(_)) if is_excused(record, observed.aftermath.killed) => {
                continue;
            }
            Outcome::Failed(Failure::Lost(what) | Failure::Malformed(what)) => what.clone(),
            Outcome::Unanswered => "no answer".to_owned(),
        };
        wrong += 1;
        first.get_or_insert(what);
    }
    let mut broken = Vec::new();
    if let Some(what) = first {
        broken.push(format!(
            "{wrong} requests without a proper answer, the first: {what}"
        ));
    }
    if observed.surplus > 0 {
        broken.push(format!(
            "{} answers that nobody asked for",
            observed.surplus
        ));
    }
    broken
}

fn law(allowance: Allowance, quota: Quota, measures: &Measures) -> Option<String> {
    let outage = if measures.local > 0 {
        quota.capacity
    } else {
        0
    };
    let allowed = match allowance {
        Allowance::Outage => outage,
        Allowance::Emptied => outage + quota.capacity,
        Allowance::CutOff(instances) => {
            (quota.most_within(measures.lasted) * instances).div_ceil(INSTANCES as u64)
        }
    };
    let above = measures.above_the_law;
    (above > allowed)
        .then(|| format!("a key was admitted {above} above the law, {allowed} allowed"))
}

/// No request is charged more than once.
fn charges(observed: &Observed, measures: &Measures) -> Vec<String> {
    let mut broken = Vec::new();
    if measures.most_for_one > 1 {
        let most = measures.most_for_one;
        broken.push(format!("a request was charged {most} times"));
    }
    let charges = observed.counts.charges - observed.counts.refused.min(observed.counts.charges);
    let requests = measures.requests + observed.looks;
    if charges > requests && measures.requests > 0 {
        broken.push(format!("{charges} charges for {requests} requests"));
    }
    if observed.counts.undone > 0 {
        broken.push(format!(
            "{} transactions on keys that nobody else writes were undone",
            observed.counts.undone
        ));
    }
    broken
}

/// No secret and no client's address is logged.
fn logs(lines: &[Line]) -> Vec<String> {
    let tells = |line: &&Line| line.text.contains(CANARY) || has_a_clients_address(&line.text);
    let told = lines.iter().filter(tells);
    told.map(|line| format!("a log line tells too much: {}", line.text))
        .take(3)
        .collect()
}

/// Changes are logged, not requests.
fn amount(lines: &[Line]) -> Option<String> {
    (lines.len() > MOST_LINES).then(|| format!("{} lines were logged", lines.len()))
}

fn has_a_clients_address(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words
        .filter_map(|word| word.trim_matches('.').parse::<Ipv4Addr>().ok())
        .any(|address| address.is_private())
}

fn times(experiment: &Experiment, measures: &Measures, baseline: Baseline) -> Vec<String> {
    let (mut broken, longest) = (Vec::new(), baseline.longest());
    if measures.in_time * 1_000 < IN_TIME * measures.answered {
        let late = measures.answered - measures.in_time;
        broken.push(format!(
            "{late} of {} answers took longer than {longest:?}",
            measures.answered
        ));
    }
    if measures.slowest > longest + SLOWEST {
        broken.push(format!("the slowest answer took {:?}", measures.slowest));
    }
    if let Some(p99) = measures.p99_open.filter(|p99| *p99 > baseline.p99 * 2) {
        broken.push(format!(
            "with an open breaker p99 was {p99:?}, more than twice {:?}",
            baseline.p99
        ));
    }
    let shed_within = SHED_WITHIN.max(baseline.p99);
    if let Some(p99) = measures.p99_shed.filter(|p99| *p99 > shed_within) {
        broken.push(format!(
            "p99 of what was turned away was {p99:?}, more than {shed_within:?}"
        ));
    }
    if let Some(after) = measures
        .back_after
        .filter(|after| *after > experiment.back_within)
    {
        broken.push(format!(
            "back after {after:?}, later than {:?}",
            experiment.back_within
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Client;

    #[tokio::test]
    async fn a_secret_a_clients_address_and_a_flood_of_lines_are_found_in_a_log() {
        let told = |text: &str| {
            let line = Line {
                at: Instant::now(),
                instance: 0,
                text: text.to_owned(),
            };
            logs(&[line]).len()
        };
        for harmless in [
            "took 10.5 ms",
            "redis 127.0.0.1:6379",
            "198.18.1.2:1",
            "version 1.2.3",
        ] {
            assert_eq!(told(harmless), 0, "{harmless}");
        }
        let secret = format!("redis://:{CANARY}@host");
        let strangers = Client::Once(70_000).address();
        let line = Line {
            at: Instant::now(),
            instance: 0,
            text: String::new(),
        };
        assert!(amount(&vec![line.clone(); MOST_LINES]).is_none());
        assert!(amount(&vec![line; MOST_LINES + 1]).is_some());
        for leak in [&secret, &strangers, "from 192.168.77.1:80."] {
            assert_eq!(told(leak), 1, "{leak}");
        }
    }
}
