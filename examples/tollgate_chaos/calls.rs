//! What a call of one of the service's scripts charges.

/// What a script is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Charge,
    WriteBack,
    Lend,
}

/// Numbers of the script that decides for each charge of a group, behind the group's own.
const OF_A_CHARGE: usize = 6;

/// What a call of a script charges: of the one that decides, whose groups `driver.lua` tells of, all keys of groups that
/// charge; of the one that lends, whose arguments are numbers alone, its only key.
pub(crate) fn charges(words: &[&[u8]]) -> Vec<(Operation, String)> {
    let text = |i: usize| words.get(i).and_then(|word| std::str::from_utf8(word).ok());
    let number = |i: usize| text(i).and_then(|text| text.parse::<usize>().ok());
    let key = |i: usize| String::from_utf8_lossy(words[i]).into_owned();
    let (mut from, Some(keys)) = (3, number(2)) else {
        return Vec::new();
    };
    let mut at = from + keys;
    if number(at).is_some() {
        return vec![(Operation::Lend, key(from))];
    }
    let mut charges = Vec::new();
    while let Some(operation) = text(at) {
        let [Some(requests), Some(each), Some(repeated)] = [1, 2, 3].map(|i| number(at + i)) else {
            break;
        };
        let to = from + requests * each;
        let operation = match operation {
            "charge" => Some(Operation::Charge),
            "debit" => Some(Operation::WriteBack),
            _ => None,
        };
        if let Some(operation) = operation {
            charges.extend((from..to).map(|i| (operation, key(i))));
        }
        (from, at) = (to, at + 4 + repeated + OF_A_CHARGE * each);
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
    fn a_lease_is_told_from_a_decision() {
        let lend = "1 400 50 1000000 0 0 0 33 8 10 1000000";
        assert_eq!(charged("k", lend), [(Operation::Lend, "k".to_owned())]);
    }

    #[test]
    fn what_makes_no_sense_charges_nothing() {
        assert_eq!(charged("k", "charge"), []);
        assert_eq!(charged("k", "charge x 1 0"), []);
        assert_eq!(charges(&[b"EVALSHA", b"abc"]), []);
        assert_eq!(charges(&[b"EVALSHA", b"abc", b"7", b"k"]), []);
    }
}
