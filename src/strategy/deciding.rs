//! The one future type of all strategies.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Fault;
use crate::domain::Verdict;

type Answer = Result<Verdict, Fault>;

/// A decision on its way, or already there: so a strategy in memory allocates nothing and stays dyn-safe.
pub struct Deciding<'a>(Inner<'a>);

enum Inner<'a> {
    Ready(Option<Answer>),
    Waiting(Pin<Box<dyn Future<Output = Answer> + Send + 'a>>),
}

impl<'a> Deciding<'a> {
    /// A decision that is already made.
    pub fn ready(answer: Answer) -> Self {
        Self(Inner::Ready(Some(answer)))
    }

    /// A decision to wait for.
    pub fn waiting(future: impl Future<Output = Answer> + Send + 'a) -> Self {
        Self(Inner::Waiting(Box::pin(future)))
    }
}

impl Future for Deciding<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.0 {
            Inner::Ready(answer) => {
                Poll::Ready(answer.take().expect("not polled after it resolved"))
            }
            Inner::Waiting(future) => future.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Deciding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            Inner::Ready(_) => "Ready",
            Inner::Waiting(_) => "Waiting",
        };
        f.debug_tuple("Deciding").field(&state).finish()
    }
}
