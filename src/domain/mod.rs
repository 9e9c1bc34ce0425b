//! The words of rate limiting, as values: no I/O, no clock, no framework.

mod charge;
mod clock;
mod decision;
mod key;
mod networks;
mod on_store_error;
mod quota;
mod receipt;

pub use charge::{Charge, Cost, CostAboveCapacity, FEW_CHARGES, Limit, Mode, Unmergeable};
pub use clock::{Clock, ManualClock};
pub use decision::{Decision, Outcome, Source, Verdict};
pub use key::{Identity, Key, RuleName, RuleNameError};
pub use networks::{Networks, NetworksError};
pub use on_store_error::OnStoreError;
pub use quota::{Quota, QuotaError};
pub use receipt::Receipt;
