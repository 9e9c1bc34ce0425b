//! Medians with their spread.

/// The middle of some figures, and the least and greatest of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Median {
    pub(crate) middle: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// The median; `None` of nothing.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<Median> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let half = sorted.len() / 2;
    let middle = if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        f64::midpoint(sorted[half - 1], sorted[half])
    };
    Some(Median {
        middle,
        least,
        greatest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_odd_and_an_even_number() {
        let of = |figures: &[f64]| median(figures.iter().copied());
        let expected = Median {
            middle: 2.0,
            least: 1.0,
            greatest: 9.0,
        };
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(expected));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]).map(|it| it.middle), Some(3.0));
        assert_eq!(of(&[]), None);
    }
}
