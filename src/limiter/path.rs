//! Paths: the one form in which they are compared, and patterns for them.
//!
//! A path that reaches the same resource must not get around a rule by its spelling. So before it is compared, a path is
//! brought into one form (after RFC 3986, section 6.2.2): `%XX` is decoded where it stands for a visible ASCII character
//! other than `/`, `%` and `*`, and written in upper case elsewhere; `//` is `/`; `.` and `..` are resolved; a trailing
//! `/` is dropped.

use std::borrow::Cow;

use super::pattern::TextPattern;

/// The path in the one form in which paths are compared.
pub(super) fn normal(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let is_plain = |pair: &[u8]| !matches!(pair, [b'/', b'/' | b'.']);
    let is_visible = |byte: &u8| byte.is_ascii_graphic() && *byte != b'%';
    if bytes.iter().all(is_visible) && bytes.windows(2).all(is_plain) {
        let bare = path.strip_suffix('/').unwrap_or(path);
        return Cow::Borrowed(if bare.is_empty() { "/" } else { bare });
    }
    let decoded = decoded(bytes);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

fn decoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let (byte, used) = escaped(rest).map_or((*first, 1), |byte| (byte, 3));
        let is_literal = match byte {
            b'/' | b'*' => used == 1,
            // One that escapes nothing stands for itself.
            b'%' => false,
            _ => byte.is_ascii_graphic(),
        };
        if is_literal {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        rest = &tail[used - 1..];
    }
    text
}

/// The byte that a `%XX` at the start of `bytes` stands for.
pub(super) fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// A pattern for whole paths: `*` stands for any characters within a segment, `**` as a segment of its own for any
/// number of segments, none too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(TextPattern),
    Any,
}

/// A text that is no pattern for paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// It does not begin with a slash.
    #[error("a path begins with `/`")]
    NoSlash,
    /// It has `**` within a segment.
    #[error("`**` stands alone between slashes, as in `/api/**`")]
    StarsWithinSegment,
}

impl PathPattern {
    /// Reads a pattern such as `/api/*/items/**`.
    ///
    /// # Errors
    ///
    /// When it does not begin with `/`, or has `**` within a segment.
    pub fn new(text: &str) -> Result<Self, PathPatternError> {
        if !text.starts_with('/') {
            return Err(PathPatternError::NoSlash);
        }
        let normal = normal(text);
        let segments = split(&normal).map(|segment| match segment {
            "**" => Ok(Segment::Any),
            _ if segment.contains("**") => Err(PathPatternError::StarsWithinSegment),
            _ => Ok(Segment::Text(TextPattern::new(segment))),
        });
        Ok(Self {
            segments: segments.collect::<Result<_, _>>()?,
            text: text.into(),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first segment, if only one text matches it: by it rules are found.
    pub(super) fn first_literal(&self) -> Option<&str> {
        match self.segments.first() {
            Some(Segment::Text(text)) => text.literal(),
            Some(Segment::Any) => None,
            None => Some(""),
        }
    }

    /// Whether every path that matches `other` matches this too, as far as can be told. A `**` of `other` is covered
    /// by a `**` only.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (mut at, mut taken) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.segments.get(at), other.segments.get(taken)) {
                (Some(Segment::Any), _) => {
                    at += 1;
                    retry = Some((at, taken));
                }
                (None, None) => return true,
                (Some(Segment::Text(wide)), Some(Segment::Text(text))) if wide.covers(text) => {
                    (at, taken) = (at + 1, taken + 1);
                }
                _ => match &mut retry {
                    Some((behind, from)) if *from < other.segments.len() => {
                        *from += 1;
                        (at, taken) = (*behind, *from);
                    }
                    _ => return false,
                },
            }
        }
    }

