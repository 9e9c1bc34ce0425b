//! Finds the rules that a request may be for, without looking at all of them.

use std::collections::BTreeMap;

use super::path::first_segment;
use super::rule::Rule;

/// Rules by the first segment of their paths.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of their segments.
    by_first: Box<[First]>,
    /// Those of any first segment, in their order.
    any: Box<[usize]>,
}

/// Those of one first segment and those of any, in their order.
#[derive(Debug)]
struct First {
    segment: Box<str>,
    rules: Box<[usize]>,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut any = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let paths = &rule.matches.when.paths;
            let firsts: Option<Vec<&str>> = paths.iter().map(|path| path.first_literal()).collect();
            match firsts.filter(|firsts| !firsts.is_empty()) {
                Some(firsts) => firsts
                    .into_iter()
                    .for_each(|first| named.entry(first).or_default().push(i)),
                None => any.push(i),
            }
        }
        let by_first = named.into_iter().map(|(first, mut rules)| {
            rules.extend(&any);
            rules.sort_unstable();
            rules.dedup();
            First {
                segment: first.into(),
                rules: rules.into(),
            }
        });
        Self {
            by_first: by_first.collect(),
            any: any.into(),
        }
    }

    /// The rules that a request for `path`, in its normal form, may be for, in their order.
    pub(super) fn candidates(&self, path: &str) -> &[usize] {
        let first = first_segment(path);
        // A few steps take less than to hash the segment.
        let order = |known: &First| (*known.segment).cmp(first);
        let place = self.by_first.binary_search_by(order);
        place.map_or(&self.any, |place| &self.by_first[place].rules)
    }
}
