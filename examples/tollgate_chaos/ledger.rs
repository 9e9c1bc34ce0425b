//! What passed the proxy, or else what Redis was told: how often each key was charged.
//!
//! A charge counts from when it is passed on until its reply says that it had no effect. One whose reply nobody saw
//! still counts: it may have been executed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::calls::{Operation, charges, has_lent};
use crate::generator::is_a_strangers;
use crate::resp::{frame, is_nothing, is_push, is_refusal, words};

/// What passed, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Counts>);

/// What passed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    /// Commands of any kind.
    pub(crate) commands: u64,
    /// Charges of requests that were passed on, whatever came of them.
    pub(crate) charges: u64,
    /// Of these, those that were refused: without effect.
    pub(crate) refused: u64,
    /// Transactions of a client that came once which somebody else's write undid: nobody else writes there.
    pub(crate) undone: u64,
    /// Charges for what was admitted without the store.
    pub(crate) write_backs: u64,
    /// Leases that were granted.
    pub(crate) lent: u64,
    /// How often each key was charged, or may have been.
    pub(crate) by_key: HashMap<String, u64>,
}

impl Ledger {
    pub(crate) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that waits for its reply.
enum Asked {
    /// It charges these keys.
    Charges(Vec<(Operation, String)>),
    Other,
}

/// What passed on one connection, in order.
pub(crate) struct Conversation {
    ledger: Arc<Ledger>,
    requests: Vec<u8>,
    replies: Vec<u8>,
    asked: VecDeque<Asked>,
    /// Inside MULTI: the record that is written.
    transaction: Option<Option<String>>,
}

impl Conversation {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            requests: Vec::new(),
            replies: Vec::new(),
            asked: VecDeque::new(),
            transaction: None,
        }
    }

    /// These bytes were passed on to the server.
    pub(crate) fn asks(&mut self, bytes: &[u8]) {
        self.requests.extend_from_slice(bytes);
        while let Some(length) = frame(&self.requests) {
            let command: Vec<u8> = self.requests.drain(..length).collect();
            let asked = self.asked(&words(&command));
            self.asked.push_back(asked);
        }
    }

    /// The server was told this; what it answered is not known.
    pub(crate) fn executes(&mut self, words: &[&[u8]]) {
        if !words.is_empty() {
            self.asked(words);
        }
    }

    /// These bytes came back.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
        while let Some(length) = frame(&self.replies) {
            let reply: Vec<u8> = self.replies.drain(..length).collect();
            if is_push(&reply) {
                continue;
            }
            let Some(Asked::Charges(charges)) = self.asked.pop_front() else {
                continue;
            };
            let mut counts = self.ledger.lock();
            if !is_refusal(&reply) {
                let lends = matches!(charges[..], [(Operation::Lend, _)]);
                counts.lent += u64::from(lends && has_lent(&reply));
                continue;
            }
            for (_, key) in charges {
                counts.refused += 1;
                counts.undone += u64::from(is_nothing(&reply) && is_a_strangers(&key));
                if let Some(times) = counts.by_key.get_mut(&key) {
                    *times = times.saturating_sub(1);
                }
            }
        }
    }

    fn asked(&mut self, words: &[&[u8]]) -> Asked {
        let text = |i: usize| String::from_utf8_lossy(words.get(i).copied().unwrap_or_default());
        self.ledger.lock().commands += 1;
        match text(0).to_ascii_uppercase().as_str() {
            "EVALSHA" | "EVAL" => self.charged(charges(words)),
            "MULTI" => {
                self.transaction = Some(None);
                Asked::Other
            }
            "HSET" if self.transaction.is_some() => {
                self.transaction = Some(Some(text(1).into_owned()));
                Asked::Other
            }
            "EXEC" => match self.transaction.take().flatten() {
                Some(key) => self.charged(vec![(Operation::Charge, key)]),
                None => Asked::Other,
            },
            _ => Asked::Other,
        }
    }

    fn charged(&self, charges: Vec<(Operation, String)>) -> Asked {
        let mut counts = self.ledger.lock();
        for (operation, key) in &charges {
            counts.charges += u64::from(*operation != Operation::WriteBack);
            counts.write_backs += u64::from(*operation == Operation::WriteBack);
            *counts.by_key.entry(key.clone()).or_default() += 1;
        }
        Asked::Charges(charges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<u8> {
        let words = words
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let words: Vec<String> = words.collect();
        format!("*{}\r\n{}", words.len(), words.concat()).into_bytes()
    }

    /// The words of a call with these keys and groups.
    fn call(script: &[&str; 2], keys: &str, groups: &str) -> Vec<u8> {
        let (keys, groups) = (keys.split(' '), groups.split(' '));
        let count = keys.clone().count().to_string();
        let words = script.iter().copied().chain([count.as_str()]);
        command(&words.chain(keys).chain(groups).collect::<Vec<_>>())
    }

    #[test]
    fn a_script_that_was_unknown_and_sent_again_is_one_charge() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = Conversation::new(ledger.clone());
        talk.asks(&call(
            &["EVALSHA", "abc"],
            "k",
            "charge 1 1 0 tokenbucket 1 1 9 1 1",
        ));
        talk.hears(b"-NOSCRIPT no\r\n");
        talk.asks(&call(
            &["EVAL", "text"],
            "k",
            "charge 1 1 0 tokenbucket 1 1 9 1 1",
        ));
        talk.hears(b"*1\r\n:1\r\n");
        assert_eq!(ledger.counts().by_key["k"], 1);
        talk.asks(&call(
            &["EVALSHA", "abc"],
            "k",
            "debit 1 1 0 tokenbucket 1 1 9 1 1",
        ));
        assert_eq!(ledger.counts().by_key["k"], 2, "it may be executed");
    }

    #[test]
    fn a_call_that_was_refused_charged_nobody() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = Conversation::new(ledger.clone());
        let two = call(
            &["EVALSHA", "abc"],
            "a b",
            "charge 2 1 0 tokenbucket 1 1 9 1 1",
        );
        talk.asks(&two);
        assert_eq!(ledger.counts().by_key["b"], 1);
        talk.hears(b"-OOM no room\r\n");
        let counts = ledger.counts();
        assert_eq!(
            (counts.charges, counts.refused, counts.by_key["b"]),
            (2, 2, 0)
        );
    }

    #[test]
    fn a_transaction_that_was_overtaken_is_no_charge() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = Conversation::new(ledger.clone());
        for exec in [&b"*-1\r\n"[..], b"*1\r\n:1\r\n"] {
            for words in [&["MULTI"][..], &["HSET", "k", "f", "1"], &["EXEC"]] {
                talk.asks(&command(words));
            }
            talk.hears(b"+OK\r\n+QUEUED\r\n");
            talk.hears(exec);
        }
        assert_eq!(ledger.counts().by_key["k"], 1);
        assert_eq!(ledger.counts().undone, 0, "somebody else may write there");
    }

    #[test]
    fn a_transaction_that_nobody_could_overtake_is_told_of() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = Conversation::new(ledger.clone());
        let key = format!("ratelimit:{}", crate::generator::Client::Once(7).address());
        for words in [&["MULTI"][..], &["HSET", &key, "f", "1"], &["EXEC"]] {
            talk.asks(&command(words));
        }
        talk.hears(b"+OK\r\n+QUEUED\r\n*-1\r\n");
        assert_eq!(ledger.counts().undone, 1);
    }
}
