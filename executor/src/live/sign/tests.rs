//! What the venues' rules promise, and vectors of standards where no venue publishes one. The venues' own vectors are in
//! `vectors.rs`.

use std::collections::BTreeMap;
use std::str::FromStr;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rust_decimal::Decimal;
use serde_json::Value;
use time::PrimitiveDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use super::hyperliquid::{Action, Address, Network, Transfer, TransferKind, Wallet, wire_number};
use super::key::Ed25519;
use super::{
    Credentials, Query, Secret, SignError, binance, coinbase, deribit, htx, mexc, okx, percent_encode, utc_ms, utc_s,
};

mod fuzz;
mod vectors;

// Another library's reading of the times that are signed.
const UTC_S: StaticFormatDescription = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
const UTC_MS: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970 of a text of [`utc_ms`].
fn ms(text: &str) -> i64 {
    let at = PrimitiveDateTime::parse(text, UTC_MS).expect("a time").assume_utc();
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).expect("a time")
}

/// Milliseconds since 1970 of a text of [`utc_s`].
fn s(text: &str) -> i64 {
    PrimitiveDateTime::parse(text, UTC_S).expect("a time").assume_utc().unix_timestamp() * 1_000
}

/// With or without an exponent.
fn decimal(text: &str) -> Decimal {
    Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

const RSA_PKCS8: &str = include_str!("tests/rfc7515_a2_pkcs8.pem");
const RSA_PKCS1: &str = include_str!("tests/rfc7515_a2_pkcs1.pem");

#[test]
fn an_rsa_key_signs_as_rfc_7515_publishes_in_both_kinds_of_pem() {
    let payload = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let published = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7\
                     AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
                     BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K\
                     0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
                     hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
                     p0igcN_IoypGlUPQGe77Rw";
    let published = BASE64.encode(&BASE64URL_NOPAD.decode(published.as_bytes()).expect("base64"));
    for pem in [RSA_PKCS8, RSA_PKCS1, &RSA_PKCS8.replace('\n', "\\n")] {
        let key = binance::Key::read(&secret(pem)).expect("a key");
        assert!(matches!(key, binance::Key::Rsa(_)), "{key:?}");
        assert_eq!(key.sign(payload), published);
    }
}

#[test]
fn an_es256_key_takes_its_nonce_as_rfc_6979_publishes() {
    // Appendix A.2.5, SHA-256, message "sample".
    let scalar = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
    let published = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
                     F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8";
    let scalar = HEXUPPER.decode(scalar.as_bytes()).expect("hex");
    let key = coinbase::Key::Es256(p256::ecdsa::SigningKey::from_slice(&scalar).expect("a key"));
    assert_eq!(HEXUPPER.encode(&key.sign("sample")), published);
}

/// Published in the tests of the SDK nktkas/hyperliquid, which checks them with three wallet libraries. The shared vectors
/// have no action that expires, and no transfer on the main network.
#[test]
fn an_action_that_expires_and_a_transfer_on_the_main_network_are_signed_as_published() {
    let wallet = Wallet::read(&secret("0x822e9959e022b78423eb653a62ea0020cd283e71a2a8133a6ff2aeffaf373cff")).unwrap();
    let json = r#"{"type":"order","orders":[{"a":0,"b":true,"p":"30000","s":"0.1","r":false,"t":{"limit":{"tif":"Gtc"}}}],"grouping":"na"}"#;
    let vault = Address::from_str("0x1234567890123456789012345678901234567890").ok();
    let expires = Some(1_234_567_890);
    for (vault, expires_after_ms, hash) in [
        (None, None, "25367e0dba84351148288c2233cd6130ed6cec5967ded0c0b7334f36f957cc90"),
        (vault, None, "214e2ea3270981b6fd18174216691e69f56872663139d396b10ded319cb4bb1e"),
        (None, expires, "c30b002ba3775e4c31c43c1dfd3291dfc85c6ae06c6b9f393991de86cad5fac7"),
        (vault, expires, "2d62412aa0fc57441b5189841d81554a6a9680bf07204e1454983a9ca44f0744"),
    ] {
        let action = Action { json, nonce_ms: 1_234_567_890, vault, expires_after_ms };
        assert_eq!(HEXLOWER.encode(&action.hash().unwrap()), hash);
    }
    let action = Action { json, nonce_ms: 1_234_567_890, vault, expires_after_ms: expires };
    assert_eq!(
        action.sign(&wallet, Network::Mainnet).unwrap().rsv_hex(),
        "0x78fcca006d7fdfaf1f66978ef7a60280246fc3e7a5b39a68a1656c3e42c58bf1\
         61a09957de7f0886c2bdffb7a94e3a257bf240796883ea6ceaf4d0be37055cdd1b"
    );
    let body = action.body(&wallet, Network::Testnet).unwrap();
    assert_eq!(
        body,
        format!(
            "{{\"action\":{json},\"nonce\":1234567890,\"signature\":{{\
             \"r\":\"0x3a0bbbd9fadca54f58a2b7050899cecb97f68b2f693c63e91ca60510427326d7\",\
             \"s\":\"0x60f75f12cae7b9dc18b889406192afcaf13f40d2f8c68cc01f7f83f3fb5deb23\",\"v\":27}},\
             \"vaultAddress\":\"0x1234567890123456789012345678901234567890\",\"expiresAfter\":1234567890}}"
        )
    );
    let transfer = Transfer {
        kind: TransferKind::UsdSend,
        destination: "0x1234567890123456789012345678901234567890",
        amount: "1000",
        time_ms: 1_234_567_890,
        chain_id: 0x66eee,
    };
    assert_eq!(
        transfer.sign(&wallet, Network::Mainnet).rsv_hex(),
        "0xf777c38efe7c24cc71209526ae608f4e384d0586edf578f0e97b4b9f7c7adcc6\
         104a4a97c48ae77bf5bd777bdd45fe72d8f5ff29116b5ff64fd8cfe4ea6107861c"
    );
}

#[test]
fn secrets_and_keys_are_never_shown() {
    let seed = "k0BUni0p0vZG1BdpVjS6ogBJ7kxm630AJ2dN+tuputDOKsRAwgyrpEQLeBtS1znTmzPX6Xr2eOWpzx6nW8knkA==";
    let hex = "0123456789012345678901234567890123456789012345678901234567890123";
    let credentials = Credentials { key: "name".into(), secret: secret("hidden"), passphrase: secret("hidden") };
    let mut query = Query::default();
    query.add("signature", "hidden");
    let shown = [
        format!("{:?} {}", secret("hidden"), secret("hidden")),
        format!("{credentials:?} {query:?}"),
        format!("{:?}", binance::Key::read(&secret("hidden"))),
        format!("{:?}", binance::Key::read(&secret(RSA_PKCS8))),
        format!("{:?}", coinbase::Key::read(&secret(seed))),
        format!("{:?}", Wallet::read(&secret(hex))),
    ];
    for text in &shown {
        assert!(text.contains("***") && !text.contains("hidden"), "{text}");
        assert!(text.len() < 100, "nothing but stars and names: {text}");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused_without_being_shown() {
    let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let bad = [
        binance::Key::read(&secret(&pem("PRIVATE KEY", "AAAA"))).map(drop),
        binance::Key::read(&secret(&pem("ENCRYPTED PRIVATE KEY", "AAAA"))).map(drop),
        binance::Key::read(&secret("-----BEGIN PRIVATE KEY-----\nno end")).map(drop),
        coinbase::Key::read(&secret("not base64!")).map(drop),
        coinbase::Key::read(&secret("AAAA")).map(drop),
        // The seed of one key with the public key of another.
        coinbase::Key::read(&secret(&BASE64.encode(&[7; 64]))).map(drop),
        coinbase::Key::read(&secret(RSA_PKCS8)).map(drop),
        coinbase::Key::read(&secret(RSA_PKCS1)).map(drop),
        Wallet::read(&secret("0x12")).map(drop),
        Wallet::read(&secret(&"0".repeat(64))).map(drop),
        Wallet::read(&secret(&"f".repeat(64))).map(drop),
        Wallet::read(&secret("")).map(drop),
    ];
    for (nth, result) in bad.into_iter().enumerate() {
        assert!(matches!(result, Err(SignError::Key(_))), "{nth}: {result:?}");
    }
    let keys = Credentials { key: "k".into(), secret: secret("not base64"), passphrase: secret("p") };
    assert!(coinbase::exchange_headers(&keys, 1, "GET", "/accounts", "").is_err());
}

#[test]
fn a_text_that_would_move_the_lines_of_what_is_signed_is_refused() {
    let http = |uri| deribit::Http { method: "GET", uri, body: "" };
    assert!(deribit::auth_params("id", &secret("s"), 1, "a\nb", "").is_err());
    assert!(deribit::authorization("id", &secret("s"), 1, "a,sig=0", http("/")).is_err());
    assert!(deribit::authorization("id", &secret("s"), 1, "n", http("/a\n/b")).is_err());
    assert!(deribit::authorization("id", &secret("s"), 1, "n", http("/a?b=c,d")).is_ok());
    let endpoint = htx::Endpoint { method: "GET", host: "h", path: "/a\n/b" };
    assert!(htx::signed_query("k", &secret("s"), endpoint, 1, &[]).is_err());
    let endpoint = htx::Endpoint { path: "/a", ..endpoint };
    for name in ["Signature", "Timestamp", "AccessKeyId"] {
        assert!(htx::signed_query("k", &secret("s"), endpoint, 1, &[(name, "x")]).is_err(), "{name} twice");
    }
}

#[test]
fn a_login_of_htx_derivatives_is_signed_as_a_get_without_parameters() {
    let (host, path) = ("api.hbdm.com", "/linear-swap-notification");
    let endpoint = htx::Endpoint { method: "GET", host, path };
    let query = htx::signed_query("k", &secret("s"), endpoint, 1_786_562_871_999, &[]).unwrap();
    let message = htx::swap_auth("k", &secret("s"), host, path, 1_786_562_871_999).unwrap();
    let mut said: BTreeMap<String, String> = serde_json::from_str(&message).unwrap();
    assert_eq!((said.remove("op"), said.remove("type")), (Some("auth".into()), Some("api".into())));
    let pairs: Vec<(&str, &str)> = said.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(said["Timestamp"], "2026-08-12T19:27:51");
    assert_eq!(Query::sorted(&pairs).as_str().len(), query.len(), "the same parameters");
    for pair in Query::sorted(&pairs).as_str().split('&') {
        assert!(query.split('&').any(|other| other == pair), "{pair} is not in {query}");
    }
}

#[test]
fn times_are_utc_and_those_outside_four_digit_years_are_refused() {
    assert_eq!(utc_ms(1_607_418_537_715).as_deref(), Ok("2020-12-08T09:08:57.715Z"));
    assert_eq!(utc_s(1_494_515_970_999).as_deref(), Ok("2017-05-11T15:19:30"));
    assert_eq!(utc_ms(0).as_deref(), Ok("1970-01-01T00:00:00.000Z"));
    assert_eq!(utc_s(253_402_300_799_999).as_deref(), Ok("9999-12-31T23:59:59"));
    for ms in [-1, 253_402_300_800_000, i64::MIN, i64::MAX] {
        assert!(utc_ms(ms).is_err() && utc_s(ms).is_err(), "{ms}");
    }
}

#[test]
fn an_address_keeps_its_checksum_or_is_refused() {
    // The four examples of EIP-55 that are neither all upper nor all lower case.
    for text in [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ] {
        let address = Address::from_str(text).unwrap();
        assert_eq!((address.to_string().as_str(), address.lower()), (text, text.to_lowercase()));
        assert_eq!(Address::from_str(&text.to_lowercase()), Ok(address));
        let typo = text.replace('9', "8");
        assert!(Address::from_str(&typo).is_err(), "{typo}");
    }
    for text in ["", "0x", "0x12", "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "0xz"] {
        assert!(Address::from_str(text).is_err(), "{text}");
    }
}

#[test]
fn an_action_with_a_float_a_member_twice_or_more_behind_it_is_refused() {
    let pack = |json| Action { json, nonce_ms: 1, vault: None, expires_after_ms: None }.packed();
    for json in [
        "",
        "[]",
        "7",
        "{\"p\":1.5}",
        "{\"p\":1e3}",
        "{\"p\":100000000000000000000}",
        "{\"a\":1,\"a\":1}",
        "{\"a\":{\"b\":1,\"b\":2}}",
        "{} {}",
        "{\"a\":1",
    ] {
        assert!(matches!(pack(json), Err(SignError::Input { name: "action", .. })), "{json}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(1_000), "}".repeat(1_000));
    assert!(pack(&deep).is_err(), "nesting is bounded");
    assert_eq!(pack(" {\"b\":null,\"a\":[-1,true,\"x\"]}\n").unwrap(), b"\x82\xa1b\xc0\xa1a\x93\xff\xc3\xa1x");
}

#[test]
fn a_number_that_would_be_cut_is_refused() {
    for text in ["0.000000001", "1.123456785", "0.000000000001", "-0.000000001"] {
        assert!(wire_number(decimal(text)).is_err(), "{text}");
    }
    assert_eq!(wire_number(decimal("-1.50")).as_deref(), Ok("-1.5"));
    assert_eq!(wire_number(Decimal::MAX).as_deref(), Ok("79228162514264337593543950335"));
}

/// Any text, and the letters that encodings stumble over.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ %&=+/?#:,~a-zA-Z0-9\u{e9}\u{ff11}\u{1f600}-]{0,12}"]
}

fn params() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-zA-Z_-]{1,8}", text(), 0..8).prop_map(|map| map.into_iter().collect())
}

/// Pairs, and the same in another order.
fn shuffled() -> impl Strategy<Value = (Vec<(String, String)>, Vec<(String, String)>)> {
    params().prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle()))
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// JSON as actions have it, with the members of an object in any order: its text.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        text().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(|items| format!("[{}]", items.join(", "))),
            object(inner),
        ]
    })
}

