//! Every entry of every venue's `signing_vectors.json`, field by field: an entry of a scheme that nobody knows here, or a
//! field that no check has looked at, is a failure.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::DecodePublicKey as _;
use percent_encoding::percent_decode_str;
use ring::signature::{ED25519, UnparsedPublicKey};
use rust_decimal::Decimal;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::hyperliquid::{Action, Address, Network, Transfer, TransferKind, Wallet, order, wire_number};
use super::super::{Credentials, Query, Secret, binance, coinbase, deribit, htx, mexc, okx};
use super::{decimal, ms, s};

type Check = fn(&Entry);

/// Venue, scheme as the files name it, and its check.
const SCHEMES: &[(&str, &str, Check)] = &[
    ("binance", "hmac_sha256_hex", binance_hmac),
    ("binance", "ed25519_base64", binance_ed25519),
    ("coinbase", "advanced trade JWT ES256", coinbase_token),
    ("coinbase", "advanced trade JWT EdDSA", coinbase_token),
    (
        "coinbase",
        "exchange CB-ACCESS-SIGN: base64(hmac_sha256(base64decode(secret), ts+method+path+body))",
        coinbase_exchange,
    ),
    ("deribit", "client_signature (JSON-RPC public/auth)", deribit_auth),
    ("deribit", "deri-hmac-sha256 (HTTP Authorization header)", deribit_http),
    ("htx", "hmac_sha256_base64", htx_query),
    ("hyperliquid", "hyperliquid_l1_action", hyperliquid_action),
    ("hyperliquid", "hyperliquid_user_signed", hyperliquid_transfer),
    ("hyperliquid", "float_to_wire", hyperliquid_numbers),
    ("mexc", "hmac_sha256_hex", mexc_spot),
    ("mexc", "contract: hex(hmac_sha256(secret, ApiKey + Request-Time + parameters))", mexc_contract),
    ("mexc", "hex(hmac_sha256(secret, apiKey + reqTime))", mexc_login),
    ("okx", "hmac_sha256_base64", okx_any),
];

/// Entries that no rule can meet: venue, name, reason.
const NOT_MET: &[(&str, &str, &str)] = &[(
    "binance",
    "DO NOT USE: the published REST \"Ed25519\" example",
    "a remark without key, payload or signature: the published signature has 256 bytes, so it is no Ed25519 signature",
)];

/// Fields of prose, and those that say where an entry comes from.
const PROSE: &[&str] = &["name", "scheme", "origin", "source", "note", "check", "url"];

/// An entry, and which of its fields were looked at.
struct Entry {
    fields: BTreeMap<String, Box<RawValue>>,
    read: RefCell<BTreeSet<String>>,
    /// The first secret of the file: one entry of MEXC leaves its own out.
    secret: String,
}

impl Entry {
    fn find(&self, name: &str) -> Option<Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.fields.get(name).map(|raw| serde_json::from_str(raw.get()).expect("json"))
    }
    fn value(&self, name: &str) -> Value {
        self.find(name).unwrap_or_else(|| panic!("no field {name}"))
    }
    fn text(&self, name: &str) -> String {
        self.value(name).as_str().unwrap_or_else(|| panic!("{name} is no text")).to_owned()
    }
    fn integer(&self, name: &str) -> i64 {
        self.value(name).as_i64().unwrap_or_else(|| panic!("{name} is no integer"))
    }
    /// As it stands in the file.
    fn raw(&self, name: &str) -> &str {
        self.read.borrow_mut().insert(name.to_owned());
        self.fields[name].get()
    }
    fn secret(&self, name: &str) -> Secret {
        Secret::new(self.text(name))
    }
}

