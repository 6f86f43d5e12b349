//! The HTTP server: routes, headers, and who may come in.
//!
//! Loopback by default. `Host` must be one of ours (DNS rebinding). A browser's `Origin` must be the page we
//! served; `null` (a sandboxed widget) may listen to market data and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use axum::extract::{Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use nats::Bus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::channel::Scope;
use crate::hub::Hub;
use crate::{rest, ui, ws};

/// What every handler needs.
pub struct App {
    pub hub: Arc<Hub>,
    pub bus: Bus,
    pub started: Instant,
    pub stop: CancellationToken,
    /// `host:port` names that are ours.
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
}

/// Binds first, so that a taken port is an error before anything is announced.
pub async fn bind(listen: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let addr = listener.local_addr().context("read the listening address")?;
    Ok((listener, addr))
}

impl App {
    pub fn new(hub: Arc<Hub>, bus: Bus, addr: SocketAddr, stop: CancellationToken) -> Self {
        let port = addr.port();
        let mut hosts =
            vec![addr.to_string(), format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        let mut origins: Vec<String> = hosts.iter().map(|h| format!("http://{h}")).collect();
        let public = hub.config.public_url.trim_end_matches('/').to_owned();
        if let Some((_, host)) = public.split_once("://") {
            hosts.push(host.to_owned());
            origins.push(public.clone());
        }
        Self { hub, bus, started: Instant::now(), stop, hosts, origins }
    }
}

/// Serves until `stop` is cancelled.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
    let stop = app.stop.clone();
    let router = router(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .context("serve HTTP")
}

fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/ws/market", get(market))
        .route("/api/stream", get(operator))
        .route("/ws", get(operator))
        .route("/api/openapi.json", get(|| async { Json(rest::openapi()) }))
        .route("/healthz", get(|| async { "ok" }));
    for (path, _, _) in rest::ROUTES {
        router = router.route(path, get(rest::answer));
    }
    router
        .fallback(get(ui::asset))
        .layer(middleware::from_fn(headers))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn market(State(app): State<Arc<App>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let widget = headers.get(header::ORIGIN).is_some_and(|o| o == "null");
    if !widget && !origin_is_ours(&app, &headers) {
        return (StatusCode::FORBIDDEN, "origin").into_response();
    }
    accept(app, upgrade, Scope::Market)
}

async fn operator(State(app): State<Arc<App>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !origin_is_ours(&app, &headers) {
        return (StatusCode::FORBIDDEN, "origin").into_response();
    }
    accept(app, upgrade, Scope::Operator)
}

fn accept(app: Arc<App>, upgrade: WebSocketUpgrade, scope: Scope) -> Response {
    upgrade
        .protocols(["stream.v1"])
        .max_message_size(app.hub.config.limits.frame_bytes_max)
        .write_buffer_size(0)
        .max_write_buffer_size(512 * 1024)
        .on_upgrade(move |socket| ws::serve(app.hub.clone(), socket, scope, app.stop.clone()))
}

/// No Origin is a program, not a browser.
fn origin_is_ours(app: &App, headers: &HeaderMap) -> bool {
    match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => app.origins.iter().any(|ours| origin == ours),
    }
}

async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    if !host.is_some_and(|h| app.hosts.iter().any(|ours| ours == h)) {
        return (StatusCode::FORBIDDEN, "host").into_response();
    }
    next.run(request).await
}

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let list = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in list {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
