//! Several limits a request, asked through the library: until a rules file can name them, this is what it will do.

use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use tollgate::config::Config;
use tollgate::http::{ClientIp, set_headers};
use tollgate::limiter::Rule;
use tollgate::server::MonotonicClock;
use tollgate::strategy::factory::{Plan, Stack, build};
use tollgate::{Charge, Identity, Key, RuleName};

use super::around::{Answer, Around};

struct Limits {
    stack: Stack,
    clients: ClientIp,
    prefix: String,
    ipv6_prefix: u8,
    rules: Vec<Rule>,
}

/// `count` limits of the configured quota, which differ in their rule's name, all on the configured strategy.
pub(super) fn layer(config: &Config, count: usize) -> Result<Around> {
    let stack = build(&Plan {
        kind: config.limiter.kind,
        redis: config.redis.settings.clone(),
        pool_size: config.redis.pool_size,
        timeout: config.redis.timeout,
        max_keys: config.limiter.max_keys,
        clock: Arc::new(MonotonicClock::start()),
        hasher: RandomState::new(),
        seed: 42,
        denial_cache: config.limiter.denial_cache,
        care: None,
    })?;
    let rule = |i: usize| -> Result<Rule> {
        let name = RuleName::new(&format!("rule-{i}"))?;
        Ok(Rule {
            name,
            ..config.limiter.rule.clone()
        })
    };
    let limits = Arc::new(Limits {
        stack,
        clients: ClientIp::new(config.http.trusted_proxies.clone()),
        prefix: config.redis.key_prefix.clone(),
        ipv6_prefix: config.limiter.ipv6_prefix,
        rules: (0..count).map(rule).collect::<Result<_>>()?,
    });
    Ok(Around::new(move |request| {
        let client = limits.client(request);
        let limits = limits.clone();
        Box::pin(async move { limits.ask(client?).await })
    }))
}

impl Limits {
    fn client(&self, request: &Request) -> Result<IpAddr> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let ConnectInfo(peer) = peer.context("no peer")?;
        Ok(self.clients.of(peer.ip(), request.headers()))
    }

    async fn ask(&self, client: IpAddr) -> Answer {
        let identity = Identity::new().with_ip(client, self.ipv6_prefix);
        let charge = |rule: &Rule| {
            let key = Key::new(&self.prefix, rule.limit.algorithm, &rule.name, &identity);
            Charge::new(key, rule.limit, rule.cost)
        };
        let charges: Vec<Charge> = self.rules.iter().map(charge).collect::<Result<_, _>>()?;
        let verdict = self.stack.strategy.decide(&charges).await?;
        let tightest = verdict
            .decisions
            .iter()
            .zip(&self.rules)
            .min_by_key(|(decision, _)| (decision.is_allowed(), decision.remaining));
        let (decision, rule) = tightest.context("no decision")?;
        let mut headers = HeaderMap::new();
        set_headers(&mut headers, rule, decision);
        if verdict.admitted {
            return Ok(Ok(headers));
        }
        Ok(Err((StatusCode::TOO_MANY_REQUESTS, headers).into_response()))
    }
}
