//! A planted fault: a transaction on a connection that others share, with a watch or without one.

use redis::Value;

use super::connection::Link;
use super::fault::classify;
use super::record;
use crate::algorithm::{Intent, judge};
use crate::domain::{Charge, Key, Receipt, Verdict};
use crate::strategy::{Deciding, Fault, Strategy};

/// WATCH, MULTI, EXEC on a shared connection.
#[derive(Debug)]
pub struct SharedWatch {
    link: Link,
    watches: bool,
}

impl SharedWatch {
    /// Runs on `link`, and watches if told to.
    pub fn new(link: Link, watches: bool) -> Self {
        Self { link, watches }
    }

    async fn decide(&self, charges: &[Charge], intent: Intent) -> Result<Verdict, Fault> {
        let mut connection = self.link.connection().await?;
        let places = record::places_of_charges(charges);
        loop {
            let mut reading = redis::pipe();
            if self.watches {
                let watch = reading.cmd("WATCH");
                places.iter().for_each(|(key, _)| {
                    watch.arg(key.as_str());
                });
                watch.ignore();
            }
            record::read(&mut reading, &places);
            let replies = connection
                .pipeline(&reading)
                .await
                .map_err(|error| classify(&error))?;
            let (remembered, now_us) = record::parse(replies, &places)?;
            let judged = judge(charges, intent, |i| remembered[i], now_us);
            let mut writing = redis::pipe();
            writing.cmd("MULTI").ignore();
            judged
                .writes
                .iter()
                .for_each(|write| record::write(&mut writing, places[write.charge], &write.kept));
            writing.cmd("EXEC");
            let replies: Vec<Value> = connection
                .pipeline(&writing)
                .await
                .map_err(|error| classify(&error))?;
            if replies.last() != Some(&Value::Nil) {
                return Ok(judged.verdict);
            }
        }
    }
}

impl Strategy for SharedWatch {
    fn name(&self) -> &'static str {
        "shared-watch"
    }

    fn ask<'a>(&'a self, charges: &'a [Charge], intent: Intent) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges, intent))
    }

    fn give_back(&self, _: Vec<Receipt>) -> Deciding<'_, ()> {
        Deciding::ready(Ok(()))
    }

    fn reset<'a>(&'a self, key: &'a Key) -> Deciding<'a, ()> {
        Deciding::waiting(self.link.delete(key))
    }
}
