//! `lua`: one atomic script decides a whole request inside Redis, in one round trip. The default with Redis.
//!
//! Callers share a few multiplexed connections and so pipeline by themselves. The script is called by its hash; a server
//! that does not know it (new, restarted, flushed) did not run it and is sent the text on the same connection.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Script};
use smallvec::SmallVec;

use super::connection::Link;
use super::fault::{classify, is_unknown_script};
use super::record::Notices;
use crate::algorithm::{LUA, Notice};
use crate::domain::{Charge, Decision, Outcome, Source, Verdict};
use crate::strategy::{Deciding, Fault, Strategy, check};

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
        let text = [include_str!("prelude.lua"), LUA, include_str!("driver.lua")].concat();
        let hash = Script::new(&text).get_hash().to_owned();
        Self {
            link,
            text,
            hash,
            notices: Notices::default(),
        }
    }

    async fn decide(&self, charges: &[Charge]) -> Result<Verdict, Fault> {
        check(charges)?;
        let mut connection = self.link.connection().await?;
        let reply = self
            .call(&mut connection, charges)
            .await
            .map_err(|error| classify(&error))?;
        self.read(&reply, charges)
            .ok_or_else(|| Fault::BadReply(format!("{} numbers", reply.len())))
    }

    async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        charges: &[Charge],
    ) -> redis::RedisResult<Vec<u64>> {
        match invocation("EVALSHA", &self.hash, charges)
            .query_async(connection)
            .await
        {
            Err(error) if is_unknown_script(&error) => {
                invocation("EVAL", &self.text, charges)
                    .query_async(connection)
                    .await
            }
            reply => reply,
        }
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

fn invocation(command: &str, script: &str, charges: &[Charge]) -> Cmd {
    let mut cmd = redis::cmd(command);
    cmd.arg(script).arg(charges.len());
    for charge in charges {
        cmd.arg(charge.key().as_str());
    }
    for charge in charges {
        let limit = charge.limit();
        cmd.arg(limit.algorithm.name())
            .arg(u8::from(charge.is_enforced()))
            .arg(charge.cost().get());
        cmd.arg(limit.quota.capacity())
            .arg(limit.quota.gain())
            .arg(limit.quota.unit());
    }
    cmd
}

impl Strategy for Lua {
    fn name(&self) -> &'static str {
        "lua"
    }

    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges))
    }
}
