//! `GET /livez` and `GET /readyz`: for whoever restarts instances, and for whoever sends them requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Instance;
use super::health::PATIENCE;
use crate::strategy::breaker::State as BreakerState;
use crate::strategy::redis::LinkStatus;

/// The body.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    instance_id: String,
}

/// 200 for as long as the process answers at all: a restart cures nothing that is outside it.
pub async fn livez(State(instance): State<Arc<Instance>>) -> Json<Probe> {
    Json(Probe {
        status: "live",
        reason: None,
        instance_id: instance.id.to_string(),
    })
}

/// 200 when the instance can answer by its own policy; 503 while it drains, and with `deny` while it has no store.
pub async fn readyz(State(instance): State<Arc<Instance>>) -> (StatusCode, Json<Probe>) {
    let reason = why_not_ready(&instance).await;
    let (code, status) = match reason {
        None => (StatusCode::OK, "ready"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let instance_id = instance.id.to_string();
    let probe = Probe {
        status,
        reason,
        instance_id,
    };
    (code, Json(probe))
}

async fn why_not_ready(instance: &Instance) -> Option<&'static str> {
    if instance.draining.load(Ordering::Relaxed) {
        return Some("draining");
    }
    let needs_store = instance.limiter.rules().needs_store();
    let link = instance.link.as_ref().filter(|_| needs_store)?;
    let breaker = instance.breaker.as_ref();
    if breaker.is_some_and(|breaker| breaker.state() == BreakerState::Open) {
        return Some("the store is given a rest");
    }
    match link.ping(PATIENCE).await {
        LinkStatus::Connected { .. } => None,
        LinkStatus::Disconnected { .. } => Some("the store does not answer"),
    }
}
