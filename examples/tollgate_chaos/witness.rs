//! What Redis itself says it was told (MONITOR), for the ledger: where no proxy stands before it.
//!
//! Over a socket of the file system, which a firewall does not touch.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ledger::{Conversation, Ledger};
use crate::redis_server::{CANARY, RedisServer};

/// What is said to Redis so that everything before it is known to have been heard.
const LAST: &str = "chaos-last";

/// Listens until it is dropped.
pub(crate) struct Witness {
    listening: JoinHandle<Result<()>>,
    heard_last: watch::Receiver<bool>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Witness {
    /// Writes into `ledger` what the server at that socket is told from now on.
    pub(crate) async fn of(socket: &Path, ledger: Arc<Ledger>) -> Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let mut stream = BufReader::new(stream.context("the socket of Redis")?);
        let words = format!("AUTH {CANARY}\r\nMONITOR\r\n");
        stream.write_all(words.as_bytes()).await?;
        let mut lines = stream.lines();
        for _ in 0..2 {
            let reply = lines.next_line().await?;
            ensure!(reply.as_deref() == Some("+OK"), "to MONITOR: {reply:?}");
        }
        let (tell, heard_last) = watch::channel(false);
        let listening = tokio::spawn(async move {
            let mut talk = Conversation::new(ledger);
            while let Some(line) = lines.next_line().await? {
                let words = told(&line);
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                match words.first() {
                    Some(&b"ECHO") if words.get(1) == Some(&LAST.as_bytes()) => {
                        tell.send_replace(true);
                    }
                    // The text follows where the hash was not known, and that was counted.
                    Some(&b"EVAL") => {}
                    _ => talk.executes(&words),
                }
            }
            Ok(())
        });
        Ok(Self {
            listening,
            heard_last,
        })
    }

    /// Waits until everything is heard that was said before.
    pub(crate) async fn until_all_is_heard(&mut self, redis: &RedisServer) -> Result<()> {
        redis.run::<String>(&["ECHO", LAST]).await?;
        self.heard_last.wait_for(|heard| *heard).await?;
        Ok(())
    }
}

/// The words of a command as MONITOR shows it: quoted, after the time and who said it. None of what a script does.
fn told(line: &str) -> Vec<Vec<u8>> {
    let Some((_, command)) = line
        .split_once("] ")
        .filter(|(by, _)| !by.ends_with(" lua"))
    else {
        return Vec::new();
    };
    let (mut words, mut word) = (Vec::new(), None::<Vec<u8>>);
    let mut bytes = command.bytes();
    while let Some(byte) = bytes.next() {
        match (&mut word, byte) {
            (None, b'"') => word = Some(Vec::new()),
            (None, _) => {}
            (Some(_), b'"') => words.extend(word.take()),
            // What is escaped is in no word that matters here, but it may be a quote.
            (Some(word), b'\\') => word.extend(bytes.next()),
            (Some(word), byte) => word.push(byte),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_command_are_told_apart_and_what_a_script_does_is_left_out() {
        let line = r#"+1.5 [0 198.18.0.1:5] "EVALSHA" "ab" "1" "ratelimit:a\"b" "charge""#;
        let words = [&b"EVALSHA"[..], b"ab", b"1", b"ratelimit:a\"b", b"charge"];
        assert_eq!(told(line), words);
        assert!(told(r#"+1.5 [0 lua] "HSET" "k" "f" "1""#).is_empty());
        assert!(told("+OK").is_empty());
    }

    #[test]
    fn what_was_told_is_counted_by_key() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = Conversation::new(ledger.clone());
        for operation in ["charge", "peek", "debit"] {
            let line =
                format!(r#"+1.5 [0 unix:/s] "EVALSHA" "ab" "1" "k" "{operation}" "1" "1" "0""#);
            let words = told(&line);
            talk.executes(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        let counts = ledger.counts();
        assert_eq!((counts.charges, counts.write_backs), (1, 1));
        assert_eq!(counts.by_key["k"], 2);
    }
}
