//! A deadline for a request's head that does not end idle connections.
//!
//! hyper's own header timeout also runs while a kept-alive connection waits for its next request, so it serves as the
//! idle timeout. This one starts at the accept, or at the first byte after an answer, and ends when the request is
//! handed over: a client that dribbles its headers is dropped, whatever it sent so far.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Whether a request is being served on a connection: set by the service, read by [`HeadTimeout`].
#[derive(Debug, Clone, Default)]
pub(super) struct Serving(Arc<AtomicBool>);

impl Serving {
    pub(super) fn set(&self, serving: bool) {
        self.0.store(serving, Ordering::Relaxed);
    }
}

/// A stream whose reads fail once a head takes too long.
#[derive(Debug)]
pub(super) struct HeadTimeout<T> {
    stream: T,
    after: Duration,
    serving: Serving,
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
        if self.serving.0.load(Ordering::Relaxed) {
            self.in_head = false;
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
        serving.set(true);
        assert!(
            tokio::time::timeout(AFTER * 10, stream.read_u8())
                .await
                .is_err(),
            "a body, or nothing"
        );
        serving.set(false);
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
}
