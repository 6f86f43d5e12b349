use std::io::{BufRead, BufReader};

use super::*;
use crate::Speed;

#[tokio::test]
async fn the_same_seed_and_start_send_the_same_bytes() {
    let run = async || {
        let mut o = options(VenueId::BinanceSpot);
        o.start_ns = Some(1_700_000_000_000_000_000);
        o.duration_ns = Some(20_000_000_000);
        o.speed = Speed::Unlimited;
        let mut sim = Simulator::start(o).await.unwrap();
        let streams = "btcusdt@trade/btcusdt@depth@100ms/ethusdt@bookTicker/ethusdt@kline_1m";
        let mut c = Client::open(sim.addr(VenueId::BinanceSpot), &format!("/stream?streams={streams}")).await;
        while c.text().await.is_ok() {}
        sim.finished().await.unwrap();
        c.heard
    };
    let (a, b) = (run().await, run().await);
    assert!(a.len() > 500, "{} frames", a.len());
    assert_eq!(a, b);
}

#[tokio::test]
async fn at_unlimited_speed_no_frame_is_lost_and_a_reader_that_stops_is_cut() {
    let mut o = options(VenueId::BinanceSpot);
    o.speed = Speed::Unlimited;
    o.config.client_outbox_frames_max = 1_024;
    o.config.slow_client_wait_ms_max = 300;
    let sim = Simulator::start(o).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut c = Client::open(addr, "/ws/btcusdt@trade").await;
    let mut last = c.next().await["t"].as_u64().unwrap();
    let since = std::time::Instant::now();
    for _ in 0..20_000 {
        let id = c.next().await["t"].as_u64().unwrap();
        assert_eq!(id, last + 1, "every trade arrives");
        last = id;
    }
    eprintln!("20000 trades parsed in {:?}", since.elapsed());
    // It stops reading: the market waits for it, but not for ever.
    let state = async || get(addr, "/sim/state").await;
    eventually("the slow reader is cut", async || state().await["clients"] == 0).await;
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn more_clients_than_allowed_are_turned_away() {
    let mut o = options(VenueId::Deribit);
    o.config.clients_max = 2;
    let sim = Simulator::start(o).await.unwrap();
    let addr = sim.addr(VenueId::Deribit);
    let (one, two) = (Client::open(addr, "/ws/api/v2").await, Client::open(addr, "/ws/api/v2").await);
    assert!(connect_async(format!("ws://{addr}/ws/api/v2")).await.is_err());
    drop(one);
    eventually("a place is free", async || connect_async(format!("ws://{addr}/ws/api/v2")).await.is_ok()).await;
    drop(two);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_real_recording_comes_byte_for_byte_and_waits_for_its_listener() {
    let Some(root) = schemas::fixtures::root() else { return };
    let path = root.join("data/ws_raw/binance_spot_BTCUSDT_part1.gz");
    let lines = BufReader::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).unwrap())).lines();
    let lines: Vec<String> = lines.map(|l| l.unwrap().split_once(' ').unwrap().1.to_owned()).collect();
    let frames: Vec<&String> = lines.iter().filter(|l| l.starts_with("{\"stream\"")).collect();
    let mut o = options(VenueId::BinanceSpot);
    o.recording = Some(path);
    o.speed = Speed::Unlimited;
    let sim = Simulator::start(o).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let ahead = get(addr, "/api/v3/depth?symbol=BTCUSDT&limit=1000").await;
    assert_eq!(ahead["lastUpdateId"], 50_093_239_218_u64);
    let mut c = Client::open(addr, "/stream").await;
    c.subscribe(&["btcusdt@trade", "btcusdt@depth@100ms", "btcusdt@bookTicker"]).await;
    let mut heard: Vec<String> = c.heard.drain(..).filter(|t| t.starts_with("{\"stream\"")).collect();
    while heard.len() < frames.len() {
        heard.push(c.text().await.unwrap());
    }
    assert!(heard.iter().eq(frames), "every frame as it was recorded");
    eventually("it has ended", async || get(addr, "/sim/state").await["recording_ended"] == true).await;
    let end = get(addr, "/api/v3/depth?symbol=BTCUSDT&limit=5").await;
    let last = heard.iter().rev().find(|t| t.contains("depthUpdate")).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(end["lastUpdateId"], last["data"]["u"], "the snapshot follows the recording");
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn options_that_mean_nothing_are_refused_with_a_reason() {
    let with = |change: fn(&mut Options)| {
        let mut o = options(VenueId::BinanceSpot);
        change(&mut o);
        o
    };
    for (o, word) in [
        (with(|o| o.symbols = vec!["BTCXYZ".into()]), "BTCXYZ"),
        (with(|o| o.speed = Speed::Factor(-1.0)), "speed"),
        (with(|o| o.flow.rate = 0.0), "rate"),
        (with(|o| o.flow.mood.correlation = 2.0), "correlation"),
        (with(|o| o.flow.levels = 0), "levels"),
        (with(|o| o.venues.clear()), "venue"),
        (with(|o| o.recording = Some("/nonexistent/file.gz".into())), "nonexistent"),
        (with(|o| o.venues = vec![VenueId::Deribit, VenueId::Deribit]), "twice"),
    ] {
        let error = Simulator::start(o).await.err().expect("refused");
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
}
