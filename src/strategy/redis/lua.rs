//! `lua`: one atomic script decides a whole request inside Redis, in one round trip. The default with Redis.
//!
//! Callers share a few multiplexed connections and so pipeline by themselves. The script is called by its hash; a server
//! that does not know it (new, restarted, flushed) did not run it and is sent the text on the same connection.

use std::time::Duration;

use redis::{Cmd, Script};
use smallvec::SmallVec;

use super::connection::Link;
use super::fault::{classify, is_unknown_script};
use super::record::Notices;
use crate::algorithm::{Intent, LUA, Notice};
use crate::domain::{Charge, Decision, Key, Limit, Outcome, Receipt, Source, Verdict};
use crate::strategy::{Deciding, Fault, Strategy};

/// Numbers in the script's reply for each charge, after the time.
const PER_CHARGE: usize = 5;

/// The atomic script.
#[derive(Debug)]
pub struct Lua {
    link: Link,
    text: String,
    hash: String,
    notices: Notices,
}

impl Lua {
    /// Remembers over `link`.
    pub fn new(link: Link) -> Self {
        Self::with_script(link, Self::script())
    }

    /// The text of the script.
    pub(in crate::strategy) fn script() -> String {
        [include_str!("prelude.lua"), LUA, include_str!("driver.lua")].concat()
    }

    /// Runs `text` as the script.
    pub(in crate::strategy) fn with_script(link: Link, text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_owned();
        Self {
            link,
            text,
            hash,
            notices: Notices::default(),
        }
    }

    async fn decide(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let operation = match intent {
            Intent::Charge => "charge",
            Intent::Peek => "peek",
            Intent::Debit => "debit",
        };
        let reply = self
            .call(|script| asking(script, operation, charges))
            .await?;
        self.read(&reply, charges)
            .ok_or_else(|| Fault::BadReply(format!("{} numbers", reply.len())))
    }

    async fn credit(&self, receipts: &[Receipt]) -> Result<(), Fault> {
        self.call(|script| giving_back(script, receipts))
            .await
            .map(|_| ())
    }

    /// Calls the script by its hash and, where it is unknown, by its text.
    async fn call(&self, command: impl Fn(&Call<'_>) -> Cmd) -> Result<Vec<u64>, Fault> {
        let mut connection = self.link.connection().await?;
        let by_hash = command(&Call {
            command: "EVALSHA",
            script: &self.hash,
        });
        let reply = match connection.command(&by_hash).await {
            Err(error) if is_unknown_script(&error) => {
                let by_text = command(&Call {
                    command: "EVAL",
                    script: &self.text,
                });
                connection.command(&by_text).await
            }
            reply => reply,
        };
        reply.map_err(|error| classify(&error))
    }

    fn read(&self, reply: &[u64], charges: &[Charge]) -> Option<Verdict> {
        let (now_us, numbers) = reply.split_first()?;
        let (answers, rest) = numbers.as_chunks::<PER_CHARGE>();
        if answers.len() != charges.len() || !rest.is_empty() {
            return None;
        }
        let decisions: SmallVec<[Decision; 1]> = charges
            .iter()
            .zip(answers)
            .map(|(charge, answer)| self.decision(charge, *answer))
            .collect();
        let admitted = charges
            .iter()
            .zip(&decisions)
            .all(|(charge, decision)| decision.is_allowed() || !charge.is_enforced());
        Some(Verdict {
            decisions,
            admitted,
            now_us: *now_us,
        })
    }

    fn decision(&self, charge: &Charge, answer: [u64; PER_CHARGE]) -> Decision {
        let [retry_after, remaining, reset_after, next_after, notice] = answer;
        if let Some(notice) = Notice::from_number(notice) {
            self.notices.tell(notice);
        }
        let outcome = match retry_after {
            0 => Outcome::Allowed,
            wait => Outcome::Denied {
                retry_after: Duration::from_micros(wait),
            },
        };
        Decision {
            outcome,
            limit: charge.limit().quota.capacity(),
            remaining,
            reset_after: Duration::from_micros(reset_after),
            next_after: Duration::from_micros(next_after),
            source: Source::Store,
        }
    }
}

/// How the script is named in a call.
struct Call<'a> {
    command: &'static str,
    script: &'a str,
}

impl Call<'_> {
    fn with_keys<'k>(&self, keys: impl ExactSizeIterator<Item = &'k Key>, operation: &str) -> Cmd {
        let mut cmd = redis::cmd(self.command);
        cmd.arg(self.script).arg(keys.len());
        keys.for_each(|key| {
            cmd.arg(key.as_str());
        });
        cmd.arg(operation);
        cmd
    }
}

fn asking(call: &Call<'_>, operation: &str, charges: &[Charge]) -> Cmd {
    let mut cmd = call.with_keys(charges.iter().map(Charge::key), operation);
    for charge in charges {
        let Limit { algorithm, quota } = charge.limit();
        cmd.arg(algorithm.name())
            .arg(u8::from(charge.is_enforced()))
            .arg(charge.cost().get());
        cmd.arg(quota.capacity())
            .arg(quota.gain())
            .arg(quota.unit());
    }
    cmd
}

fn giving_back(call: &Call<'_>, receipts: &[Receipt]) -> Cmd {
    let mut cmd = call.with_keys(receipts.iter().map(|receipt| &receipt.key), "give_back");
    for Receipt {
        limit: Limit { algorithm, quota },
        tokens,
        charged_at_us,
        ..
    } in receipts
    {
        cmd.arg(algorithm.name())
            .arg(*charged_at_us)
            .arg(tokens.get());
        cmd.arg(quota.capacity())
            .arg(quota.gain())
            .arg(quota.unit());
    }
    cmd
}

impl Strategy for Lua {
    fn name(&self) -> &'static str {
        "lua"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges, intent))
    }

    fn give_back(&self, receipts: Vec<Receipt>) -> Deciding<'_, ()> {
        Deciding::waiting(async move { self.credit(&receipts).await })
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(self.link.delete(key))
    }
}
