//! What a server's own settings would do to the buckets: looked at once, each danger told once.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::Link;
use super::fault::classify;
use crate::strategy::Fault;

/// Oldest Redis that is supported.
const OLDEST: (u32, u32) = (6, 2);
/// Difference between the server's clock and this machine's that is told, in microseconds.
const CLOCK_TOLERANCE_US: u64 = 1_000_000;

/// Reads what it may of the server's settings within `within`, and warns of what is dangerous. `here_us` is this
/// machine's time, in microseconds since 1970.
pub(in crate::strategy) async fn inspect(link: &Link, within: Duration, here_us: u64) {
    match timeout(within, read(link)).await {
        Ok(Ok((info, server_us))) => {
            for danger in dangers(&info, server_us, here_us) {
                warn!("{danger}");
            }
        }
        Ok(Err(fault)) => debug!(%fault, "the server's settings cannot be read"),
        Err(_) => debug!("the server's settings could not be read in time"),
    }
}

async fn read(link: &Link) -> Result<(String, u64), Fault> {
    let mut connection = link.connection().await?;
    let told = |error| classify(&error);
    let info = connection
        .command(&redis::cmd("INFO"))
        .await
        .map_err(told)?;
    let (seconds, micros): (u64, u64) = connection
        .command(&redis::cmd("TIME"))
        .await
        .map_err(told)?;
    Ok((info, seconds * 1_000_000 + micros))
}

/// What is dangerous about a server that says this of itself (the answer to INFO).
fn dangers(info: &str, server_us: u64, here_us: u64) -> Vec<String> {
    let field = |name: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default()
    };
    let mut dangers = Vec::new();
    let policy = field("maxmemory_policy");
    let is_safe = matches!(policy, "" | "volatile-ttl" | "noeviction");
    if field("maxmemory") != "0" && !is_safe {
        dangers.push(format!(
            "Redis evicts by {policy}: at its maxmemory it drops drained buckets, each a free refill; set maxmemory-policy volatile-ttl"
        ));
    }
    if field("role") == "slave" {
        dangers.push(
            "this Redis is a replica and refuses writes: name the master in REDIS_ADDR".to_owned(),
        );
    }
    let version = field("redis_version");
    if field("valkey_version").is_empty() && parsed(version).is_some_and(|version| version < OLDEST)
    {
        dangers.push(format!(
            "this is Redis {version}: {}.{} is the oldest that is supported",
            OLDEST.0, OLDEST.1
        ));
    }
    let apart_us = server_us.abs_diff(here_us);
    if apart_us > CLOCK_TOLERANCE_US {
        let apart = Duration::from_secs(apart_us / 1_000_000);
        dangers.push(format!(
            "the clock of Redis is {apart:?} from this machine's: limits follow the one of Redis, so do not step it; synchronize both"
        ));
    }
    dangers
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_762_668_474_000_000;

    fn first_words(info: &str, server_us: u64) -> Vec<String> {
        let dangers = dangers(info, server_us, NOW);
        let words = |danger: &String| danger.split(' ').take(4).collect::<Vec<_>>().join(" ");
        dangers.iter().map(words).collect()
    }

    #[test]
    fn tells_what_is_dangerous_and_nothing_else() {
        let good = "redis_version:7.0.15\r\nmaxmemory:1\r\nmaxmemory_policy:volatile-ttl\r\nrole:master\r\n";
        for (from, to, told) in [
            ("", "", None),
            ("volatile-ttl", "noeviction", None),
            (
                "volatile-ttl",
                "allkeys-lru",
                Some("Redis evicts by allkeys-lru:"),
            ),
            (
                "volatile-ttl",
                "volatile-random",
                Some("Redis evicts by volatile-random:"),
            ),
            (
                "maxmemory:1\r\nmaxmemory_policy:volatile-ttl",
                "maxmemory:0\r\nmaxmemory_policy:allkeys-lru",
                None,
            ),
            ("role:master", "role:slave", Some("this Redis is a")),
            ("7.0.15", "6.0.16", Some("this is Redis 6.0.16:")),
            ("7.0.15", "6.2.0", None),
            (
                "redis_version:7.0.15",
                "redis_version:6.0.0\r\nvalkey_version:8.0.1",
                None,
            ),
        ] {
            let info = good.replacen(from, to, 1);
            assert_eq!(first_words(&info, NOW), Vec::from_iter(told), "{to}");
        }
    }

    #[test]
    fn tells_of_a_clock_that_is_far_off_either_way() {
        assert!(first_words("", NOW + CLOCK_TOLERANCE_US).is_empty());
        for server_us in [NOW + CLOCK_TOLERANCE_US + 1, NOW - CLOCK_TOLERANCE_US - 1] {
            assert_eq!(first_words("", server_us), ["the clock of Redis"]);
        }
    }

    #[test]
    fn an_answer_that_says_nothing_is_no_danger() {
        assert!(first_words("# Server\r\nredis_version:strange\r\n\r\n:\r\n", NOW).is_empty());
    }
}