#[test]
fn every_signing_vector_of_every_venue_is_met() {
    let Some(root) = schemas::fixtures::root() else { return };
    let mut met = BTreeMap::<String, usize>::new();
    let mut not_met = Vec::new();
    for folder in std::fs::read_dir(root.join("fixtures/venues")).expect("venues") {
        let path = folder.expect("a folder").path();
        if !path.is_dir() {
            continue;
        }
        let venue = path.file_name().expect("a name").to_str().expect("text").to_owned();
        let text =
            std::fs::read_to_string(path.join("signing_vectors.json")).unwrap_or_else(|e| panic!("{venue}: {e}"));
        let entries: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(&text).expect("a list of objects");
        let secret = entries[0].get("secret").map_or("", |raw| raw.get().trim_matches('"')).to_owned();
        for fields in entries {
            let entry = Entry { fields, read: RefCell::default(), secret: secret.clone() };
            let (name, scheme) = (entry.text("name"), entry.text("scheme"));
            println!("{venue}: {name}");
            if let Some((.., reason)) = NOT_MET.iter().find(|(v, n, _)| (*v, *n) == (&venue, &name)) {
                not_met.push(format!("{venue}: {name}: {reason}"));
                continue;
            }
            let (.., check) = SCHEMES
                .iter()
                .find(|(v, s, _)| (*v, *s) == (&venue, &scheme))
                .unwrap_or_else(|| panic!("{venue}: {name}: no rule for the scheme `{scheme}`"));
            check(&entry);
            let read = entry.read.borrow();
            let unread: Vec<_> =
                entry.fields.keys().filter(|field| !read.contains(*field) && !PROSE.contains(&&***field)).collect();
            assert!(unread.is_empty(), "{venue}: {name}: nobody looked at {unread:?}");
            *met.entry(venue.clone()).or_default() += 1;
        }
    }
    let expected =
        [("binance", 5), ("coinbase", 5), ("deribit", 3), ("htx", 3), ("hyperliquid", 20), ("mexc", 5), ("okx", 4)];
    assert_eq!(met, expected.map(|(venue, count)| (venue.to_owned(), count)).into());
    assert_eq!(not_met.len(), NOT_MET.len(), "every exception is still there: {not_met:?}");
    println!("{} entries met, {} not: {not_met:?}", met.values().sum::<usize>(), not_met.len());
}

/// Name and value of each parameter of an encoded query.
fn pairs(query: &str) -> Vec<(String, String)> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned();
    query.split('&').map(|pair| pair.split_once('=').expect("a pair")).map(|(n, v)| (plain(n), plain(v))).collect()
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn binance_any(entry: &Entry, key: &binance::Key) {
    let (payload, expected) = (entry.text("payload"), entry.text("expected_signature"));
    assert_eq!(key.sign(&payload), expected);
    let params = pairs(&payload);
    if payload.contains("apiKey=") {
        let mut params = borrowed(&params);
        params.reverse();
        assert_eq!(binance::websocket_payload(&params), payload);
        assert_eq!(binance::websocket(key, &params), expected);
        return;
    }
    let mut query = Query::default();
    for (name, value) in &params {
        query.add(name, value);
    }
    assert_eq!(query.as_str(), payload);
    let (first, second) = payload.split_at(20);
    assert_eq!(binance::rest(key, first, second), expected, "query and body count as one");
    let sent = binance::signed_query(key, query);
    assert_eq!(pairs(&sent).last().expect("the signature"), &("signature".to_owned(), expected));
}

fn binance_hmac(entry: &Entry) {
    let key = binance::Key::read(&entry.secret("secret")).expect("a key");
    assert!(matches!(key, binance::Key::Hmac(_)));
    binance_any(entry, &key);
    let api_key = entry.text("api_key");
    if let Some((_, named)) = pairs(&entry.text("payload")).iter().find(|(name, _)| name == "apiKey") {
        assert_eq!(*named, api_key);
    }
    if let Some(header) = entry.find("header") {
        assert_eq!(header, json!({ binance::KEY_HEADER: api_key }));
    }
}

fn binance_ed25519(entry: &Entry) {
    let key = binance::Key::read(&entry.secret("private_key_pem")).expect("a key");
    binance_any(entry, &key);
    let binance::Key::Ed25519(key) = key else { panic!("not Ed25519: {key:?}") };
    let hex = |name| HEXLOWER.decode(entry.text(name).as_bytes()).expect("hex");
    assert_eq!(key.public_key(), hex("public_key_hex"));
    let seed = [hex("private_seed_hex"), hex("public_key_hex")].concat();
    let same = super::super::key::Ed25519::from_seed_and_public_key(&seed).expect("a seed");
    assert_eq!(same.sign_base64(&entry.text("payload")), entry.text("expected_signature"));
}

