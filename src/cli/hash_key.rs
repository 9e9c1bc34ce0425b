//! `tollgate hash-key`: what stands for a secret in a rules file.

use std::io::{self, Read};

use crate::domain::Identity;

/// Longest secret, in bytes.
const LONGEST: usize = 8 * 1024;

/// Why a secret was refused.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// It could not be read.
    #[error("cannot read the secret from standard input")]
    Unread(#[from] io::Error),
    /// There was none.
    #[error("standard input is empty: pipe the secret into it, as in `tollgate hash-key < secret`")]
    Empty,
    /// It is too long.
    #[error("a secret has at most {LONGEST} bytes")]
    TooLong,
    /// No header, cookie or query parameter has such a value as it stands.
    #[error("one secret has one line")]
    SeveralLines,
}

/// Reads one secret, without the line break at its end, and returns its hash.
///
/// # Errors
///
/// When it cannot be read, is empty, has several lines or more than 8 KiB.
pub fn hash_key(from: impl Read) -> Result<String, HashKeyError> {
    let mut bytes = Vec::new();
    // A line break at the end does not count, and one byte more shows that it is too long.
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 3;
    from.take(most).read_to_end(&mut bytes)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret = line.strip_suffix(b"\r").unwrap_or(line);
    if secret.len() > LONGEST {
        Err(HashKeyError::TooLong)
    } else if secret.is_empty() {
        Err(HashKeyError::Empty)
    } else if secret.contains(&b'\n') || secret.contains(&b'\r') {
        Err(HashKeyError::SeveralLines)
    } else {
        Ok(Identity::hashed(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_at_the_end_is_no_part_of_the_secret() {
        let hash = Identity::hashed(b"s3cret");
        for given in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            assert_eq!(hash_key(given.as_bytes()).unwrap(), hash);
        }
        assert_ne!(hash_key(&b" s3cret"[..]).unwrap(), hash);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let longest = [b'a'; LONGEST];
        assert!(hash_key(&longest[..]).is_ok());
        assert!(hash_key(&[&longest[..], b"\r\n"].concat()[..]).is_ok());
        for (given, error) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"a\nb\n", "one line"),
            (b"a\n\n", "one line"),
            (&[b'a'; LONGEST + 1], "at most 8192 bytes"),
            (&[b'a'; 3 * LONGEST], "at most 8192 bytes"),
        ] {
            let said = hash_key(given).unwrap_err().to_string();
            assert!(said.contains(error), "{said}");
        }
    }
}
