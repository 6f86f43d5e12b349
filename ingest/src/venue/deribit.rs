//! Deribit: options, futures, perpetuals, spot and combos over JSON-RPC.

use schemas::Instrument;

use super::{Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
pub(crate) mod decode;
mod rest;
mod session;

pub struct Deribit;

const MARKETS: &[Market] = &[Market { name: "default", id: "deribit" }];

impl Venue for Deribit {
    fn id(&self) -> &'static str {
        "deribit"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, _market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(frame, out);
    }
    fn book_rule(&self, _market: Market) -> Rule {
        Rule::Chain
    }
    fn trade_ids(&self, _market: Market) -> TradeIds {
        TradeIds::Consecutive
    }
    fn is_pinged(&self) -> bool {
        true
    }
    fn endpoints(&self, _market: Market, test: bool) -> Endpoints {
        let host = if test { "test.deribit.com" } else { "www.deribit.com" };
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
