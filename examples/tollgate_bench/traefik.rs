//! Traefik before the bare server: without a limit, and with its own on Redis.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::answer::{Denial, Reader};
use crate::folder::Folder;
use crate::process::{LOOK_EVERY, PATIENCE, Process, free_address};
use crate::subject::Quota;

/// One that is no client of the load, so that nobody's tokens are used.
const PROBE: &[u8] = b"GET /api HTTP/1.1\r\nHost: bench\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Traefik {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// Where its file is.
    pub(crate) folder: Folder,
}

impl Traefik {
    /// Passes requests on to `backend`, limited where there is a quota and the address of a Redis for it.
    pub(crate) async fn before(
        backend: SocketAddr,
        limit: Option<(Quota, SocketAddr)>,
        program: &Path,
    ) -> Result<Self> {
        let (folder, address) = (Folder::make()?, free_address()?);
        let routes = folder.write("routes.yaml", &routes(backend, limit))?;
        let arguments = [
            format!("--entryPoints.web.address={address}"),
            "--entryPoints.web.forwardedHeaders.trustedIPs=127.0.0.1".to_owned(),
            format!("--providers.file.filename={routes}"),
            "--providers.file.watch=false".to_owned(),
            "--global.checkNewVersion=false".to_owned(),
            "--log.level=ERROR".to_owned(),
        ];
        let arguments = arguments.each_ref().map(String::as_str);
        let mut process = Process::start(program, &arguments, &[])?;
        process.until_listening(address).await.context("traefik")?;
        until_routed(address).await.context("traefik")?;
        Ok(Self {
            address,
            process,
            folder,
        })
    }
}

/// What it reads of its file provider.
fn routes(backend: SocketAddr, limit: Option<(Quota, SocketAddr)>) -> String {
    let chosen = if limit.is_some() { "limit" } else { "" };
    let middlewares = limit.map_or(String::new(), |(quota, redis)| {
        let ((average, period), burst) = (quota.refill(), quota.capacity());
        format!(
            "  middlewares:\n    limit:\n      rateLimit:\n        average: {average}\n        period: {period}s\n        \
             burst: {burst}\n        sourceCriterion: {{ ipStrategy: {{ depth: 1 }} }}\n        \
             redis: {{ endpoints: [ \"{redis}\" ] }}\n"
        )
    });
    format!(
        "http:\n  routers:\n    all: {{ rule: \"PathPrefix(`/`)\", service: backend, middlewares: [{chosen}] }}\n  \
         services:\n    backend: {{ loadBalancer: {{ servers: [ {{ url: \"http://{backend}\" }} ] }} }}\n{middlewares}"
    )
}

/// Waits until it passes requests on: it listens before it has read its routes.
async fn until_routed(address: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(PROBE).await?;
        let answer = Reader::new(Denial::Status).next(&mut stream).await?;
        if answer.status == 200 {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "it answers {}", answer.status);
        sleep(LOOK_EVERY).await;
    }
}
