//! The law of the token bucket over all pairs of instants, as far as clients can see it.

use std::time::Duration;

use tokio::time::Instant;

use crate::generator::{Client, Outcome, REGULARS, Record};

/// The quota of every client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) capacity: u64,
    /// Tokens a second.
    pub(crate) rate: u64,
}

impl Quota {
    /// The service's defaults.
    pub(crate) const USUAL: Self = Self {
        capacity: 100,
        rate: 10,
    };

    /// Most tokens that the law allows within so long.
    pub(crate) fn most_within(self, time: Duration) -> u64 {
        let refilled = time.as_micros() * u128::from(self.rate) / 1_000_000;
        let refilled = u64::try_from(refilled).unwrap_or(u64::MAX);
        refilled.saturating_add(self.capacity)
    }
}

/// Tokens above the law that one client was admitted, at the worst pair of instants. What is surely between them counts.
pub(crate) fn above_the_law(records: &[Record], client: Client, quota: Quota) -> u64 {
    let mut admitted: Vec<(Instant, Instant)> = records
        .iter()
        .filter(|record| record.client == client)
        .filter(
            |record| matches!(&record.outcome, Outcome::Answered(answer) if answer.status == 200),
        )
        .map(|record| (record.sent, record.ended))
        .collect();
    admitted.sort_unstable();
    let mut worst = 0;
    for (i, (from, _)) in admitted.iter().enumerate() {
        let mut ends: Vec<Instant> = admitted[i..].iter().map(|(_, end)| *end).collect();
        ends.sort_unstable();
        for (count, to) in (1_u64..).zip(&ends) {
            let most = quota.most_within(*to - *from);
            worst = worst.max(count.saturating_sub(most));
        }
    }
    worst
}

/// The most that any regular client was admitted above the law.
pub(crate) fn worst_above_the_law(records: &[Record], quota: Quota) -> u64 {
    let worst = (0..REGULARS).map(|number| above_the_law(records, Client::Regular(number), quota));
    worst.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Answer;

    /// A request of the first regular client that was sent then, in milliseconds, and admitted 1 ms later.
    fn admitted(begin: Instant, at_ms: u64) -> Record {
        let sent = begin + Duration::from_millis(at_ms);
        let answer = Answer {
            status: 200,
            is_local: false,
        };
        Record {
            scheduled: sent,
            sent,
            ended: sent + Duration::from_millis(1),
            instance: 0,
            client: Client::Regular(0),
            outcome: Outcome::Answered(answer),
        }
    }

    #[tokio::test]
    async fn a_burst_above_the_law_is_found_wherever_it_is() {
        let begin = Instant::now();
        let burst = |at_ms, count| (0..count).map(move |_| admitted(begin, at_ms));
        let (quota, full) = (Quota::USUAL, Quota::USUAL.capacity);
        let lawful: Vec<Record> = burst(0, full).chain(burst(10_000, full)).collect();
        assert_eq!(worst_above_the_law(&lawful, quota), 0);
        // Over the whole run this would pass: nobody asked before.
        let late: Vec<Record> = burst(0, 1).chain(burst(60_000, full + 3)).collect();
        assert_eq!(worst_above_the_law(&late, quota), 3);
    }
}
