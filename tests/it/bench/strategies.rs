//! Strategies as the factory builds them, and charges for them.

use std::hash::RandomState;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::Algorithm;
use tollgate::server::MonotonicClock;
use tollgate::strategy::factory::{Kind, Plan, Stack, build};
use tollgate::strategy::redis::Settings;
use tollgate::{Charge, Identity, Key, Limit, Quota, RuleName};

/// Store timeout of the tests: these machines stall.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every strategy that the factory lists.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter()
}

/// The stack of that strategy; `address` is Redis's, `host:port`.
pub(crate) fn stack(kind: Kind, address: &str) -> Stack {
    build(&plan(kind, address)).unwrap()
}

/// What that stack is built from.
pub(crate) fn plan(kind: Kind, address: &str) -> Plan {
    Plan {
        kind,
        redis: Some(Settings::new(format!("redis://{address}")).unwrap()),
        pool_size: 10,
        timeout: PATIENCE,
        max_keys: 10_000,
        clock: Arc::new(MonotonicClock::start()),
        hasher: RandomState::new(),
        seed: 42,
        denial_cache: None,
        care: None,
    }
}

/// A bucket that gains nothing while a test runs: one token in a hundred hours.
pub(crate) fn quota(capacity: u64) -> Quota {
    Quota::new(capacity, 1, Duration::from_secs(360_000)).unwrap()
}

pub(crate) fn charge(
    algorithm: &'static dyn Algorithm,
    name: &str,
    quota: Quota,
    cost: u64,
) -> Charge {
    let key = Key::new(
        "t:",
        algorithm,
        &RuleName::default_rule(),
        &Identity::new().with_part(name.as_bytes()),
    );
    Charge::new(
        key,
        Limit { algorithm, quota },
        NonZeroU64::new(cost).unwrap(),
    )
    .unwrap()
}
