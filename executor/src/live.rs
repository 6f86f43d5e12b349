//! Live venues. Order of events, which is the whole point:
//!
//! ```text
//! EXEC sending ──> LIVE attempt ──> the venue ──> LIVE acked, filled, ended ──> desk ──> core ──> EXEC ack, fill, done
//! ```
//!
//! * `venue.rs` is what the core sees: it notes what is under way and turns stored reports into its own.
//! * `state.rs` decides what to ask next: data in, data out.
//! * `binance.rs` is one venue's words: requests and signatures out, replies in.
//! * `sign.rs` signs for every venue, also for those that no protocol speaks to so far.
//! * `caller.rs` is the shell: it reads the journal, asks, and stores what it heard before anything is made of it.
//!
//! Adding a venue is a file with a [`Protocol`] and its line in [`PROTOCOLS`].

use std::fmt;

use schemas::desk::{Order, OrderKind};
use schemas::exec::Liquidity;
use schemas::{Notional, Price, Qty, Side};

use self::sign::Secret;

pub mod binance;
pub mod sign;
pub mod state;
pub mod venue;

#[cfg(feature = "stage")]
pub mod caller;

/// Every live venue.
pub const PROTOCOLS: &[&dyn Protocol] = &[&binance::Usdm];

/// The venue of this id.
pub fn protocol(id: &str) -> Option<&'static dyn Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.id() == id)
}

/// How one venue is spoken to. Pure: what is sent and what came back are data.
///
/// Two things are asked of a venue. It refuses a signed request that arrives behind its window, so that one whose fate is
/// unknown cannot arrive any more from a known time on. And it finds an order by our client id.
pub trait Protocol: Sync {
    /// As in subjects and configuration, such as `binance-usdm`.
    fn id(&self) -> &'static str;

    /// Its real address, without a slash at the end.
    fn base_url(&self) -> &'static str;

    /// Whether it takes such an order; error: (code, reason) for the `Reject`.
    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)>;

    /// The request of one question. `timestamp_ms`: the venue's clock, signed with it.
    fn request(&self, ask: &Ask, keys: &Keys, timestamp_ms: i64, recv_window_ms: u32) -> Request;

    /// What a reply says to a question. What is not known for sure is [`Answer::Doubt`].
    fn answer(&self, ask: &Ask, reply: &Reply) -> Answer;
}

/// A question to a venue. Orders are named by our client id.
#[derive(Clone, PartialEq, Debug)]
pub enum Ask {
    /// Its clock.
    Time,
    Query {
        id: String,
        symbol: String,
    },
    /// `timestamp_ms`: of the stored attempt.
    Place {
        order: Box<Order>,
        timestamp_ms: i64,
    },
    Cancel {
        id: String,
        symbol: String,
    },
    /// The executions of one order.
    Trades {
        id: String,
        symbol: String,
        venue_order_id: String,
    },
}

impl Ask {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Query { .. } => "query",
            Self::Place { .. } => "place",
            Self::Cancel { .. } => "cancel",
            Self::Trades { .. } => "trades",
        }
    }
    /// The order that it is about.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Time => None,
            Self::Place { order, .. } => Some(&order.id),
            Self::Query { id, .. } | Self::Cancel { id, .. } | Self::Trades { id, .. } => Some(id),
        }
    }
}

/// What a venue answered, in words that all venues share.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Time {
        server_ms: i64,
    },
    /// The order as it stands.
    Order(View),
    /// It has no order of this id (query), or none that is open (cancel).
    Unknown,
    Trades(Vec<Trade>),
    /// The order is not taken, for good.
    Refused {
        code: String,
        reason: String,
    },
    /// It has an open order of this id already.
    Duplicate,
    /// The request arrived outside its window: nothing was done.
    Late,
    /// Too many requests, or the venue is busy: nothing was done.
    Limited {
        retry_after_ms: Option<u64>,
        why: String,
    },
    /// Keys, signature or permission: nothing was done, and asking again does not help.
    Forbidden {
        why: String,
    },
    /// Nobody knows whether it was done.
    Doubt {
        why: String,
    },
}

/// An order as a venue shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    pub venue_order_id: String,
    pub symbol: String,
    pub side: Side,
    /// As ordered.
    pub qty: Qty,
    pub filled: Qty,
    pub status: Status,
    /// By the venue's clock, since 1970.
    pub updated_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Open,
    Filled,
    Cancelled,
    Expired,
    Rejected,
}

