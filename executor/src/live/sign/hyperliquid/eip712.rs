//! Typed structured data (EIP-712), for the two kinds of data that Hyperliquid signs. <https://eips.ethereum.org/EIPS/eip-712>

use sha3::{Digest, Keccak256};

/// Keccak-256 as Ethereum uses it; not SHA3-256, whose padding differs.
pub fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// The hash that is signed for an agent.
pub fn agent(source: &str, connection_id: [u8; 32]) -> [u8; 32] {
    let agent = [keccak(b"Agent(string source,bytes32 connectionId)"), keccak(source.as_bytes()), connection_id];
    signed("Exchange", 1337, &agent)
}

/// The hash that is signed for a transfer. `kind`: the end of the type's name.
pub fn transfer(kind: &str, chain: &str, destination: &str, amount: &str, time_ms: u64, chain_id: u64) -> [u8; 32] {
    let kind =
        format!("HyperliquidTransaction:{kind}(string hyperliquidChain,string destination,string amount,uint64 time)");
    let transfer = [kind.as_str(), chain, destination, amount].map(|text| keccak(text.as_bytes()));
    signed("HyperliquidSignTransaction", chain_id, &[&transfer[..], &[word(time_ms)]].concat())
}

/// `struct`: the hash of its type, then its fields in words of 32 bytes. The version is 1 and the contract is none, in
/// both domains.
fn signed(domain: &str, chain_id: u64, structure: &[[u8; 32]]) -> [u8; 32] {
    let domain = [
        keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
        keccak(domain.as_bytes()),
        keccak(b"1"),
        word(chain_id),
        [0; 32],
    ];
    let hashes = [keccak(domain.as_flattened()), keccak(structure.as_flattened())];
    keccak(&[b"\x19\x01", hashes.as_flattened()].concat())
}

/// An unsigned integer in 32 bytes, big-endian.
fn word(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}
