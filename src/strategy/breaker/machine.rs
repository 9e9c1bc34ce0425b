//! The breaker as a state machine: pure, its time a parameter.
//!
//! ```text
//!            5 faults in a row                    enough probes in a row
//!   closed ───────────────────► open ◄─────────────────────┐
//!     ▲                          │ └───────────────► half open
//!     └── 20 successes in a row ─┼───────────────────── ┘  │
//!                                └────────── a fault ──────┘
//! ```
//!
//! Enough probes are 3 after a calm time, and twice as many as the last time when it opens again soon after: so a store
//! at the edge does not make it flap.

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Requests go to the store.
    Closed,
    /// No request goes to the store; it is probed.
    Open,
    /// Requests go to the store; the first fault opens it again.
    HalfOpen,
}

impl State {
    /// One word for it, for logs, `/health` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Faults in a row that open it.
pub(super) const FAULTS_TO_OPEN: u32 = 5;
/// Successes in a row that close it when it is half open.
pub(super) const SUCCESSES_TO_CLOSE: u32 = 20;
/// Fewest and most probes in a row that must succeed before requests go to the store again.
pub(super) const PROBES: (u32, u32) = (3, 48);
/// When it opens so soon after requests went to the store again, more probes are asked for, in microseconds.
pub(super) const CALM_US: u64 = 10_000_000;

/// Leave to ask the store, and what was known when it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    epoch: u64,
    losses: u64,
}

/// The state, and what it counts.
#[derive(Debug)]
pub(super) struct Machine {
    state: State,
    /// Counts the changes of state: what a request of an earlier state tells says nothing about this one.
    epoch: u64,
    /// Counts broken connections: the requests that one of them took along are one fault.
    losses: u64,
    /// Faults, successes or probes in a row, as the state counts them.
    run: u32,
    probes_needed: u32,
    released_us: Option<u64>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            losses: 0,
            run: 0,
            probes_needed: PROBES.0,
            released_us: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether a success changes nothing.
    pub(super) fn is_calm(&self) -> bool {
        self.state == State::Closed && self.run == 0
    }

    pub(super) fn pass(&self) -> Option<Pass> {
        let (epoch, losses) = (self.epoch, self.losses);
        (self.state != State::Open).then_some(Pass { epoch, losses })
    }

    /// The store answered a request.
    pub(super) fn succeeded(&mut self, pass: Pass) {
        match self.state {
            _ if pass.epoch != self.epoch => {}
            State::Closed => self.run = 0,
            State::HalfOpen => {
                self.run += 1;
                if self.run >= SUCCESSES_TO_CLOSE {
                    self.enter(State::Closed);
                }
            }
            State::Open => {}
        }
    }

    /// The store did not answer a request; `with_connection` when its connection broke.
    pub(super) fn failed(&mut self, pass: Pass, with_connection: bool, now_us: u64) {
        if pass.epoch != self.epoch || (with_connection && pass.losses != self.losses) {
            return;
        }
        self.losses += u64::from(with_connection);
        match self.state {
            State::Closed => {
                self.run += 1;
                if self.run >= FAULTS_TO_OPEN {
                    self.open(now_us);
                }
            }
            State::HalfOpen => self.open(now_us),
            State::Open => {}
        }
    }

    /// A probe was answered, or not. What it tells while requests go to the store counts like theirs.
    pub(super) fn probed(&mut self, answered: bool, now_us: u64) {
        match (self.state, self.pass()) {
            (State::Open, _) if answered => {
                self.run += 1;
                if self.run >= self.probes_needed {
                    self.released_us = Some(now_us);
                    self.enter(State::HalfOpen);
                }
            }
            (State::Open, _) => self.run = 0,
            (_, Some(pass)) if answered => self.succeeded(pass),
            (_, Some(pass)) => self.failed(pass, false, now_us),
            (_, None) => {}
        }
    }

