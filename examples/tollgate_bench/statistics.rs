//! Medians with their spread.

/// The middle of some figures, and the quartiles: half of the figures lie between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Median {
    pub(crate) middle: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// The median and the quartiles; `None` of nothing.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<Median> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    // Type 7 of Hyndman and Fan, "Sample quantiles in statistical packages", 1996.
    let quartile = |quarters: usize| {
        let (whole, part) = (last * quarters / 4, (last * quarters % 4) as f64 / 4.0);
        let (below, above) = (sorted[whole], sorted[last.min(whole + 1)]);
        below + (above - below) * part
    };
    Some(Median {
        middle: quartile(2),
        lower: quartile(1),
        upper: quartile(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_odd_and_an_even_number() {
        let of = |figures: &[f64]| {
            median(figures.iter().copied()).map(|it| (it.lower, it.middle, it.upper))
        };
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some((1.5, 2.0, 5.5)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some((1.75, 3.0, 5.25)));
        assert_eq!(of(&[5.0, 4.0, 3.0, 2.0, 1.0]), Some((2.0, 3.0, 4.0)));
        assert_eq!(of(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of(&[]), None);
    }
}
