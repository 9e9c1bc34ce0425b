//! Patterns for short texts, such as hosts and header values.

/// A pattern in which `*` stands for any characters, none too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPattern(Box<str>);

impl TextPattern {
    /// Takes any text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only text that matches; `None` if several do.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Whether every text that matches `other` matches this too, as far as can be told. A star of `other` is covered
    /// by a star only.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self == other || self.matches(other.0.as_bytes())
    }

    /// Whether `text` matches as a whole.
    pub fn matches(&self, text: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut taken) = (0, 0);
        // Where to go on when a byte does not match: behind the last star, which then takes one byte more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (pattern.get(at), text.get(taken)) {
                (Some(b'*'), _) => {
                    at += 1;
                    retry = Some((at, taken));
                }
                (None, None) => return true,
                (Some(wanted), Some(byte)) if wanted == byte => (at, taken) = (at + 1, taken + 1),
                _ => match &mut retry {
                    Some((behind, from)) if *from < text.len() => {
                        *from += 1;
                        (at, taken) = (*behind, *from);
                    }
                    _ => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_take_any_characters() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(
                TextPattern::new(pattern).matches(text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
