//! How a running stage is asked: the NATS service protocol (`nats micro ls|info|stats`) and HTTP on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::service::{Service, ServiceExt};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::StreamExt;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, why};
use crate::error::BusError;
use crate::telemetry::Board;

/// Answers `$SRV.PING|INFO|STATS` as service `tapeline-<stage>`; `STATS` carries [`Board::json`] as endpoint data.
/// The endpoint itself, `ctl.<stage>.status`, answers the same.
pub async fn announce(bus: &Bus, board: &Board, http: SocketAddr) -> Result<Service, BusError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| BusError::Config(format!("service protocol, {what}: {error}"));
    let stats = board.clone();
    let metadata = HashMap::from([
        ("http".to_owned(), format!("http://{http}")),
        ("pid".to_owned(), std::process::id().to_string()),
    ]);
    let service = bus
        .client()
        .service_builder()
        .description(format!("Tapeline stage {}", bus.stage()))
        .metadata(metadata)
        .stats_handler(move |_, _| stats.json())
        .start(format!("tapeline-{}", bus.stage()), env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| failed("start", &error))?;
    let mut status = service
        .endpoint_builder()
        .name("status")
        .add(format!("ctl.{}.status", bus.stage()))
        .await
        .map_err(|error| failed("endpoint", &error))?;
    let board = board.clone();
    tokio::spawn(async move {
        // Ends with the service.
        while let Some(request) = status.next().await {
            if let Err(error) = request.respond(Ok(board.json().to_string().into())).await {
                tracing::debug!(error = %why(&error), "status not answered");
            }
        }
    });
    Ok(service)
}

#[derive(Clone)]
struct Shown {
    board: Board,
    registry: Arc<Mutex<Registry>>,
}

/// Serves `/metrics` and `/healthz` until `stop`; gives the address it took.
pub async fn serve(
    address: SocketAddr,
    board: Board,
    registry: Arc<Mutex<Registry>>,
    stop: CancellationToken,
) -> Result<SocketAddr, BusError> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| BusError::Config(format!("--metrics-addr {address}: {error}")))?;
    let taken =
        listener.local_addr().map_err(|error| BusError::Config(format!("--metrics-addr {address}: {error}")))?;
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(Shown { board, registry });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "metrics server ended");
        }
    });
    Ok(taken)
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    let mut text = String::new();
    let registry = shown.registry.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

/// 200 while connected and every task runs, 503 otherwise; the body says which does not.
async fn healthz(State(shown): State<Shown>) -> impl IntoResponse {
    let board = shown.board.json();
    let connected = board["connected"] == json!(true);
    let all_run = board["tasks"].as_array().is_none_or(|tasks| tasks.iter().all(|task| task["running"] == json!(true)));
    let status = if connected && all_run { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ok": status == StatusCode::OK, "stats": board })))
}
