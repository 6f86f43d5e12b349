//! What a fresh start asks of every market, over REST of its stand-in: instruments and candles.

use schemas::{Nanos, Timeframe};
use simulator::config::Config as Simulated;
use simulator::{Options, Simulator, VenueId};

use super::{HistoryPage, Market, Request, VENUES, Venue};
use crate::config::Config;
use crate::http;
use crate::quota::Quota;
use crate::wall::Wall;

/// Each market's stand-in, and what it calls the symbol that the simulator reads as BTCUSDT.
const STAND_INS: &[(&str, VenueId, &str)] = &[
    ("binance", VenueId::BinanceSpot, "BTCUSDT"),
    ("binance-usdm", VenueId::BinanceUsdm, "BTCUSDT"),
    ("binance-coinm", VenueId::BinanceCoinm, "BTCUSD_PERP"),
    ("coinbase", VenueId::CoinbaseAdvanced, "BTC-USD"),
    ("coinbase-exchange", VenueId::CoinbaseExchange, "BTC-USD"),
    ("deribit", VenueId::Deribit, "BTC-PERPETUAL"),
    ("htx", VenueId::HtxSpot, "btcusdt"),
    ("htx-linear", VenueId::HtxLinear, "BTC-USDT"),
    ("htx-inverse", VenueId::HtxInverse, "BTC-USD"),
    ("hyperliquid", VenueId::Hyperliquid, "BTC"),
    ("mexc", VenueId::MexcSpot, "BTCUSDT"),
    ("mexc-contract", VenueId::MexcContract, "BTC_USDT"),
    ("okx", VenueId::Okx, "BTC-USDT"),
];

async fn answer(venue: &dyn Venue, market: Market, address: &str, request: &Request) -> String {
    let http = http::Client::new(10_000, None).expect("a client");
    let own = &Config::load(None).expect("defaults").venues[market.id].rates;
    let quota = Quota::of_process("test", market.id, venue.buckets(market), own, 100, 10_000, Wall::new());
    let answer = http.ask(address, request, &quota).await.expect("an answer");
    assert_eq!(answer.status, 200, "{} {}: {}", market.id, request.path, answer.body);
    answer.body
}

#[tokio::test]
async fn every_market_tells_its_instruments_and_its_closed_candles_without_a_hole() {
    for (venue, market) in VENUES.iter().flat_map(|v| v.markets().iter().map(move |m| (*v, *m))) {
        let stand_in = STAND_INS.iter().find(|(id, ..)| *id == market.id);
        let (id, stand_in, symbol) = *stand_in.unwrap_or_else(|| panic!("{} has no stand-in here", market.id));
        let mut options = Options::new(&[stand_in], Simulated::load(None).expect("defaults"));
        options.symbols = vec!["BTCUSDT".to_owned()];
        options.history_ns = 3600 * Nanos::PER_SECOND;
        let sim = Simulator::start(options).await.expect("start the stand-in");
        let address = format!("http://{}", sim.addr(stand_in));
        let symbols = [symbol.to_owned()];

        let mut instruments = Vec::new();
        for request in venue.instrument_requests(market, &symbols) {
            let body = answer(venue, market, &address, &request).await;
            instruments.extend(venue.decode_instruments(market, &body).expect("instruments").0);
        }
        let known = instruments.iter().filter(|i| i.symbol == symbol).count();
        assert_eq!(known, 1, "{id} lists {symbol}");

        for (timeframe, limit) in [("1m", 30), ("5m", 6)] {
            let timeframe: Timeframe = timeframe.parse().expect("a timeframe");
            let before = timeframe.open_of(Wall::new().now());
            let page = HistoryPage { symbol, timeframe, before, limit };
            let request = venue.history_request(market, page).unwrap_or_else(|| panic!("{id} has no {timeframe}"));
            let body = answer(venue, market, &address, &request).await;
            let bars = venue.decode_history(market, page, &body).expect("candles");
            let closed: Vec<_> = bars.iter().filter(|bar| bar.open_ts < before).collect();
            let opens: Vec<Nanos> = closed.iter().map(|bar| bar.open_ts).collect();
            // A venue that takes no end has one fewer where a candle has begun since.
            let count = opens.len() as i64;
            let wanted: Vec<Nanos> = (1..=count).rev().map(|n| before.plus_ns(-n * timeframe.ns())).collect();
            assert_eq!(opens, wanted, "{id} {timeframe}");
            assert!(count >= i64::from(limit) - 1, "{id} {timeframe}: {count} candles of {limit}");
            for bar in closed {
                assert!(bar.symbol == symbol && bar.low <= bar.open.min(bar.close), "{id}: {bar:?}");
                assert!(bar.high >= bar.open.max(bar.close) && bar.low.is_sign_positive(), "{id}: {bar:?}");
            }
        }
        sim.stop().await.expect("stop the stand-in");
    }
}
