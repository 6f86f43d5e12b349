//! Hyperliquid: perpetuals and spot of an on-chain order book. One market; a symbol is a coin (`BTC`, `kPEPE`), a spot
//! pair (`PURR/USDC`, `@107`) or a coin of a builder's exchange (`xyz:NVDA`).

use schemas::Instrument;

use super::{Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
mod decode;
pub mod rest;
mod session;
pub mod user;

pub struct Hyperliquid;

const MARKETS: &[Market] = &[Market { name: "default", id: "hyperliquid" }];

impl Venue for Hyperliquid {
    fn id(&self) -> &'static str {
        "hyperliquid"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, _market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(frame, out);
    }
    fn decode_snapshot(&self, _market: Market, body: &str, out: &mut Vec<Event>) {
        match rest::book(body) {
            Ok(book) => out.push(Event::Book(book)),
            Err(why) => out.push(Event::Malformed(why)),
        }
    }
    /// No sequence number, no checksum, no changes: each message is the book's 20 best levels a side, whole.
    fn book_rule(&self, _market: Market) -> Rule {
        Rule::Whole
    }
    /// In the recording of 2025-01-26 the `tid` of 34 BTC trades in order of time rises 15 times and falls 18 times; three
    /// fills of one taker order have three unrelated ones.
    fn trade_ids(&self, _market: Market) -> TradeIds {
        TradeIds::Unordered
    }
    fn is_pinged(&self) -> bool {
        true
    }
    fn endpoints(&self, _market: Market, test: bool) -> Endpoints {
        let host = if test { "api.hyperliquid-testnet.xyz" } else { "api.hyperliquid.xyz" };
        Endpoints { ws: format!("wss://{host}"), rest: format!("https://{host}") }
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

#[cfg(test)]
mod tests;
