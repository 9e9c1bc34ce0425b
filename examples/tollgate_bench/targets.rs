//! What was aimed at, and whether this run reached it.

mod keys;

use crate::results::Results;
use crate::statistics::{Median, median};

/// One promise.
#[derive(Debug)]
pub(crate) struct Target {
    /// What is promised, in words.
    pub(crate) promise: String,
    /// What was measured, or why nothing was.
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    NotMeasured,
    /// Shown beside the targets, and none itself.
    Beside,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotMeasured => "not measured",
            Self::Beside => "no target",
        }
    }
}

/// As the promise counts memory.
const MEGABYTE: f64 = 1e6;
/// Most decisions of Redis for each refilled token of a client that is denied.
const CALLS_PER_TOKEN: f64 = 2.0;
/// Tokens a second of that client.
const TOKENS_PER_SECOND: f64 = 10.0;
/// By how much requests under way while counting begins and ends may blur calls for each request.
const EDGES: f64 = 0.05;

/// Every promise.
pub(crate) fn judge(results: &Results) -> Vec<Target> {
    let ratio = |promise: String, scenario, subject, most| {
        against_bare(results, promise, scenario, subject, most)
    };
    let mut targets = vec![ratio(
        "memory, 10,000 clients: CPU against bare".to_owned(),
        "clients",
        "memory",
        1.15,
    )];
    // All but `hash`, whose denials are not remembered.
    targets.extend(["memory", "lua", "transaction", "lease"].map(|name| {
        let promise = format!(
            "{name}, one client far over its limit: CPU against bare answering the same 429"
        );
        ratio(promise, "denied", name, 1.15)
    }));
    targets.extend(["lua", "transaction", "lease"].map(|name| calls_per_token(results, name)));
    targets.extend([
        ratio(
            "lease, 16 hot clients, three instances: CPU against bare".to_owned(),
            "balanced-hot",
            "lease, 3 instances",
            1.25,
        ),
        ratio(
            "lua, 10,000 clients: CPU against bare (2.0 is the aim)".to_owned(),
            "clients",
            "lua",
            2.3,
        ),
        throughput(results),
        latency(results),
        ratio(
            "lua, four limits a request: CPU against bare".to_owned(),
            "charges",
            "lua x4",
            4.2,
        ),
        round_trips(results),
        ratio(
            "transaction, 10,000 clients: CPU against bare".to_owned(),
            "clients",
            "transaction",
            10.0,
        ),
        no_contention(results),
    ]);
    targets.extend([1, 2].map(|threads| against_governor(results, threads)));
    targets.extend(keys::growth(results));
    targets.extend(keys::unused_lease(results));
    targets.extend(keys::bytes_per_key(results));
    targets.extend(idle(results));
    targets
}

impl Target {
    /// The same, but failed where that subject was measured and did not answer as it should.
    fn of(self, results: &Results, scenario: &str, subject: &str) -> Self {
        let failed = results
            .cell(scenario, subject)
            .and_then(|cell| cell.failed.clone());
        match failed {
            Some(reason) => Self {
                measured: reason,
                verdict: Verdict::Fail,
                ..self
            },
            None => self,
        }
    }
}

fn target(promise: impl Into<String>, measured: Option<String>, kept: bool) -> Target {
    let verdict = match (&measured, kept) {
        (None, _) => Verdict::NotMeasured,
        (Some(_), true) => Verdict::Pass,
        (Some(_), false) => Verdict::Fail,
    };
    Target {
        promise: promise.into(),
        measured: measured.unwrap_or_else(|| "-".to_owned()),
        verdict,
    }
}

fn spread(figure: Median, unit: &str) -> String {
    let Median {
        middle,
        lower,
        upper,
    } = figure;
    format!("{middle:.2}{unit} ({lower:.2} to {upper:.2})")
}

fn at_most(promise: impl Into<String>, figure: Option<Median>, most: f64, unit: &str) -> Target {
    let promise = format!("{}: {most}{unit} or less", promise.into());
    let kept = figure.is_some_and(|figure| figure.middle <= most);
    let told = figure.map(|figure| {
        let told = spread(figure, unit);
        // Where rounding hides which side of the limit it is on.
        match format!("{:.2}", figure.middle) == format!("{most:.2}") {
            true => format!("{told}, exactly {:.4}", figure.middle),
            false => told,
        }
    });
    target(promise, told, kept)
}

fn against_bare(
    results: &Results,
    promise: String,
    scenario: &str,
    subject: &str,
    most: f64,
) -> Target {
    let measured = results.scenario(scenario);
    let figure = measured.and_then(|it| it.ratio(it.cell(subject)?));
    at_most(promise, figure, most, "x").of(results, scenario, subject)
}

/// Beyond the tokens that were there at its beginning: the bucket is empty when counting begins. Of all rounds together, for
/// in one of them few tokens are refilled.
fn calls_per_token(results: &Results, name: &str) -> Target {
    let cell = results
        .cell("denied", name)
        .filter(|cell| !cell.samples.is_empty());
    let figure = cell.map(|cell| {
        let seconds: f64 = cell.samples.iter().map(|sample| sample.seconds).sum();
        cell.sum(|sample| sample.calls) as f64 / (seconds * TOKENS_PER_SECOND)
    });
    let calls = if name == "transaction" {
        "transactions"
    } else {
        "script calls"
    };
    target(
        format!("{name}, one client far over its limit: {calls} for each refilled token: {CALLS_PER_TOKEN} or less"),
        figure.map(|figure| format!("{figure:.2}")),
        figure.is_some_and(|figure| figure <= CALLS_PER_TOKEN),
    )
    .of(results, "denied", name)
}

