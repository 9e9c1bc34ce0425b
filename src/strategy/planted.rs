//! Faults that the history checker must find, each a mistake that limiters are known to make.
//!
//! Only in builds with the feature `planted-faults`; a build that serves has none of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::factory::{self, Plan};
use super::redis::{Lender, Link, Lua, SharedWatch};
use super::{Deadline, Deciding, Fault, Lease, Strategy};
use crate::algorithm::Intent;
use crate::domain::{Charge, Key, Receipt};

/// A fault, the pair it is planted in, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// Its name.
    pub name: &'static str,
    /// The algorithm and the strategy that it is planted in.
    pub pair: (&'static str, &'static str),
    /// What it does, in a line.
    pub about: &'static str,
    plant: Plant,
}

#[derive(Debug, Clone, Copy)]
enum Plant {
    /// Replaces a piece of the script's text, on every instance.
    Script(&'static str, &'static str),
    /// The same, of the script that lends too.
    ScriptThatLends(&'static str, &'static str),
    /// The same as the first, on one instance alone.
    ScriptOfOne(&'static str, &'static str),
    /// Watches on a connection that others share.
    SharedWatch,
    /// Sends one request in so many again, as if its answer had been lost.
    Twice { one_in: u64 },
}

const TOKENBUCKET_LUA: (&str, &str) = ("tokenbucket", "lua");

const fn script(
    name: &'static str,
    about: &'static str,
    from: &'static str,
    to: &'static str,
) -> Planted {
    Planted {
        name,
        pair: TOKENBUCKET_LUA,
        about,
        plant: Plant::Script(from, to),
    }
}

/// Every fault.
pub const FAULTS: &[Planted] = &[
    script(
        "refill-moved-on-denial",
        "a denial moves the refill time and so loses what was gained",
        "local n = 4 * i\n",
        "local n = 4 * i\nif retry > 0 then redis.call('HSET', key, 'last_refill', now) end\n",
    ),
    script(
        "ttl-rounded-down",
        "the expiry is rounded down to whole seconds",
        "ceil(fresh_at / 1000) + EXPIRY_MARGIN",
        "math.floor(fresh_at / 1000000) * 1000",
    ),
    script(
        "seconds",
        "time is counted in whole seconds",
        "time[1] * 1000000 + time[2]",
        "time[1] * 1000000",
    ),
    Planted {
        name: "client-clock",
        pair: TOKENBUCKET_LUA,
        about: "one instance takes its own clock, which is a second ahead",
        plant: Plant::ScriptOfOne(
            "time[1] * 1000000 + time[2]",
            "time[1] * 1000000 + time[2] + 1000000",
        ),
    },
    script(
        "denial-charges",
        "a denied request takes what is left",
        "local n = 4 * i\n",
        "local n = 4 * i\nif retry > 0 then redis.call('HSET', key, 'tokens', 0) end\n",
    ),
    script(
        "tostring",
        "a time is written by tostring, which keeps 14 digits",
        "as_text[tokens], as_text[at]",
        "as_text[tokens], tostring(at)",
    ),
    script(
        "eviction",
        "records are evicted now and then, each a free refill",
        "local from, key = i, keys[i]",
        "local from, key = i, keys[i]\nif now % 61 == 0 then redis.call('DEL', key) end",
    ),
    script(
        "no-expiry",
        "records are written without an expiry",
        "call('PEXPIREAT', key, as_text[ceil(fresh_at / 1000) + EXPIRY_MARGIN])",
        "1",
    ),
    script(
        "fraction-rounded-up",
        "the part of a token that is on its way is rounded up",
        "at + reset, remaining, at, part, unit,",
        "at + reset, remaining, at, unit - 1, unit,",
    ),
    script(
        "remaining-before",
        "what is left is told as it was before the charge",
        "local n = 4 * i\n",
        "local n = 4 * i\nif retry == 0 then remaining = remaining + cost end\n",
    ),
    script(
        "blind-in-a-call",
        "requests of one key in one call do not see what those before them took",
        "if keys[i + 1] == key then record = { a, b, c, d, e, f, fresh_at } end",
        "",
    ),
    Planted {
        name: "lent-and-forgotten",
        pair: ("tokenbucket", "lease"),
        about: "what is lent is only debited: the bucket fills up while it is held",
        plant: Plant::ScriptThatLends(
            "return level < ceiling and level or ceiling, at, ceiling,",
            "return level, at, capacity * unit,",
        ),
    },
    Planted {
        name: "lent-and-locked",
        pair: ("tokenbucket", "lease"),
        about: "while anything is lent the bucket counts as empty",
        plant: Plant::ScriptThatLends(
            "local ceiling = leased < capacity and (capacity - leased) * unit or 0",
            "local ceiling = 0",
        ),
    },
    Planted {
        name: "lost-update",
        pair: ("tokenbucket", "transaction"),
        about: "a transaction without a watch: reads of both, then writes of both",
        plant: Plant::SharedWatch,
    },
    Planted {
        name: "shared-watch",
        pair: ("gcra", "transaction"),
        about: "a watch on a connection that others share: their EXEC ends it",
        plant: Plant::SharedWatch,
    },
    Planted {
        name: "charged-twice",
        pair: ("slidingwindow", "lua"),
        about: "a request whose answer was lost is sent again",
        plant: Plant::Twice { one_in: 50 },
    },
];

