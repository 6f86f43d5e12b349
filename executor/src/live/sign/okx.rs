//! OKX.
//!
//! REST: base64 of the HMAC-SHA256 of time, method, path with its query, and body, without separators. The time is ISO
//! 8601 with milliseconds, the same in the header. WebSocket login: the same of `GET/users/self/verify`, with the time in
//! whole Unix seconds. <https://www.okx.com/docs-v5/en/#overview-rest-authentication>

use serde::Serialize;

use super::{Credentials, SignError, hmac_base64, utc_ms};

/// The headers of a signed request. `method`: upper case; `path`: with its query, as it is sent.
pub fn headers(
    keys: &Credentials,
    timestamp_ms: i64,
    method: &str,
    path: &str,
    body: &str,
) -> Result<[(&'static str, String); 4], SignError> {
    let timestamp = utc_ms(timestamp_ms)?;
    let signature = sign(keys, &prehash(&timestamp, method, path, body));
    Ok([
        ("OK-ACCESS-KEY", keys.key.clone()),
        ("OK-ACCESS-SIGN", signature),
        ("OK-ACCESS-TIMESTAMP", timestamp),
        ("OK-ACCESS-PASSPHRASE", keys.passphrase.reveal().to_owned()),
    ])
}

/// The message that logs a WebSocket in. `timestamp_s`: Unix seconds.
pub fn login(keys: &Credentials, timestamp_s: i64) -> String {
    #[derive(Serialize)]
    struct Login<'a> {
        op: &'static str,
        args: [Arg<'a>; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Arg<'a> {
        api_key: &'a str,
        passphrase: &'a str,
        timestamp: &'a str,
        sign: &'a str,
    }
    let timestamp = timestamp_s.to_string();
    let sign = sign(keys, &prehash(&timestamp, "GET", "/users/self/verify", ""));
    let passphrase = keys.passphrase.reveal();
    let arg = Arg { api_key: &keys.key, passphrase, timestamp: &timestamp, sign: &sign };
    serde_json::to_string(&Login { op: "login", args: [arg] }).expect("Invariant: texts are JSON")
}

/// What is signed; `timestamp` as it is sent.
pub fn prehash(timestamp: &str, method: &str, path: &str, body: &str) -> String {
    format!("{timestamp}{method}{path}{body}")
}

fn sign(keys: &Credentials, prehash: &str) -> String {
    hmac_base64(keys.secret.reveal().as_bytes(), prehash)
}
