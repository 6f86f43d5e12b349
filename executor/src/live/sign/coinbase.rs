//! Coinbase: Advanced Trade and Exchange.
//!
//! Advanced Trade: a JSON Web Token (RFC 7515) by a P-256 key (ES256) or an Ed25519 key (EdDSA). The header names the key
//! and a nonce; the claims are the key (`sub`), the issuer `cdp`, the time, the end of it 120 s later, and for REST the
//! request as `METHOD host/path` without its query. A token of a WebSocket has no `uri`, and each subscription needs a
//! new one. ES256 uses the nonce of RFC 6979, so that a token follows from its arguments.
//! <https://docs.cdp.coinbase.com/get-started/authentication/jwt-authentication>
//!
//! Exchange: base64 of the HMAC-SHA256 of time in Unix seconds, method, path with its query, and body, without
//! separators; the key of it is the secret, decoded from base64.
//! <https://docs.cdp.coinbase.com/exchange/rest-api/authentication>

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use rustls_pki_types::PrivateKeyDer;
use serde::Serialize;

use super::key::{self, Ed25519};
use super::{Credentials, Secret, SignError, hmac_base64};

/// A token is good for so long; the venue takes no more.
const TOKEN_S: u64 = 120;

/// The private key of an Advanced Trade API key.
pub enum Key {
    Es256(SigningKey),
    Ed25519(Ed25519),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// As the venue hands it out: PEM (`EC PRIVATE KEY`, or PKCS#8) for P-256, base64 of seed and public key for Ed25519.
    pub fn read(secret: &Secret) -> Result<Self, SignError> {
        const NO_P256: SignError = SignError::Key("no P-256 key in PEM");
        if !key::is_pem(secret) {
            let bytes = BASE64.decode(secret.reveal().trim().as_bytes());
            let bytes = bytes.map_err(|_| SignError::Key("neither PEM nor base64"))?;
            return Ed25519::from_seed_and_public_key(&bytes).map(Self::Ed25519);
        }
        let key = match key::pem(secret)? {
            PrivateKeyDer::Sec1(der) => SecretKey::from_sec1_der(der.secret_sec1_der()).map_err(|_| NO_P256)?,
            PrivateKeyDer::Pkcs8(der) => SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| NO_P256)?,
            _ => return Err(NO_P256),
        };
        Ok(Self::Es256(key.into()))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    pub(super) fn sign(&self, text: &str) -> Vec<u8> {
        match self {
            Self::Es256(key) => {
                let signature: Signature = key.sign(text.as_bytes());
                signature.to_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(text.as_bytes()),
        }
    }
}

/// The token of one request or subscription.
///
/// `key_name`: `organizations/../apiKeys/..`; `nonce`: a word that is used once; `now_s`: Unix seconds; `uri`: of
/// [`rest_uri`], or none for a WebSocket.
pub fn token(key: &Key, key_name: &str, nonce: &str, now_s: u64, uri: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'static str,
        kid: &'a str,
        nonce: &'a str,
        typ: &'static str,
    }
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        iss: &'static str,
        nbf: u64,
        exp: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        uri: Option<&'a str>,
    }
    let header = Header { alg: key.algorithm(), kid: key_name, nonce, typ: "JWT" };
    let claims = Claims { sub: key_name, iss: "cdp", nbf: now_s, exp: now_s.saturating_add(TOKEN_S), uri };
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = BASE64URL_NOPAD.encode(&key.sign(&signed));
    format!("{signed}.{signature}")
}

fn part(json: &impl Serialize) -> String {
    BASE64URL_NOPAD.encode(&serde_json::to_vec(json).expect("Invariant: texts and integers are JSON"))
}

/// What a REST token names: `path` loses its query.
pub fn rest_uri(method: &str, host: &str, path: &str) -> String {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    format!("{method} {host}{path}")
}

/// The headers of an Exchange request. `method`: upper case; `path`: with its query, as it is sent.
pub fn exchange_headers(
    keys: &Credentials,
    timestamp_s: i64,
    method: &str,
    path: &str,
    body: &str,
) -> Result<[(&'static str, String); 4], SignError> {
    let secret = BASE64.decode(keys.secret.reveal().as_bytes());
    let secret = secret.map_err(|_| SignError::Key("the secret of Coinbase Exchange is base64, this is not"))?;
    Ok([
        ("CB-ACCESS-KEY", keys.key.clone()),
        ("CB-ACCESS-SIGN", hmac_base64(&secret, &exchange_prehash(timestamp_s, method, path, body))),
        ("CB-ACCESS-TIMESTAMP", timestamp_s.to_string()),
        ("CB-ACCESS-PASSPHRASE", keys.passphrase.reveal().to_owned()),
    ])
}

/// What an Exchange request signs.
pub fn exchange_prehash(timestamp_s: i64, method: &str, path: &str, body: &str) -> String {
    format!("{timestamp_s}{method}{path}{body}")
}
