//! `hash`: read, decide, write. **Not atomic**: two requests that both read before either writes are both admitted.
//!
//! It is kept as the documented racy baseline: for development, and as the control that shows that the tests of the
//! exact strategies can fail. Each write itself is one atomic step with its expiry.

use redis::{RedisResult, Value};

use super::connection::{Borrowed, Link};
use super::fault::classify;
use super::record::{self, Notices, Place};
use crate::algorithm::{Intent, Kept, Remembered, judge};
use crate::domain::{Charge, Key, Receipt, Verdict};
use crate::strategy::{Deciding, Fault, Strategy};

/// The racy baseline.
#[derive(Debug)]
pub struct Hash {
    link: Link,
    notices: Notices,
}

impl Hash {
    /// Remembers over `link`.
    pub fn new(link: Link) -> Self {
        Self {
            link,
            notices: Notices::default(),
        }
    }

    async fn decide(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let mut connection = self.link.connection().await?;
        let places = record::places_of_charges(charges);
        let (remembered, now_us) = read(&mut connection, &places).await?;
        let judged = judge(charges, intent, |i| remembered[i], now_us);
        judged
            .notices
            .iter()
            .for_each(|notice| self.notices.tell(*notice));
        let writes: Vec<_> = judged
            .writes
            .iter()
            .map(|write| (write.charge, write.kept))
            .collect();
        write(&mut connection, &places, &writes).await?;
        Ok(judged.verdict)
    }

    async fn credit(&self, receipts: &[Receipt]) -> Result<(), Fault> {
        let mut connection = self.link.connection().await?;
        let places = record::places_of_receipts(receipts);
        let (remembered, now_us) = read(&mut connection, &places).await?;
        write(
            &mut connection,
            &places,
            &record::credits(receipts, &remembered, now_us),
        )
        .await
    }
}

async fn read(
    connection: &mut Borrowed,
    places: &[Place<'_>],
) -> Result<(Vec<Remembered>, u64), Fault> {
    let mut reading = redis::pipe();
    record::read(&mut reading, places);
    let replies = connection
        .pipeline(&reading)
        .await
        .map_err(|error| classify(&error))?;
    record::parse(replies, places)
}

async fn write(
    connection: &mut Borrowed,
    places: &[Place<'_>],
    writes: &[(usize, Kept)],
) -> Result<(), Fault> {
    if writes.is_empty() {
        return Ok(());
    }
    // Not an atomic pipeline of the client: that cannot tell with which code the server refused EXEC.
    let mut writing = redis::pipe();
    writing.cmd("MULTI").ignore();
    writes
        .iter()
        .for_each(|(i, kept)| record::write(&mut writing, places[*i], kept));
    writing.cmd("EXEC");
    let written: RedisResult<Vec<Value>> = connection.pipeline(&writing).await;
    written.map(|_| ()).map_err(|error| classify(&error))
}

impl Strategy for Hash {
    fn name(&self) -> &'static str {
        "hash"
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
