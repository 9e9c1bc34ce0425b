//! Just enough of Redis's protocol to tell where one command or one reply ends and what a command says.

/// The length of the first whole frame in `bytes`; `None` while some of it is missing.
pub(crate) fn frame(bytes: &[u8]) -> Option<usize> {
    let line_end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let after = line_end + 2;
    let count = || -> i64 { number(&bytes[1..line_end]).unwrap_or(-1) };
    match bytes[0] {
        b'$' | b'!' | b'=' => {
            let Ok(length) = usize::try_from(count()) else {
                return Some(after);
            };
            let end = after + length + 2;
            (bytes.len() >= end).then_some(end)
        }
        kind @ (b'*' | b'~' | b'>' | b'%') => {
            let per_entry = if kind == b'%' { 2 } else { 1 };
            (0..count() * per_entry).try_fold(after, |at, _| Some(at + frame(bytes.get(at..)?)?))
        }
        _ => Some(after),
    }
}

/// The words of a command, which is an array of strings.
pub(crate) fn words(frame_bytes: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let Some(mut at) = line_end(frame_bytes) else {
        return words;
    };
    while let Some(length) = frame_bytes.get(at..).and_then(frame) {
        let word = &frame_bytes[at..at + length];
        let begin = line_end(word).unwrap_or(word.len());
        words.push(&word[begin.min(length - 2)..length - 2]);
        at += length;
    }
    words
}

/// The integer at a place of a reply that is an array.
pub(crate) fn integer(frame_bytes: &[u8], place: usize) -> Option<i64> {
    let mut rest = &frame_bytes[line_end(frame_bytes)?..];
    for _ in 0..place {
        rest = &rest[frame(rest)?..];
    }
    let digits = rest.strip_prefix(b":")?;
    number(&digits[..frame(rest)?.checked_sub(3)?])
}

/// Whether a reply says that its command had no effect: an error, or nothing (an EXEC whose watch was broken).
pub(crate) fn is_refusal(frame_bytes: &[u8]) -> bool {
    matches!(frame_bytes.first(), Some(b'-' | b'!')) || is_nothing(frame_bytes)
}

/// Whether a reply is nothing: that of an EXEC whose watch was broken.
pub(crate) fn is_nothing(frame_bytes: &[u8]) -> bool {
    let nothing: [&[u8]; 3] = [b"_\r\n", b"*-1\r\n", b"$-1\r\n"];
    nothing.contains(&frame_bytes)
}

/// Whether a message came without being asked for.
pub(crate) fn is_push(frame_bytes: &[u8]) -> bool {
    frame_bytes.first() == Some(&b'>')
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(2)
        .position(|two| two == b"\r\n")
        .map(|at| at + 2)
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_whole_only_with_its_last_byte() {
        let command = b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n";
        assert!((0..command.len()).all(|end| frame(&command[..end]).is_none() || end == 0));
        assert_eq!(frame(command), Some(command.len()));
        assert_eq!(words(command), [&b"SET"[..], b"\r\n", b""]);
    }

    #[test]
    fn an_integer_is_found_in_its_place() {
        let reply = b"*4\r\n:-1\r\n$2\r\n:7\r\n*1\r\n:8\r\n:12\r\n";
        let found = [0, 1, 2, 3, 4].map(|place| integer(reply, place));
        assert_eq!(found, [Some(-1), None, None, Some(12), None]);
        assert_eq!(integer(b"+OK", 0), None);
    }

    #[test]
    fn replies_of_every_shape_are_told_apart() {
        let replies: [&[u8]; 8] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":1\r\n",
            b"_\r\n",
            b"$-1\r\n",
            b"*2\r\n:1\r\n$1\r\na\r\n",
            b"%1\r\n+a\r\n*1\r\n:2\r\n",
            b">1\r\n+pushed\r\n",
        ];
        let all = replies.concat();
        let mut at = 0;
        for reply in replies {
            assert_eq!(frame(&all[at..]), Some(reply.len()));
            at += reply.len();
        }
        assert_eq!(
            replies.map(is_refusal),
            [false, true, false, true, true, false, false, false]
        );
        assert!(is_push(replies[7]));
    }
}
