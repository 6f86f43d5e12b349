//! HTX: spot and derivatives.
//!
//! The signature is base64 of the HMAC-SHA256 of method, host in lower case, path and query, with line ends between them.
//! The query is sorted by name in the order of ASCII, and its values are percent-encoded (`:` becomes `%3A`). It holds
//! the four parameters of the authentication and, in a GET, those of the request; the JSON body of a POST is not signed.
//! The time is UTC in whole seconds without a zone. The signature is the last parameter of the query, percent-encoded.
//! The WebSocket of spot v2 calls the version 2.1 and the parameters in camel case.
//! <https://huobiapi.github.io/docs/spot/v1/en/#authentication>

use serde::Serialize;

use super::{Query, Secret, SignError, hmac_base64, utc_s};

const METHOD: &str = "HmacSHA256";
/// The parameters of the authentication, and the signature behind them.
const RESERVED: [&str; 5] = ["AccessKeyId", "SignatureMethod", "SignatureVersion", "Timestamp", "Signature"];

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Upper case.
    pub method: &'a str,
    /// Without a scheme; a port that is not the scheme's own belongs to it.
    pub host: &'a str,
    pub path: &'a str,
}

impl Endpoint<'_> {
    /// What is signed. `query`: sorted, without the signature.
    pub fn prehash(&self, query: &Query) -> String {
        format!("{}\n{}\n{}\n{}", self.method, self.host.to_ascii_lowercase(), self.path, query.as_str())
    }

    fn sign(&self, secret: &Secret, query: &Query) -> Result<String, SignError> {
        for (name, text) in [("method", self.method), ("host", self.host), ("path", self.path)] {
            super::plain(name, text)?;
        }
        Ok(hmac_base64(secret.reveal().as_bytes(), &self.prehash(query)))
    }
}

/// The query that is signed. `params`: those of a GET; none for a POST. Their order does not matter.
pub fn query(key: &str, timestamp_ms: i64, params: &[(&str, &str)]) -> Result<Query, SignError> {
    if let Some((name, _)) = params.iter().find(|(name, _)| RESERVED.contains(name)) {
        return Err(SignError::Input { name: "parameter", why: format!("`{name}` belongs to the authentication") });
    }
    let timestamp = utc_s(timestamp_ms)?;
    let own = [("AccessKeyId", key), ("SignatureMethod", METHOD), ("SignatureVersion", "2"), ("Timestamp", &timestamp)];
    Ok(Query::sorted(&[&own[..], params].concat()))
}

/// The query of a request, with its signature behind it.
pub fn signed_query(
    key: &str,
    secret: &Secret,
    endpoint: Endpoint<'_>,
    timestamp_ms: i64,
    params: &[(&str, &str)],
) -> Result<String, SignError> {
    let mut query = query(key, timestamp_ms, params)?;
    let signature = endpoint.sign(secret, &query)?;
    query.add("Signature", &signature);
    Ok(query.into_string())
}

/// What the WebSocket of spot v2 signs as its query.
pub fn spot_query(key: &str, timestamp_ms: i64) -> Result<Query, SignError> {
    let timestamp = utc_s(timestamp_ms)?;
    Ok(Query::sorted(&[
        ("accessKey", key),
        ("signatureMethod", METHOD),
        ("signatureVersion", "2.1"),
        ("timestamp", &timestamp),
    ]))
}

/// The message that logs the WebSocket of spot v2 in, at path `/ws/v2`.
pub fn spot_auth(key: &str, secret: &Secret, host: &str, timestamp_ms: i64) -> Result<String, SignError> {
    #[derive(Serialize)]
    struct Auth<'a> {
        action: &'static str,
        ch: &'static str,
        params: Params<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        /// Not signed.
        auth_type: &'static str,
        access_key: &'a str,
        signature_method: &'static str,
        signature_version: &'static str,
        timestamp: &'a str,
        signature: &'a str,
    }
    let endpoint = Endpoint { method: "GET", host, path: "/ws/v2" };
    let signature = &endpoint.sign(secret, &spot_query(key, timestamp_ms)?)?;
    let params = Params {
        auth_type: "api",
        access_key: key,
        signature_method: METHOD,
        signature_version: "2.1",
        timestamp: &utc_s(timestamp_ms)?,
        signature,
    };
    Ok(serde_json::to_string(&Auth { action: "req", ch: "auth", params }).expect("Invariant: texts are JSON"))
}

/// The message that logs a WebSocket of derivatives in. `path`: such as `/linear-swap-notification`. The rule is that of
/// a GET without parameters; no published signature of it is known here.
pub fn swap_auth(key: &str, secret: &Secret, host: &str, path: &str, timestamp_ms: i64) -> Result<String, SignError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Auth<'a> {
        #[serde(rename = "op")]
        op: &'static str,
        #[serde(rename = "type")]
        kind: &'static str,
        access_key_id: &'a str,
        signature_method: &'static str,
        signature_version: &'static str,
        timestamp: &'a str,
        signature: &'a str,
    }
    let endpoint = Endpoint { method: "GET", host, path };
    let signature = &endpoint.sign(secret, &query(key, timestamp_ms, &[])?)?;
    let auth = Auth {
        op: "auth",
        kind: "api",
        access_key_id: key,
        signature_method: METHOD,
        signature_version: "2",
        timestamp: &utc_s(timestamp_ms)?,
        signature,
    };
    Ok(serde_json::to_string(&auth).expect("Invariant: texts are JSON"))
}
