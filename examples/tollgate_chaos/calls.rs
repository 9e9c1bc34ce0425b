//! What a call of one of the service's scripts charges.

use crate::resp::integer;

/// What a script is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Charge,
    WriteBack,
    Lend,
}

/// Numbers of the script that decides for each charge of a group, behind the group's own.
const OF_A_CHARGE: usize = 6;

/// Where the reply of the script that lends says how much it did.
const GRANTED: usize = 6;

/// Whether the reply of a call that was to lend says that it did.
pub(crate) fn has_lent(reply: &[u8]) -> bool {
    integer(reply, GRANTED).is_some_and(|granted| granted > 0)
}

/// What a call of a script charges: of the one that decides, whose groups `driver.lua` tells of, all keys of groups that
/// charge; of the one that lends, whose arguments are numbers alone, its only key.
pub(crate) fn charges(words: &[&[u8]]) -> Vec<(Operation, String)> {
    let text = |i: usize| words.get(i).and_then(|word| std::str::from_utf8(word).ok());
    let number = |i: usize| text(i).and_then(|text| text.parse::<usize>().ok());
    let key = |i: usize| Some(text(i)?.to_owned());
    let (mut from, Some(keys)) = (3, number(2)) else {
        return Vec::new();
    };
    let mut at = keys.saturating_add(from);
    if keys == 1 && number(at).is_some() {
        return key(from)
            .map(|key| (Operation::Lend, key))
            .into_iter()
            .collect();
    }
    let mut charges = Vec::new();
    while let Some(operation) = text(at) {
        let [Some(requests), Some(each), Some(repeated)] = [1, 2, 3].map(|i| number(at + i)) else {
            break;
        };
        let to = from.saturating_add(requests.saturating_mul(each));
        let operation = match operation {
            "charge" => Some(Operation::Charge),
            "debit" => Some(Operation::WriteBack),
            _ => None,
        };
        if let Some(operation) = operation {
            charges.extend((from..to).map_while(|i| Some((operation, key(i)?))));
        }
        at = at
            .saturating_add(repeated.saturating_add(4))
            .saturating_add(OF_A_CHARGE.saturating_mul(each));
        from = to;
    }
    charges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call with these keys and groups charges.
    fn charged(keys: &str, groups: &str) -> Vec<(Operation, String)> {
        let count = keys.split(' ').count().to_string();
        let words = ["EVALSHA", "abc", &count].into_iter();
        let words = words.chain(keys.split(' ')).chain(groups.split(' '));
        charges(&words.map(str::as_bytes).collect::<Vec<_>>())
    }

    /// Two requests of one charge, one that only looks, and two of two charges, of which a key stands there twice.
    #[test]
    fn all_that_travels_in_a_call_counts() {
        let groups = [
            "charge 2 1 0 tokenbucket 1 1 9 1 1",
            "peek 1 1 0 tokenbucket 1 1 9 1 1",
            "charge 2 2 1 2 tokenbucket 1 1 9 1 1 gcra 0 2 9 1 1",
            "debit 1 1 0 tokenbucket 1 1 9 1 1",
        ];
        let charged = charged("a b p c d e d f", &groups.join(" "));
        let charge = ["a", "b", "c", "d", "e", "d"].map(|key| (Operation::Charge, key.to_owned()));
        assert_eq!(charged[..6], charge);
        assert_eq!(charged[6..], [(Operation::WriteBack, "f".to_owned())]);
    }

    #[test]
    fn a_lease_is_told_from_a_decision_and_whether_it_was_granted() {
        let lend = "1 400 50 1000000 0 0 0 33 8 10 1000000";
        assert_eq!(charged("k", lend), [(Operation::Lend, "k".to_owned())]);
        let reply = |granted| {
            format!("*9\r\n:1\r\n:0\r\n:0\r\n:9\r\n:1\r\n:1\r\n:{granted}\r\n:1\r\n:1\r\n")
        };
        assert_eq!(
            [0, 9].map(|it| has_lent(reply(it).as_bytes())),
            [false, true]
        );
        assert!(!has_lent(b"-ERR no\r\n"));
    }

    #[test]
    fn what_makes_no_sense_charges_nothing() {
        assert_eq!(charged("k", "charge"), []);
        assert_eq!(charged("k", "charge x 1 0"), []);
        assert_eq!(charges(&[b"EVALSHA", b"abc"]), []);
        assert_eq!(charges(&[b"EVALSHA", b"abc", b"7", b"k"]), []);
        assert_eq!(charges(&[b"EVALSHA", b"abc", b"0", b"7"]), []);
        let most = usize::MAX.to_string();
        for numbers in ["9 1 0", &format!("{most} {most} 0"), &format!("1 {most} 0")] {
            let charged = charged("k", &format!("charge {numbers}"));
            assert!(charged.len() <= 6, "{numbers}: {charged:?}");
        }
    }
}
