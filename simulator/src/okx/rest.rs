//! REST: instruments, books, trades, candles and what the tickers are made of. Limits count each endpoint for itself.

use serde_json::{Value, json};

use super::feed::width_ms;
use super::{Okx, data};
use crate::binance::pairs;
use crate::floor::{Floor, Reply, Request};

/// Rows of one page.
const TRADES_MAX: usize = 100;
const CANDLES_MAX: usize = 300;
const HISTORY_MAX: usize = 100;
const WINDOW_MS: u64 = 2_000;

/// Why a request is refused: the venue's code, which comes with HTTP status 200 except where it says otherwise.
struct Refusal(u16, u32, &'static str);

const NO_INSTRUMENT: Refusal = Refusal(200, 51001, "Instrument ID doesn't exist");
const BAD_PARAMETER: Refusal = Refusal(400, 51000, "Parameter error");

struct Query(Vec<(String, String)>);

impl Query {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        self.text(key).map(str::parse).transpose().map_err(|_| BAD_PARAMETER)
    }
    fn limit(&self, otherwise: usize, max: usize) -> Result<usize, Refusal> {
        Ok(self.number::<usize>("limit")?.unwrap_or(otherwise).clamp(1, max))
    }
    fn instrument(&self, floor: &Floor) -> Result<usize, Refusal> {
        self.text("instId").and_then(|symbol| floor.market.find(symbol)).ok_or(NO_INSTRUMENT)
    }
}

impl Okx {
    pub(super) fn answer(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let rows = self.limited(floor, &request.path).and_then(|()| match request.method.as_str() {
            "GET" => self.rows(floor, &request.path, &Query(pairs(&request.query))),
            _ => Err(Refusal(405, 50115, "Invalid request method")),
        });
        match rows {
            Ok(rows) => Reply::json(200, format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, rows.join(","))),
            Err(Refusal(status, code, msg)) => {
                Reply::json(status, json!({ "code": code.to_string(), "msg": msg, "data": [] }))
            }
        }
    }

    fn limited(&mut self, floor: &mut Floor, path: &str) -> Result<(), Refusal> {
        const TOO_MANY: Refusal = Refusal(429, 50011, "Too Many Requests");
        let now = floor.mono_ms;
        if floor.faults.take("rest_429", "").is_some() {
            return Err(TOO_MANY);
        }
        // Paths that nobody serves are not remembered.
        if !path.starts_with("/api/v5/") || (self.calls.len() >= 64 && !self.calls.contains_key(path)) {
            return Ok(());
        }
        let calls = self.calls.entry(path.to_owned()).or_default();
        while calls.front().is_some_and(|at| at + WINDOW_MS <= now) {
            calls.pop_front();
        }
        if calls.len() >= floor.config.okx.rest_per_2s_max {
            return Err(TOO_MANY);
        }
        calls.push_back(now);
        Ok(())
    }

    fn rows(&self, floor: &mut Floor, path: &str, query: &Query) -> Result<Vec<String>, Refusal> {
        let now_ms = floor.now_ms();
        let one = |row: String| Ok(vec![row]);
        let listing = |floor: &Floor| query.instrument(floor);
        match path.strip_prefix("/api/v5/").unwrap_or_default() {
            "public/time" => one(json!({ "ts": now_ms.to_string() }).to_string()),
            "public/instruments" => instruments(floor, query),
            "public/mark-price" => listing(floor).and_then(|i| one(data::mark(floor.market.listing(i), now_ms))),
            "public/funding-rate" => listing(floor).and_then(|i| one(data::funding(floor.market.listing(i), now_ms))),
            "public/open-interest" => {
                listing(floor).and_then(|i| one(data::open_interest(floor.market.listing(i), now_ms)))
            }
            "market/books" => {
                let i = listing(floor)?;
                let levels = query.number::<usize>("sz")?.unwrap_or(1).clamp(1, data::BOOK_LEVELS);
                let l = floor.market.listing(i);
                let numbers = match floor.config.okx.rest_seq_ids {
                    true => format!(r#","seqId":{}"#, self.feed.seq(l.update_id)),
                    false => String::new(),
                };
                one(data::book(l, levels, now_ms, &numbers))
            }
            "market/ticker" => {
                let i = listing(floor)?;
                floor.history[i].pass(now_ms);
                one(data::ticker(floor.market.listing(i), floor.history[i].day(now_ms).as_ref(), now_ms))
            }
            "market/trades" | "market/history-trades" => trades(floor, query),
            "market/candles" => candles(floor, query, CANDLES_MAX),
            "market/history-candles" => candles(floor, query, HISTORY_MAX),
            _ => Err(Refusal(404, 404, "Not Found")),
        }
    }
}

fn instruments(floor: &Floor, query: &Query) -> Result<Vec<String>, Refusal> {
    let kind = query.text("instType").ok_or(BAD_PARAMETER)?;
    if !["SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"].contains(&kind) {
        return Err(BAD_PARAMETER);
    }
    let mine = |key: &str, value: &str| query.text(key).is_none_or(|wanted| wanted == value);
    let listings = floor.market.listings().iter().filter(|l| {
        data::inst_type(&l.spec) == kind
            && mine("instId", &l.spec.symbol)
            && mine("instFamily", &data::underlying(&l.spec))
    });
    Ok(listings.map(|l| data::instrument(l).to_string()).collect())
}

/// Newest first. `after`: those before an id; `before`: those behind one, the newest of them.
fn trades(floor: &Floor, query: &Query) -> Result<Vec<String>, Refusal> {
    let i = query.instrument(floor)?;
    let (after, before) = (query.number::<u64>("after")?, query.number::<u64>("before")?);
    let limit = query.limit(TRADES_MAX, TRADES_MAX)?;
    let spec = &floor.market.listing(i).spec;
    let fits = |id: u64| after.is_none_or(|bound| id < bound) && before.is_none_or(|bound| id > bound);
    let rows = floor.history[i].trades().rev().filter(|t| fits(t.id)).take(limit);
    Ok(rows.map(|t| data::trade(spec, t, None)).collect())
}

/// Newest first. `after`: those that open before a time; `before`: behind one.
fn candles(floor: &mut Floor, query: &Query, max: usize) -> Result<Vec<String>, Refusal> {
    let i = query.instrument(floor)?;
    let width = width_ms(query.text("bar").unwrap_or("1m")).ok_or(BAD_PARAMETER)?;
    let (after, before) = (query.number::<i64>("after")?, query.number::<i64>("before")?);
    let (now_ms, limit) = (floor.now_ms(), query.limit(100, max)?);
    floor.history[i].pass(now_ms);
    let from = before.map_or(0, |ms| ms + 1);
    let bars = floor.history[i].bars(width, from, after.map_or(now_ms, |ms| ms - 1), limit);
    let spec = &floor.market.listing(i).spec;
    let row = |bar: &crate::history::Bar| -> Value { data::candle(spec, bar, bar.open_ms + width <= now_ms) };
    Ok(bars.iter().rev().map(|bar| row(bar).to_string()).collect())
}
