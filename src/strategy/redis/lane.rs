//! Requests that are under way at the same time travel together.
//!
//! A request that finds no call of the script on its way leaves at once, alone if nobody else is there; others queue, and
//! when the call returns all that wait (as many as one call may carry) leave in the next. A second call leaves beside it
//! as soon as enough wait to be worth one, or when somebody comes while the first is slow. So nothing is waited for without
//! concurrency, and under load the cost of a call is shared. There is no timer.
//!
//! Who leaves the queue in another way was surely not executed: its future was dropped, or almost all of its time was over
//! before a call left. So was who finds the queue full. A call that was sent and lost may have been executed, with all that
//! travelled in it.
//!
//! A lane stands before one server and knows nothing of others, so a Cluster takes one for each of its nodes, or for each
//! slot where a call may have keys of one slot alone: whoever has the key chooses the lane.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::batch;
use super::connection::{Borrowed, Link};
use super::question::{Answer, Question};
use super::queue::{Asked, Queue};
use super::record::Notices;
use super::script::Script;
use crate::strategy::{Fault, Scope};

/// Calls on their way at a time.
const MOST_CALLS: usize = 2;
/// Requests that are worth a second call; fewer wait for the first, which is cheaper for the service and for Redis.
const WORTH_A_CALL: usize = 32;
/// After so long a call is slow: who comes then leaves beside it, if no other did.
const SLOW: Duration = Duration::from_millis(1);

/// A queue before one server, and the calls that empty it.
#[derive(Debug)]
pub(super) struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: Link,
    script: Script,
    notices: Notices,
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Default)]
struct Traffic {
    queue: Queue,
    /// When each call that is on its way was begun.
    calls: SmallVec<[Instant; MOST_CALLS]>,
}

impl Traffic {
    /// Whether another call should leave beside those that are on their way.
    fn wants_a_call(&self, now: Instant) -> bool {
        !self.queue.is_empty()
            && match self.calls.len() {
                0 => true,
                MOST_CALLS.. => false,
                _ => {
                    self.queue.len() >= WORTH_A_CALL
                        || self.calls.iter().all(|begun| now >= *begun + SLOW)
                }
            }
    }

    /// One that was begun then is on its way no more.
    fn end(&mut self, begun: Instant) {
        if let Some(place) = self.calls.iter().position(|other| *other == begun) {
            self.calls.remove(place);
        }
    }
}

impl Lane {
    /// Calls `script` over `link`.
    pub(super) fn new(link: Link, script: Script) -> Self {
        Self(Arc::new(Shared {
            link,
            script,
            notices: Notices::default(),
            traffic: Mutex::default(),
        }))
    }

    /// Asks the script. Who drops the future before a call left with the question takes it back.
    ///
    /// It queues here and not when the future is first polled, so that nothing of the question is kept in the future.
    pub(super) fn ask(&self, question: Question) -> impl Future<Output = Answer> + use<> {
        let now = Instant::now();
        let (asked, told) = Asked::new(question, now + self.0.patience());
        let queued = self.0.enqueue(asked, now).map(|leaves| {
            if leaves {
                tokio::spawn(Call::begun(self.0.clone(), now).run());
            }
        });
        async move {
            queued?;
            told.await
                .unwrap_or_else(|_| Err(Fault::Lost("the call was given up".to_owned())))
        }
    }
}

impl Shared {
    /// How long a request may wait for a call: somewhat less than it has, so that it is told what it waited for.
    fn patience(&self) -> Duration {
        self.link.deadline() * 9 / 10
    }

    /// Whether a call should leave, which is on its way from now on.
    fn enqueue(&self, asked: Asked, now: Instant) -> Result<bool, Fault> {
        let mut traffic = self.lock();
        traffic.queue.push(asked)?;
        let leaves = traffic.wants_a_call(now);
        if leaves {
            traffic.calls.push(now);
        }
        Ok(leaves)
    }

