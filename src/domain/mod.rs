//! The words of rate limiting, as values: no I/O, no clock, no framework.

mod charge;
mod clock;
mod decision;
mod key;
mod quota;
mod receipt;

pub use charge::{Charge, Cost, CostAboveCapacity, Limit, Mode, Unmergeable};
pub use clock::{Clock, ManualClock};
pub use decision::{Decision, Outcome, Source, Verdict};
pub use key::{Identity, Key, RuleName, RuleNameError};
pub use quota::{Quota, QuotaError};
pub use receipt::Receipt;
