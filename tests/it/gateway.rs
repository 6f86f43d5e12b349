//! The gateway over a real nats-server with rights: REST from stored facts, WebSocket order and bounds, who may come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use gateway::config::Config;
use gateway::hub::Hub;
use gateway::server::{self, App};
use gateway::{feed, store};
use nats::{Layout, Writer};
use schemas::desk::PositionFact;
use schemas::market::{Candle, ClosedBy};
use schemas::raw::{Trade, Trades};
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{Cause, Fact, Nanos, PriceM, QtyM, Scale, Side, Version};
use serde_json::{Value, json};
use tests::{Server, wait_for};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(10);

/// A gateway over a server with rights, and the writers of what it shows.
struct House {
    server: Server,
    hub: Arc<Hub>,
    addr: SocketAddr,
    stop: CancellationToken,
}

impl House {
    async fn open() -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let layout = Layout {
            venues: vec!["binance".into()],
            accounts: vec!["main".into()],
            traders: vec![],
            partitions: PARTITIONS,
        };
        layout.apply(&server.bus("operator").await?).await?;
        let mut config = Config::load(None)?;
        config.listen = "127.0.0.1:0".into();
        config.limits.ops_per_s_max = 5;
        config.limits.channels_max = 3;
        let (listener, addr) = server::bind(&config.listen).await?;
        let hub = Arc::new(Hub::new(config));
        let bus = server.bus("gateway").await?;
        let stop = CancellationToken::new();
        for (name, filter) in feed::stored("main", &[]) {
            tokio::spawn(stop.clone().run_until_cancelled_owned(feed::follow(hub.clone(), bus.clone(), name, filter)));
        }
        for subject in feed::LIVE {
            tokio::spawn(stop.clone().run_until_cancelled_owned(feed::live(hub.clone(), bus.clone(), subject)));
        }
        for subject in feed::KNOCKS {
            tokio::spawn(stop.clone().run_until_cancelled_owned(feed::knock(hub.clone(), bus.clone(), subject)));
        }
        let app = Arc::new(App::new(hub.clone(), bus, addr, stop.clone()));
        tokio::spawn(server::serve(app, listener));
        Ok(Self { server, hub, addr, stop })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        nats::crypto::install();
        let answer = reqwest::get(format!("http://{}{path}", self.addr)).await?;
        Ok(answer.json().await?)
    }

    async fn client(&self, path: &str) -> anyhow::Result<Client> {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{}{path}", self.addr)).await?;
        let mut client = Client { socket };
        ensure!(client.next().await?["type"] == "connected");
        Ok(client)
    }

    /// HTTP status with which a handshake is refused; 101 when it is not.
    async fn handshake(&self, path: &str, header: &str, value: &str) -> anyhow::Result<u16> {
        let mut request = format!("ws://{}{path}", self.addr).into_client_request()?;
        request.headers_mut().insert(axum_name(header)?, value.parse()?);
        Ok(match tokio_tungstenite::connect_async(request).await {
            Ok((_, answer)) => answer.status().as_u16(),
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(error) => return Err(error.into()),
        })
    }
}

fn axum_name(name: &str) -> anyhow::Result<tokio_tungstenite::tungstenite::http::HeaderName> {
    name.parse().context("header name")
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Client {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Client {
    async fn say(&mut self, message: Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }
    /// The next JSON message; heartbeats are passed over.
    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let message =
                tokio::time::timeout(BOUND, self.socket.next()).await.context("nothing came")?.context("closed")??;
            if let Message::Text(text) = message {
                let value: Value = serde_json::from_str(&text)?;
                if value["type"] != "heartbeat" {
                    return Ok(value);
                }
            }
        }
    }
    /// The close code, whatever comes before it.
    async fn close_code(&mut self) -> anyhow::Result<u16> {
        loop {
            match tokio::time::timeout(BOUND, self.socket.next()).await.context("not closed")? {
                Some(Ok(Message::Close(Some(frame)))) => return Ok(frame.code.into()),
                Some(Ok(_)) => {}
                other => anyhow::bail!("ended without a code: {other:?}"),
            }
        }
    }
}

