//! Coinbase: two APIs over one book of orders. Advanced Trade numbers the messages of a connection and knows
//! derivatives too; Exchange is the older feed, of spot alone.

use schemas::Instrument;

use super::{Endpoints, HistoryPage, Market, Request, Venue};
use crate::book::Rule;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};

mod advanced;
pub(crate) mod decode;
mod exchange;
mod rest;
mod session;
pub mod user;

pub struct Coinbase;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Api {
    Advanced,
    Exchange,
}

const MARKETS: &[Market] =
    &[Market { name: "advanced", id: "coinbase" }, Market { name: "exchange", id: "coinbase-exchange" }];

fn api(market: Market) -> Api {
    if market.id == "coinbase" { Api::Advanced } else { Api::Exchange }
}

impl Venue for Coinbase {
    fn id(&self) -> &'static str {
        "coinbase"
    }
    fn markets(&self) -> &'static [Market] {
        MARKETS
    }
    fn decode(&self, market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        match api(market) {
            // The number counts within a connection: the session looks at it.
            Api::Advanced => _ = advanced::decode(frame, out),
            Api::Exchange => exchange::decode(frame, |_| true, out),
        }
    }
    fn decode_snapshot(&self, market: Market, body: &str, out: &mut Vec<Event>) {
        out.push(rest::book(api(market), body).unwrap_or_else(Event::Malformed));
    }
    fn book_rule(&self, _market: Market) -> Rule {
        Rule::Unnumbered
    }
    fn trade_ids(&self, _market: Market) -> TradeIds {
        // Measured on the recording of Exchange of 2021: 7 products, 88 matches behind their `last_match`, every step
        // is one. Advanced: the nine rows of a recorded sweep are 1100253489 to 1100253497.
        TradeIds::Consecutive
    }
    fn endpoints(&self, market: Market, test: bool) -> Endpoints {
        let (ws, rest) = match (api(market), test) {
            // The sandbox of Advanced answers REST with fixed examples and has no market data: production either way.
            (Api::Advanced, _) => ("advanced-trade-ws.coinbase.com", "api.coinbase.com"),
            (Api::Exchange, false) => ("ws-feed.exchange.coinbase.com", "api.exchange.coinbase.com"),
            // Unconfirmed: nothing was recorded there.
            (Api::Exchange, true) => {
                ("ws-feed-public.sandbox.exchange.coinbase.com", "api-public.sandbox.exchange.coinbase.com")
            }
        };
        Endpoints { ws: format!("wss://{ws}"), rest: format!("https://{rest}") }
    }
    fn instrument_requests(&self, market: Market, symbols: &[String]) -> Vec<Request> {
        rest::instrument_requests(api(market), symbols)
    }
    fn decode_instruments(&self, market: Market, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
        rest::instruments(api(market), market.id, body)
    }
    fn history_request(&self, market: Market, page: HistoryPage<'_>) -> Option<Request> {
        rest::history_request(api(market), page)
    }
    fn decode_history(&self, market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
        rest::history(api(market), page, body)
    }
    fn check_channel(&self, market: Market, channel: &str) -> Result<(), String> {
        check_channel(api(market), channel)
    }
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        session::sessions(api(market), plan)
    }
}

/// The channels of each API, as they are subscribed; `:{}` behind one that is had product by product.
fn channels(api: Api) -> &'static [&'static str] {
    match api {
        Api::Advanced => {
            &["market_trades:{}", "level2:{}", "ticker:{}", "ticker_batch:{}", "candles:{}", "status:{}", "heartbeats"]
        }
        // `level2` needs an account today, `level2_batch` none (unconfirmed).
        Api::Exchange => &["matches:{}", "level2_batch:{}", "level2:{}", "ticker:{}", "heartbeat:{}", "status"],
    }
}

fn check_channel(api: Api, channel: &str) -> Result<(), String> {
    let known = channels(api);
    if known.contains(&channel) { Ok(()) } else { Err(format!("unknown channel; known: {}", known.join(", "))) }
}

#[cfg(all(test, feature = "stage"))]
mod chaos;
#[cfg(test)]
mod tests;
