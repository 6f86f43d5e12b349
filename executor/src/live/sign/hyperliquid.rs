//! Hyperliquid.
//!
//! Orders and the like ("L1 actions"): MessagePack of the action in the order of its members, then the nonce in eight
//! bytes, then one byte 0, or 1 and the 20 bytes of the vault, then, where the action expires, one byte 0 and that time in
//! eight bytes; integers are big-endian. Keccak-256 of this is the `connectionId` of an `Agent` whose `source` is `a` on
//! the main network and `b` on the test network, and the agent is signed by EIP-712 in the domain `Exchange`, version 1,
//! chain 1337. The nonce is Unix milliseconds, never used twice by a signer.
//! <https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/signing>
//!
//! Transfers ("user-signed actions") are EIP-712 of their own fields, in the domain `HyperliquidSignTransaction`,
//! version 1, on the chain that the action names.
//!
//! A wrong hash is not refused as such: the venue recovers an unknown address from it.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};
use rust_decimal::Decimal;
use serde::Serialize;

use self::eip712::keccak;
use super::{Secret, SignError};

mod eip712;
pub mod order;
mod pack;

/// A secp256k1 key: of an account, or better of an API wallet that may trade and not withdraw.
pub struct Wallet(SigningKey);

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Wallet {
    /// 32 bytes in hex, with `0x` or without.
    pub fn read(secret: &Secret) -> Result<Self, SignError> {
        const NO_KEY: SignError = SignError::Key("not 32 bytes of hex that are a secp256k1 key");
        let text = secret.reveal().trim();
        let bytes = HEXLOWER_PERMISSIVE.decode(text.strip_prefix("0x").unwrap_or(text).as_bytes());
        SigningKey::from_slice(&bytes.map_err(|_| NO_KEY)?).map(Self).map_err(|_| NO_KEY)
    }

    pub fn address(&self) -> Address {
        Address::of(self.0.verifying_key())
    }

    /// Of a hash of 32 bytes; deterministic (RFC 6979), and of the two values of `s` the lower one.
    fn sign(&self, digest: [u8; 32]) -> Signature {
        let (signature, id) =
            self.0.sign_prehash_recoverable(&digest).expect("Invariant: a hash of 32 bytes can be signed");
        let (r, s) = signature.split_bytes();
        Signature { r: r.into(), s: s.into(), v: 27 + id.to_byte() }
    }
}

/// An account. Shown with the checksum of EIP-55 in its letters' case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(pub [u8; 20]);

impl Address {
    fn of(key: &VerifyingKey) -> Self {
        let point = key.to_encoded_point(false);
        // The first byte says that the point is not compressed.
        let hash = keccak(&point.as_bytes()[1..]);
        Self(hash[12..].try_into().expect("Invariant: 32 less 12 is 20"))
    }

    /// As the venue wants it in a request: `0x` and lower-case hex.
    pub fn lower(&self) -> String {
        format!("0x{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = HEXLOWER.encode(&self.0);
        let hash = HEXLOWER.encode(&keccak(hex.as_bytes()));
        f.write_str("0x")?;
        for (letter, digit) in hex.chars().zip(hash.chars()) {
            write!(f, "{}", if digit >= '8' { letter.to_ascii_uppercase() } else { letter })?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = SignError;

    /// `0x` and 40 digits. Digits of both cases must keep the checksum of EIP-55.
    fn from_str(text: &str) -> Result<Self, SignError> {
        let error = |why: &str| SignError::Input { name: "address", why: format!("`{}` {why}", text.escape_debug()) };
        let hex = text.strip_prefix("0x").ok_or_else(|| error("does not begin with 0x"))?;
        let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| error("is not hex"))?;
        let address = Self(bytes.try_into().map_err(|_| error("is not 20 bytes"))?);
        let mixed = hex.bytes().any(|b| b.is_ascii_lowercase()) && hex.bytes().any(|b| b.is_ascii_uppercase());
        if mixed && address.to_string() != text {
            return Err(error("has a wrong checksum (EIP-55)"));
        }
        Ok(address)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    Mainnet,
    Testnet,
}

impl Network {
    /// The `source` of an agent.
    pub fn source(self) -> &'static str {
        match self {
            Self::Mainnet => "a",
            Self::Testnet => "b",
        }
    }
    /// As transfers name it.
    fn name(self) -> &'static str {
        match self {
            Self::Mainnet => "Mainnet",
            Self::Testnet => "Testnet",
        }
    }
}

/// An ECDSA signature from which the signer's address follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    pub r: [u8; 32],
    pub s: [u8; 32],
    /// 27 or 28.
    pub v: u8,
}

