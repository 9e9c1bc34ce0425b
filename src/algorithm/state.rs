//! What an algorithm remembers of a key: a few named integers.

/// Most integers that an algorithm may remember of a key.
pub const MAX_FIELDS: usize = 6;

/// The integers that an algorithm remembers of one key, in the order of its fields; what it does not use is 0.
///
/// In Redis a record is a hash of these fields, each an integer from 0 to 2^53 - 1 in plain decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(pub [u64; MAX_FIELDS]);

impl State {
    /// Largest integer that can be remembered: Lua holds it exactly.
    pub const LARGEST: u64 = (1 << 53) - 1;

    /// A state of those integers.
    pub fn new<const N: usize>(values: [u64; N]) -> Self {
        const { assert!(N <= MAX_FIELDS) }
        let mut fields = [0; MAX_FIELDS];
        fields[..N].copy_from_slice(&values);
        Self(fields)
    }

    /// Reads the fields of a record. `None` when one of the first `required` is missing, is no plain decimal or is too
    /// large; such a one of the others is 0.
    pub fn parse<'a>(
        fields: impl IntoIterator<Item = Option<&'a [u8]>>,
        required: usize,
    ) -> Option<Self> {
        let mut state = Self([0; MAX_FIELDS]);
        let mut places = state.0.iter_mut();
        for (i, field) in fields.into_iter().enumerate() {
            let value = field.and_then(integer);
            *places.next()? = if i < required {
                value?
            } else {
                value.unwrap_or(0)
            };
        }
        Some(state)
    }
}

fn integer(digits: &[u8]) -> Option<u64> {
    // A sign would be parsed too.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|value| *value <= State::LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_decimals_only() {
        for (text, value) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("00000000000000000000001", Some(1)),
            ("9007199254740991", Some(State::LARGEST)),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
        for text in [
            "",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "0x10",
            " 1",
            "9007199254740992",
            "18446744073709551616",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_missing_field_makes_it_unreadable() {
        assert_eq!(State::parse([Some(&b"1"[..]), None], 2), None);
        assert_eq!(
            State::parse([Some(&b"1"[..]), Some(b"2")], 2),
            Some(State::new([1, 2]))
        );
    }

    #[test]
    fn a_missing_optional_field_is_0() {
        assert_eq!(
            State::parse([Some(&b"1"[..]), None, Some(b"odd"), Some(b"4")], 1),
            Some(State::new([1, 0, 0, 4]))
        );
    }
}
