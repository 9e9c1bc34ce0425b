//! What an experiment came to, in numbers.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Observed;
use crate::fleet::{INSTANCES, Line};
use crate::generator::{Outcome, Record, is_a_strangers};
use crate::law::worst_above_the_law;

/// Fewest requests of which a percentile says anything.
const FEWEST: usize = 100;
/// What an instance logs when its breaker opens, and when requests go to the store again.
const OPENED: &str = "the store is given a rest";
const RELEASED: &str = "the store answers probes: it is asked again";

/// What an experiment came to, in numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measures {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) admitted: u64,
    pub(crate) denied: u64,
    /// Requests that were turned away with a 503.
    pub(crate) shed: u64,
    /// Of these, how long they took.
    pub(crate) p99_shed: Option<Duration>,
    pub(crate) slowest_shed: Option<Duration>,
    /// Answers of an instance that decided alone.
    pub(crate) local: u64,
    /// Requests whose clients went away.
    pub(crate) aborted: u64,
    /// Requests without an answer, for whatever reason.
    pub(crate) lost: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) slowest: Duration,
    /// Answers within the longest time that is promised.
    pub(crate) in_time: u64,
    /// Of requests that came while their instance's breaker was open.
    pub(crate) p99_open: Option<Duration>,
    /// From the store's first accepted write until all instances decide by it.
    pub(crate) back_after: Option<Duration>,
    pub(crate) lasted: Duration,
    pub(crate) above_the_law: u64,
    /// Charges that were passed on, those without effect, and charges for what was admitted without the store.
    pub(crate) charges: u64,
    pub(crate) refused: u64,
    pub(crate) write_backs: u64,
    /// Leases that were granted.
    pub(crate) lent: u64,
    /// The most charges for one request of a client that came once.
    pub(crate) most_for_one: u64,
    /// Lines that the instances logged.
    pub(crate) log_lines: u64,
}

/// Measures what was seen; answers are in time within `longest`.
pub(crate) fn measure(observed: &Observed, longest: Option<Duration>) -> Measures {
    let records = &observed.records;
    let answered: Vec<&Record> = records
        .iter()
        .filter(|record| matches!(record.outcome, Outcome::Answered(_)))
        .collect();
    let count =
        |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count() as u64;
    let status = |wanted: u16| {
        count(&|record| matches!(&record.outcome, Outcome::Answered(a) if a.status == wanted))
    };
    let waits = sorted(answered.iter().copied());
    let turned_away = sorted(answered.iter().copied().filter(|record| is_shed(record)));
    let begin = records.iter().map(|record| record.sent).min();
    let end = records.iter().map(|record| record.ended).max();
    let open = open_times(&observed.lines);
    let while_open = answered.iter().copied().filter(|record| {
        let during = &open[record.instance];
        during
            .iter()
            .any(|(from, to)| (*from..*to).contains(&record.scheduled))
    });
    let while_open = sorted(while_open);
    Measures {
        requests: records.len() as u64,
        answered: answered.len() as u64,
        admitted: status(200),
        denied: status(429),
        shed: turned_away.len() as u64,
        p99_shed: (turned_away.len() >= FEWEST).then(|| permille(&turned_away, 990)),
        slowest_shed: turned_away.last().copied(),
        local: count(&|record| matches!(&record.outcome, Outcome::Answered(a) if a.is_local)),
        aborted: count(&|record| matches!(record.outcome, Outcome::Aborted)),
        lost: count(&|record| matches!(record.outcome, Outcome::Failed(_) | Outcome::Unanswered)),
        p50: permille(&waits, 500),
        p99: permille(&waits, 990),
        p999: permille(&waits, 999),
        slowest: waits.last().copied().unwrap_or_default(),
        in_time: waits
            .iter()
            .filter(|wait| longest.is_none_or(|longest| **wait <= longest))
            .count() as u64,
        p99_open: (while_open.len() >= FEWEST).then(|| permille(&while_open, 990)),
        back_after: observed.back.map(|back| back - observed.healed),
        lasted: begin
            .zip(end)
            .map(|(begin, end)| end - begin)
            .unwrap_or_default(),
        above_the_law: worst_above_the_law(records, observed.quota),
        charges: observed.counts.charges,
        refused: observed.counts.refused,
        write_backs: observed.counts.write_backs,
        lent: observed.counts.lent,
        most_for_one: most_for_one(observed),
        log_lines: observed.lines.len() as u64,
    }
}

fn is_shed(record: &Record) -> bool {
    matches!(&record.outcome, Outcome::Answered(answer) if answer.status == 503)
}

/// A stranger makes one request, so its key may be charged once at most, whatever went wrong on the way.
fn most_for_one(observed: &Observed) -> u64 {
    let counts = observed.counts.by_key.iter();
    counts
        .filter(|(key, _)| is_a_strangers(key))
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(0)
}

fn sorted<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Duration> {
    let mut waits: Vec<Duration> = records
        .map(|record| record.ended - record.scheduled)
        .collect();
    waits.sort_unstable();
    waits
}

fn permille(sorted: &[Duration], permille: usize) -> Duration {
    let rank = (sorted.len() * permille).div_ceil(1_000);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// When the breaker of each instance was open, as its log tells.
fn open_times(lines: &[Line]) -> Vec<Vec<(Instant, Instant)>> {
    let mut times = vec![Vec::new(); INSTANCES];
    let mut since: Vec<Option<Instant>> = vec![None; INSTANCES];
    for line in lines {
        if line.text.contains(OPENED) {
            since[line.instance].get_or_insert(line.at);
        } else if line.text.contains(RELEASED)
            && let Some(from) = since[line.instance].take()
        {
            times[line.instance].push((from, line.at));
        }
    }
    times
}
