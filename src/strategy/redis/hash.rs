//! `hash`: read, decide, write. **Not atomic**: two requests that both read before either writes are both admitted.
//!
//! It is kept as the documented racy baseline: for development, and as the control that shows that the tests of the
//! exact strategies can fail. Each write itself is one atomic step with its expiry.

use super::connection::Link;
use super::fault::classify;
use super::record::{self, Notices};
use crate::algorithm::judge;
use crate::domain::{Charge, Verdict};
use crate::strategy::{Deciding, Fault, Strategy, check};

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

    async fn decide(&self, charges: &[Charge]) -> Result<Verdict, Fault> {
        check(charges)?;
        let mut connection = self.link.connection().await?;
        let mut reading = redis::pipe();
        record::read(&mut reading, charges);
        let replies = reading
            .query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))?;
        let (remembered, now_us) = record::parse(replies, charges)?;
        let judged = judge(charges, |i| remembered[i], now_us);
        judged
            .notices
            .iter()
            .for_each(|notice| self.notices.tell(*notice));
        if !judged.writes.is_empty() {
            let mut writing = redis::pipe();
            writing.atomic();
            judged
                .writes
                .iter()
                .for_each(|write| record::write(&mut writing, charges, write));
            writing
                .query_async::<()>(&mut connection)
                .await
                .map_err(|error| classify(&error))?;
        }
        Ok(judged.verdict)
    }
}

impl Strategy for Hash {
    fn name(&self) -> &'static str {
        "hash"
    }

    fn decide<'a>(&'a self, charges: &'a [Charge]) -> Deciding<'a> {
        Deciding::waiting(self.decide(charges))
    }
}
