//! MEXC: spot (binary frames) and contract (JSON).

use schemas::Instrument;

use super::{Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
mod contract;
mod decode;
mod names;
mod push;
mod rest;
mod session;
#[cfg(test)]
mod tests;
mod user;
mod wire;

pub struct Mexc;

const MARKETS: &[Market] = &[Market { name: "spot", id: "mexc" }, Market { name: "contract", id: "mexc-contract" }];

/// The two systems share a name and little else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Spot,
    Contract,
}

fn kind(market: Market) -> Kind {
    if market.name == "spot" { Kind::Spot } else { Kind::Contract }
}

impl Venue for Mexc {
    fn id(&self) -> &'static str {
        "mexc"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        match kind(market) {
            Kind::Spot => decode::decode(frame, out),
            Kind::Contract => contract::decode(frame, out),
        }
    }
    fn decode_snapshot(&self, market: Market, body: &str, out: &mut Vec<Event>) {
        rest::snapshot_events(kind(market), body, out);
    }
    fn book_rule(&self, _market: Market) -> Rule {
        // Contract counts messages: its version is first and last at once, where no `begin` and `end` stand beside it.
        Rule::FirstLast
    }
    fn trade_ids(&self, _market: Market) -> TradeIds {
        // Spot's are pairs, as text; in the one recorded frame that has them both halves rise, older frames and all of REST
        // have none. Of contract's recorded deals two have an id: the later one in time has the smaller. That is too little
        // to order anything by.
        TradeIds::Unordered
    }
    fn is_pinged(&self) -> bool {
        true
    }
    fn endpoints(&self, market: Market, _test: bool) -> Endpoints {
        // The venue has no test system.
        let (ws, rest) = match kind(market) {
            Kind::Spot => ("wss://wbs-api.mexc.com", "https://api.mexc.com"),
            Kind::Contract => ("wss://contract.mexc.com", "https://contract.mexc.com"),
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
    fn decode_history(&self, market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
        rest::history(kind(market), page, body)
    }
    fn check_channel(&self, market: Market, channel: &str) -> Result<(), String> {
        session::check_channel(kind(market), channel)
    }
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        session::sessions(kind(market), self.book_rule(market), plan)
    }
}
