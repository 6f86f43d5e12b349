//! Private keys: Ed25519 and RSA, and the PEM files that they come in.

use std::fmt;

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::{Secret, SignError};

/// Whether a secret is a PEM file and not a bare word.
pub fn is_pem(secret: &Secret) -> bool {
    secret.reveal().trim_start().starts_with("-----BEGIN ")
}

/// The first private key of a PEM file (PKCS#8, PKCS#1 or SEC 1, not encrypted). Environment variables often carry line
/// ends as `\n` of two characters; they are taken for line ends.
pub fn pem(secret: &Secret) -> Result<PrivateKeyDer<'static>, SignError> {
    PrivateKeyDer::from_pem_slice(secret.reveal().replace("\\n", "\n").as_bytes())
        .map_err(|_| SignError::Key("no unencrypted PEM private key"))
}

/// Ed25519 (RFC 8032): the same key and payload give the same 64 bytes.
pub struct Ed25519(Ed25519KeyPair);

impl Ed25519 {
    /// From PKCS#8 in DER, with or without its public key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Self)
            .map_err(|_| SignError::Key("no Ed25519 key in PKCS#8"))
    }

    /// From 64 bytes: the seed and its public key, which must belong together.
    pub fn from_seed_and_public_key(bytes: &[u8]) -> Result<Self, SignError> {
        let (seed, public) = bytes.split_at_checked(32).ok_or(SignError::Key("not 64 bytes of Ed25519"))?;
        Ed25519KeyPair::from_seed_and_public_key(seed, public)
            .map(Self)
            .map_err(|_| SignError::Key("not a seed of Ed25519 with its public key"))
    }

    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        self.0.sign(payload).as_ref().to_vec()
    }
    pub fn sign_base64(&self, payload: &str) -> String {
        BASE64.encode(&self.sign(payload.as_bytes()))
    }
    pub fn public_key(&self) -> &[u8] {
        ring::signature::KeyPair::public_key(&self.0).as_ref()
    }
}

impl fmt::Debug for Ed25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// RSA with PKCS#1 v1.5 padding and SHA-256 (RFC 8017), 2048 to 4096 bits: the same key and payload give the same bytes.
pub struct Rsa(RsaKeyPair);

impl Rsa {
    /// From PKCS#8 or PKCS#1 in DER.
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Result<Self, SignError> {
        match key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(SignError::Key("no RSA key")),
        }
        .map(Self)
        .map_err(|_| SignError::Key("no RSA key of 2048 to 4096 bits"))
    }

    pub fn sign_base64(&self, payload: &str) -> String {
        let mut signature = vec![0; self.0.public().modulus_len()];
        // `ring` wants a source of randomness for the paddings that need one; this padding has none and never asks.
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), payload.as_bytes(), &mut signature)
            .expect("Invariant: the buffer is as long as the modulus, and the key was checked");
        BASE64.encode(&signature)
    }
    /// `RSAPublicKey` in DER.
    pub fn public_key(&self) -> &[u8] {
        self.0.public().as_ref()
    }
}

impl fmt::Debug for Rsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