fn coinbase_token(entry: &Entry) {
    let key = coinbase::Key::read(&entry.secret("private_key")).expect("a key");
    let uri = entry.value("uri");
    let now_s = u64::try_from(entry.integer("now")).expect("a time");
    let token = coinbase::token(&key, &entry.text("key_name"), &entry.text("nonce"), now_s, uri.as_str());
    let example = entry.text("example_token");
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else { panic!("not three parts: {token}") };
    let json = |part: &str| -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64")).expect("json")
    };
    assert_eq!(json(header), entry.value("expected_header"));
    assert_eq!(json(claims), entry.value("expected_payload"));
    let public = SubjectPublicKeyInfoDer::from_pem_slice(entry.text("public_key_pem").as_bytes()).expect("a key");
    // Ours and the example; ES256 of the example has a nonce of its own, so the tokens differ behind the claims.
    for token in [&token, &example] {
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        assert_eq!(signed, format!("{header}.{claims}"), "the same members in the same order");
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).expect("base64");
        match &key {
            coinbase::Key::Es256(_) => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(&public).expect("P-256");
                let signature = p256::ecdsa::Signature::from_slice(&signature).expect("64 bytes");
                key.verify(signed.as_bytes(), &signature).expect("the signature of this key");
            }
            coinbase::Key::Ed25519(_) => {
                let key = UnparsedPublicKey::new(&ED25519, &public[public.len() - 32..]);
                key.verify(signed.as_bytes(), &signature).expect("the signature of this key");
                assert_eq!(token, &example);
            }
        }
    }
    if let Some(uri) = uri.as_str() {
        let (method, rest) = uri.split_once(' ').expect("METHOD host/path");
        let (host, path) = rest.split_at(rest.find('/').expect("a path"));
        assert_eq!(coinbase::rest_uri(method, host, &format!("{path}?limit=5")), uri);
    }
}

fn coinbase_exchange(entry: &Entry) {
    let secret = entry.secret("secret_base64");
    let keys = Credentials { key: "the key".into(), secret, passphrase: Secret::new("the phrase") };
    let timestamp = entry.text("timestamp");
    let timestamp_s = timestamp.parse().expect("seconds");
    let (method, path, body) = (entry.text("method"), entry.text("request_path"), entry.text("body"));
    assert_eq!(coinbase::exchange_prehash(timestamp_s, &method, &path, &body), entry.text("prehash"));
    let headers = coinbase::exchange_headers(&keys, timestamp_s, &method, &path, &body).expect("headers");
    let expected = [
        ("CB-ACCESS-KEY", "the key".to_owned()),
        ("CB-ACCESS-SIGN", entry.text("expected_signature")),
        ("CB-ACCESS-TIMESTAMP", timestamp),
        ("CB-ACCESS-PASSPHRASE", "the phrase".to_owned()),
    ];
    assert_eq!(headers, expected);
}

fn deribit_auth(entry: &Entry) {
    let (id, nonce, data) = (entry.text("client_id"), entry.text("nonce"), entry.text("data"));
    let timestamp_ms = entry.integer("timestamp_ms");
    assert_eq!(deribit::auth_text(timestamp_ms, &nonce, &data), entry.text("string_to_sign"));
    let params =
        deribit::auth_params(&id, &entry.secret("client_secret"), timestamp_ms, &nonce, &data).expect("params");
    let params: Value = serde_json::from_str(&params).expect("json");
    assert_eq!(params, entry.value("params"));
    assert_eq!(params["signature"], entry.text("expected_signature"));
}