fn object(inner: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    prop::collection::btree_map(text(), inner, 0..20)
        .prop_flat_map(|map| Just(map.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(|pairs| {
            let member = |(name, value): (String, String)| format!("{}:{value}", serde_json::to_string(&name).unwrap());
            format!("{{{}}}", pairs.into_iter().map(member).collect::<Vec<_>>().join(","))
        })
}

proptest! {
    #[test]
    fn a_time_is_read_back_by_another_library(at_ms in 0i64..253_402_300_800_000) {
        prop_assert_eq!(ms(&utc_ms(at_ms).unwrap()), at_ms);
        prop_assert_eq!(s(&utc_s(at_ms).unwrap()), at_ms / 1_000 * 1_000);
    }

    #[test]
    fn an_encoded_text_is_plain_and_decodes_to_itself(text in text()) {
        let encoded = percent_encode(&text);
        prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{encoded}");
        prop_assert!(!encoded.contains("%2f") && !encoded.contains('+'), "upper case, and no plus: {encoded}");
        prop_assert_eq!(percent_decode_str(&encoded).decode_utf8().unwrap(), &*text);
        // Nothing of it is taken for a separator, so encoding twice is the only way to change it.
        prop_assert_eq!(percent_encode(&encoded) == encoded, !encoded.contains('%'));
    }

    #[test]
    fn a_query_gives_its_parameters_back(pairs in prop::collection::vec((text(), text()), 1..8)) {
        let mut query = Query::default();
        for (name, value) in &pairs {
            query.add(name, value);
        }
        let plain = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let back: Vec<_> = query.as_str().split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        prop_assert_eq!(back.into_iter().map(|(n, v)| (plain(n), plain(v))).collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn the_order_of_parameters_does_not_matter_where_the_venue_sorts_them((pairs, other) in shuffled(), ms in 0i64..4_000_000_000_000) {
        let (pairs, other) = (borrowed(&pairs), borrowed(&other));
        let key = binance::Key::Hmac(secret("s"));
        prop_assert_eq!(binance::websocket(&key, &pairs), binance::websocket(&key, &other));
        prop_assert_eq!(mexc::contract_query(&pairs), mexc::contract_query(&other));
        let endpoint = htx::Endpoint { method: "GET", host: "api.huobi.pro", path: "/v1/order/orders" };
        let signed = |pairs: &[_]| htx::signed_query("k", &secret("s"), endpoint, ms, pairs).unwrap();
        prop_assert_eq!(signed(&pairs), signed(&other));
    }

    #[test]
    fn another_payload_or_secret_has_another_signature(a in text(), b in text(), ms in 0i64..4_000_000_000_000) {
        prop_assume!(a != b);
        let key = binance::Key::Hmac(secret("s"));
        prop_assert_ne!(key.sign(&a), key.sign(&b));
        prop_assert_ne!(key.sign(&a), binance::Key::Hmac(secret("t")).sign(&a));
        prop_assert_ne!(mexc::spot(&secret("s"), &a, ""), mexc::spot(&secret("s"), &b, ""));
        prop_assert_ne!(mexc::contract_headers("k", &secret("s"), ms, &a), mexc::contract_headers("k", &secret("s"), ms, &b));
        let keys = Credentials { key: "k".into(), secret: secret("c2VjcmV0"), passphrase: secret("p") };
        prop_assert_ne!(okx::headers(&keys, ms, "POST", "/", &a), okx::headers(&keys, ms, "POST", "/", &b));
        prop_assert_ne!(okx::headers(&keys, ms, "POST", "/", &a), okx::headers(&keys, ms + 1, "POST", "/", &a));
        let exchange = |body: &str| coinbase::exchange_headers(&keys, ms, "POST", "/orders", body).unwrap();
        prop_assert_ne!(exchange(&a), exchange(&b));
        let auth = |data: &str| deribit::auth_params("id", &secret("s"), ms, "nonce", data).unwrap();
        prop_assert_ne!(auth(&a), auth(&b));
        let http = |body: &str| {
            let request = deribit::Http { method: "POST", uri: "/api/v2", body };
            deribit::authorization("id", &secret("s"), ms, "nonce", request).unwrap()
        };
        prop_assert_ne!(http(&a), http(&b));
        let endpoint = htx::Endpoint { method: "GET", host: "h", path: "/" };
        let get = |value: &str| htx::signed_query("k", &secret("s"), endpoint, ms, &[("x", value)]).unwrap();
        prop_assert_ne!(get(&a).split_once("Signature=").unwrap().1.to_owned(), get(&b).split_once("Signature=").unwrap().1.to_owned());
    }

    #[test]
    fn an_ed25519_signature_is_of_its_payload_and_key_alone(seed in any::<[u8; 32]>(), a in text(), b in text()) {
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = ring::signature::KeyPair::public_key(&pair).as_ref().to_vec();
        let key = Ed25519::from_seed_and_public_key(&[&seed[..], &public].concat()).unwrap();
        let signature = key.sign(a.as_bytes());
        prop_assert_eq!(&signature, &key.sign(a.as_bytes()), "deterministic");
        let public = UnparsedPublicKey::new(&ED25519, key.public_key());
        prop_assert!(public.verify(a.as_bytes(), &signature).is_ok());
        prop_assert_eq!(public.verify(b.as_bytes(), &signature).is_ok(), a == b);
    }

    #[test]
    fn an_action_is_packed_whole_and_in_its_own_order(json in object(json())) {
        let packed = Action { json: &json, nonce_ms: 0, vault: None, expires_after_ms: None }.packed().unwrap();
        let back: Value = rmp_serde::from_slice(&packed).unwrap();
        prop_assert_eq!(back, serde_json::from_str::<Value>(&json).unwrap());
        // An independent encoder that keeps the order: entries as a list of pairs, then the head of a map.
        let members: Vec<(String, Value)> = ordered(&json);
        let mut read = &packed[..];
        prop_assert_eq!(rmp::decode::read_map_len(&mut read).unwrap() as usize, members.len());
        for (name, value) in members {
            let mut bytes = vec![0; rmp::decode::read_str_len(&mut read).unwrap() as usize];
            std::io::Read::read_exact(&mut read, &mut bytes).unwrap();
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), name);
            let mut reader = rmp_serde::Deserializer::new(&mut read);
            prop_assert_eq!(<Value as serde::Deserialize>::deserialize(&mut reader).unwrap(), value);
        }
        prop_assert!(read.is_empty());
    }

    #[test]
    fn a_wire_number_is_the_number_in_its_shortest_text(mantissa in any::<i64>(), scale in 0u32..=8) {
        let number = Decimal::new(mantissa, scale);
        let text = wire_number(number).unwrap();
        prop_assert_eq!(Decimal::from_str(&text).unwrap(), number);
        prop_assert!(!text.contains(['e', 'E', '+']) && text != "-0", "{text}");
        prop_assert!(!text.contains('.') || !text.ends_with(['0', '.']), "{text}");
    }
}

/// The members of an object in the order of the text.
fn ordered(json: &str) -> Vec<(String, Value)> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(json), Members).expect("an object")
}

