//! Requests that wait for a call of the script, in the order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{MOST_KEYS, MOST_REQUESTS};
use super::question::{Answer, Question};
use crate::strategy::Fault;

/// Requests that may wait; one more is turned away. A busy server decides so many within some 60 ms, if each has one charge.
pub(super) const MOST_WAITING: usize = 4096;

/// A request that waits, and how it is told.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// When it is told that it was not sent.
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// A question that may wait for a call until then, and where its answer will come.
    pub(super) fn new(question: Question, until: Instant) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, told) = oneshot::channel();
        let asked = Self {
            question,
            until,
            answer,
        };
        (asked, told)
    }

    /// Tells it; who went away hears nothing.
    pub(super) fn tell(self, told: Answer) {
        let _ = self.answer.send(told);
    }
}

/// Requests that wait, whose time runs out in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Asked>);

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, some of whom may have gone away.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a request, if there is room.
    pub(super) fn push(&mut self, asked: Asked) -> Result<(), Fault> {
        if self.0.len() >= MOST_WAITING {
            self.0.retain(|asked| !asked.answer.is_closed());
            if self.0.len() >= MOST_WAITING {
                return Err(Fault::QueueFull);
            }
        }
        self.0.push_back(asked);
        Ok(())
    }

    /// Takes those who leave in one call: not who went away, nor whose time is over.
    pub(super) fn board(&mut self, now: Instant, patience: Duration) -> Vec<Asked> {
        self.turn_away(now, patience);
        let mut boarded = Vec::with_capacity(self.0.len().min(MOST_REQUESTS));
        let mut keys = 0;
        while let Some(next) = self.0.front() {
            let is_here = !next.answer.is_closed();
            if is_here {
                keys += next.question.len();
                let is_full = keys > MOST_KEYS || boarded.len() == MOST_REQUESTS;
                if is_full && !boarded.is_empty() {
                    break;
                }
            }
            boarded.extend(self.0.pop_front().filter(|_| is_here));
        }
        boarded
    }

    /// Tells those whose time is over that they were not sent, after `patience`. When the next one's time will be.
    pub(super) fn turn_away(&mut self, now: Instant, patience: Duration) -> Option<Instant> {
        while let Some(first) = self.0.front() {
            if now < first.until {
                return Some(first.until);
            }
            if let Some(late) = self.0.pop_front() {
                late.tell(Err(Fault::NotSent(patience)));
            }
        }
        None
    }
}
