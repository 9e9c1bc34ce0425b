//! What people write first: a token bucket in Lua, and for each request a connection from a pool and one EVALSHA.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use deadpool_redis::{Pool, PoolConfig, Runtime};
use redis::Script;
use serde_json::json;
use tollgate::config::Config;
use tollgate::http::ClientIp;

use super::around::{Answer, Around};

const TEXT: &str = r"
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(bucket[1]) or capacity
local at = tonumber(bucket[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local allowed = tokens >= 1
if allowed then tokens = tokens - 1 end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('EXPIRE', KEYS[1], math.ceil((capacity - tokens) / rate) + 1)
return { allowed and 1 or 0, math.floor(tokens), math.ceil((capacity - tokens) / rate) }
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

struct Limit {
    pool: Pool,
    clients: ClientIp,
    capacity: u64,
    per_second: f64,
}

/// The limit that `LIMITER_CAPACITY` and `LIMITER_REFILL_RATE` name, in a pool of `REDIS_POOL_SIZE`.
pub(super) fn layer(config: &Config) -> Result<Around> {
    let settings = config
        .redis
        .settings
        .as_ref()
        .context("REDIS_ADDR is not set")?;
    let mut pool = deadpool_redis::Config::from_url(format!("redis://{}", settings.address()));
    pool.pool = Some(PoolConfig::new(config.redis.pool_size));
    let quota = config.limiter.limit.quota;
    let limit = Arc::new(Limit {
        pool: pool.create_pool(Some(Runtime::Tokio1))?,
        clients: ClientIp::new(config.http.trusted_proxies.clone()),
        capacity: quota.capacity(),
        per_second: quota.capacity() as f64 / quota.fill_time().as_secs_f64(),
    });
    Ok(Around::new(move |request| {
        let client = limit.client(request);
        let limit = limit.clone();
        Box::pin(async move { limit.ask(client?).await })
    }))
}

impl Limit {
    fn client(&self, request: &Request) -> Result<String> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let ConnectInfo(peer) = peer.context("no peer")?;
        Ok(self.clients.of(peer.ip(), request.headers()).to_string())
    }

    /// The headers of an admitted request, or the answer to a denied one.
    async fn ask(&self, client: String) -> Answer {
        let mut connection = self.pool.get().await?;
        let (allowed, remaining, reset): (u8, u64, u64) = SCRIPT
            .key(format!("pooled:{client}"))
            .arg(self.capacity)
            .arg(self.per_second)
            .invoke_async(&mut connection)
            .await?;
        let numbers = [
            (LIMIT, self.capacity),
            (REMAINING, remaining),
            (RESET, reset),
        ];
        let headers: HeaderMap = numbers
            .into_iter()
            .map(|(name, number)| (name, number.into()))
            .collect();
        if allowed == 1 {
            return Ok(Ok(headers));
        }
        let body = Json(json!({ "error": "Rate limit exceeded" }));
        Ok(Err(
            (StatusCode::TOO_MANY_REQUESTS, headers, body).into_response()
        ))
    }
}