proptest! {
    // Curves of 256 bits in a debug build are slow.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_hyperliquid_signature_names_its_signer_and_nobody_else(
        key in any::<[u8; 32]>(),
        nonce_ms in any::<u64>(),
        vault in prop::option::of(any::<[u8; 20]>()),
        expires_after_ms in prop::option::of(any::<u64>()),
    ) {
        let Ok(wallet) = Wallet::read(&secret(&HEXLOWER.encode(&key))) else { return Ok(()) };
        let action = Action { json: r#"{"type":"noop","a":1}"#, nonce_ms, vault: vault.map(Address), expires_after_ms };
        let sign = |action: &Action<'_>| action.sign(&wallet, Network::Mainnet).unwrap();
        let (signature, digest) = (sign(&action), action.digest(Network::Mainnet).unwrap());
        prop_assert_eq!(signature, sign(&action), "deterministic");
        prop_assert_eq!(signature.signer(digest), Ok(wallet.address()));
        // Whatever else is hashed is another's signature, the order of the members included.
        let others = [
            Action { json: r#"{"a":1,"type":"noop"}"#, ..action },
            Action { nonce_ms: nonce_ms ^ 1, ..action },
            Action { vault: if vault.is_some() { None } else { Some(Address([0; 20])) }, ..action },
            Action { expires_after_ms: if expires_after_ms.is_some() { None } else { Some(0) }, ..action },
        ];
        let others = others.map(|other| other.digest(Network::Mainnet).unwrap());
        for other in others.into_iter().chain([action.digest(Network::Testnet).unwrap()]) {
            prop_assert_ne!(other, digest);
            prop_assert_ne!(signature.signer(other), Ok(wallet.address()));
        }
    }

    #[test]
    fn an_rsa_signature_is_of_its_payload_and_key_alone(a in text(), b in text()) {
        let der = super::key::pem(&secret(RSA_PKCS8)).unwrap();
        let key = super::key::Rsa::from_der(&der).unwrap();
        let signature = BASE64.decode(key.sign_base64(&a).as_bytes()).unwrap();
        prop_assert_eq!(signature.len(), 256);
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key());
        prop_assert!(public.verify(a.as_bytes(), &signature).is_ok());
        prop_assert_eq!(public.verify(b.as_bytes(), &signature).is_ok(), a == b);
    }

    #[test]
    fn a_token_follows_from_its_arguments_and_lives_120_seconds(scalar in any::<[u8; 32]>(), nonce in "[a-f0-9]{1,64}", now_s in 0..4_000_000_000u64) {
        use p256::ecdsa::signature::Verifier as _;
        let Ok(key) = p256::ecdsa::SigningKey::from_slice(&scalar) else { return Ok(()) };
        let public = *key.verifying_key();
        let key = coinbase::Key::Es256(key);
        let token = |nonce: &str| coinbase::token(&key, "organizations/o/apiKeys/k", nonce, now_s, None);
        prop_assert_eq!(token(&nonce), token(&nonce));
        prop_assert_ne!(token(&nonce), token("other"));
        let token = token(&nonce);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()).unwrap();
        prop_assert!(public.verify(signed.as_bytes(), &signature).is_ok());
        prop_assert!(public.verify(nonce.as_bytes(), &signature).is_err());
        let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(signed.split_once('.').unwrap().1.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 120);
        prop_assert!(claims.get("uri").is_none());
    }
}
