//! A run as it was measured, turn by turn.

use serde_json::{Value, json};

use crate::measure::{Cell, Sample};
use crate::plan::Plan;
use crate::results::Results;
use crate::targets::Target;

/// Shares of answers whose latency is kept.
const SHARES: [f64; 7] = [0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

/// Everything.
pub(crate) fn raw(results: &Results, judged: &[Target], plan: &Plan, about: &Value) -> Value {
    let scenarios = results.scenarios.iter().map(|measured| {
        json!({
            "name": measured.scenario.name,
            "about": measured.scenario.about,
            "subjects": measured.cells.iter().map(cell).collect::<Vec<_>>(),
        })
    });
    let targets = judged.iter().map(|target| {
        json!({
            "target": target.promise,
            "measured": target.measured,
            "verdict": target.verdict.word(),
        })
    });
    let in_process = results.in_process.iter().map(|it| {
        json!({ "threads": it.threads, "memory_ns": it.memory_ns, "governor_ns": it.governor_ns })
    });
    let footprints = results.footprints.iter().map(|it| {
        json!({
            "strategy": it.kind.name(),
            "resident_bytes": it.resident,
            "first_answer_ms": it.first_answer_ms,
        })
    });
    json!({
        "about": about,
        "quick": plan.quick,
        "window_ms": u64::try_from(plan.window.as_millis()).unwrap_or(u64::MAX),
        "scenarios": scenarios.collect::<Vec<_>>(),
        "in_process": in_process.collect::<Vec<_>>(),
        "idle": footprints.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
        "not_measured": results.missing,
    })
}

fn cell(cell: &Cell) -> Value {
    let latency = SHARES.map(|share| {
        let nanoseconds = cell.latency.value_at_quantile(share);
        json!({ "share": share, "us": nanoseconds as f64 / 1_000.0 })
    });
    let filling = cell
        .filling
        .map(|it| json!({ "keys": it.keys, "service_bytes": it.service, "redis_bytes": it.redis }));
    json!({
        "name": cell.subject.name(),
        "clients": cell.subject.clients,
        "instances": cell.subject.instances,
        "idle_resident_bytes": cell.idle,
        "failed": cell.failed,
        "filling": filling,
        "latency": latency,
        "rounds": cell.samples.iter().map(round).collect::<Vec<_>>(),
    })
}

fn round(sample: &Sample) -> Value {
    json!({
        "turn": sample.turn,
        "yardstick_us": sample.yardstick_us,
        "requests": sample.requests,
        "seconds": sample.seconds,
        "service_us": sample.service_us,
        "redis_us": sample.redis_us,
        "nginx_us": sample.balancer_us,
        "p50_us": sample.p50_us,
        "p99_us": sample.p99_us,
        "admitted": sample.admitted,
        "denied": sample.denied,
        "local": sample.local,
        "other": sample.other,
        "calls": sample.calls,
        "answer_bytes": sample.bytes,
        "peak_resident_bytes": sample.peak,
    })
}
