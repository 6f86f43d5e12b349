//! OKX: spot, swaps, futures and options over one protocol (v5). Prefix-free symbols: `BTC-USDT`, `BTC-USDT-SWAP`,
//! `BTC-USD-220527`, `BTC-USD-220624-50000-C`. Sizes of all but spot are contracts.

use schemas::Instrument;

use super::{Bucket, Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
mod decode;
mod depth;
mod rest;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod user;

pub struct Okx;

const MARKETS: &[Market] = &[Market { name: "default", id: "okx" }];

impl Venue for Okx {
    fn id(&self) -> &'static str {
        "okx"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, _market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(frame, out);
    }
    fn decode_snapshot(&self, _market: Market, body: &str, out: &mut Vec<Event>) {
        out.push(rest::book("", body).map_or_else(Event::Malformed, Event::Book));
    }
    fn charged_fees_are_negative(&self) -> bool {
        true
    }
    fn book_rule(&self, _market: Market) -> Rule {
        Rule::Linked
    }
    /// Measured on the recording of 2022: the 69 ids of BTC-USDT and the 4 of BTC-USD-220527 rise by one. Two rows of 2025
    /// whose `count` is 1 do too; that a row with a greater `count` stands for as many ids up to its own is what the venue's
    /// documentation is remembered to say, no recording holds one.
    fn trade_ids(&self, _market: Market) -> TradeIds {
        TradeIds::Consecutive
    }
    fn buckets(&self, _market: Market) -> &'static [Bucket] {
        rest::BUCKETS
    }
    fn is_pinged(&self) -> bool {
        true
    }
    /// Both environments share the REST host: the test one wants the header `x-simulated-trading: 1`, without it its
    /// instruments and books are those of production.
    fn endpoints(&self, _market: Market, test: bool) -> Endpoints {
        let host = if test { "wspap.okx.com" } else { "ws.okx.com" };
        Endpoints { ws: format!("wss://{host}:8443"), rest: "https://www.okx.com".to_owned() }
    }
    fn instrument_requests(&self, _market: Market, symbols: &[String]) -> Vec<Request> {
        rest::instrument_requests(symbols)
    }
    fn decode_instruments(&self, market: Market, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
        rest::instruments(market.id, body)
    }
    fn history_request(&self, _market: Market, page: HistoryPage<'_>) -> Option<Request> {
        rest::history_request(page)
    }
    fn decode_history(&self, _market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
        rest::history(page, body)
    }
    fn check_channel(&self, _market: Market, channel: &str) -> Result<(), String> {
        session::check_channel(channel)
    }
    fn sessions(&self, _market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        session::sessions(plan)
    }
}