impl Signature {
    /// The member `signature` of a request: `r` and `s` as numbers in hex, so without zeros in front.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json {
            r: String,
            s: String,
            v: u8,
        }
        let json = Json { r: number(&self.r), s: number(&self.s), v: self.v };
        serde_json::to_string(&json).expect("Invariant: texts and integers are JSON")
    }

    /// `r`, `s` and `v` in 65 bytes of hex.
    pub fn rsv_hex(&self) -> String {
        format!("0x{}{}{:02x}", HEXLOWER.encode(&self.r), HEXLOWER.encode(&self.s), self.v)
    }

    /// Whose signature it is of a hash; another hash gives another address, seldom an error.
    pub fn signer(&self, digest: [u8; 32]) -> Result<Address, SignError> {
        let error = || SignError::Input { name: "signature", why: "is of nobody".into() };
        let id = self.v.checked_sub(27).and_then(RecoveryId::from_byte).ok_or_else(error)?;
        let signature = k256::ecdsa::Signature::from_scalars(self.r, self.s).map_err(|_| error())?;
        let key = VerifyingKey::recover_from_prehash(&digest, &signature, id).map_err(|_| error())?;
        Ok(Address::of(&key))
    }
}

fn number(bytes: &[u8; 32]) -> String {
    let hex = HEXLOWER.encode(bytes);
    let digits = hex.trim_start_matches('0');
    format!("0x{}", if digits.is_empty() { "0" } else { digits })
}

/// An action for `/exchange`.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// The JSON object that is sent, byte for byte; the order of its members counts. Its numbers are integers: prices and
    /// sizes are texts of [`wire_number`]. New orders: [`order::order_action`].
    pub json: &'a str,
    pub nonce_ms: u64,
    /// The vault or sub-account for which the signer acts.
    pub vault: Option<Address>,
    /// Unix milliseconds, after which the venue refuses the action.
    pub expires_after_ms: Option<u64>,
}

impl Action<'_> {
    /// The action in MessagePack.
    pub fn packed(&self) -> Result<Vec<u8>, SignError> {
        pack::pack(self.json)
    }

    /// The `connectionId` of its agent.
    pub fn hash(&self) -> Result<[u8; 32], SignError> {
        let mut bytes = self.packed()?;
        bytes.extend(self.nonce_ms.to_be_bytes());
        match self.vault {
            None => bytes.push(0),
            Some(vault) => {
                bytes.push(1);
                bytes.extend(vault.0);
            }
        }
        if let Some(expires_after_ms) = self.expires_after_ms {
            bytes.push(0);
            bytes.extend(expires_after_ms.to_be_bytes());
        }
        Ok(keccak(&bytes))
    }

    /// What is signed.
    pub fn digest(&self, network: Network) -> Result<[u8; 32], SignError> {
        Ok(eip712::agent(network.source(), self.hash()?))
    }

    pub fn sign(&self, wallet: &Wallet, network: Network) -> Result<Signature, SignError> {
        Ok(wallet.sign(self.digest(network)?))
    }

    /// The body of the request: the action as it was hashed, and its signature.
    pub fn body(&self, wallet: &Wallet, network: Network) -> Result<String, SignError> {
        let signature = self.sign(wallet, network)?.json();
        let vault = self.vault.map_or("null".to_owned(), |vault| format!("\"{}\"", vault.lower()));
        let expires = self.expires_after_ms.map_or("null".to_owned(), |at| at.to_string());
        Ok(format!(
            "{{\"action\":{},\"nonce\":{},\"signature\":{signature},\"vaultAddress\":{vault},\"expiresAfter\":{expires}}}",
            self.json, self.nonce_ms
        ))
    }
}

/// What a transfer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferKind {
    /// `usdSend`: to another account of the venue.
    UsdSend,
    /// `withdraw3`: out of the venue.
    Withdraw,
}

/// A transfer of US dollars. Nothing here makes one; the venue's own tools do, and the signature is the same.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    pub kind: TransferKind,
    /// The receiver's address, as it is sent: in lower case.
    pub destination: &'a str,
    /// US dollars, as they are sent.
    pub amount: &'a str,
    pub time_ms: u64,
    /// `signatureChainId` of the action.
    pub chain_id: u64,
}

impl Transfer<'_> {
    /// What is signed.
    pub fn digest(&self, network: Network) -> [u8; 32] {
        let name = match self.kind {
            TransferKind::UsdSend => "UsdSend",
            TransferKind::Withdraw => "Withdraw",
        };
        eip712::transfer(name, network.name(), self.destination, self.amount, self.time_ms, self.chain_id)
    }

    pub fn sign(&self, wallet: &Wallet, network: Network) -> Signature {
        wallet.sign(self.digest(network))
    }
}

/// A price or size as actions write it: at most eight decimals, no exponent, no zeros behind, no `-0`.
/// Error: it has more decimals, and cutting them would change it by 10^-12 or more.
pub fn wire_number(value: Decimal) -> Result<String, SignError> {
    const DECIMALS: u32 = 8;
    let changed_max = Decimal::new(1, 12);
    let rounded = value.round_dp(DECIMALS).normalize();
    if (rounded - value).abs() >= changed_max {
        return Err(SignError::Input { name: "number", why: format!("{value} has more than {DECIMALS} decimals") });
    }
    Ok(if rounded.is_zero() { "0".to_owned() } else { rounded.to_string() })
}
