//! Deribit.
//!
//! `public/auth` with the grant `client_signature`: HMAC-SHA256 in hex of time, nonce and data, with line ends between
//! them. HTTP with `deri-hmac-sha256`: time, nonce, method, path with its query, and body, each with a line end behind it.
//! Times are Unix milliseconds; a nonce is a word that is used once. <https://docs.deribit.com/#authentication>

use serde::Serialize;

use super::{Secret, SignError, hmac_hex, plain};

/// The `params` of `public/auth`.
pub fn auth_params(
    client_id: &str,
    secret: &Secret,
    timestamp_ms: i64,
    nonce: &str,
    data: &str,
) -> Result<String, SignError> {
    #[derive(Serialize)]
    struct Params<'a> {
        grant_type: &'static str,
        client_id: &'a str,
        timestamp: i64,
        nonce: &'a str,
        data: &'a str,
        signature: &'a str,
    }
    plain("nonce", nonce)?;
    let signature = &hmac_hex(secret.reveal().as_bytes(), &auth_text(timestamp_ms, nonce, data));
    let grant_type = "client_signature";
    let params = Params { grant_type, client_id, timestamp: timestamp_ms, nonce, data, signature };
    Ok(serde_json::to_string(&params).expect("Invariant: texts and integers are JSON"))
}

/// What `public/auth` signs.
pub fn auth_text(timestamp_ms: i64, nonce: &str, data: &str) -> String {
    format!("{timestamp_ms}\n{nonce}\n{data}")
}

/// A request over HTTP, as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    /// Upper case.
    pub method: &'a str,
    /// Path with its query.
    pub uri: &'a str,
    pub body: &'a str,
}

/// The value of the header `Authorization`.
pub fn authorization(
    client_id: &str,
    secret: &Secret,
    timestamp_ms: i64,
    nonce: &str,
    request: Http<'_>,
) -> Result<String, SignError> {
    for (name, text) in [("client id", client_id), ("nonce", nonce), ("method", request.method)] {
        plain(name, text)?;
    }
    if request.uri.contains(['\r', '\n']) {
        return Err(SignError::Input { name: "uri", why: "holds a line end".into() });
    }
    let signature = hmac_hex(secret.reveal().as_bytes(), &http_text(timestamp_ms, nonce, request));
    Ok(format!("deri-hmac-sha256 id={client_id},ts={timestamp_ms},nonce={nonce},sig={signature}"))
}

/// What [`authorization`] signs.
pub fn http_text(timestamp_ms: i64, nonce: &str, Http { method, uri, body }: Http<'_>) -> String {
    format!("{timestamp_ms}\n{nonce}\n{method}\n{uri}\n{body}\n")
}
