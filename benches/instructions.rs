//! Does one of the smallest things a number of times: what `scripts/instructions` counts the instructions of.
//!
//! ```text
//! instructions                      what there is, one name a line
//! instructions NAME COUNT           does it
//! instructions NAME COUNT ADDRESS   asks the Redis there, for the names that start with lua and redis
//! ```

mod cases;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cases::{Case, Work};
use tokio::task::JoinSet;
use tollgate::Charge;
use tollgate::strategy::Strategy;
use tollgate::strategy::redis::{Link, Lua, Settings};

/// As many requests as share a call under load.
const REQUESTS: usize = 25;
/// Clients that ask; each comes back long before its record expires.
const CLIENTS: usize = 250;

/// What a request of so many charges takes here, and in Redis.
const WITH_REDIS: [(&str, usize); 4] = [
    ("lua-1-charge", 1),
    ("lua-4-charges", 4),
    ("redis-1-charge", 1),
    ("redis-4-charges", 4),
];

fn main() -> ExitCode {
    // Under `cargo test` the words are names of tests: then it only says what there is.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count: Option<u32> = words.get(1).and_then(|count| count.parse().ok());
    let (Some(name), Some(count)) = (words.first(), count) else {
        let names = cases::ALL.iter().map(|(name, _)| name);
        let names = names.chain(WITH_REDIS.iter().map(|(name, _)| name));
        names.for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let find = |(of, _): &&Case| of == name;
    let with_redis = WITH_REDIS.iter().find(|(of, _)| of == name);
    let mut work = match (cases::ALL.iter().find(find), with_redis, words.get(2)) {
        (Some((_, make)), ..) => make(),
        (_, Some((_, charges)), Some(address)) => lua(*charges, address),
        _ => {
            eprintln!("nothing is called {name}, or it needs the address of a Redis");
            return ExitCode::from(64);
        }
    };
    for _ in 0..count {
        work();
    }
    ExitCode::SUCCESS
}

/// Requests of so many charges, each of one client; they are asked when so many have come that share a call.
fn lua(charges: usize, address: &str) -> Work {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let settings = Settings::new(format!("redis://{address}")).expect("an address");
    let patience = Duration::from_secs(60);
    let link = runtime.block_on(async { Link::open(&settings, 1, patience, 42) });
    let strategy: Arc<dyn Strategy> = Arc::new(Lua::new(link.expect("a link")));
    let requests: Vec<Arc<[Charge]>> = cases::charges(cases::ample())
        .chunks(charges)
        .take(CLIENTS)
        .map(Arc::from)
        .collect();
    let mut waiting = requests.into_iter().cycle();
    let mut come = 0;
    Box::new(move || {
        come += 1;
        if come % REQUESTS == 0 {
            let mut asked = JoinSet::new();
            runtime.block_on(async {
                for request in waiting.by_ref().take(REQUESTS) {
                    let strategy = strategy.clone();
                    asked.spawn(async move { strategy.decide(&request).await });
                }
                for answer in asked.join_all().await {
                    assert!(answer.is_ok_and(|verdict| verdict.admitted));
                }
            });
        }
    })
}