    /// Whether `path`, in its [`normal`] form, matches as a whole.
    pub(super) fn matches(&self, path: &str) -> bool {
        // What most patterns are: one path, which mostly is written in its normal form.
        if *path == *self.text {
            return true;
        }
        let mut pattern = 0;
        let mut rest = split(path);
        // Where to go on when a segment does not match: behind the last `**`, which then takes one segment more.
        let mut retry: Option<(usize, _)> = None;
        loop {
            if let Some(Segment::Any) = self.segments.get(pattern) {
                pattern += 1;
                retry = Some((pattern, rest.clone()));
                continue;
            }
            let mut ahead = rest.clone();
            match (self.segments.get(pattern), ahead.next()) {
                (None, None) => return true,
                (Some(Segment::Text(text)), Some(segment)) if text.matches(segment.as_bytes()) => {
                    pattern += 1;
                    rest = ahead;
                }
                _ => {
                    let Some((behind, from)) = &mut retry else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    pattern = *behind;
                    rest = from.clone();
                }
            }
        }
    }
}

/// The segments of a path in its normal form.
fn split(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The first segment of a path in its normal form; empty for `/`.
pub(super) fn first_segment(path: &str) -> &str {
    split(path).next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_resource_has_one_form() {
        for (path, expected) in [
            ("/login", "/login"),
            ("/login/", "/login"),
            ("//login", "/login"),
            ("/./a/../login", "/login"),
            ("/../../login", "/login"),
            ("/%6Cogin", "/login"),
            ("/%6cog%69n%2e", "/login."),
            ("/%2e%2e/login", "/login"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Ab", "/a%2Ab"),
            ("/%e4", "/%E4"),
            ("/\u{e4}", "/%C3%A4"),
            ("/100%", "/100%25"),
            ("/100%25", "/100%25"),
            ("/%zz", "/%25zz"),
            ("/a b", "/a%20b"),
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("*", "*"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn stars_match_within_a_segment_and_over_several() {
        for (pattern, path, expected) in [
            ("/api", "/api", true),
            ("/api/", "/api", true),
            ("/api", "/apis", false),
            ("/api", "/api/x", false),
            ("/api/*", "/api/x", true),
            ("/api/*", "/api", false),
            ("/api/*", "/api/x/y", false),
            ("/api/**", "/api", true),
            ("/api/**", "/api/x/y", true),
            ("/api/**", "/apis/x", false),
            ("/**", "/", true),
            ("/**/x", "/x", true),
            ("/**/x", "/a/b/x", true),
            ("/**/x", "/a/x/b", false),
            ("/**/a/*/b/**", "/a/a/b/c/b", true),
            ("/**/a/**/a", "/a", false),
            ("/files/*.jpg", "/files/a.b.jpg", true),
            ("/files/*.jpg", "/files/.jpeg", false),
            ("/", "/", true),
            ("/", "/x", false),
            ("/%6Cogin", "/login", true),
            ("/caf\u{e9}", "/caf%c3%a9", true),
        ] {
            let matches = PathPattern::new(pattern).unwrap().matches(&normal(path));
            assert_eq!(matches, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(PathPattern::new("api"), Err(PathPatternError::NoSlash));
        assert_eq!(
            PathPattern::new("/a**"),
            Err(PathPatternError::StarsWithinSegment)
        );
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(path in "/([a%2eEfF/.\u{e4}*]|%2[eEfF]|%41){0,12}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(&normal(&once), &once);
        }

        #[test]
        fn a_match_is_what_trying_every_split_finds(
            pattern in proptest::collection::vec("a|b|\\*|\\*\\*", 0..6),
            path in proptest::collection::vec("a|b", 0..6),
        ) {
            fn tries(pattern: &[String], path: &[String]) -> bool {
                match pattern {
                    [] => path.is_empty(),
                    [any, rest @ ..] if any == "**" => (0..=path.len()).any(|taken| tries(rest, &path[taken..])),
                    [one, rest @ ..] => path.first().is_some_and(|segment| one == "*" || one == segment) && tries(rest, &path[1..]),
                }
            }
            let text = format!("/{}", pattern.join("/"));
            let matches = PathPattern::new(&text).unwrap().matches(&format!("/{}", path.join("/")));
            prop_assert_eq!(matches, tries(&pattern, &path));
        }
    }
}
