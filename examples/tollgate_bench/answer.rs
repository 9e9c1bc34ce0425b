//! Reads answers of HTTP/1.1 off a connection, as little of each as is needed.

use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Largest answer.
const LARGEST: usize = 16 * 1024;
/// Most header fields.
const MOST_HEADERS: usize = 48;

/// What came back for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Whether the instance decided without its store.
    pub(crate) is_local: bool,
    /// Bytes of head and body.
    pub(crate) bytes: usize,
}

/// How a denial is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// By the status 429.
    Status,
    /// By a member `allowed` of the body, which is then taken for that status.
    Member,
}

/// Where answers are collected: each request waits for its answer, so one has room for one.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    denial: Denial,
}

impl Reader {
    pub(crate) fn new(denial: Denial) -> Self {
        let bytes = Vec::with_capacity(LARGEST);
        Self { bytes, denial }
    }

    /// The next answer on `stream`.
    pub(crate) async fn next(&mut self, stream: &mut TcpStream) -> Result<Answer> {
        self.bytes.clear();
        loop {
            if self.bytes.len() == LARGEST {
                bail!("an answer of more than {LARGEST} bytes");
            }
            if stream.read_buf(&mut self.bytes).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some(mut answer) = parse(&self.bytes)?
                && self.bytes.len() >= answer.bytes
            {
                if self.denial == Denial::Member && says_no(&self.bytes) {
                    answer.status = 429;
                }
                return Ok(answer);
            }
        }
    }
}

fn says_no(bytes: &[u8]) -> bool {
    let no = br#""allowed":false"#;
    bytes.windows(no.len()).any(|part| part == no)
}

/// The answer that begins there, once its head is whole.
fn parse(bytes: &[u8]) -> Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let (mut length, mut is_local) = (None, false);
    for header in response.headers.iter() {
        // The first letter rules out nearly all.
        match header.name.as_bytes() {
            [b'c' | b'C', ..] if header.name.eq_ignore_ascii_case("content-length") => {
                length = std::str::from_utf8(header.value)?.parse().ok();
            }
            [b'x' | b'X', ..] if header.name.eq_ignore_ascii_case("x-ratelimit-source") => {
                is_local = header.value == b"local";
            }
            _ => {}
        }
    }
    let length: usize = length.context("an answer without content-length")?;
    Ok(Some(Answer {
        status: response.code.context("an answer without a status")?,
        is_local,
        bytes: head + length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let text = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nx-ratelimit-source: local\r\n\r\n{}";
        let expected = Answer {
            status: 429,
            is_local: true,
            bytes: text.len(),
        };
        assert_eq!(parse(text).unwrap(), Some(expected));
        assert_eq!(parse(&text[..40]).unwrap(), None);
    }

    #[test]
    fn an_answer_whose_end_is_unknown_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