fn deribit_http(entry: &Entry) {
    let (id, nonce) = (entry.text("client_id"), entry.text("nonce"));
    let (method, uri, body) = (entry.text("method"), entry.text("uri"), entry.text("body"));
    let request = deribit::Http { method: &method, uri: &uri, body: &body };
    let timestamp_ms = entry.integer("timestamp_ms");
    assert_eq!(deribit::http_text(timestamp_ms, &nonce, request), entry.text("string_to_sign"));
    let secret = entry.secret("client_secret");
    let value = deribit::authorization(&id, &secret, timestamp_ms, &nonce, request).expect("a header");
    assert_eq!(json!({ "Authorization": value }), entry.value("header"));
    assert!(value.ends_with(&format!(",sig={}", entry.text("expected_signature"))));
}

fn htx_query(entry: &Entry) {
    let (secret, method, host, path) =
        (entry.secret("secret"), entry.text("method"), entry.text("host"), entry.text("path"));
    let endpoint = htx::Endpoint { method: &method, host: &host, path: &path };
    let params: BTreeMap<String, String> = serde_json::from_str(entry.raw("params")).expect("texts");
    let (prehash, expected) = (entry.text("prehash"), entry.text("expected_signature"));
    assert_eq!(super::super::percent_encode(&expected), entry.text("signature_in_query"));
    if let Some(key) = params.get("accessKey") {
        let timestamp_ms = s(&params["timestamp"]);
        assert_eq!(endpoint.prehash(&htx::spot_query(key, timestamp_ms).expect("a query")), prehash);
        let message = htx::spot_auth(key, &secret, &host, timestamp_ms).expect("a message");
        let mut said = json!({ "authType": "api", "signature": expected });
        said.as_object_mut().expect("an object").extend(params.into_iter().map(|(name, value)| (name, json!(value))));
        let said = json!({ "action": "req", "ch": "auth", "params": said });
        assert_eq!(serde_json::from_str::<Value>(&message).expect("json"), said);
        assert_eq!(path, "/ws/v2");
        return;
    }
    let (key, timestamp_ms) = (&params["AccessKeyId"], s(&params["Timestamp"]));
    let names = ["AccessKeyId", "SignatureMethod", "SignatureVersion", "Timestamp"];
    let own: Vec<_> = params.iter().filter(|(name, _)| !names.contains(&name.as_str())).collect();
    assert_eq!(own.len() + names.len(), params.len(), "all four of them are there");
    let own: Vec<(&str, &str)> = own.into_iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(endpoint.prehash(&htx::query(key, timestamp_ms, &own).expect("a query")), prehash);
    let query = htx::signed_query(key, &secret, endpoint, timestamp_ms, &own).expect("a query");
    let signed = prehash.rsplit_once('\n').expect("a query behind the last line end").1;
    assert_eq!(query, format!("{signed}&Signature={}", entry.text("signature_in_query")));
    assert_eq!(pairs(signed).into_iter().collect::<BTreeMap<_, _>>(), params);
}

fn hyperliquid_action(entry: &Entry) {
    let wallet = Wallet::read(&entry.secret("private_key")).expect("a key");
    assert_eq!(wallet.address().to_string(), entry.text("address"));
    let address = |text: &Value| text.as_str().map(|text| text.parse::<Address>().expect("an address"));
    let action = Action {
        json: entry.raw("action"),
        nonce_ms: u64::try_from(entry.integer("nonce")).expect("a time"),
        vault: address(&entry.value("vault_address")),
        expires_after_ms: entry
            .find("expires_after")
            .and_then(|at| serde_json::from_value(at).expect("a time or null")),
    };
    assert_eq!(HEXLOWER.encode(&action.packed().expect("packed")), entry.text("msgpack_hex"));
    let hash = format!("0x{}", HEXLOWER.encode(&action.hash().expect("a hash")));
    assert_eq!(hash, entry.text("action_hash"));
    let expected = entry.value("expected");
    assert_eq!(expected.as_object().expect("networks").len(), 2);
    for (name, network) in [("mainnet", Network::Mainnet), ("testnet", Network::Testnet)] {
        let signature = action.sign(&wallet, network).expect("a signature");
        let mut said: Value = serde_json::from_str(&signature.json()).expect("json");
        if expected[name].get("signature_rsv_hex").is_some() {
            said["signature_rsv_hex"] = json!(signature.rsv_hex());
        } else {
            said["source"] = json!(network.source());
            said["connection_id"] = json!(hash);
        }
        assert_eq!(said, expected[name], "{name}");
        let digest = action.digest(network).expect("a digest");
        assert_eq!(signature.signer(digest), Ok(wallet.address()), "{name}");
        let body: Value = serde_json::from_str(&action.body(&wallet, network).expect("a body")).expect("json");
        assert_eq!(body["action"], entry.value("action"));
        assert_eq!(address(&body["vaultAddress"]), action.vault);
        assert_eq!(body["signature"], serde_json::from_str::<Value>(&signature.json()).expect("json"));
    }
    if entry.find("order_input").is_some() {
        orders_are_written_as_they_were_hashed(entry);
    }
}

