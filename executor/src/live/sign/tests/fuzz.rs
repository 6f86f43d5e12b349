//! Whatever text comes in, a builder of what is signed answers: it never panics, and what it lets pass comes out whole.

use std::collections::BTreeMap;
use std::str::FromStr;

use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::super::hyperliquid::order::{Kind, Order, Tif, Tpsl, order_action};
use super::super::hyperliquid::{Action, Address, Wallet, wire_number};
use super::super::{Credentials, Query, binance, coinbase, deribit, htx, mexc, okx, utc_ms, utc_s};
use super::{borrowed, decimal, json, params, secret, text};

/// JSON with one byte more, less or other.
fn damaged() -> impl Strategy<Value = String> {
    (json(), any::<prop::sample::Index>(), any::<u8>(), 0..3u8).prop_map(|(text, at, byte, how)| {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Any number that [`Decimal`] can hold.
fn number() -> impl Strategy<Value = Decimal> {
    let mantissa = prop_oneof![any::<i64>().prop_map(i128::from), -(1i128 << 96) + 1..1i128 << 96];
    (mantissa, 0u32..=28).prop_map(|(mantissa, scale)| Decimal::from_i128_with_scale(mantissa, scale))
}

fn order() -> impl Strategy<Value = Order> {
    let tif = prop::sample::select(vec![Tif::Alo, Tif::Ioc, Tif::Gtc]);
    let tpsl = prop::sample::select(vec![Tpsl::Tp, Tpsl::Sl]);
    let price = || (1i64.., 0u32..=8).prop_map(|(mantissa, scale)| Decimal::new(mantissa, scale));
    let kind = prop_oneof![
        tif.prop_map(Kind::Limit),
        (price(), any::<bool>(), tpsl).prop_map(|(price, is_market, tpsl)| Kind::Trigger { price, is_market, tpsl }),
    ];
    (any::<u32>(), any::<bool>(), price(), price(), any::<bool>(), kind, prop::option::of(any::<u128>())).prop_map(
        |(asset, is_buy, price, size, reduce_only, kind, client_id)| Order {
            asset,
            is_buy,
            price,
            size,
            reduce_only,
            kind,
            client_id,
        },
    )
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_of_keys_or_addresses_panic(any in prop_oneof![
        text(),
        "(0x)?[0-9a-fA-F]{38,42}",
        "(0x)?[0-9a-f]{62,66}",
        "-----BEGIN (RSA |EC |)PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{0,200}\n-----END (RSA |EC |)PRIVATE KEY-----",
        "[A-Za-z0-9+/]{84,88}={0,2}",
    ]) {
        let _ = binance::Key::read(&secret(&any));
        let _ = coinbase::Key::read(&secret(&any));
        if let Ok(wallet) = Wallet::read(&secret(&any)) {
            prop_assert_eq!(Address::from_str(&wallet.address().to_string()), Ok(wallet.address()));
        }
        if let Ok(address) = Address::from_str(&any) {
            prop_assert_eq!(address.lower(), any.to_lowercase());
        }
    }

    #[test]
    fn no_text_makes_the_packer_panic_and_what_it_packs_is_what_it_read(any in prop_oneof![damaged(), text()]) {
        let packed = Action { json: &any, nonce_ms: 0, vault: None, expires_after_ms: None }.packed();
        let Ok(packed) = packed else { return Ok(()) };
        let read: Value = serde_json::from_str(&any).expect("what is packed is JSON");
        prop_assert!(read.is_object());
        prop_assert_eq!(rmp_serde::from_slice::<Value>(&packed).unwrap(), read);
    }

    #[test]
    fn a_number_is_written_within_the_tolerance_or_refused(number in number()) {
        let Ok(text) = wire_number(number) else {
            prop_assert!(number.normalize().scale() > 8, "{number}");
            return Ok(());
        };
        let written = Decimal::from_str(&text).unwrap();
        prop_assert!(written.scale() <= 8 && (written - number).abs() < decimal("0.000000000001"), "{number}: {text}");
    }

    #[test]
    fn an_order_of_nothing_or_less_is_refused(order in order(), number in i64::MIN..=0, which in any::<bool>()) {
        let number = Decimal::new(number, 8);
        let (price, size) = if which { (number, order.size) } else { (order.price, number) };
        let refused = order_action(&[Order { price, size, ..order }]).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn an_order_is_written_with_its_own_numbers(orders in prop::collection::vec(order(), 0..5)) {
        let text = order_action(&orders).unwrap();
        let action: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!((&action["type"], &action["grouping"]), (&json!("order"), &json!("na")));
        let written = action["orders"].as_array().unwrap();
        prop_assert_eq!(written.len(), orders.len());
        for (order, written) in orders.iter().zip(written) {
            let number = |value: &Value| decimal(value.as_str().unwrap());
            prop_assert_eq!((number(&written["p"]), number(&written["s"])), (order.price, order.size));
            prop_assert_eq!(&written["a"], &json!(order.asset));
            prop_assert_eq!((&written["b"], &written["r"]), (&json!(order.is_buy), &json!(order.reduce_only)));
            prop_assert_eq!(written.get("c").is_some(), order.client_id.is_some());
            match &order.kind {
                Kind::Limit(tif) => prop_assert_eq!(&written["t"], &json!({ "limit": { "tif": format!("{tif:?}") } })),
                Kind::Trigger { price, is_market, tpsl } => {
                    let trigger = &written["t"]["trigger"];
                    prop_assert_eq!(number(&trigger["triggerPx"]), *price);
                    prop_assert_eq!(&trigger["isMarket"], &json!(is_market));
                    prop_assert_eq!(&trigger["tpsl"], &json!(format!("{tpsl:?}").to_lowercase()));
                }
            }
        }
        // The text can be signed as it is.
        let packed = Action { json: &text, nonce_ms: 0, vault: None, expires_after_ms: None }.packed().unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Value>(&packed).unwrap(), action);
    }

    #[test]
    fn a_message_carries_any_key_and_nonce_whole_and_the_secret_never(
        key in text(), phrase in text(), nonce in text(), data in text(), ms in any::<i64>(),
    ) {
        let hidden = "c2VjcmV0LXRoYXQtbm9ib2R5LXNlZXM=";
        let keys = Credentials { key: key.clone(), secret: secret(hidden), passphrase: secret(&phrase) };
        let read = |text: &str| {
            assert!(!text.contains(hidden), "{text}");
            serde_json::from_str::<Value>(text).unwrap()
        };
        let login = &read(&okx::login(&keys, ms))["args"][0];
        prop_assert_eq!((&login["apiKey"], &login["passphrase"]), (&json!(key), &json!(phrase)));
        prop_assert_eq!(&read(&mexc::contract_login(&key, &secret(hidden), ms))["param"]["apiKey"], &json!(key));
        match deribit::auth_params(&key, &secret(hidden), ms, &nonce, &data) {
            Ok(params) => {
                let params = read(&params);
                let said = (&params["client_id"], &params["nonce"], &params["data"]);
                prop_assert_eq!(said, (&json!(key), &json!(nonce), &json!(data)));
            }
            Err(_) => prop_assert!(!nonce.bytes().all(|b| b.is_ascii_graphic() && b != b',')),
        }
        for message in [
            htx::spot_auth(&key, &secret(hidden), "host", ms),
            htx::swap_auth(&key, &secret(hidden), "host", "/path", ms),
        ] {
            prop_assert_eq!(message.is_ok(), utc_s(ms).is_ok());
            let Ok(message) = message else { continue };
            let message = read(&message);
            let said = message.get("AccessKeyId").unwrap_or_else(|| &message["params"]["accessKey"]);
            prop_assert_eq!(said, &json!(key));
        }
        prop_assert_eq!(okx::headers(&keys, ms, "GET", "/", "").is_ok(), utc_ms(ms).is_ok());
    }

    #[test]
    fn a_signed_query_carries_its_parameters_whole_and_the_signature_last(params in params(), ms in 0i64..4_000_000_000_000) {
        let params = borrowed(&params);
        let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let read = |query: &str| -> Vec<(String, String)> {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
            pairs.map(|(name, value)| (plain(name), plain(value))).collect()
        };
        let endpoint = htx::Endpoint { method: "GET", host: "h", path: "/" };
        let signed = htx::signed_query("k", &secret("s"), endpoint, ms, &params).unwrap();
        let mut signed = read(&signed);
        prop_assert_eq!(signed.pop().unwrap().0, "Signature");
        prop_assert!(signed.is_sorted(), "{signed:?}");
        let signed: BTreeMap<_, _> = signed.into_iter().collect();
        prop_assert_eq!(signed.len(), params.len() + 4);
        let mut query = Query::default();
        for (name, value) in &params {
            prop_assert_eq!(&signed[*name], value);
            query.add(name, value);
        }
        let mut signed = read(&binance::signed_query(&binance::Key::Hmac(secret("s")), query));
        prop_assert_eq!(signed.pop().unwrap().0, "signature");
        if !params.is_empty() {
            prop_assert_eq!(borrowed(&signed), params);
        }
    }
}
