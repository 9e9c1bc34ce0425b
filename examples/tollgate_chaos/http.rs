//! One kept-alive HTTP/1.1 connection, by hand: so that a lost answer and one too many are both seen.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is believed.
const LARGEST: usize = 64 * 1024;

/// A well-formed answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Whether the instance decided alone.
    pub(crate) is_local: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The connection ended before a whole answer was there.
    Lost(String),
    /// What came is no answer of this service.
    Malformed(String),
}

/// A connection on which one request at a time is made.
pub(crate) struct Connection {
    stream: TcpStream,
}

/// How an idle connection is found.
pub(crate) enum Idle {
    Ready,
    Closed,
    /// It holds bytes that nobody asked for.
    Talks,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| lost("connect", &e))?;
        stream.set_nodelay(true).map_err(|e| lost("connect", &e))?;
        Ok(Self { stream })
    }

    pub(crate) fn look(&self) -> Idle {
        match self.stream.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Idle::Ready,
            Ok(0) | Err(_) => Idle::Closed,
            Ok(_) => Idle::Talks,
        }
    }

    pub(crate) async fn send(&mut self, client: &str) -> Result<(), Failure> {
        let request =
            format!("GET /api HTTP/1.1\r\nHost: tollgate\r\nX-Forwarded-For: {client}\r\n\r\n");
        self.stream
            .write_all(request.as_bytes())
            .await
            .map_err(|e| lost("write", &e))
    }

    /// Reads the answer to what was sent. `limit` is what it must say the limit is.
    pub(crate) async fn receive(&mut self, limit: u64) -> Result<Answer, Failure> {
        let mut bytes = Vec::with_capacity(1024);
        loop {
            if let Some(answer) = parse(&bytes, limit)? {
                return Ok(answer);
            }
            if bytes.len() > LARGEST {
                return Err(malformed("an answer without end", &bytes));
            }
            let read = self.stream.read_buf(&mut bytes).await;
            match read.map_err(|e| lost("read", &e))? {
                0 => return Err(Failure::Lost(format!("closed after {} B", bytes.len()))),
                _ => continue,
            }
        }
    }

    /// Goes away without a word, as a client that crashed.
    pub(crate) fn abort(self) {
        // Where that is refused the connection is closed in the ordinary way, which is an abort too.
        let _ = self.stream.set_zero_linger();
    }
}

fn lost(what: &str, error: &std::io::Error) -> Failure {
    Failure::Lost(format!("{what}: {error}"))
}

fn malformed(what: &str, bytes: &[u8]) -> Failure {
    let begin: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    Failure::Malformed(format!("{what}: {begin:?}"))
}

/// The answer, once it is whole: a status, the headers of a decision, and JSON of the length that was told.
fn parse(bytes: &[u8], limit: u64) -> Result<Option<Answer>, Failure> {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let bad = |what| malformed(what, bytes);
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| bad("no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
        .ok_or_else(|| bad("no status"))?;
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let field = |name: &str| {
        let mut values = fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| *value)
    };
    let count = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let length = count("content-length").ok_or_else(|| bad("no length"))?;
    let body = &bytes[head_end + 4..];
    let length = usize::try_from(length).map_err(|_| bad("no length"))?;
    if body.len() < length {
        return Ok(None);
    }
    if body.len() > length {
        return Err(bad("more than one answer"));
    }
    if serde_json::from_slice::<serde_json::Value>(body).is_err() {
        return Err(bad("no JSON"));
    }
    // Other statuses are judged as such; what they must carry is another matter.
    if status == 503 {
        let is_problem = field("content-type") == Some("application/problem+json");
        let undecided = count("x-ratelimit-limit").is_none();
        if !is_problem || !undecided || count("retry-after").is_none_or(|seconds| seconds == 0) {
            return Err(bad("turned away, but not told when to come again"));
        }
    }
    if matches!(status, 200 | 429) {
        let decided = count("x-ratelimit-limit") == Some(limit)
            && count("x-ratelimit-remaining").is_some_and(|left| left <= limit)
            && count("x-ratelimit-reset").is_some();
        if !decided || (status == 429) != count("retry-after").is_some() {
            return Err(bad("not the headers of a decision"));
        }
    }
    let is_local = field("x-ratelimit-source") == Some("local");
    Ok(Some(Answer { status, is_local }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-ratelimit-limit: 5\r\n\
        x-ratelimit-remaining: 4\r\nx-ratelimit-reset: 1\r\nX-RateLimit-Source: local\r\n\r\n{}";

    #[test]
    fn an_answer_is_whole_only_with_its_last_byte() {
        for end in 0..ANSWER.len() {
            assert!(parse(&ANSWER[..end], 5).unwrap().is_none());
        }
        let answer = parse(ANSWER, 5).unwrap().unwrap();
        assert_eq!((answer.status, answer.is_local), (200, true));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        assert!(parse(&[ANSWER, b"x"].concat(), 5).is_err(), "one too many");
        assert!(parse(ANSWER, 6).is_err(), "another limit");
        let without_retry_after = String::from_utf8_lossy(ANSWER).replace("200 OK", "429 No");
        assert!(parse(without_retry_after.as_bytes(), 5).is_err());
        let away =
            "HTTP/1.1 503 No\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\n";
        assert!(parse(format!("{away}retry-after: 1\r\n\r\n{{}}").as_bytes(), 5).is_ok());
        assert!(parse(format!("{away}\r\n{{}}").as_bytes(), 5).is_err());
    }
}
