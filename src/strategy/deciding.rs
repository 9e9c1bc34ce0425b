//! The one future type of all strategies.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Fault;
use crate::domain::Verdict;

/// An answer on its way, or already there: so a strategy in memory allocates nothing and stays dyn-safe.
pub struct Deciding<'a, T = Verdict>(Inner<'a, T>);

enum Inner<'a, T> {
    Ready(Option<Result<T, Fault>>),
    Waiting(Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>),
}

impl<'a, T> Deciding<'a, T> {
    /// An answer that is already there.
    pub fn ready(answer: Result<T, Fault>) -> Self {
        Self(Inner::Ready(Some(answer)))
    }

    /// An answer to wait for.
    pub fn waiting(future: impl Future<Output = Result<T, Fault>> + Send + 'a) -> Self {
        Self(Inner::Waiting(Box::pin(future)))
    }
}

impl<T: Unpin> Future for Deciding<'_, T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Ready(answer) => {
                Poll::Ready(answer.take().expect("not polled after it resolved"))
            }
            Inner::Waiting(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Deciding<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            Inner::Ready(_) => "Ready",
            Inner::Waiting(_) => "Waiting",
        };
        f.debug_tuple("Deciding").field(&state).finish()
    }
}