    fn open(&mut self, now_us: u64) {
        let calm = self
            .released_us
            .is_none_or(|released_us| now_us.saturating_sub(released_us) >= CALM_US);
        self.probes_needed = if calm {
            PROBES.0
        } else {
            (self.probes_needed * 2).min(PROBES.1)
        };
        self.enter(State::Open);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
        self.run = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn opened(machine: &mut Machine, now_us: u64) {
        for _ in 0..FAULTS_TO_OPEN {
            if let Some(pass) = machine.pass() {
                machine.failed(pass, false, now_us);
            }
        }
        assert_eq!(machine.state(), State::Open);
    }

    /// Probes until requests may pass again; how many it took.
    fn probes_to_half_open(machine: &mut Machine, now_us: u64) -> u32 {
        (1..)
            .find(|_| {
                machine.probed(true, now_us);
                machine.state() == State::HalfOpen
            })
            .unwrap()
    }

    #[test]
    fn opens_at_faults_in_a_row_only() {
        let mut machine = Machine::new();
        for _ in 0..100 {
            for _ in 1..FAULTS_TO_OPEN {
                let pass = machine.pass().unwrap();
                machine.failed(pass, false, 0);
            }
            let pass = machine.pass().unwrap();
            machine.succeeded(pass);
        }
        assert_eq!(machine.state(), State::Closed);
        opened(&mut machine, 0);
        assert_eq!(machine.pass(), None);
    }

    #[test]
    fn requests_that_one_broken_connection_took_along_are_one_fault() {
        let mut machine = Machine::new();
        for _ in 1..FAULTS_TO_OPEN {
            let together = machine.pass().unwrap();
            (0..100).for_each(|_| machine.failed(together, true, 0));
            assert_eq!(machine.state(), State::Closed);
        }
        let last = machine.pass().unwrap();
        machine.failed(last, true, 0);
        assert_eq!(machine.state(), State::Open);
    }

    #[test]
    fn a_failed_probe_starts_the_count_anew() {
        let mut machine = Machine::new();
        opened(&mut machine, 0);
        for _ in 0..10 {
            (1..PROBES.0).for_each(|_| machine.probed(true, 0));
            machine.probed(false, 0);
        }
        assert_eq!(machine.state(), State::Open);
        assert_eq!(probes_to_half_open(&mut machine, 0), PROBES.0);
    }

    #[test]
    fn half_open_closes_at_successes_and_opens_at_the_first_fault() {
        let mut machine = Machine::new();
        opened(&mut machine, 0);
        probes_to_half_open(&mut machine, 0);
        for _ in 0..SUCCESSES_TO_CLOSE {
            assert_eq!(machine.state(), State::HalfOpen);
            let pass = machine.pass().unwrap();
            machine.succeeded(pass);
        }
        assert_eq!(machine.state(), State::Closed);
        opened(&mut machine, 0);
        probes_to_half_open(&mut machine, 0);
        let pass = machine.pass().unwrap();
        machine.failed(pass, false, 0);
        assert_eq!(machine.state(), State::Open);
    }

    #[test]
    fn a_store_at_the_edge_is_asked_less_and_less_often() {
        let (mut machine, mut probes) = (Machine::new(), Vec::new());
        for round in 0..6 {
            opened(&mut machine, round * SECOND);
            probes.push(probes_to_half_open(&mut machine, round * SECOND));
        }
        assert_eq!(probes, [3, 6, 12, 24, 48, 48]);
        opened(&mut machine, 5 * SECOND + CALM_US);
        assert_eq!(
            probes_to_half_open(&mut machine, 60 * SECOND),
            3,
            "after a calm time"
        );
    }

    #[test]
    fn what_an_earlier_state_began_counts_no_more() {
        let mut machine = Machine::new();
        let early = machine.pass().unwrap();
        opened(&mut machine, 0);
        probes_to_half_open(&mut machine, 0);
        machine.failed(early, false, 0);
        (0..100).for_each(|_| machine.succeeded(early));
        assert_eq!(machine.state(), State::HalfOpen);
    }

    proptest! {
        /// Whatever happens: while it is open nothing passes, and only enough probes in a row open the way again.
        #[test]
        fn only_probes_open_the_way_again(
            events in proptest::collection::vec((0_u8..4, any::<bool>(), 0_u64..20 * SECOND), 1..400)
        ) {
            let (mut machine, mut now_us) = (Machine::new(), 0);
            let (mut passes, mut answered) = (Vec::new(), 0);
            for (event, flag, later_us) in events {
                now_us += later_us;
                let before = machine.state();
                match event {
                    0 => passes.extend(machine.pass()),
                    1 => if let Some(pass) = passes.pop() { machine.failed(pass, flag, now_us) },
                    2 => if let Some(pass) = passes.pop() { machine.succeeded(pass) },
                    _ => {
                        machine.probed(flag, now_us);
                        answered = if flag { answered + 1 } else { 0 };
                    }
                }
                let after = machine.state();
                prop_assert_eq!(machine.pass().is_none(), after == State::Open);
                if before == State::Open && after != State::Open {
                    prop_assert_eq!(after, State::HalfOpen);
                    prop_assert!(answered >= PROBES.0);
                }
                prop_assert!(!(before == State::Closed && after == State::HalfOpen));
                if before != State::Open && after == State::Open { answered = 0; }
            }
        }
    }
}
