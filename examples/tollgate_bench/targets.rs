//! What was aimed at, and whether this run reached it.

use crate::results::{MEBIBYTE, Results};
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

/// Most commands to Redis for each refilled token of a client that is denied.
const COMMANDS_PER_TOKEN: f64 = 2.0;
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
    targets.extend([
        commands_per_token(results),
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
    targets.extend(growth(results));
    targets.extend(unused_lease(results));
    targets.extend(bytes_per_key(results));
    targets.extend(idle(results));
    targets
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
    target(
        promise,
        figure.map(|figure| spread(figure, unit)),
        figure.is_some_and(|figure| figure.middle <= most),
    )
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
    at_most(promise, figure, most, "x")
}

/// A second beyond the tokens that were there at its beginning: the bucket is empty when counting begins.
fn commands_per_token(results: &Results) -> Target {
    let cell = results.cell("denied", "lua");
    let figure = cell.and_then(|cell| {
        cell.median(|sample| sample.scripts as f64 / (sample.seconds * TOKENS_PER_SECOND))
    });
    at_most(
        "lua, one client far over its limit: script calls for each refilled token",
        figure,
        COMMANDS_PER_TOKEN,
        "",
    )
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
}

fn round_trips(results: &Results) -> Target {
    let cell = results.cell("charges", "lua x4");
    let figure = cell.and_then(|cell| cell.median(|it| it.scripts as f64 / it.requests as f64));
    target(
        "lua, four limits a request: at most one script call for each request",
        figure.map(|figure| spread(figure, "")),
        figure.is_some_and(|figure| figure.middle < 1.0 + EDGES),
    )
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

/// From a thousand keys to a million, for each strategy.
fn growth(results: &Results) -> Vec<Target> {
    let Some(measured) = results.scenario("keys") else {
        return Vec::new();
    };
    let few = measured
        .cells
        .iter()
        .filter(|cell| cell.subject.store == Some(1_000));
    few.map(|few| {
        let name = few.subject.contender.name();
        let many = measured.cell(&format!("{name}, 1000000 keys"));
        let promise = format!("{name}: CPU with 1,000,000 keys against 1,000");
        at_most(
            promise,
            many.and_then(|many| measured.ratio(many)),
            1.2,
            "x",
        )
    })
    .collect()
}

/// A thousand keys are each asked often enough to be leased, a million are not: what their growth costs says how often
/// they are asked. This says what leases cost where they cannot help.
fn unused_lease(results: &Results) -> Option<Target> {
    let measured = results.scenario("keys")?;
    let many = |name: &str| measured.cell(&format!("{name}, 1000000 keys"));
    let figure = || many("lease")?.ratio_to(many("lua")?);
    Some(Target {
        promise: "lease: CPU with 1,000,000 keys, too rarely asked to be leased, against lua with as many"
            .to_owned(),
        measured: figure().map_or("-".to_owned(), |figure| spread(figure, "x")),
        verdict: Verdict::Beside,
    })
}

fn bytes_per_key(results: &Results) -> [Target; 2] {
    let filling = |subject: &str| results.cell("keys", subject)?.filling;
    let redis = filling("lua, 1000000 keys").map(|it| it.redis as f64 / f64::from(it.keys));
    let memory = filling("memory, 1000000 keys").map(|it| it.service as f64 / f64::from(it.keys));
    let promise = |place, most: u32, measured: Option<f64>| {
        target(
            format!("bytes for each of 1,000,000 keys in {place}: {most} or less"),
            measured.map(|bytes| format!("{bytes:.0}")),
            measured.is_some_and(|bytes| bytes <= f64::from(most)),
        )
    };
    [promise("Redis", 220, redis), promise("memory", 120, memory)]
}

fn idle(results: &Results) -> Vec<Target> {
    let of = |footprint: &crate::footprint::Footprint| {
        let name = footprint.kind.name();
        let resident = median(
            footprint
                .resident
                .iter()
                .map(|&bytes| bytes as f64 / MEBIBYTE),
        );
        let first = median(footprint.first_answer_ms.iter().copied());
        [
            at_most(
                format!("{name}, idle: resident memory"),
                resident,
                15.0,
                " MiB",
            ),
            at_most(format!("{name}: start to first answer"), first, 50.0, " ms"),
        ]
    };
    results.footprints.iter().flat_map(of).collect()
}