/// The orders that were asked for become the very action, in the order of its members and with its texts of numbers.
fn orders_are_written_as_they_were_hashed(entry: &Entry) {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Input {
        /// Stands for `asset`.
        #[serde(rename = "coin")]
        _coin: String,
        is_buy: bool,
        sz: Box<RawValue>,
        limit_px: Box<RawValue>,
        reduce_only: bool,
        order_type: Kind,
        cloid: Option<String>,
        asset: u32,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Limit {
            tif: String,
        },
        #[serde(rename_all = "camelCase")]
        Trigger {
            trigger_px: Box<RawValue>,
            is_market: bool,
            tpsl: String,
        },
    }
    let raw = entry.raw("order_input");
    let inputs: Vec<Input> = serde_json::from_str(raw)
        .or_else(|_| serde_json::from_str(raw).map(|one| vec![one]))
        .expect("an order or several");
    let order = |input: Input| order::Order {
        asset: input.asset,
        is_buy: input.is_buy,
        price: decimal(input.limit_px.get()),
        size: decimal(input.sz.get()),
        reduce_only: input.reduce_only,
        kind: match input.order_type {
            Kind::Limit { tif } => order::Kind::Limit(match tif.as_str() {
                "Alo" => order::Tif::Alo,
                "Ioc" => order::Tif::Ioc,
                "Gtc" => order::Tif::Gtc,
                other => panic!("unknown life {other}"),
            }),
            Kind::Trigger { trigger_px, is_market, tpsl } => order::Kind::Trigger {
                price: decimal(trigger_px.get()),
                is_market,
                tpsl: match tpsl.as_str() {
                    "tp" => order::Tpsl::Tp,
                    "sl" => order::Tpsl::Sl,
                    other => panic!("unknown trigger {other}"),
                },
            },
        },
        client_id: input.cloid.map(|id| u128::from_str_radix(id.strip_prefix("0x").expect("hex"), 16).expect("hex")),
    };
    let orders: Vec<_> = inputs.into_iter().map(order).collect();
    let json = order::order_action(&orders).expect("an action");
    let action = Action { json: &json, nonce_ms: 0, vault: None, expires_after_ms: None };
    assert_eq!(HEXLOWER.encode(&action.packed().expect("packed")), entry.text("msgpack_hex"));
}

fn hyperliquid_transfer(entry: &Entry) {
    let wallet = Wallet::read(&entry.secret("private_key")).expect("a key");
    let message = entry.value("message");
    let chain = entry.text("signature_chain_id");
    assert_eq!(entry.text("network"), "Testnet");
    let transfer = Transfer {
        kind: match entry.text("name").as_str() {
            "usdSend" => TransferKind::UsdSend,
            "withdraw3" => TransferKind::Withdraw,
            other => panic!("unknown transfer {other}"),
        },
        destination: message["destination"].as_str().expect("an address"),
        amount: message["amount"].as_str().expect("an amount"),
        time_ms: message["time"].as_u64().expect("a time"),
        chain_id: u64::from_str_radix(chain.strip_prefix("0x").expect("hex"), 16).expect("hex"),
    };
    let signature = transfer.sign(&wallet, Network::Testnet);
    let said: Value = serde_json::from_str(&signature.json()).expect("json");
    assert_eq!(json!({ "testnet": said }), entry.value("expected"));
    assert_eq!(signature.signer(transfer.digest(Network::Testnet)), Ok(wallet.address()));
}

