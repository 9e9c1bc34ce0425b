//! Every environment variable, in the order in which `--help`, `tollgate env` and `.env.example` list them.

/// One environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is unset, in the form in which it would be set; empty when nothing does.
    pub default: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
}

const fn plain(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        about,
        secret: false,
    }
}

const fn secret(name: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default: "",
        about,
        secret: true,
    }
}

/// Every variable that is read; nothing else is.
pub const VARIABLES: &[Variable] = &[
    plain("PORT", "8080", "port to listen on; 0 takes a free one"),
    plain("BIND_ADDRESS", "0.0.0.0", "address to listen on"),
    plain(
        "INSTANCE_ID",
        "",
        "name of this instance in answers and logs; <pid>-<6 hex> if unset",
    ),
    plain(
        "SHUTDOWN_TIMEOUT",
        "10s",
        "longest wait for open requests after SIGTERM or SIGINT",
    ),
    plain(
        "SHUTDOWN_DELAY",
        "off",
        "how long to go on serving after the first signal, while /readyz says 503; `off`",
    ),
    plain(
        "TRUSTED_PROXIES",
        "",
        "proxies whose X-Forwarded-For counts: networks, `loopback`, `private`",
    ),
    plain(
        "RATELIMIT_HEADERS",
        "draft,legacy",
        "headers that tell of limits: `draft,legacy`, `draft` (RateLimit), `legacy` (X-RateLimit-*), `none`",
    ),
    plain(
        "RATELIMIT_SHADOW_HEADER",
        "off",
        "whether X-RateLimit-Shadow names rules in shadow that would have denied: `on`, `off`",
    ),
    plain(
        "RETRY_AFTER_JITTER",
        "off",
        "how much later than they could, denied clients are told to come back at most; `off`",
    ),
    plain(
        "HTTP_MAX_CONNECTIONS",
        "10000",
        "most connections at once; more wait to be accepted",
    ),
    plain(
        "HTTP_MAX_CONNECTIONS_PER_PEER",
        "1000",
        "most connections of one peer that is no trusted proxy; more are closed",
    ),
    plain(
        "HTTP_MAX_REQUESTS",
        "4096",
        "most limited requests being answered at once; more are answered 503",
    ),
    plain(
        "HTTP_HEADER_TIMEOUT",
        "5s",
        "longest time in which a request's headers may arrive",
    ),
    plain(
        "HTTP_IDLE_TIMEOUT",
        "75s",
        "how long a connection may stay open between requests",
    ),
    plain(
        "HTTP_REQUEST_TIMEOUT",
        "10s",
        "longest time for one request; then it is answered 503",
    ),
    plain(
        "LIMITER_STRATEGY",
        "",
        "<algorithm>-<strategy>; tokenbucket-lua if a Redis is named, else tokenbucket-memory",
    ),
    plain(
        "LIMITER_CAPACITY",
        "100",
        "most tokens that a bucket holds: the burst",
    ),
    plain(
        "LIMITER_REFILL_RATE",
        "10",
        "tokens per second; decimals allowed",
    ),
    plain("BUCKET_CAPACITY", "", "another name for LIMITER_CAPACITY"),
    plain("REFILL_RATE", "", "another name for LIMITER_REFILL_RATE"),
    plain(
        "RULES_FILE",
        "",
        "file with rules, which then replace LIMITER_CAPACITY and LIMITER_REFILL_RATE; read again when it changes",
    ),
    plain(
        "LIMITER_MODE",
        "enforce",
        "`enforce`, `shadow` (count, refuse nothing) or `off`; rules of a file may set their own",
    ),
    plain(
        "LIMITER_ON_STORE_ERROR",
        "local",
        "when the store cannot decide: `local` (limit here, at a share of the quota), `allow` or `deny` (503)",
    ),
    plain(
        "LIMITER_INSTANCES",
        "1",
        "instances that share the quota, as long as no heartbeat in Redis says how many",
    ),
    plain(
        "LIMITER_DENIAL_CACHE",
        "1s",
        "longest that a denial is remembered here instead of asking Redis again; `off`",
    ),
    plain(
        "LIMITER_LEASE_MAX",
        "10%",
        "most that tokenbucket-lease takes ahead of a hot key: a share of what is left",
    ),
    plain(
        "LIMITER_MAX_KEYS",
        "1000000",
        "most keys that this process remembers",
    ),
    plain(
        "LIMITER_IPV6_PREFIX",
        "64",
        "bits of an IPv6 address that make one client",
    ),
    secret(
        "REDIS_URL",
        "redis://[user:password@]host[:port][/db]; wins over the parts below",
    ),
    plain("REDIS_ADDR", "localhost:6379", "host and port of Redis"),
    plain("REDIS_ADDRESS", "", "another name for REDIS_ADDR"),
    plain("REDIS_USERNAME", "", "ACL user"),
    secret("REDIS_PASSWORD", "password"),
    plain("REDIS_DB", "0", "number of the database"),
    plain(
        "REDIS_POOL_SIZE",
        "10",
        "connections that tokenbucket-transaction may hold",
    ),
    plain(
        "REDIS_KEY_PREFIX",
        "ratelimit:",
        "what every key starts with",
    ),
    plain(
        "REDIS_TIMEOUT",
        "50ms",
        "longest that a request waits for Redis, everything included",
    ),
    plain(
        "LOG_LEVEL",
        "info",
        "error, warn, info, debug, trace, or directives such as `info,tollgate=debug`",
    ),
    plain(
        "LOG_FORMAT",
        "auto",
        "`json`, `text`, or `auto`: text on a terminal",
    ),
];

/// Those that count anew when the process is told to read them again, by SIGHUP.
pub const LIVE: &[&str] = &[
    "LIMITER_CAPACITY",
    "BUCKET_CAPACITY",
    "LIMITER_REFILL_RATE",
    "REFILL_RATE",
    "LIMITER_MODE",
    "LIMITER_ON_STORE_ERROR",
];

/// The variable of that name.
pub(super) fn named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// The name that `given` was probably meant to be.
pub(super) fn nearest(given: &str) -> Option<&'static str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(given, name);
    let names = VARIABLES.iter().map(|variable| variable.name);
    let near = names.min_by_key(distance)?;
    (distance(&near) <= 3).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sayings_are_one_line() {
        for (i, variable) in VARIABLES.iter().enumerate() {
            assert!(
                VARIABLES[..i]
                    .iter()
                    .all(|other| other.name != variable.name),
                "{}",
                variable.name
            );
            assert!(
                !variable.about.contains('\n') && !variable.about.is_empty(),
                "{}",
                variable.name
            );
        }
    }
}