    /// Waits for that, at most as long as requests have, and tells those whose time in the queue is over meanwhile.
    async fn wait<T>(&self, that: impl Future<Output = T>) -> Option<T> {
        let ends = Instant::now() + self.link.deadline();
        let mut that = pin!(that);
        loop {
            let now = Instant::now();
            if ends <= now {
                return None;
            }
            // Whose turn to be told comes first; who is not in the queue yet has all of its time.
            let late = self.lock().queue.turn_away(now, self.patience());
            let wake = late.unwrap_or(now + self.patience()).min(ends);
            tokio::select! {
                biased;
                value = &mut that => return Some(value),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes those who leave now to the server and back.
    async fn carry(self: &Arc<Self>, mut connection: Borrowed, mut asked: Vec<Asked>) {
        asked.sort_by_cached_key(|asked| asked.question.order());
        match self.call(&mut connection, &asked).await {
            Ok(told) => asked
                .into_iter()
                .zip(told)
                .for_each(|(asked, told)| asked.tell(told)),
            Err(fault) if asked.len() > 1 && is_of_some(&fault) => {
                let mut alone = JoinSet::new();
                for asked in asked {
                    alone.spawn(self.clone().carry_alone(connection.clone(), asked));
                }
                alone.join_all().await;
            }
            Err(fault) => tell_all(asked, &fault),
        }
    }

    async fn carry_alone(self: Arc<Self>, mut connection: Borrowed, asked: Asked) {
        let told = self
            .call(&mut connection, std::slice::from_ref(&asked))
            .await;
        asked.tell(told.and_then(|mut told| told.pop().expect("one for each that asked")));
    }

    /// What the script tells each of these, in their order; or why it told nobody.
    async fn call(&self, connection: &mut Borrowed, asked: &[Asked]) -> Result<Vec<Answer>, Fault> {
        let questions: Vec<_> = asked.iter().map(|asked| &asked.question).collect();
        let command = |command: &str, script: &str| batch::call(command, script, &questions);
        let reply = self
            .wait(self.script.call(connection, command))
            .await
            .unwrap_or_else(|| Err(Fault::Timeout(self.link.deadline())))?;
        let (told, notices) = batch::read(&reply, &questions)
            .ok_or_else(|| Fault::BadReply("not what the script returns".to_owned()))?;
        notices.iter().for_each(|notice| self.notices.tell(*notice));
        told.iter()
            .filter_map(|told| told.as_ref().err())
            .for_each(|fault| connection.heard(fault));
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server refused a whole call for the keys of some: then others may be served.
fn is_of_some(fault: &Fault) -> bool {
    !fault.is_ambiguous() && (fault.scope() == Scope::Request || fault.kind() == "NOPERM")
}

/// One of the calls that may be on their way; it goes again as long as it is worth it.
struct Call {
    lane: Arc<Shared>,
    /// When it last left; `None` once it is on its way no more.
    begun: Option<Instant>,
}

impl Call {
    /// One that was counted at that time.
    fn begun(lane: Arc<Shared>, at: Instant) -> Self {
        let begun = Some(at);
        Self { lane, begun }
    }

    async fn run(mut self) {
        let lane = self.lane.clone();
        // Before it is asked whether it ends: it was begun for somebody, who may not be worth a call once it counts.
        while self.begun.is_some() {
            let connection = lane.wait(lane.link.connection()).await;
            let asked = match connection {
                Some(_) => (lane.lock().queue).board(Instant::now(), lane.patience()),
                None => Vec::new(),
            };
            match connection {
                Some(Ok(connection)) if !asked.is_empty() => lane.carry(connection, asked).await,
                Some(Err(fault)) => tell_all(asked, &fault),
                _ => {}
            }
            self.go_again_or_end();
        }
    }

    /// Leaves again if somebody waits, and not few enough for the other call. Else it counts no more from the same moment
    /// on, so that who comes next begins another.
    fn go_again_or_end(&mut self) {
        let now = Instant::now();
        let mut traffic = self.lane.lock();
        if let Some(begun) = self.begun.take() {
            traffic.end(begun);
        }
        if traffic.wants_a_call(now) {
            traffic.calls.push(now);
            self.begun = Some(now);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(begun) = self.begun {
            self.lane.lock().end(begun);
        }
    }
}

fn tell_all(asked: Vec<Asked>, fault: &Fault) {
    asked
        .into_iter()
        .for_each(|asked| asked.tell(Err(fault.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Intent, TokenBucket};
    use crate::domain::{Charge, Cost, Identity, Key, Limit, Quota, RuleName};

    /// So many requests wait, and these calls are on their way.
    fn traffic(waiting: usize, calls: &[Instant]) -> Traffic {
        let key = Key::new(
            "t:",
            &TokenBucket,
            &RuleName::default_rule(),
            &Identity::new(),
        );
        let quota = Quota::new(1, 1, Duration::from_secs(1)).unwrap();
        let algorithm = &TokenBucket;
        let charge = Charge::new(key, Limit { algorithm, quota }, Cost::MIN).unwrap();
        let mut traffic = Traffic {
            calls: calls.into(),
            ..Traffic::default()
        };
        for _ in 0..waiting {
            let question = Question::asking(std::slice::from_ref(&charge), Intent::Charge);
            let asked = Asked::new(question, Instant::now()).0;
            traffic.queue.push(asked).unwrap();
        }
        traffic
    }

    #[tokio::test]
    async fn the_first_call_leaves_for_anybody() {
        let now = Instant::now();
        assert!(traffic(1, &[]).wants_a_call(now));
        assert!(!traffic(0, &[]).wants_a_call(now));
    }

    #[tokio::test]
    async fn a_second_call_leaves_for_many_or_beside_a_slow_one() {
        let now = Instant::now();
        for (waiting, late, leaves) in [
            (WORTH_A_CALL - 1, SLOW - Duration::from_micros(1), false),
            (WORTH_A_CALL, Duration::ZERO, true),
            (1, SLOW, true),
            (0, SLOW, false),
        ] {
            let traffic = traffic(waiting, &[now]);
            assert_eq!(
                traffic.wants_a_call(now + late),
                leaves,
                "{waiting} after {late:?}"
            );
        }
        let full = traffic(WORTH_A_CALL, &[now; MOST_CALLS]);
        assert!(!full.wants_a_call(now + SLOW));
    }

    /// The other one's return is no reason to wait for a call that hangs.
    #[tokio::test]
    async fn a_call_that_returns_goes_again_beside_one_that_hangs() {
        let hangs = Instant::now();
        let returns = hangs + SLOW;
        let mut traffic = traffic(1, &[hangs, returns]);
        traffic.end(returns);
        assert!(traffic.wants_a_call(returns));
    }
}