fn pack(id: u64, price: i64) -> Trades {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let mut pack = Trades::new(p, "binance", "BTCUSDT", Scale { price: 2, qty: 3 });
    pack.push(Trade { ts: Nanos(id as i64), recv: Nanos(0), id, price: PriceM(price), size: QtyM(1), side: Side::Buy });
    pack
}

fn cause() -> Cause {
    Cause { stream: "DESK_main".into(), seq: 1, index: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_the_ack_then_the_snapshot_then_updates() -> anyhow::Result<()> {
    let house = House::open().await?;
    let mut raw = Writer::open(&house.server.bus("ingest").await?, &stream::raw("binance")).await?;
    let first = pack(1, 6_000_000);
    // The first is repeated until the gateway's own subscription is there: a live feed has no past.
    let hub = house.hub.clone();
    let mut id = 1;
    while hub.with_view(|v| v.tickers().is_empty()) {
        ensure!(id < 500, "the gateway hears nothing");
        raw.push(first.subject(), pack(id, 6_000_000).encode()).await?;
        raw.drain().await?;
        id += 1;
        tokio::task::yield_now().await;
    }
    let mut client = house.client("/ws/market").await?;
    client
        .say(json!({"op": "subscribe", "id": 7, "channels": ["ticker.binance.BTCUSDT", "orders.main", "no spaces"]}))
        .await?;
    let ack = client.next().await?;
    assert_eq!(
        (&ack["type"], &ack["id"], &ack["channels"]),
        (&json!("ok"), &json!(7), &json!(["ticker.binance.BTCUSDT"]))
    );
    assert_eq!(
        ack["rejected"],
        json!([{"channel": "orders.main", "code": "channel_not_allowed"}, {"channel": "no spaces", "code": "bad_channel"}])
    );
    let snapshot = client.next().await?;
    assert_eq!((&snapshot["method"], &snapshot["params"]["snapshot"]), (&json!("subscription"), &json!(true)));
    assert_eq!(snapshot["params"]["data"]["last"], "60000");
    raw.push(first.subject(), pack(10_000, 6_000_150).encode()).await?;
    raw.drain().await?;
    loop {
        let update = client.next().await?;
        assert_eq!(update["params"]["channel"], "ticker.binance.BTCUSDT");
        if update["params"]["snapshot"] == false && update["params"]["data"]["last"] == "60001.5" {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_from_what_is_stored_before_and_after_the_gateway_came() -> anyhow::Result<()> {
    let house = House::open().await?;
    let mut risk = Writer::open(&house.server.bus("risk").await?, &stream::risk("main")).await?;
    let position = PositionFact {
        v: Version,
        account: "main".into(),
        venue: "binance".into(),
        symbol: "BTCUSDT".into(),
        ts_ns: 5,
        held: "0.5".parse()?,
        entry: Some("60000".parse()?),
        since_ns: Some(1),
        realised: Default::default(),
        fees: Default::default(),
        funding: Default::default(),
        mark: None,
        unrealised: None,
        cause: cause(),
    };
    risk.push(position.subject(), position.encode()).await?;
    risk.drain().await?;
    let shown = wait_for("the position", BOUND, || async {
        let rows = house.get("/api/positions").await.ok()?;
        (rows["positions"].as_array()?.len() == 1).then_some(rows)
    })
    .await?;
    assert_eq!(shown["positions"][0]["held"], "0.5");

    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let mut aggregate = Writer::open(&house.server.bus("aggregate").await?, &stream::aggregate("binance", p)).await?;
    for minute in 0..700i64 {
        let candle = Candle {
            v: Version,
            venue: "binance".into(),
            symbol: "BTCUSDT".into(),
            p,
            tf: "1m".into(),
            open_ns: minute * 60_000_000_000,
            close_ns: (minute + 1) * 60_000_000_000,
            open: "1".parse()?,
            high: "2".parse()?,
            low: "1".parse()?,
            close: "2".parse()?,
            volume: "4".parse()?,
            buy_volume: "1".parse()?,
            quote_volume: "6".parse()?,
            trades: 3,
            buy_trades: 1,
            first_id: Some(1),
            last_id: Some(3),
            closed_by: ClosedBy::Trade,
            complete: true,
            filled: false,
            cause: cause(),
        };
        aggregate.push(candle.subject(), candle.encode()).await?;
    }
    aggregate.drain().await?;
    let rows = house.get("/api/candles?venue=binance&symbol=BTCUSDT&tf=1m&limit=300").await?;
    let rows = rows["candles"].as_array().context("candles")?;
    assert_eq!(rows.len(), 300);
    assert_eq!(
        (rows[0]["open_ns"].as_i64(), rows[299]["open_ns"].as_i64()),
        (Some(400 * 60_000_000_000), Some(699 * 60_000_000_000))
    );
    assert_eq!(rows[0]["vwap"], 1.5);

    for (path, code) in [
        ("/api/candles?venue=binance&symbol=X", "missing_parameter"),
        ("/api/candles?venue=b.>&symbol=X&tf=1m", "bad_venue"),
        ("/api/trades?limit=0", "bad_limit"),
    ] {
        assert_eq!(house.get(path).await?["error"]["code"], code, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_answers() -> anyhow::Result<()> {
    let house = House::open().await?;
    let document = house.get("/api/openapi.json").await?;
    let paths: Vec<String> = document["paths"].as_object().context("paths")?.keys().cloned().collect();
    assert!(paths.len() >= 11);
    for path in paths {
        let query = if path == "/api/candles" { "?venue=binance&symbol=NONE&tf=1m" } else { "" };
        let answer = house.get(&format!("{path}{query}")).await.with_context(|| path.clone())?;
        assert!(answer.get("error").is_none(), "{path}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_page_and_programs_come_in() -> anyhow::Result<()> {
    let house = House::open().await?;
    let ours = format!("http://{}", house.addr);
    for (path, header, value, status) in [
        ("/api/stream", "origin", ours.as_str(), 101),
        ("/api/stream", "origin", "http://evil.example", 403),
        ("/api/stream", "origin", "null", 403),
        ("/ws/market", "origin", "null", 101),
        ("/ws/market", "origin", "http://evil.example", 403),
        ("/ws/market", "host", "evil.example", 403),
    ] {
        assert_eq!(house.handshake(path, header, value).await?, status, "{path} {header}: {value}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_limited_and_then_closed() -> anyhow::Result<()> {
    let house = House::open().await?;
    let mut client = house.client("/ws/market").await?;
    let names: Vec<String> = (0..4).map(|i| format!("ticker.binance.S{i}")).collect();
    client.say(json!({"op": "subscribe", "channels": names})).await?;
    assert_eq!(
        client.next().await?["rejected"],
        json!([{"channel": "ticker.binance.S3", "code": "too_many_channels"}])
    );
    for i in 0..200 {
        if client.say(json!({"op": "ping", "id": i})).await.is_err() {
            break;
        }
    }
    assert_eq!(client.close_code().await?, 4010);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_stored_facts_ends_where_the_stream_ends() -> anyhow::Result<()> {
    let house = House::open().await?;
    let mut raw = Writer::open(&house.server.bus("ingest").await?, &stream::raw("binance")).await?;
    for id in 1..=600 {
        raw.push(pack(id, 1).subject(), pack(id, 1).encode()).await?;
    }
    raw.drain().await?;
    let bus = house.server.bus("gateway").await?;
    let mut from = 1;
    let mut seen = 0;
    loop {
        let batch =
            store::batch(&bus, &stream::raw("binance"), "raw.*.binance.trade.>", &store::From::Seq(from)).await?;
        let Some(last) = batch.last() else { break };
        from = last.seq + 1;
        seen += batch.len();
    }
    assert_eq!(seen, 600);
    Ok(())
}
