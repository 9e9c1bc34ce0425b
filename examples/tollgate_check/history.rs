//! One request of a run, as its instance saw it, and its line on the wire between processes.

use std::str::FromStr;

/// What was asked and what was told; all times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    /// Which key.
    pub(crate) key: u64,
    /// Tokens asked for.
    pub(crate) cost: u64,
    /// The machine's clock before the request was made.
    pub(crate) invoked_us: u64,
    /// The machine's clock after the answer was there.
    pub(crate) returned_us: u64,
    /// The store's time of the decision.
    pub(crate) now_us: u64,
    /// Whether it was admitted.
    pub(crate) admitted: bool,
    /// What was told to be left.
    pub(crate) remaining: u64,
    /// What was told to be the wait, on a denial; else 0.
    pub(crate) retry_after_us: u64,
    /// What was told to be the time until the bucket is full.
    pub(crate) reset_after_us: u64,
    /// Whether the instance decided by itself: then the store's time is an estimate.
    pub(crate) alone: bool,
}

impl Op {
    /// The line of this request.
    pub(crate) fn line(&self) -> String {
        let Self {
            key,
            cost,
            invoked_us,
            returned_us,
            now_us,
            remaining,
            retry_after_us,
            reset_after_us,
            ..
        } = self;
        let (admitted, alone) = (u8::from(self.admitted), u8::from(self.alone));
        format!(
            "{key} {cost} {invoked_us} {returned_us} {now_us} {admitted} {remaining} {retry_after_us} {reset_after_us} {alone}"
        )
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let numbers = numbers.map_err(|error| format!("{line:?}: {error}"))?;
        let [
            key,
            cost,
            invoked_us,
            returned_us,
            now_us,
            admitted,
            remaining,
            retry_after_us,
            reset_after_us,
            alone,
        ] = numbers[..]
        else {
            return Err(format!("{line:?}: not ten numbers"));
        };
        let (admitted, alone) = (admitted == 1, alone == 1);
        Ok(Self {
            key,
            cost,
            invoked_us,
            returned_us,
            now_us,
            admitted,
            remaining,
            retry_after_us,
            reset_after_us,
            alone,
        })
    }
}
