//! REST requests of sessions.

use std::time::Duration;

use anyhow::Context;

use crate::proxy::Proxy;
use crate::quota::Quota;
use crate::session::{HttpAnswer, HttpResult};
use crate::venue::{Method, Request};

/// The largest answer that is read: an instrument list is some 10 MiB.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Shared by all connections of a venue.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

impl Client {
    pub fn new(timeout_ms: u64, proxy: Option<&Proxy>) -> anyhow::Result<Self> {
        nats::crypto::install();
        let bound = Duration::from_millis(timeout_ms);
        let mut builder =
            reqwest::Client::builder().timeout(bound).connect_timeout(bound).user_agent("tapeline").no_proxy();
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy.for_http()?);
        }
        Ok(Self(builder.build().context("make the http client")?))
    }

    /// Within the quota, which hears what the venue answers. `base`: scheme and host.
    pub async fn ask(&self, base: &str, request: &Request, quota: &Quota) -> HttpResult {
        quota.spend(request.bucket, request.weight).await.map_err(|e| causes(&e))?;
        let answer = self.send(base, request, quota.used_header(request.bucket)).await?;
        quota.answered(request, &answer).await.map_err(|e| causes(&e))?;
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
