//! Strategies as the factory builds them, and charges for them.

use std::hash::RandomState;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::Algorithm;
use tollgate::server::MonotonicClock;
use tollgate::strategy::Strategy;
use tollgate::strategy::factory::{Kind, Plan, Stack, build};
use tollgate::strategy::redis::{Hash, Link, Lua, Settings, Transaction, pool};
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
        lease_max: 10,
        care: None,
    }
}

/// The strategy of that kind with nothing around it: no deadline, so no second try. At most `pool_size` transactions.
pub(crate) fn bare(kind: Kind, settings: &Settings, pool_size: usize) -> Arc<dyn Strategy> {
    let link = Link::open(settings, 1, PATIENCE, 42).unwrap();
    match kind {
        Kind::Lua => Arc::new(Lua::new(link)),
        Kind::Lease => panic!("it is more than one strategy"),
        Kind::Hash => Arc::new(Hash::new(link)),
        Kind::Transaction => {
            let pool = pool(settings, pool_size, PATIENCE).unwrap();
            Arc::new(Transaction::new(pool, link, PATIENCE, 42))
        }
        Kind::Memory => panic!("it has no store"),
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
