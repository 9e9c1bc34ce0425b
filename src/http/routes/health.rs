//! `GET /health`: never limited; 503 when the store that is configured does not answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::debug;

use super::Instance;
use crate::http::go_duration;
use crate::limiter::RuleMode;
use crate::strategy::redis::LinkStatus;

/// Longest wait for the store's answer: a probe must have its own within a second.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

/// The body, healthy or not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    status: &'static str,
    timestamp: String,
    uptime: String,
    instance_id: String,
    services: Services,
    /// Absent without a rules file.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Rules>,
}

/// Which rules are in force, and whether the file is as good as they are.
#[derive(Debug, Serialize)]
struct Rules {
    version: String,
    count: usize,
    /// Why the file as it is now is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// What the rules in shadow would have done.
    #[serde(skip_serializing_if = "Map::is_empty")]
    shadow: Map<String, Value>,
}

impl Rules {
    fn of(instance: &Instance) -> Option<Self> {
        let status = instance.reloads.as_ref()?;
        let set = instance.limiter.rules();
        let pairs = set.rules().iter().zip(set.counts());
        let shadow =
            pairs
                .filter(|(rule, _)| rule.mode == RuleMode::Shadow)
                .map(|(rule, counts)| {
                    let (allowed, denied) = (counts.allowed(), counts.denied());
                    let told = json!({ "allowed": allowed, "denied": denied });
                    (rule.name.as_str().to_owned(), told)
                });
        Some(Self {
            version: set.version().to_string(),
            count: set.rules().len(),
            refused: status.refusal(),
            shadow: shadow.collect(),
        })
    }
}

#[derive(Debug, Serialize)]
struct Services {
    redis: Redis,
}

#[derive(Debug, Serialize)]
struct Redis {
    status: &'static str,
    latency: String,
    /// Whether requests go to it; absent where no breaker stands before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<&'static str>,
}

/// Asks the store for an answer and says how the instance is.
pub async fn health(State(instance): State<Arc<Instance>>) -> (StatusCode, Json<Health>) {
    let breaker = instance
        .breaker
        .as_ref()
        .map(|breaker| breaker.state().name());
    let (code, status, redis) = match &instance.link {
        None => (
            StatusCode::OK,
            "healthy",
            Redis {
                status: "not configured",
                latency: String::new(),
                breaker,
            },
        ),
        Some(link) => match link.ping(PATIENCE).await {
            LinkStatus::Connected { latency } => (
                StatusCode::OK,
                "healthy",
                Redis {
                    status: "connected",
                    latency: go_duration(latency),
                    breaker,
                },
            ),
            LinkStatus::Disconnected { reason } => {
                debug!(reason, "unhealthy");
                let redis = Redis {
                    status: "disconnected",
                    latency: String::new(),
                    breaker,
                };
                (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", redis)
            }
        },
    };
    let health = Health {
        status,
        timestamp: instance.local_time(),
        uptime: go_duration(instance.uptime()),
        instance_id: instance.id.to_string(),
        services: Services { redis },
        rules: Rules::of(&instance),
    };
    (code, Json(health))
}
