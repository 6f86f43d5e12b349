//! HMAC-SHA256 in hex, as Binance and Deribit sign requests (RFC 2104; checked against the venues' published vectors).

use std::fmt::Write;

use sha2::{Digest, Sha256};

const BLOCK: usize = 64;

pub fn hmac_sha256_hex(secret: &str, payload: &str) -> String {
    let mut key = [0u8; BLOCK];
    if secret.len() > BLOCK {
        key[..32].copy_from_slice(&Sha256::digest(secret.as_bytes()));
    } else {
        key[..secret.len()].copy_from_slice(secret.as_bytes());
    }
    let pad = |byte: u8| key.map(|k| k ^ byte);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(payload.as_bytes()).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_venues_published_vectors_come_out() {
        let Some(root) = schemas::fixtures::root() else { return };
        let mut seen = 0;
        for venue in ["binance", "deribit"] {
            let path = root.join("fixtures/venues").join(venue).join("signing_vectors.json");
            let text = std::fs::read_to_string(path).expect("vectors");
            let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).expect("json");
            for v in vectors {
                let secret = v["secret"].as_str().or(v["client_secret"].as_str());
                let payload = v["payload"].as_str().or(v["string_to_sign"].as_str());
                let (Some(secret), Some(payload)) = (secret, payload) else { continue };
                assert_eq!(
                    hmac_sha256_hex(secret, payload),
                    v["expected_signature"].as_str().expect("signature"),
                    "{v}"
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 6);
    }
}
