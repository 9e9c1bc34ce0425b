//! What is promised of the number of keys.

use super::{Target, at_most, beside, target};
use crate::results::Results;
use crate::subject::Subject;

/// From a thousand keys to a million, for each strategy. Of those that lend, a thousand keys are each asked for often enough
/// to be lent, a million are not: that ratio says how often they are asked for, so it is told and no target.
pub(super) fn growth(results: &Results) -> Vec<Target> {
    let Some(measured) = results.scenario("keys") else {
        return Vec::new();
    };
    let few = measured.cells.iter();
    let few = few.filter(|cell| cell.subject.store == Some(1_000));
    few.map(|few| {
        let many = Subject {
            store: Some(1_000_000),
            ..few.subject.clone()
        };
        let cell = measured.cell(&many.name());
        let figure = cell.and_then(|cell| measured.ratio(cell));
        let name = few.subject.contender.name();
        let promise = format!("{name}: CPU with 1,000,000 keys against 1,000");
        if few.subject.lends() {
            return beside(promise, figure);
        }
        at_most(promise, figure, 1.2, "x").of(results, "keys", &many.name())
    })
    .collect()
}

/// What leases cost where keys are too many to be lent: how that grows is told by `lua`, which asks for as much.
pub(super) fn unused_lease(results: &Results) -> Option<Target> {
    let measured = results.scenario("keys")?;
    let many = |name: &str| measured.cell(&format!("{name}, 1000000 keys"));
    let figure = || many("lease")?.ratio_to(many("lua")?);
    let promise =
        "lease: CPU with 1,000,000 keys, too rarely asked to be leased, against lua with as many";
    let subject = "lease, 1000000 keys";
    Some(at_most(promise, figure(), 1.2, "x").of(results, "keys", subject))
}

pub(super) fn bytes_per_key(results: &Results) -> [Target; 2] {
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