fn throughput(results: &Results) -> Target {
    let figure = || {
        let measured = results.scenario("clients")?;
        let (lua, pooled) = (measured.cell("lua")?, measured.cell("pooled-evalsha")?);
        lua.compared(pooled, |lua, pooled| lua.per_second() / pooled.per_second())
    };
    let figure = figure();
    target(
        "lua, 10,000 clients: throughput against a pooled EVALSHA per request: 2x or more",
        figure.map(|figure| spread(figure, "x")),
        figure.is_some_and(|figure| figure.middle >= 2.0),
    )
    .of(results, "clients", "lua")
}

fn latency(results: &Results) -> Target {
    let figure = || {
        let measured = results.scenario("clients")?;
        let (lua, bare) = (measured.cell("lua")?, measured.cells.first()?);
        lua.compared(bare, |lua, bare| (lua.p99_us - bare.p99_us) / 1_000.0)
    };
    at_most(
        "lua, 10,000 clients: p99 above bare's p99",
        figure(),
        2.0,
        " ms",
    )
    .of(results, "clients", "lua")
}

fn round_trips(results: &Results) -> Target {
    let cell = results.cell("charges", "lua x4");
    let figure = cell.and_then(|cell| cell.median(|it| it.calls as f64 / it.requests as f64));
    target(
        "lua, four limits a request: at most one script call for each request",
        figure.map(|figure| spread(figure, "")),
        figure.is_some_and(|figure| figure.middle < 1.0 + EDGES),
    )
    .of(results, "charges", "lua x4")
}

fn no_contention(results: &Results) -> Target {
    let cell = results
        .cell("hot", "transaction")
        .filter(|cell| !cell.samples.is_empty());
    let strays = cell.map(|cell| {
        (
            cell.sum(|sample| sample.denied),
            cell.sum(|sample| sample.other),
            cell.sum(|sample| sample.local),
        )
    });
    target(
        "transaction, one hot key: every token granted, no 429 from contention",
        strays.map(|(denied, other, local)| {
            format!("{denied} answers of 429, {other} failures, {local} decided without Redis")
        }),
        strays == Some((0, 0, 0)),
    )
    .of(results, "hot", "transaction")
}

fn against_governor(results: &Results, threads: usize) -> Target {
    let found = results.in_process.iter().find(|it| it.threads == threads);
    let figure = found.and_then(|it| {
        let pairs = it.memory_ns.iter().zip(&it.governor_ns);
        median(pairs.map(|(memory, governor)| memory / governor))
    });
    let threads = if threads == 1 {
        "one thread"
    } else {
        "two threads"
    };
    at_most(
        format!("memory against governor keyed, in process, {threads} (1.0 is the aim)"),
        figure,
        1.5,
        "x",
    )
}

fn beside(promise: String, figure: Option<Median>) -> Target {
    Target {
        promise,
        measured: figure.map_or("-".to_owned(), |figure| spread(figure, "x")),
        verdict: Verdict::Beside,
    }
}

fn idle(results: &Results) -> Vec<Target> {
    let of = |footprint: &crate::footprint::Footprint| {
        let name = footprint.kind.name();
        let resident = median(
            footprint
                .resident
                .iter()
                .map(|&bytes| bytes as f64 / MEGABYTE),
        );
        let first = median(footprint.first_answer_ms.iter().copied());
        [
            at_most(
                format!("{name}, idle: resident memory"),
                resident,
                15.0,
                " MB",
            ),
            at_most(format!("{name}: start to first answer"), first, 50.0, " ms"),
        ]
    };
    results.footprints.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Cell, Measured, Sample};
    use crate::peers::Peers;
    use crate::subject::Subject;

    /// Of each contender of the first scenario, one round in which a request took so long.
    fn results(cpu_us: impl Fn(&str) -> f64) -> Results {
        let scenario = crate::scenario::all(&Peers::find(), true).remove(0);
        let cell = |subject: &Subject| {
            let mut cell = Cell::of(subject).unwrap();
            let service_us = cpu_us(&subject.name());
            let sample = Sample {
                service_us,
                ..Sample::default()
            };
            cell.samples.push(sample);
            cell
        };
        let cells = scenario.subjects.iter().map(cell).collect();
        Results {
            scenarios: vec![Measured { scenario, cells }],
            footprints: Vec::new(),
            in_process: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn of<'a>(targets: &'a [Target], begin: &str) -> &'a Target {
        let mut found = targets.iter().filter(|it| it.promise.starts_with(begin));
        found.next().unwrap()
    }

    #[test]
    fn a_ratio_is_held_against_its_limit() {
        let results = results(|name| match name {
            "memory" => 1.149,
            "lua" => 2.302,
            _ => 1.0,
        });
        let targets = judge(&results);
        let memory = of(&targets, "memory, 10,000 clients");
        assert_eq!(memory.verdict, Verdict::Pass);
        assert_eq!(memory.measured, "1.15x (1.15 to 1.15), exactly 1.1490");
        let lua = of(&targets, "lua, 10,000 clients: CPU");
        assert_eq!(lua.verdict, Verdict::Fail);
        assert_eq!(of(&targets, "lua, four").verdict, Verdict::NotMeasured);
    }

    #[test]
    fn who_did_not_answer_as_it_should_has_failed() {
        let mut results = results(|_| 1.0);
        for cell in &mut results.scenarios[0].cells {
            if cell.subject.name() == "transaction" {
                (cell.samples, cell.failed) = (Vec::new(), Some("7 answers of 429".to_owned()));
            }
        }
        let targets = judge(&results);
        let transaction = of(&targets, "transaction, 10,000 clients");
        assert_eq!(transaction.verdict, Verdict::Fail);
        assert_eq!(transaction.measured, "7 answers of 429");
    }
}
