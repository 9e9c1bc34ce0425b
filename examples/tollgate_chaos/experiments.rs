//! Every experiment, and what it may cost.

use std::time::Duration;

use crate::bench::Plan;
use crate::faults::Fault;
use crate::generator::asked_by_one;
use crate::law::Quota;

/// What a key may be admitted above the law, as docs/resilience.md states it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Allowance {
    /// An outage of all instances: one capacity, where any answer was local.
    Outage,
    /// The same, and the store comes back empty: one capacity more.
    Emptied,
    /// So many instances are cut off, for the time of the experiment.
    CutOff(u64),
}

/// One experiment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fault: Fault,
    /// Variables of the instances besides the usual.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Share of requests whose clients go away.
    pub(crate) aborts: f64,
    /// How many connections each pool must be able to use at once when all is over.
    pub(crate) pool: Option<usize>,
    /// How many times as many requests as usual.
    pub(crate) crowd: u32,
    /// Whether there are more requests at once than instances answer: some must be turned away.
    pub(crate) sheds: bool,
    /// Whether the generator runs; if not, the fault makes its own requests and judges them.
    pub(crate) is_loaded: bool,
    pub(crate) allowance: Allowance,
    /// Longest time from when the store accepts a write until all instances decide by it again.
    pub(crate) back_within: Duration,
    /// Whether `--short` runs it.
    pub(crate) is_short: bool,
}

const fn experiment(name: &'static str, about: &'static str, fault: Fault) -> Experiment {
    Experiment {
        name,
        about,
        fault,
        settings: &[],
        aborts: 0.0,
        pool: None,
        crowd: 1,
        sheds: false,
        is_loaded: true,
        allowance: Allowance::Outage,
        back_within: Duration::from_millis(500),
        is_short: false,
    }
}

/// Instances take tokens ahead.
const LENDING: &[(&str, &str)] = &[
    ("LIMITER_STRATEGY", "tokenbucket-lease"),
    ("LIMITER_LEASE_MAX", "50%"),
];

const fn lending(name: &'static str, about: &'static str, fault: Fault) -> Experiment {
    Experiment {
        settings: LENDING,
        ..experiment(name, about, fault)
    }
}

impl Experiment {
    /// Whether instances take tokens ahead.
    pub(crate) fn lends(&self) -> bool {
        self.settings == LENDING
    }

    /// The quota of every client. Where tokens are lent, something is left of it when the fault begins and nothing long before
    /// it ends; and a client asks for more than thrice of it, so that it would show if it were given too much.
    pub(crate) fn quota(&self, plan: &Plan) -> Quota {
        if !self.lends() {
            return Quota::USUAL;
        }
        Quota {
            capacity: asked_by_one(plan.rate, plan.during) * 28 / 100,
            rate: 2,
        }
    }
}

const KILL: &[&str] = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
const FULL: &[&[&str]] = &[
    &["CONFIG", "SET", "maxmemory-policy", "noeviction"],
    &["CONFIG", "SET", "maxmemory", "1"],
];
const NOT_FULL: &[&[&str]] = &[&["CONFIG", "SET", "maxmemory", "0"]];
/// One is the bench's own; three instances want two each.
const FEW_CLIENTS: &[&[&str]] = &[&["CONFIG", "SET", "maxclients", "3"], KILL];
const MANY_CLIENTS: &[&[&str]] = &[&["CONFIG", "SET", "maxclients", "500"]];
/// Of a master that is not there: it keeps what it has.
const REPLICA: &[&[&str]] = &[&["REPLICAOF", "127.0.0.1", "1"]];
const MASTER: &[&[&str]] = &[&["REPLICAOF", "NO", "ONE"]];

/// What all others are compared with.
pub(crate) const BASELINE: Experiment = experiment("baseline", "nothing", Fault::Nothing);

