//! An axum application whose routes are limited to 5 requests at once and 1 a second, for each client.
//!
//! `cargo run --example limit_axum`, then `curl -i http://localhost:3000/` a few times.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use tollgate::{Quota, http::RateLimitLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let quota = Quota::new(5, 1, Duration::from_secs(1))?;
    let limit = RateLimitLayer::new(tollgate::in_memory(quota));
    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .layer(limit);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await?;
    Ok(())
}