/// The stack of `plan` with that fault in it; `number` is the instance's.
///
/// # Errors
///
/// When there is no such fault, or the script has no such text any more.
pub fn build(plan: &Plan, name: &str, number: u64) -> Result<Arc<dyn Strategy>, String> {
    let fault = FAULTS
        .iter()
        .find(|fault| fault.name == name)
        .ok_or_else(|| format!("no fault is named {name}"))?;
    let text = |fault: Fault| fault.to_string();
    let link = |plan: &Plan| {
        let settings = plan.redis.as_ref().ok_or("a Redis is needed")?;
        Link::open(settings, 1, plan.timeout, plan.seed).map_err(text)
    };
    let strategy: Arc<dyn Strategy> = match fault.plant {
        Plant::ScriptOfOne(..) if number != 1 => {
            return Ok(factory::build(plan).map_err(text)?.strategy);
        }
        Plant::Script(from, to) | Plant::ScriptOfOne(from, to) => {
            let script = replaced(name, &Lua::script(), from, to)?;
            Arc::new(Lua::with_script(link(plan)?, script))
        }
        Plant::ScriptThatLends(from, to) => {
            let link = link(plan)?;
            let deciding = replaced(name, &Lua::script(), from, to)?;
            let lending = replaced(name, &Lender::script(), from, to)?;
            Arc::new(Lease::new(
                Arc::new(Lua::with_script(link.clone(), deciding)),
                Arc::new(Lender::with_script(link, lending)),
                plan.clock.clone(),
                plan.lease_max,
                &plan.hasher,
            ))
        }
        Plant::SharedWatch => Arc::new(SharedWatch::new(link(plan)?, name == "shared-watch")),
        Plant::Twice { one_in } => {
            let inner = factory::build(plan).map_err(text)?.strategy;
            Arc::new(Twice {
                inner,
                one_in,
                asked: AtomicU64::new(0),
            })
        }
    };
    Ok(Arc::new(Deadline::new(strategy, plan.timeout, plan.seed)))
}

fn replaced(name: &str, script: &str, from: &str, to: &str) -> Result<String, String> {
    if script.contains(from) {
        return Ok(script.replace(from, to));
    }
    Err(format!(
        "{name}: the script has no such text any more: {from}"
    ))
}

#[derive(Debug)]
struct Twice {
    inner: Arc<dyn Strategy>,
    one_in: u64,
    asked: AtomicU64,
}

impl Strategy for Twice {
    fn name(&self) -> &'static str {
        "twice"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        let again = self
            .asked
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(self.one_in);
        Deciding::waiting(async move {
            if again {
                self.inner.ask(charges, intent).await?;
            }
            self.inner.ask(charges, intent).await
        })
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        self.inner.give_back(receipts)
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        self.inner.reset(key)
    }
}
