//! What an instance takes before anybody asks it anything: memory, and the time until it answers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tollgate::strategy::factory::Kind;

use crate::answer::{Denial, Reader};
use crate::plan::Plan;
use crate::process::{Process, free_address};
use crate::redis_server::RedisServer;
use crate::service::Programs;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// When an instance counts as idle.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// One strategy, idle.
#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) kind: Kind,
    /// Resident bytes, of each start.
    pub(crate) resident: Vec<u64>,
    /// From starting the process to having the first answer to `GET /api`, in milliseconds, of each start.
    pub(crate) first_answer_ms: Vec<f64>,
}

/// Starts and ends instances of `memory` and of `lua`.
pub(crate) async fn measure(plan: &Plan, programs: &Programs) -> Result<Vec<Footprint>> {
    let redis = RedisServer::start().await?;
    let mut footprints = [Kind::Memory, Kind::Lua].map(|kind| Footprint {
        kind,
        resident: Vec::new(),
        first_answer_ms: Vec::new(),
    });
    for _ in 0..plan.starts {
        for footprint in &mut footprints {
            let (resident, took) = start(footprint.kind, &redis, programs).await?;
            footprint.resident.push(resident);
            footprint.first_answer_ms.push(took.as_secs_f64() * 1_000.0);
        }
    }
    Ok(footprints.into())
}

async fn start(kind: Kind, redis: &RedisServer, programs: &Programs) -> Result<(u64, Duration)> {
    let address = free_address()?;
    let mut settings = vec![
        ("PORT", address.port().to_string()),
        ("BIND_ADDRESS", "127.0.0.1".to_owned()),
        ("LIMITER_STRATEGY", format!("tokenbucket-{}", kind.name())),
    ];
    if kind.needs_redis() {
        settings.push(("REDIS_ADDR", redis.address.to_string()));
    }
    let begin = Instant::now();
    let process = Process::start(&programs.service, &[], &settings)?;
    let mut stream = loop {
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) if begin.elapsed() < PATIENCE => sleep(Duration::from_micros(200)).await,
            Err(error) => return Err(error).context("the service does not start"),
        }
    };
    stream
        .write_all(b"GET /api HTTP/1.1\r\nHost: bench\r\n\r\n")
        .await?;
    let answer = Reader::new(Denial::Status).next(&mut stream).await?;
    let took = begin.elapsed();
    if answer.status != 200 {
        bail!("the first answer was {}", answer.status);
    }
    drop(stream);
    sleep(SETTLED).await;
    Ok((process.resident()?, took))
}
