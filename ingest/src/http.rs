//! REST requests of sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::proxy::Proxy;
use crate::quota::Quota;
use crate::session::{HttpAnswer, HttpResult};
use crate::venue::{Method, Request};

/// The largest answer that is read: an instrument list is some 10 MiB.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Answers that are kept, and for how long: lists that hardly change and that several ask for.
const KEPT_MAX: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Shared by all connections of a venue: one pool, and the answers that are kept.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client, Arc<Mutex<Kept>>);

/// By address, path and body: when it came, and what.
type Kept = BTreeMap<String, (Instant, HttpAnswer)>;

impl Client {
    pub fn new(timeout_ms: u64, proxy: Option<&Proxy>) -> anyhow::Result<Self> {
        nats::crypto::install();
        let bound = Duration::from_millis(timeout_ms);
        let mut builder =
            reqwest::Client::builder().timeout(bound).connect_timeout(bound).user_agent("tapeline").no_proxy();
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy.for_http()?);
        }
        Ok(Self(builder.build().context("make the http client")?, Arc::default()))
    }

    /// Within the quota, which hears what the venue answers. `base`: scheme and host.
    pub async fn ask(&self, base: &str, request: &Request, quota: &Quota) -> HttpResult {
        if request.spare {
            quota.spend_spare(request.bucket, request.weight).await.map_err(|e| causes(&e))?;
        } else {
            quota.spend(request.bucket, request.weight).await.map_err(|e| causes(&e))?;
        }
        let answer = self.send(base, request, quota.used_header(request.bucket)).await?;
        quota.answered(request, &answer).await.map_err(|e| causes(&e))?;
        Ok(answer)
    }

    /// Like [`Client::ask`], from what is kept where it is young enough: for what the venue hardly changes.
    pub async fn ask_static(&self, base: &str, request: &Request, quota: &Quota) -> HttpResult {
        let key = format!("{base}{} {}", request.path, request.body);
        let kept = || self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((_, answer)) = kept().get(&key).filter(|(at, _)| now - *at < KEPT_FOR) {
            return Ok(answer.clone());
        }
        let answer = self.ask(base, request, quota).await?;
        if answer.status == 200 {
            let mut kept = kept();
            kept.retain(|_, (at, _)| now - *at < KEPT_FOR);
            if kept.len() < KEPT_MAX {
                kept.insert(key, (now, answer.clone()));
            }
        }
        Ok(answer)
    }

    async fn send(&self, base: &str, request: &Request, used_header: Option<&str>) -> HttpResult {
        let url = format!("{base}{}", request.path);
        let asked = match request.method {
            Method::Get => self.0.get(url),
            Method::Post => self.0.post(url).header("content-type", "application/json").body(request.body.clone()),
        };
        let mut answer = asked.send().await.map_err(|e| causes(&e))?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        let retry_after_s = header("retry-after").and_then(|text| text.parse().ok());
        let used = used_header.and_then(header).and_then(|text| text.parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| causes(&e))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(format!("an answer of more than {BODY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(body).map_err(|_| "an answer that is not text".to_owned())?;
        Ok(HttpAnswer { status, retry_after_s, used, body })
    }
}

/// The error with its causes: the client's own text says only that something failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::wall::Wall;

    /// Connections and requests that a server of one answer saw.
    #[derive(Default)]
    struct Seen {
        connections: AtomicUsize,
        requests: AtomicUsize,
    }

    async fn server(status: &'static str) -> (String, Arc<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let (mut text, mut chunk) = (Vec::new(), [0; 1024]);
                    while let Ok(n @ 1..) = socket.read(&mut chunk).await {
                        text.extend_from_slice(&chunk[..n]);
                        if text.ends_with(b"\r\n\r\n") {
                            text.clear();
                            counted.requests.fetch_add(1, Ordering::SeqCst);
                            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n[]");
                            socket.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        (base, seen)
    }

    #[tokio::test]
    async fn requests_share_a_connection_and_what_hardly_changes_is_asked_for_once_unless_it_failed() {
        let client = Client::new(5000, None).unwrap();
        let quota = Quota::of_process("test", "m", &[], &BTreeMap::new(), 100, 1000, Wall::new());
        for (status, asked) in [("200 OK", 3), ("503 Service Unavailable", 4)] {
            let (base, seen) = server(status).await;
            for _ in 0..2 {
                client.ask(&base, &Request::get("/time"), &quota).await.unwrap();
                client.ask_static(&base, &Request::get("/list"), &quota).await.unwrap();
            }
            let counts = (seen.requests.load(Ordering::SeqCst), seen.connections.load(Ordering::SeqCst));
            assert_eq!(counts, (asked, 1), "{status}");
        }
    }
}
