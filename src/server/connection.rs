//! Accepts connections and serves them, each within its bounds.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::head_timeout::{HeadTimeout, Serving};
use super::peers::{Peers, Place};
use super::shutdown::{Shutdown, Stage};
use crate::config::Config;
use crate::domain::Networks;

/// Largest head of a request, in bytes; a larger one is answered 431.
const LARGEST_HEAD: usize = 16 * 1024;
/// Most header fields of a request; more are answered 431.
const MOST_HEADERS: usize = 100;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of what connections may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at once; more wait to be accepted.
    pub connections: usize,
    /// Most connections of one peer at once; more are closed.
    pub connections_per_peer: usize,
    /// Peers that may have more.
    pub trusted_proxies: Networks,
    /// Longest time in which a request's head may arrive.
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Longest wait for open requests at a shutdown.
    pub drain: Duration,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            connections: config.http.max_connections,
            connections_per_peer: config.http.max_connections_per_peer,
            trusted_proxies: config.http.trusted_proxies.clone(),
            header_timeout: config.http.header_timeout,
            idle_timeout: config.http.idle_timeout,
            drain: config.server.shutdown_timeout,
        }
    }
}

/// Serves `app` until `stop` resolves, then drains; ends at once when the shutdown says so.
///
/// Requests carry the peer's address as `ConnectInfo<SocketAddr>`.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
    shutdown: Shutdown,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::new(
        limits.connections_per_peer,
        limits.trusted_proxies,
    ));
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = accept(&listener, &places, &peers) => accepted,
            () = &mut stop => break,
        };
        let serving = Serving::default();
        let stream = HeadTimeout::new(stream, limits.header_timeout, serving.clone());
        let app = app.clone();
        let service =
            service_fn(move |request| answer(app.clone(), peer, serving.clone(), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(limits.drain) => warn!("open requests did not end in time and are cut off"),
        () = shutdown.reached(Stage::End) => {}
    }
}

async fn answer(
    app: Router,
    peer: SocketAddr,
    serving: Serving,
    mut request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    serving.turn();
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = app.oneshot(request.map(Body::new)).await;
    serving.turn();
    response
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    peers: &Arc<Peers>,
) -> (TcpStream, SocketAddr, (OwnedSemaphorePermit, Place)) {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(of_peer) = peers.enter(peer.ip()) else {
                    continue;
                };
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "TCP_NODELAY was refused");
                }
                return (stream, peer, (place, of_peer));
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