/// One execution of one of our orders.
#[derive(Clone, PartialEq, Debug)]
pub struct Trade {
    /// Unique within the order.
    pub id: String,
    pub venue_order_id: String,
    pub price: Price,
    /// Always positive.
    pub qty: Qty,
    /// In `fee_asset`; positive is a cost.
    pub fee: Notional,
    pub fee_asset: String,
    pub liquidity: Liquidity,
    /// By the venue's clock, since 1970.
    pub ts_ms: i64,
}

/// An HTTP request. The query carries a signature, so it is not shown.
#[derive(Clone, PartialEq)]
pub struct Request {
    pub method: &'static str,
    /// With a slash in front.
    pub path: &'static str,
    pub query: String,
    /// The name of the header that carries the key; the caller fills it in.
    pub key_header: Option<&'static str>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ***", self.method, self.path)
    }
}

/// An HTTP reply; `None` where none came in time.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    pub body: String,
}

/// Keys of an account at a venue. They print as `***`.
#[derive(Clone, PartialEq)]
pub struct Keys {
    pub key: String,
    pub secret: Secret,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Keys {
    /// Where they come from: `TAPELINE_BINANCE_USDM_KEY` and `_SECRET`.
    pub fn variables(venue: &str) -> [String; 2] {
        let venue = venue.to_ascii_uppercase().replace('-', "_");
        ["KEY", "SECRET"].map(|part| format!("TAPELINE_{venue}_{part}"))
    }
    /// A text without them: a server may echo what it was sent.
    pub fn scrub(&self, text: &str) -> String {
        text.replace(&self.key, "***").replace(self.secret.reveal(), "***")
    }
}

/// What no live venue takes so far, said at the door: a protective order that never reaches its venue protects nothing.
pub fn supported(order: &Order) -> Result<(), (&'static str, String)> {
    if matches!(order.kind, OrderKind::Stop | OrderKind::TakeProfit) {
        return Err((
            "unsupported",
            "live venues take market and limit orders only; this is one with a trigger".into(),
        ));
    }
    if order.protect.is_some() {
        let why = "live venues take no protective orders yet: set no stop_loss and take_profit for live accounts";
        return Err(("unsupported", why.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::order;

    fn keys() -> Keys {
        Keys { key: "the-key".into(), secret: Secret::new("the-secret") }
    }

    #[test]
    fn every_protocol_has_an_id_an_address_and_an_answer_to_what_it_does_not_understand() {
        let mut ids: Vec<_> = PROTOCOLS.iter().map(|p| p.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), PROTOCOLS.len());
        let (id, symbol) = ("o1".to_owned(), "BTC".to_owned());
        let asks = [
            Ask::Time,
            Ask::Query { id: id.clone(), symbol: symbol.clone() },
            Ask::Place { order: Box::new(order("buy 1 BTC")), timestamp_ms: 7 },
            Ask::Cancel { id: id.clone(), symbol: symbol.clone() },
            Ask::Trades { id, symbol, venue_order_id: "1".into() },
        ];
        for p in PROTOCOLS {
            assert_eq!(schemas::subject::escape(p.id()), p.id());
            assert!(p.base_url().starts_with("https://") && !p.base_url().ends_with('/'), "{}", p.id());
            assert!(protocol(p.id()).is_some());
            for ask in &asks {
                let request = p.request(ask, &keys(), 1_000, 500);
                assert!(!format!("{request:?}{:?}", keys()).contains("the-"), "{}: secrets are not shown", p.id());
                assert!(!request.query.contains("the-secret"));
                assert_eq!(request.key_header.is_some(), *ask != Ask::Time, "{}: {ask:?}", p.id());
                // A gateway's page, an empty body, an unknown error: never taken for an outcome.
                for (status, body) in [(502, "<html>"), (200, ""), (200, "{}"), (500, "{\"code\":-1,\"msg\":\"x\"}")] {
                    let reply = Reply { status, retry_after_s: None, body: body.into() };
                    let answer = p.answer(ask, &reply);
                    assert!(matches!(answer, Answer::Doubt { .. }), "{}: {ask:?} {status} {body}: {answer:?}", p.id());
                }
            }
        }
    }

    #[test]
    fn keys_are_named_by_their_venue_and_scrubbed_from_what_comes_back() {
        assert_eq!(Keys::variables("binance-usdm"), ["TAPELINE_BINANCE_USDM_KEY", "TAPELINE_BINANCE_USDM_SECRET"]);
        assert_eq!(keys().scrub("no such key the-key"), "no such key ***");
    }

    #[test]
    fn protective_orders_are_refused_at_the_door() {
        assert!(supported(&order("buy 1 BTC limit=99")).is_ok());
        assert!(supported(&order("sell 1 BTC trigger=95 kind=stop reduce")).is_err());
        assert!(supported(&order("buy 1 BTC stop=90")).is_err());
    }
}