fn hyperliquid_numbers(entry: &Entry) {
    let cases = entry.value("cases");
    assert_eq!(cases.as_array().expect("cases").len(), 15);
    for case in cases.as_array().expect("cases") {
        let number: Decimal = decimal(case["in"].as_str().expect("a number"));
        assert_eq!(wire_number(number).as_deref(), Ok(case["out"].as_str().expect("a text")), "{case}");
    }
}

fn mexc_spot(entry: &Entry) {
    let (secret, payload, expected) = (entry.secret("secret"), entry.text("payload"), entry.text("expected_signature"));
    assert_eq!(mexc::spot(&secret, &payload, ""), expected);
    let (query, body) = payload.split_at(14);
    assert_eq!(mexc::spot(&secret, query, body), expected, "query and body count as one");
    let api_key = entry.text("api_key");
    if let Some(header) = entry.find("header") {
        assert_eq!(header, json!({ mexc::KEY_HEADER: api_key }));
    }
}

fn mexc_contract(entry: &Entry) {
    let (key, secret, parameters) = (entry.text("api_key"), entry.secret("secret"), entry.text("parameters"));
    let time = entry.text("request_time");
    let time_ms = time.parse().expect("milliseconds");
    assert_eq!(mexc::contract_prehash(&key, time_ms, &parameters), entry.text("prehash"));
    let headers = mexc::contract_headers(&key, &secret, time_ms, &parameters);
    assert_eq!(json!(BTreeMap::from(headers.clone())), entry.value("headers"));
    assert_eq!(headers[2].1, entry.text("expected_signature"));
    if !parameters.starts_with('{') {
        let params = pairs(&parameters);
        let mut params = borrowed(&params);
        params.reverse();
        assert_eq!(mexc::contract_query(&params), parameters);
    }
}

fn mexc_login(entry: &Entry) {
    let message = entry.value("message");
    let key = message["param"]["apiKey"].as_str().expect("a key").to_owned();
    let time_ms = message["param"]["reqTime"].as_str().expect("a time").parse().expect("milliseconds");
    assert_eq!(mexc::contract_prehash(&key, time_ms, ""), entry.text("prehash"));
    let said = mexc::contract_login(&key, &Secret::new(&entry.secret), time_ms);
    assert_eq!(serde_json::from_str::<Value>(&said).expect("json"), message);
    assert_eq!(message["param"]["signature"], entry.text("expected_signature"));
}

fn okx_any(entry: &Entry) {
    let (secret, prehash, expected) = (entry.secret("secret"), entry.text("prehash"), entry.text("expected_signature"));
    if let Some(message) = entry.find("message") {
        let arg = &message["args"][0];
        let word = |name: &str| arg[name].as_str().expect("text").to_owned();
        let keys = Credentials { key: word("apiKey"), secret, passphrase: Secret::new(word("passphrase")) };
        let said = okx::login(&keys, word("timestamp").parse().expect("seconds"));
        assert_eq!(serde_json::from_str::<Value>(&said).expect("json"), message);
        assert_eq!(okx::prehash(&word("timestamp"), "GET", "/users/self/verify", ""), prehash);
        assert_eq!(word("sign"), expected);
        return;
    }
    let keys = Credentials { key: entry.text("api_key"), secret, passphrase: entry.secret("passphrase") };
    let timestamp = entry.text("timestamp");
    let (method, path, body) = (entry.text("method"), entry.text("request_path"), entry.text("body"));
    assert_eq!(okx::prehash(&timestamp, &method, &path, &body), prehash);
    let headers = okx::headers(&keys, ms(&timestamp), &method, &path, &body).expect("headers");
    assert_eq!(headers[1].1, expected);
    assert_eq!(json!(BTreeMap::from(headers)), entry.value("headers"));
    let _ = BASE64.decode(expected.as_bytes()).expect("base64");
}
