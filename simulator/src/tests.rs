//! The protocols from outside: real WebSocket and HTTP clients against a simulator on port 0.

mod binance;
mod coinbase;
mod deribit;
mod faults;
mod feed;
mod hyperliquid;
mod mexc;
mod okx;
mod htx;
mod trading;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::config::Config;
use crate::{Handle, Options, Simulator, VenueId};

/// Bound of every wait: generous, because the machine may be busy.
const WAIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config::load(None).expect("defaults")
}

fn options(venue: VenueId) -> Options {
    let mut options = Options::new(&[venue], config());
    options.history_ns = 60_000_000_000;
    options.flow.levels = 40;
    options
}

async fn start(venue: VenueId) -> Handle {
    Simulator::start(options(venue)).await.expect("start")
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
enum End {
    Closed(u16, String),
    /// Without a close frame.
    Cut,
}

struct Client {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Texts in the order of their coming.
    heard: Vec<String>,
}

impl Client {
    async fn open(addr: SocketAddr, path: &str) -> Self {
        let (ws, _) = connect_async(format!("ws://{addr}{path}")).await.expect("connect");
        Self { ws, heard: Vec::new() }
    }

    async fn say(&mut self, value: Value) {
        self.ws.send(Message::text(value.to_string())).await.expect("send");
    }

    async fn step(&mut self) -> Result<Message, End> {
        let next = tokio::time::timeout(WAIT, self.ws.next()).await.expect("a message within the bound");
        match next {
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.expect("a close frame has a code");
                Err(End::Closed(frame.code.into(), frame.reason.to_string()))
            }
            Some(Ok(message)) => Ok(message),
            Some(Err(Error::Protocol(_) | Error::Io(_) | Error::ConnectionClosed)) | None => Err(End::Cut),
            Some(Err(e)) => panic!("{e}"),
        }
    }

    async fn text(&mut self) -> Result<String, End> {
        loop {
            if let Message::Text(text) = self.step().await? {
                self.heard.push(text.to_string());
                return Ok(text.to_string());
            }
        }
    }

    async fn next(&mut self) -> Value {
        let text = self.text().await.expect("the connection lives");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The first message that fits; the others are passed over.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..100_000 {
            let value = self.next().await;
            if fits(&value) {
                return value;
            }
        }
        panic!("no message fitted; the last was {:?}", self.heard.last());
    }

    async fn end(&mut self) -> End {
        for _ in 0..100_000 {
            if let Err(end) = self.step().await {
                return end;
            }
        }
        panic!("the connection does not end");
    }

    /// JSON-RPC call (Deribit) or WebSocket API call (Binance): the answer with its id.
    async fn call(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.say(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        self.until(|v| v["id"] == id).await
    }

    async fn subscribe(&mut self, streams: &[&str]) {
        self.say(json!({ "method": "SUBSCRIBE", "params": streams, "id": "s" })).await;
        self.until(|v| v["id"] == "s").await;
    }
}

/// Status, headers and body of a REST call.
async fn http(addr: SocketAddr, method: &str, path: &str, body: &str) -> (u16, reqwest::header::HeaderMap, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("method");
    let request = client().request(method, format!("http://{addr}{path}"));
    let request = request.header("x-mbx-apikey", config().account.api_key).body(body.to_owned());
    let response = tokio::time::timeout(WAIT, request.send()).await.expect("an answer").expect("sent");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("body");
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn client() -> reqwest::Client {
    // The client wants a TLS provider even where it speaks plain HTTP. It is there already after the first call.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("client")
}

async fn get(addr: SocketAddr, path: &str) -> Value {
    let (status, _, body) = http(addr, "GET", path, "").await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// Waits until something is true, asking every few milliseconds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let since = std::time::Instant::now();
    while !holds().await {
        assert!(since.elapsed() < WAIT, "{what} did not become true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Members of an object, for the comparison with what the venue really sent.
fn members(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default()
}

/// Line `n` of a fixture file; `None` without the shared fixtures.
fn fixture(venue: &str, file: &str, n: usize) -> Option<Value> {
    let path = schemas::fixtures::root()?.join("fixtures/venues").join(venue).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Some(serde_json::from_str(text.lines().nth(n).expect("line")).expect("json"))
}
