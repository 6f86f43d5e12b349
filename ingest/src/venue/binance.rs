//! Binance: spot, USD-M and COIN-M futures.

use schemas::Instrument;

use super::{Bucket, CONNECT, Endpoints, HistoryPage, Market, REST, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
mod decode;
#[cfg(all(test, feature = "stage"))]
mod interest;
mod rest;
mod scan;
mod session;
mod user;

pub struct Binance;

/// Which of the three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Spot,
    Usdm,
    Coinm,
}

const MARKETS: &[Market] = &[
    Market { name: "spot", id: "binance" },
    Market { name: "usdm", id: "binance-usdm" },
    Market { name: "coinm", id: "binance-coinm" },
];

fn kind(market: Market) -> Kind {
    match market.name {
        "usdm" => Kind::Usdm,
        "coinm" => Kind::Coinm,
        _ => Kind::Spot,
    }
}

impl Venue for Binance {
    fn id(&self) -> &'static str {
        "binance"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(kind(market), frame, out);
    }
    fn book_rule(&self, market: Market) -> Rule {
        match kind(market) {
            Kind::Spot => Rule::FirstLast,
            Kind::Usdm | Kind::Coinm => Rule::PreviousLast,
        }
    }
    fn trade_ids(&self, _market: Market) -> TradeIds {
        TradeIds::Consecutive
    }
    fn buckets(&self, _market: Market) -> &'static [Bucket] {
        const USED: Option<&str> = Some("x-mbx-used-weight-1m");
        &const { [Bucket { used_header: USED, ..Bucket::new(REST) }, Bucket::new(CONNECT)] }
    }
    fn endpoints(&self, market: Market, test: bool) -> Endpoints {
        let (ws, rest) = match (kind(market), test) {
            (Kind::Spot, false) => ("wss://stream.binance.com:9443", "https://api.binance.com"),
            (Kind::Spot, true) => ("wss://stream.testnet.binance.vision", "https://testnet.binance.vision"),
            (Kind::Usdm, false) => ("wss://fstream.binance.com", "https://fapi.binance.com"),
            (Kind::Usdm, true) => ("wss://demo-fstream.binance.com", "https://demo-fapi.binance.com"),
            (Kind::Coinm, false) => ("wss://dstream.binance.com", "https://dapi.binance.com"),
            (Kind::Coinm, true) => ("wss://dstream.binancefuture.com", "https://testnet.binancefuture.com"),
        };
        Endpoints { ws: ws.to_owned(), rest: rest.to_owned() }
    }
    fn instrument_requests(&self, market: Market, symbols: &[String]) -> Vec<Request> {
        rest::instrument_requests(kind(market), symbols)
    }
    fn decode_instruments(&self, market: Market, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
        rest::instruments(kind(market), market.id, body)
    }
    fn history_request(&self, market: Market, page: HistoryPage<'_>) -> Option<Request> {
        rest::history_request(kind(market), page)
    }
    fn decode_history(&self, _market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
        rest::history(page, body)
    }
    fn check_channel(&self, market: Market, channel: &str) -> Result<(), String> {
        session::check_channel(kind(market), channel)
    }
    fn check_together(&self, _market: Market, channels: &[String]) -> Result<(), String> {
        session::check_together(channels)
    }
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        session::sessions(kind(market), self.book_rule(market), plan)
    }
}