/// Every experiment, in the order in which they are run.
pub(crate) const ALL: &[Experiment] = &[
    Experiment {
        allowance: Allowance::Emptied,
        is_short: true,
        ..experiment(
            "kill-restart",
            "kill -9 of Redis, which comes back empty",
            Fault::KillRedis,
        )
    },
    Experiment {
        is_short: true,
        ..experiment("freeze", "SIGSTOP and SIGCONT", Fault::Freeze)
    },
    Experiment {
        back_within: Duration::from_secs(1),
        ..experiment(
            "black-hole",
            "a firewall swallows every packet",
            Fault::BlackHole,
        )
    },
    experiment("delay-5", "replies 5 ms later", Fault::Delay(5)),
    experiment("delay-10", "replies 10 ms later", Fault::Delay(10)),
    experiment("delay-20", "replies 20 ms later", Fault::Delay(20)),
    experiment("delay-50", "replies 50 ms later", Fault::Delay(50)),
    experiment("delay-200", "replies 200 ms later", Fault::Delay(200)),
    experiment("debug-sleep", "DEBUG SLEEP 3", Fault::Sleep),
    experiment("client-pause", "CLIENT PAUSE", Fault::Pause),
    experiment(
        "cut-requests",
        "5 % of charges cut before they arrive",
        Fault::CutRequests,
    ),
    Experiment {
        is_short: true,
        ..experiment(
            "cut-replies",
            "5 % of charges cut before the reply",
            Fault::CutReplies,
        )
    },
    Experiment {
        is_short: true,
        ..experiment(
            "client-kill",
            "CLIENT KILL every 100 ms",
            Fault::Again(KILL),
        )
    },
    experiment(
        "script-flush",
        "SCRIPT FLUSH every 100 ms",
        Fault::Again(&["SCRIPT", "FLUSH"]),
    ),
    experiment(
        "out-of-memory",
        "maxmemory with noeviction",
        Fault::Set(FULL, NOT_FULL),
    ),
    Experiment {
        allowance: Allowance::CutOff(2),
        ..experiment(
            "maxclients",
            "fewer connections than needed",
            Fault::Set(FEW_CLIENTS, MANY_CLIENTS),
        )
    },
    experiment("password", "another password, and back", Fault::Password),
    experiment(
        "readonly",
        "REPLICAOF, and back",
        Fault::Set(REPLICA, MASTER),
    ),
    experiment("absent", "no Redis at the start", Fault::Absent),
    Experiment {
        aborts: 0.2,
        ..experiment("aborts", "20 % of clients go away", Fault::Nothing)
    },
    Experiment {
        aborts: 0.2,
        settings: &[
            ("LIMITER_STRATEGY", "tokenbucket-transaction"),
            ("REDIS_POOL_SIZE", "4"),
        ],
        pool: Some(4),
        ..experiment(
            "aborts-transaction",
            "the same, 4 pooled connections",
            Fault::Nothing,
        )
    },
    experiment(
        "kill-instance",
        "kill -9 of one instance of three",
        Fault::KillInstance,
    ),
    Experiment {
        allowance: Allowance::CutOff(1),
        ..experiment("cut-off", "one instance of three cut off", Fault::CutOff)
    },
    Experiment {
        allowance: Allowance::Emptied,
        ..lending(
            "lease-kill-restart",
            "kill -9 of Redis, with leases",
            Fault::KillRedis,
        )
    },
    Experiment {
        is_short: true,
        ..lending(
            "lease-freeze",
            "SIGSTOP and SIGCONT, with leases",
            Fault::Freeze,
        )
    },
    lending(
        "lease-cut-replies",
        "5 % of charges cut before the reply, with leases",
        Fault::CutReplies,
    ),
    lending(
        "lease-kill-instance",
        "kill -9 of one instance of three, with leases",
        Fault::KillInstance,
    ),
    Experiment {
        allowance: Allowance::CutOff(1),
        ..lending(
            "lease-cut-off",
            "one instance of three cut off, with leases",
            Fault::CutOff,
        )
    },
    Experiment {
        crowd: 4,
        sheds: true,
        settings: &[("HTTP_MAX_REQUESTS", "4")],
        ..experiment(
            "overload",
            "a slow store, 4 times the requests, 4 at once at each instance",
            Fault::Delay(30),
        )
    },
    Experiment {
        is_loaded: false,
        ..experiment("flood", "one denied client at full speed", Fault::Flood)
    },
    experiment("dribble", "1,000 sockets dribble headers", Fault::Dribble),
];
