//! The script that lends: its call and its reply. It stands beside the one that decides, on the same connections.

use redis::{Cmd, Value};

use super::connection::Link;
use super::record::Notices;
use super::script::Script;
use crate::algorithm::{LUA, LeaseAsk, Notice};
use crate::domain::Charge;
use crate::strategy::lease::{Lends, Lent};
use crate::strategy::{Deciding, Fault};

/// Lends tokens of the records in Redis.
#[derive(Debug)]
pub struct Lender {
    link: Link,
    script: Script,
    notices: Notices,
}

impl Lender {
    /// Lends over `link`.
    pub fn new(link: Link) -> Self {
        Self::with_script(link, Self::script())
    }

    /// Runs `text` as the script.
    pub(in crate::strategy) fn with_script(link: Link, text: String) -> Self {
        Self {
            link,
            script: Script::new(text),
            notices: Notices::default(),
        }
    }

    /// The text of the script.
    pub(in crate::strategy) fn script() -> String {
        [include_str!("prelude.lua"), LUA, include_str!("lease.lua")].concat()
    }

    async fn call(&self, charge: &Charge, ask: LeaseAsk) -> Result<Lent, Fault> {
        let mut connection = self.link.connection().await?;
        let command = |command: &str, script: &str| call(command, script, charge, &ask);
        let reply = self.script.call(&mut connection, command).await?;
        let (lent, notice) = read(&reply)
            .ok_or_else(|| Fault::BadReply("not what the script returns".to_owned()))?;
        if let Some(notice) = notice {
            self.notices.tell(notice);
        }
        Ok(lent)
    }
}

impl Lends for Lender {
    fn lend<'a>(&'a self, charge: &'a Charge, ask: LeaseAsk) -> Deciding<'a, Lent> {
        Deciding::waiting(self.call(charge, ask))
    }
}

fn call(command: &str, script: &str, charge: &Charge, ask: &LeaseAsk) -> Cmd {
    let quota = charge.limit().quota;
    let mut cmd = Cmd::new();
    cmd.arg(command)
        .arg(script)
        .arg(1)
        .arg(charge.key().as_str());
    cmd.arg(charge.cost().get());
    cmd.arg(quota.capacity())
        .arg(quota.gain())
        .arg(quota.unit());
    cmd.arg(ask.epoch_us).arg(ask.spent).arg(ask.returned);
    cmd.arg(ask.wanted).arg(ask.least).arg(ask.share);
    cmd.arg(ask.period_us);
    cmd
}

fn read(reply: &Value) -> Option<(Lent, Option<Notice>)> {
    let Value::Array(values) = reply else {
        return None;
    };
    let mut numbers = values.iter().map(|value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let mut next = || numbers.next().flatten();
    let (now_us, notice) = (next()?, next()?);
    let lent = Lent {
        now_us,
        retry_after_us: next()?,
        remaining: next()?,
        reset_after_us: next()?,
        next_after_us: next()?,
        granted: next()?,
        until_us: next()?,
        lasts_us: next()?,
    };
    numbers
        .next()
        .is_none()
        .then(|| (lent, Notice::from_number(notice)))
}
