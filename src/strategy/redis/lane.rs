//! Requests that are under way at the same time travel together, and nobody waits for company.
//!
//! At most two calls of the script are on their way. A request that finds fewer leaves at once, alone if nobody else is
//! there; others queue, and when a call returns all that wait (as many as one call may carry) leave in the next. So
//! nothing is waited for without concurrency, and under load the cost of a call is shared. There is no timer.
//!
//! Who leaves the queue in another way was surely not executed: its future was dropped, or almost all of its time was over
//! before a call left. So was who finds the queue full. A call that was sent and lost may have been executed, with all that
//! travelled in it.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::batch;
use super::connection::{Borrowed, Link};
use super::question::{Answer, Question};
use super::queue::{Asked, Queue};
use super::record::Notices;
use super::script::Script;
use crate::strategy::{Fault, Scope};

/// Calls on their way at a time: one is decided while the other's answer travels.
const MOST_CALLS: usize = 2;

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
    calls: usize,
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
    pub(super) async fn ask(&self, question: Question) -> Answer {
        let (asked, told) = Asked::new(question, Instant::now() + self.0.patience());
        if self.0.enqueue(asked)? {
            tokio::spawn(Call::of(self.0.clone()).run());
        }
        told.await
            .unwrap_or_else(|_| Err(Fault::Lost("the call was given up".to_owned())))
    }
}

impl Shared {
    /// How long a request may wait for a call: somewhat less than it has, so that it is told what it waited for.
    fn patience(&self) -> Duration {
        self.link.deadline() * 9 / 10
    }

    /// Whether a call, which is counted from then on, should start.
    fn enqueue(&self, asked: Asked) -> Result<bool, Fault> {
        let mut traffic = self.lock();
        traffic.queue.push(asked)?;
        let starts = traffic.calls < MOST_CALLS;
        traffic.calls += usize::from(starts);
        Ok(starts)
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

/// One of the calls that may be on their way; it goes again as long as somebody waits.
struct Call {
    lane: Arc<Shared>,
    is_over: bool,
}

impl Call {
    /// One that is counted already.
    fn of(lane: Arc<Shared>) -> Self {
        let is_over = false;
        Self { lane, is_over }
    }

    async fn run(mut self) {
        let lane = self.lane.clone();
        while !self.ends() {
            let Some(connection) = lane.wait(lane.link.connection()).await else {
                continue;
            };
            let asked = (lane.lock().queue).board(Instant::now(), lane.patience());
            match connection {
                _ if asked.is_empty() => {}
                Ok(connection) => lane.carry(connection, asked).await,
                Err(fault) => tell_all(asked, &fault),
            }
        }
    }

    /// Whether nobody waits; then it is counted no more, in the same moment, so that who comes next starts another.
    fn ends(&mut self) -> bool {
        let mut traffic = self.lane.lock();
        self.is_over = traffic.queue.is_empty();
        traffic.calls -= usize::from(self.is_over);
        self.is_over
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.lane.lock().calls -= 1;
        }
    }
}

fn tell_all(asked: Vec<Asked>, fault: &Fault) {
    asked
        .into_iter()
        .for_each(|asked| asked.tell(Err(fault.clone())));
}
