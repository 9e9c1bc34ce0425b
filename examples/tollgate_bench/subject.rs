//! What is measured: a contender, how many of it, and under which load.

use tollgate::strategy::factory::Kind;

use crate::generator::Clients;

/// A limit, as whole tokens and the seconds in which one is refilled, or how many are refilled in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// So many that nobody is denied; their records outlive the run.
    Ample,
    /// The same for a single client, which uses all of what is measured.
    AmpleForOne,
    /// Ten, and ten a second.
    Tight,
}

impl Quota {
    pub(crate) fn capacity(self) -> u64 {
        match self {
            Self::Ample => 100_000,
            Self::AmpleForOne => 1_000_000_000,
            Self::Tight => 10,
        }
    }

    /// Tokens, and the seconds in which they are refilled.
    pub(crate) fn refill(self) -> (u64, u64) {
        match self {
            Self::Ample => (1, 10_000),
            Self::AmpleForOne => (1, 1),
            Self::Tight => (10, 1),
        }
    }

    /// As `LIMITER_REFILL_RATE`.
    pub(crate) fn rate(self) -> &'static str {
        match self {
            Self::Ample => "0.0001",
            Self::AmpleForOne => "1",
            Self::Tight => "10",
        }
    }

    /// For who counts in fixed windows: most in a window, and its seconds.
    pub(crate) fn window(self) -> (u64, u64) {
        let seconds = if self == Self::Tight { 1 } else { 86_400 };
        (self.capacity(), seconds)
    }

    /// nginx knows no slower rate than one a minute, and denies beyond the burst alone.
    pub(crate) fn nginx_rate(self) -> &'static str {
        match self {
            Self::Ample => "1r/m",
            Self::AmpleForOne => "1r/s",
            Self::Tight => "10r/s",
        }
    }

    /// nginx counts in thousandths, in 32 bits.
    pub(crate) fn nginx_burst(self) -> u64 {
        (self.capacity() - 1).min(2_000_000)
    }
}

/// Whom to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The service, with `tokenbucket` on that strategy.
    Own(Kind),
    /// Something that this program serves itself: see `serve`.
    Served(&'static str),
    /// The service with so many limits a request, by a rules file.
    Charges(Kind, usize),
    /// nginx that answers from a file, with `limit_req` or without.
    Nginx { limited: bool },
    /// throttlecrab-server, in memory, over HTTP.
    Throttlecrab,
    /// Node's own HTTP server, with rate-limiter-flexible on Redis or without.
    Flexible { limited: bool },
    /// Traefik before the bare server, with its own limiter on Redis or without.
    Traefik { limited: bool },
}

impl Contender {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Own(kind) => kind.name().to_owned(),
            Self::Served(name) => (*name).to_owned(),
            Self::Charges(kind, count) => format!("{} x{count}", kind.name()),
            Self::Nginx { limited: true } => "nginx limit_req".to_owned(),
            Self::Nginx { limited: false } => "nginx alone".to_owned(),
            Self::Throttlecrab => "throttlecrab".to_owned(),
            Self::Flexible { limited: true } => "rate-limiter-flexible".to_owned(),
            Self::Flexible { limited: false } => "node alone".to_owned(),
            Self::Traefik { limited: true } => "traefik rateLimit".to_owned(),
            Self::Traefik { limited: false } => "traefik alone".to_owned(),
        }
    }

    /// Its name without the number of limits.
    pub(crate) fn family(&self) -> String {
        match self {
            Self::Charges(kind, _) => kind.name().to_owned(),
            _ => self.name(),
        }
    }

    /// How many limits a request has, where that is what is varied.
    pub(crate) fn charges(&self) -> Option<usize> {
        match self {
            Self::Charges(_, count) => Some(*count),
            _ => None,
        }
    }

    /// Whether it can deny anybody: `bare-429` denies everybody.
    pub(crate) fn is_limited(&self) -> bool {
        !matches!(
            self,
            Self::Served("bare")
                | Self::Nginx { limited: false }
                | Self::Flexible { limited: false }
                | Self::Traefik { limited: false }
        )
    }

    pub(crate) fn needs_redis(&self) -> bool {
        match self {
            Self::Own(kind) | Self::Charges(kind, _) => kind.needs_redis(),
            Self::Served(name) => *name == "pooled-evalsha",
            Self::Flexible { limited } | Self::Traefik { limited } => *limited,
            Self::Nginx { .. } | Self::Throttlecrab => false,
        }
    }
}

/// What is measured in one scenario, interleaved with others.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) contender: Contender,
    pub(crate) quota: Quota,
    pub(crate) clients: u32,
    pub(crate) instances: usize,
    /// Whether nginx stands before the instances.
    pub(crate) balanced: bool,
    /// Those of a scenario with the same number share one Redis; else each has its own.
    pub(crate) store: Option<u32>,
    /// Whether each client has asked once before anything is measured.
    pub(crate) filled: bool,
}

impl Subject {
    pub(crate) fn new(contender: Contender, quota: Quota, clients: u32) -> Self {
        Self {
            contender,
            quota,
            clients,
            instances: 1,
            balanced: false,
            store: None,
            filled: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        let mut name = self.contender.name();
        if self.balanced {
            let s = if self.instances == 1 { "" } else { "s" };
            name += &format!(", {} instance{s}", self.instances);
        }
        if let Some(keys) = self.store {
            name += &format!(", {keys} keys");
        }
        name
    }

    /// Whether tokens are taken ahead.
    pub(crate) fn lends(&self) -> bool {
        self.contender == Contender::Own(Kind::Lease)
            && matches!(self.quota, Quota::Ample | Quota::AmpleForOne)
    }

    /// Whether it takes a while until it goes on alike: leases must see which keys are hot, and of who asks for one key at the
    /// same time transactions decide one after the other, until a denial is remembered.
    pub(crate) fn settles_late(&self) -> bool {
        let transaction = Contender::Own(Kind::Transaction);
        self.lends() || (self.contender == transaction && self.quota == Quota::Tight)
    }

    pub(crate) fn chosen(&self) -> Clients {
        Clients::AnyOf(self.clients)
    }
}
