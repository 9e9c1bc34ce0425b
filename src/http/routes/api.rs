//! `GET /api`: the route that is limited.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Instance;

/// The body of a success.
#[derive(Debug, Serialize)]
pub struct Hit {
    msg: &'static str,
    time: String,
    #[serde(rename = "instanceId")]
    instance_id: String,
}

/// Says that the request got through, when and to which instance.
pub async fn api(State(instance): State<Arc<Instance>>) -> Json<Hit> {
    Json(Hit {
        msg: "Successfully Hit",
        time: instance.local_time(),
        instance_id: instance.id.to_string(),
    })
}
