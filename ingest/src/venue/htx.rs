//! HTX (Huobi): spot, linear and inverse swaps. Every frame of the public sockets is packed with gzip.

use schemas::Instrument;

use super::{Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

#[cfg(all(test, feature = "stage"))]
mod chaos;
mod channel;
pub(crate) mod decode;
#[cfg(all(test, feature = "stage"))]
mod interest;
mod rest;
mod session;
mod user;

pub struct Htx;

/// Which of the three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Spot,
    /// Settled in USDT; a contract is some coins.
    Linear,
    /// Settled in the coin; a contract is some dollars.
    Inverse,
}

impl Kind {
    pub(crate) fn is_swap(self) -> bool {
        self != Self::Spot
    }
}

/// The two kinds of swaps read alike and are reached differently: one market name, two ids.
const MARKETS: &[Market] = &[
    Market { name: "spot", id: "htx" },
    Market { name: "swap", id: "htx-linear" },
    Market { name: "swap", id: "htx-inverse" },
];

fn kind(market: Market) -> Kind {
    match market.id {
        "htx-linear" => Kind::Linear,
        "htx-inverse" => Kind::Inverse,
        _ => Kind::Spot,
    }
}

impl Venue for Htx {
    fn id(&self) -> &'static str {
        "htx"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(kind(market), frame, out);
    }
    fn book_rule(&self, market: Market) -> Rule {
        match kind(market) {
            Kind::Spot => Rule::Asked,
            Kind::Linear | Kind::Inverse => Rule::Counted,
        }
    }
    fn trade_ids(&self, market: Market) -> TradeIds {
        match kind(market) {
            // `tradeId` rose by one in each of the six steps that the recorded spot sequence shows of four symbols, and
            // between two single messages of btcusdt. The one message with two trades had the newer one first.
            Kind::Spot => TradeIds::Consecutive,
            // Ten thousand times the number of the match, which counts more than trades: each of the five recorded steps
            // rises, none by one.
            Kind::Linear | Kind::Inverse => TradeIds::Rising,
        }
    }
    /// There is no public test net: production either way.
    fn endpoints(&self, market: Market, _test: bool) -> Endpoints {
        let host = if kind(market).is_swap() { "api.hbdm.com" } else { "api.huobi.pro" };
        Endpoints { ws: format!("wss://{host}"), rest: format!("https://{host}") }
    }
    fn instrument_requests(&self, market: Market, _symbols: &[String]) -> Vec<Request> {
        rest::instrument_requests(kind(market))
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
        channel::check(kind(market), channel)
    }
    fn check_together(&self, market: Market, channels: &[String]) -> Result<(), String> {
        channel::check_together(kind(market), channels)
    }
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        session::sessions(kind(market), self.book_rule(market), self.trade_ids(market), plan)
    }
}
