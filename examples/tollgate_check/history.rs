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
        let admitted = u8::from(self.admitted);
        format!(
            "{key} {cost} {invoked_us} {returned_us} {now_us} {admitted} {remaining} {retry_after_us} {reset_after_us}"
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
        ] = numbers[..]
        else {
            return Err(format!("{line:?}: not nine numbers"));
        };
        let admitted = admitted == 1;
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
        })
    }
}
