//! A deadline for a request's head that does not end idle connections.
//!
//! hyper's own header timeout also runs while a kept-alive connection waits for its next request, so it serves as the
//! idle timeout. This one starts at the accept, or at the first byte after an answer, and ends when the request is
//! handed over: a client that dribbles its headers is dropped, whatever it sent so far.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Whether a request is being served on a connection: told by the service, read by [`HeadTimeout`].
///
/// Counts beginnings and ends, so it is odd while one is served: a request that was answered between two reads leaves a
/// trace, where a flag would not.
#[derive(Debug, Clone, Default)]
pub(super) struct Serving(Arc<AtomicU64>);

impl Serving {
    /// A request begins, or its answer is there.
    pub(super) fn turn(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream whose reads fail once a head takes too long.
#[derive(Debug)]
pub(super) struct HeadTimeout<T> {
    stream: T,
    after: Duration,
    serving: Serving,
    /// How often serving had turned at the last read.
    turns: u64,
    /// Whether a head is under way, as far as was seen here.
    in_head: bool,
    deadline: Pin<Box<Sleep>>,
}

impl<T> HeadTimeout<T> {
    pub(super) fn new(stream: T, after: Duration, serving: Serving) -> Self {
        Self {
            stream,
            after,
            serving,
            turns: 0,
            in_head: true,
            deadline: Box::pin(tokio::time::sleep(after)),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HeadTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let turns = self.serving.0.load(Ordering::Relaxed);
        if turns != self.turns {
            self.turns = turns;
            self.in_head = false;
        }
        if turns % 2 == 1 {
            return read;
        }
        if !self.in_head && buf.filled().len() > before {
            self.in_head = true;
            let deadline = Instant::now() + self.after;
            self.deadline.as_mut().reset(deadline);
        }
        // Only where nothing is left to read: a head that arrived whole is never too late.
        if read.is_pending() && self.in_head && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HeadTimeout<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    fn pair() -> (DuplexStream, HeadTimeout<DuplexStream>, Serving) {
        let (client, server) = duplex(64);
        let serving = Serving::default();
        (
            client,
            HeadTimeout::new(server, AFTER, serving.clone()),
            serving,
        )
    }

    async fn timed_out(stream: &mut HeadTimeout<DuplexStream>) -> bool {
        stream
            .read_u8()
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_newcomer_is_dropped() {
        let (_client, mut stream, _) = pair();
        let started = Instant::now();
        assert!(timed_out(&mut stream).await);
        assert_eq!(started.elapsed().as_secs(), AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn dribbling_does_not_extend_the_deadline() {
        let (mut client, mut stream, _) = pair();
        let started = Instant::now();
        for _ in 0..4 {
            client.write_u8(b'x').await.unwrap();
            stream.read_u8().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(timed_out(&mut stream).await);
        assert_eq!(started.elapsed().as_secs(), AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn serving_and_idling_take_as_long_as_they_take() {
        let (mut client, mut stream, serving) = pair();
        client.write_u8(b'x').await.unwrap();
        stream.read_u8().await.unwrap();
        serving.turn();
        assert!(
            tokio::time::timeout(AFTER * 10, stream.read_u8())
                .await
                .is_err(),
            "a body, or nothing"
        );
        serving.turn();
        assert!(
            tokio::time::timeout(AFTER * 10, stream.read_u8())
                .await
                .is_err(),
            "idle"
        );
        client.write_u8(b'x').await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(timed_out(&mut stream).await, "the next head");
    }

    /// An answer that needs no waiting is there before the next read.
    #[tokio::test(start_paused = true)]
    async fn idling_after_an_answer_at_once_takes_as_long_as_it_takes() {
        let (mut client, mut stream, serving) = pair();
        for _ in 0..3 {
            client.write_u8(b'x').await.unwrap();
            stream.read_u8().await.unwrap();
            serving.turn();
            serving.turn();
            let idle = tokio::time::timeout(AFTER * 10, stream.read_u8());
            assert!(idle.await.is_err());
        }
    }
}
