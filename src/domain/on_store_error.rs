//! What happens when the store cannot decide.

use crate::domain::Charge;

/// What a request is answered when the store cannot decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnStoreError {
    /// This instance limits by itself, at its share of the quota.
    Local,
    /// It passes, uncounted.
    Allow,
    /// It is refused with 503.
    Deny,
}

impl OnStoreError {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Local, Self::Allow, Self::Deny];

    /// What a request with several charges is answered: `deny` beats `local`, which beats `allow`. A charge that is only
    /// observed refuses nothing.
    pub fn strictest(charges: &[Charge]) -> Self {
        let says = |charge: &Charge, policy| charge.on_store_error() == policy;
        if charges
            .iter()
            .any(|charge| charge.is_enforced() && says(charge, Self::Deny))
        {
            Self::Deny
        } else if charges.iter().any(|charge| says(charge, Self::Local)) {
            Self::Local
        } else {
            Self::Allow
        }
    }

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::TokenBucket;
    use crate::domain::{Cost, Identity, Key, Limit, Quota, RuleName};

    fn charge(policy: OnStoreError) -> Charge {
        let quota = Quota::new(1, 1, Duration::from_secs(1)).unwrap();
        let limit = Limit {
            algorithm: &TokenBucket,
            quota,
        };
        let name = RuleName::default_rule();
        let key = Key::new("t:", limit.algorithm, &name, &Identity::new());
        let charge = Charge::new(key, limit, Cost::MIN).unwrap();
        charge.with_on_store_error(policy)
    }

    #[test]
    fn the_strictest_wins_and_who_only_observes_refuses_nothing() {
        use OnStoreError::{Allow, Deny, Local};
        let observed = || charge(Deny).observed();
        for (charges, expected) in [
            (vec![charge(Allow)], Allow),
            (vec![charge(Allow), charge(Local)], Local),
            (vec![charge(Local), charge(Deny), charge(Allow)], Deny),
            (vec![charge(Local), observed()], Local),
            (vec![charge(Allow), observed()], Allow),
        ] {
            assert_eq!(OnStoreError::strictest(&charges), expected);
        }
    }
}
