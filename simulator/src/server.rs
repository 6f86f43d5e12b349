//! The sockets of one venue: HTTP and WebSocket on one loopback listener.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, State};
use axum::http::{HeaderMap, Request as HttpRequest, Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::SinkExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::floor::{Reply, Request, Stand};
use crate::hub::{ClientId, Line, Out};

/// How long a client may take to accept a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Frames that are written before the socket is flushed.
const WRITE_BATCH: usize = 256;
/// A frame that the client does not take for this long ends the connection.
const WRITE_WAIT: Duration = Duration::from_secs(30);

/// One venue behind its lock, and the clock that the cores are not allowed to see.
pub struct Shared {
    stand: Mutex<Stand>,
    started: Instant,
    pub stop: CancellationToken,
    /// Connections and delayed answers, awaited when the simulator stops.
    pub tasks: TaskTracker,
    message_bytes_max: usize,
}

impl Shared {
    pub fn new(stand: Stand, stop: CancellationToken) -> Arc<Self> {
        let message_bytes_max = stand.floor.config.message_bytes_max;
        let (stand, started, tasks) = (Mutex::new(stand), Instant::now(), TaskTracker::new());
        Arc::new(Self { stand, started, stop, tasks, message_bytes_max })
    }

    /// The stand with its real-time clocks set. Never held across an await.
    pub fn stand(&self) -> MutexGuard<'_, Stand> {
        // A panic under the lock leaves a market that is still a market.
        let mut stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner);
        stand.floor.mono_ms = self.started.elapsed().as_millis() as u64;
        stand.floor.wall_ms = wall_ns() / 1_000_000;
        stand
    }
}

/// Nanoseconds since 1970 by the machine's clock.
pub fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// Serves until the token is cancelled.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) -> anyhow::Result<()> {
    let stop = shared.stop.clone();
    let app = Router::new().fallback(any).with_state(shared);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

async fn any(State(shared): State<Arc<Shared>>, request: HttpRequest<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    if let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        return socket(shared, upgrade, parts.uri.path(), parts.uri.query().unwrap_or(""));
    }
    let Ok(body) = to_bytes(body, shared.message_bytes_max).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or("").to_owned(),
        headers: header_map(&parts.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = shared.stand().rest(&request);
    if reply.lost {
        // The connection stays open without an answer until the client or the program ends.
        shared.stop.cancelled().await;
    } else if reply.delay_ms > 0 {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(reply.delay_ms)) => {}
        }
    }
    http(reply)
}

fn header_map(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let text = |v: &axum::http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers.iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect()
}

fn http(reply: Reply) -> Response<Body> {
    let mut response =
        Response::builder().status(reply.status).header("content-type", "application/json;charset=UTF-8");
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn socket(shared: Arc<Shared>, upgrade: WebSocketUpgrade, path: &str, query: &str) -> Response<Body> {
    let line = {
        let mut stand = shared.stand();
        let Some(line) = stand.floor.hub.join() else {
            return http(Reply::json(503, r#"{"code":-1008,"msg":"Too many connections."}"#));
        };
        if let Err(reply) = stand.connect(line.id, path, query) {
            stand.floor.hub.leave(line.id);
            return http(reply);
        }
        line
    };
    let (failed, id) = (shared.clone(), line.id);
    let tasks = shared.tasks.clone();
    upgrade.max_message_size(shared.message_bytes_max).on_failed_upgrade(move |_| failed.stand().gone(id)).on_upgrade(
        move |socket| {
            // The tracker lets the simulator wait for its connections when it stops.
            tasks.track_future(async move {
                converse(&shared, socket, line).await;
                shared.stand().gone(id);
            })
        },
    )
}

/// What a step of the conversation leads to.
enum Step {
    Go,
    End,
}

async fn converse(shared: &Shared, mut socket: WebSocket, mut line: Line) {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    loop {
        let silent = silence(&line.silent);
        let step = tokio::select! {
            biased;
            () = shared.stop.cancelled() => {
                farewell(&mut socket, 1001, "the simulator stops").await;
                return;
            }
            // Cancel safe: frames stay in the channel until they are handed over.
            n = line.inbox.recv_many(&mut batch, WRITE_BATCH) => match n {
                0 => Step::End,
                _ if silent => {
                    batch.clear();
                    Step::Go
                }
                _ => write(&mut socket, &mut batch).await,
            },
            // Cancel safe: a message is taken whole or not at all. A silent server does not read.
            message = socket.recv(), if !silent => match message {
                Some(Ok(message)) => read(shared, line.id, message),
                Some(Err(_)) | None => Step::End,
            },
            // Silence can begin while nothing is sent: look again now and then.
            () = tokio::time::sleep(Duration::from_millis(50)) => Step::Go,
        };
        if let Step::End = step {
            return;
        }
    }
}

fn silence(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

fn read(shared: &Shared, client: ClientId, message: Message) -> Step {
    match message {
        Message::Text(text) => shared.stand().message(client, text.as_str()),
        Message::Ping(_) => shared.stand().control(client, None),
        Message::Pong(payload) => shared.stand().control(client, Some(&payload)),
        Message::Binary(bytes) => shared.stand().message(client, &String::from_utf8_lossy(&bytes)),
        Message::Close(_) => return Step::End,
    }
    Step::Go
}

async fn write(socket: &mut WebSocket, batch: &mut Vec<Out>) -> Step {
    for out in batch.drain(..) {
        let message = match out {
            Out::Text(text) => Message::Text(text),
            Out::Binary(bytes) => Message::Binary(bytes),
            Out::Ping(payload) => Message::Ping(payload),
            Out::Close(code, reason) => {
                farewell(socket, code, &reason).await;
                return Step::End;
            }
            // Dropping the socket ends the TCP connection without a close frame.
            Out::Cut => return Step::End,
        };
        if !matches!(tokio::time::timeout(WRITE_WAIT, socket.feed(message)).await, Ok(Ok(()))) {
            return Step::End;
        }
    }
    match tokio::time::timeout(WRITE_WAIT, socket.flush()).await {
        Ok(Ok(())) => Step::Go,
        Ok(Err(_)) | Err(_) => Step::End,
    }
}

async fn farewell(socket: &mut WebSocket, code: u16, reason: &str) {
    let frame = CloseFrame { code, reason: reason.to_owned().into() };
    let parting = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            // The client's own close frame, or the end of the stream.
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // A client that does not answer loses nothing: the connection ends anyway.
    let _ = tokio::time::timeout(CLOSE_WAIT, parting).await;
}
