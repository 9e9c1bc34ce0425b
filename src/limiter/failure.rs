//! What happens when the store cannot decide.

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

    /// The word by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}
