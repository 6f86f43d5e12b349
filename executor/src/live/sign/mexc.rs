//! MEXC.
//!
//! Spot v3: HMAC-SHA256 in lower-case hex of the query string and, behind it without a separator, the body, as they are
//! sent; values are percent-encoded before. The key goes into [`KEY_HEADER`].
//! <https://www.mexc.com/api-docs/spot-v3/general-info>
//!
//! Contract: HMAC-SHA256 in hex of API key, time in Unix milliseconds, and parameters, without separators. The parameters
//! of GET and DELETE are the query sorted by name with percent-encoded values, those of POST the exact JSON body; parts of
//! the path do not count. WebSocket login: the same without parameters.
//! <https://www.mexc.com/api-docs/futures/integration-guide>

use serde::Serialize;

use super::{Query, Secret, hmac_hex};

/// The header that carries the API key of spot requests.
pub const KEY_HEADER: &str = "X-MEXC-APIKEY";

/// The signature of a spot request. `query` and `body` as they are sent, either may be empty.
pub fn spot(secret: &Secret, query: &str, body: &str) -> String {
    hmac_hex(secret.reveal().as_bytes(), &format!("{query}{body}"))
}

/// The parameters of a contract GET or DELETE, in the order in which they are signed and sent.
pub fn contract_query(params: &[(&str, &str)]) -> String {
    Query::sorted(params).into_string()
}

/// The headers of a contract request. `parameters`: of [`contract_query`], or the exact JSON body.
pub fn contract_headers(
    key: &str,
    secret: &Secret,
    request_time_ms: i64,
    parameters: &str,
) -> [(&'static str, String); 3] {
    [
        ("ApiKey", key.to_owned()),
        ("Request-Time", request_time_ms.to_string()),
        ("Signature", contract(key, secret, request_time_ms, parameters)),
    ]
}

/// The message that logs a contract WebSocket in.
pub fn contract_login(key: &str, secret: &Secret, request_time_ms: i64) -> String {
    #[derive(Serialize)]
    struct Login<'a> {
        method: &'static str,
        param: Param<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Param<'a> {
        api_key: &'a str,
        req_time: &'a str,
        signature: &'a str,
    }
    let signature = &contract(key, secret, request_time_ms, "");
    let param = Param { api_key: key, req_time: &request_time_ms.to_string(), signature };
    serde_json::to_string(&Login { method: "login", param }).expect("Invariant: texts are JSON")
}

/// What a contract request signs.
pub fn contract_prehash(key: &str, request_time_ms: i64, parameters: &str) -> String {
    format!("{key}{request_time_ms}{parameters}")
}

fn contract(key: &str, secret: &Secret, request_time_ms: i64, parameters: &str) -> String {
    hmac_hex(secret.reveal().as_bytes(), &contract_prehash(key, request_time_ms, parameters))
}
