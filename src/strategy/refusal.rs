//! What each error code of a Redis server means: whether the command may have been executed, what to do, what to tell.
//!
//! | column | meaning |
//! | --- | --- |
//! | `is_ambiguous` | the command may have had an effect: never tried again, and never counted as not charged |
//! | `remedy` | what this instance does about it |
//! | `scope` | whether others will meet it too; a fault of one key never opens the breaker |
//! | `advice` | what an operator can do |

/// What to do about a fault, besides telling of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// It passes by itself and nothing was executed: the same request may be sent again while its deadline lasts.
    TryAgain,
    /// Another connection may be better: to another server behind the same name, or with another login.
    Replace,
    /// Nothing that this instance could do.
    GiveUp,
}

/// What a fault speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The store: others will meet it too.
    Store,
    /// These keys or this request: it says nothing about the store.
    Request,
}

/// What one error code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The first word of the server's answer.
    pub code: &'static str,
    /// Whether the command may have had an effect all the same.
    pub is_ambiguous: bool,
    /// What to do about it.
    pub remedy: Remedy,
    /// What it speaks of.
    pub scope: Scope,
    /// What an operator can do.
    pub advice: &'static str,
}

const fn row(code: &'static str, remedy: Remedy, scope: Scope, advice: &'static str) -> Refusal {
    Refusal {
        code,
        is_ambiguous: false,
        remedy,
        scope,
        advice,
    }
}

/// Every code that is known. All of them refuse a command before it has an effect.
pub const REFUSALS: &[Refusal] = {
    use Remedy::{GiveUp, Replace, TryAgain};
    use Scope::{Request, Store};
    &[
        row(
            "NOSCRIPT",
            TryAgain,
            Store,
            "the server forgot the script and is sent its text again: nothing to do",
        ),
        row(
            "LOADING",
            TryAgain,
            Store,
            "the server reads its data set and serves when it is done: nothing to do",
        ),
        row(
            "TRYAGAIN",
            TryAgain,
            Request,
            "the cluster moves these keys: it passes by itself",
        ),
        row(
            "MASTERDOWN",
            TryAgain,
            Store,
            "this replica lost its master: wait for the failover, or name the new master",
        ),
        row(
            "CLUSTERDOWN",
            TryAgain,
            Store,
            "the cluster misses slots: look at CLUSTER INFO",
        ),
        row(
            "READONLY",
            Replace,
            Store,
            "this server is a replica: name the master",
        ),
        row(
            "NOAUTH",
            Replace,
            Store,
            "the server wants a password: set REDIS_PASSWORD",
        ),
        row(
            "WRONGPASS",
            Replace,
            Store,
            "the password or the user is wrong: look at REDIS_USERNAME and REDIS_PASSWORD",
        ),
        row(
            "NOPERM",
            GiveUp,
            Store,
            "the ACL user may not do this: grant what docs/operations.md lists",
        ),
        row(
            "OOM",
            GiveUp,
            Store,
            "the server is at its maxmemory: raise it, and set maxmemory-policy volatile-ttl",
        ),
        row(
            "MISCONF",
            GiveUp,
            Store,
            "the server cannot save to disk and so refuses writes: look at its log and its disk",
        ),
        row(
            "NOREPLICAS",
            GiveUp,
            Store,
            "fewer replicas are in step than min-replicas-to-write asks for",
        ),
        row(
            "BUSY",
            GiveUp,
            Store,
            "a script of somebody else's blocks the server: SCRIPT KILL ends it",
        ),
        row(
            "MOVED",
            GiveUp,
            Request,
            "this server is a node of a cluster, which is not supported yet: name a standalone server",
        ),
        row(
            "ASK",
            GiveUp,
            Request,
            "this server is a node of a cluster, which is not supported yet: name a standalone server",
        ),
        row(
            "CROSSSLOT",
            GiveUp,
            Request,
            "these keys are in several slots of a cluster",
        ),
        row(
            "WRONGTYPE",
            GiveUp,
            Request,
            "something else is stored under this key: delete it, or set another REDIS_KEY_PREFIX",
        ),
    ]
};

/// Any other code. It may have been met half-way, so it is never taken for "not executed".
const UNKNOWN: Refusal = Refusal {
    code: "",
    is_ambiguous: true,
    remedy: Remedy::GiveUp,
    scope: Scope::Store,
    advice: "look at the server's log",
};

/// What that code means.
pub(super) fn meaning(code: &str) -> Refusal {
    REFUSALS
        .iter()
        .find(|row| row.code == code)
        .copied()
        .unwrap_or(UNKNOWN)
}
