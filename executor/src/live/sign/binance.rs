//! Binance, all markets.
//!
//! REST: the signature is of the percent-encoded query string and, behind it without a separator, the form body, exactly
//! as they are sent; it is added as the last parameter. HMAC-SHA256 comes in hex; Ed25519 and RSA (PKCS#1 v1.5, SHA-256)
//! in base64, which is percent-encoded in turn. The key itself goes into the header [`KEY_HEADER`].
//! <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security>
//!
//! WebSocket API: the parameters, `apiKey` among them and `signature` not, sorted by name and joined as `name=value`
//! with `&`, in UTF-8 as they are, without percent-encoding.
//! <https://developers.binance.com/docs/binance-spot-api-docs/websocket-api/request-security>

use rustls_pki_types::PrivateKeyDer;

use super::key::{self, Ed25519, Rsa};
use super::{Query, Secret, SignError, hmac_hex};

/// The header that carries the API key.
pub const KEY_HEADER: &str = "X-MBX-APIKEY";

/// One of the three kinds of keys that the venue gives.
#[derive(Debug)]
pub enum Key {
    Hmac(Secret),
    Ed25519(Ed25519),
    /// The venue calls it slow and advises against it.
    Rsa(Rsa),
}

impl Key {
    /// A PEM file is an Ed25519 or RSA key; anything else is the secret of an HMAC key.
    pub fn read(secret: &Secret) -> Result<Self, SignError> {
        if !key::is_pem(secret) {
            return Ok(Self::Hmac(secret.clone()));
        }
        let der = key::pem(secret)?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &der
            && let Ok(key) = Ed25519::from_pkcs8(pkcs8.secret_pkcs8_der())
        {
            return Ok(Self::Ed25519(key));
        }
        Rsa::from_der(&der).map(Self::Rsa).map_err(|_| SignError::Key("neither Ed25519 nor RSA of 2048 to 4096 bits"))
    }

    pub fn sign(&self, payload: &str) -> String {
        match self {
            Self::Hmac(secret) => hmac(secret, payload),
            Self::Ed25519(key) => key.sign_base64(payload),
            Self::Rsa(key) => key.sign_base64(payload),
        }
    }
}

/// The signature by an HMAC key.
pub fn hmac(secret: &Secret, payload: &str) -> String {
    hmac_hex(secret.reveal().as_bytes(), payload)
}

/// The signature of a REST request. `query` and `body` as they are sent, either may be empty.
pub fn rest(key: &Key, query: &str, body: &str) -> String {
    key.sign(&format!("{query}{body}"))
}

/// A query string with its signature behind it, for a request without a body.
pub fn signed_query(key: &Key, mut query: Query) -> String {
    let signature = rest(key, query.as_str(), "");
    query.add("signature", &signature);
    query.into_string()
}

/// The signature of a request of the WebSocket API, `session.logon` included. Numbers are given as their JSON text. The
/// order of `params` does not matter; `signature` must not be among them.
pub fn websocket(key: &Key, params: &[(&str, &str)]) -> String {
    key.sign(&websocket_payload(params))
}

/// What [`websocket`] signs.
pub fn websocket_payload(params: &[(&str, &str)]) -> String {
    let mut params = params.to_vec();
    params.sort_unstable();
    params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}
