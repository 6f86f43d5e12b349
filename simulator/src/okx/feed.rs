//! Channels, who listens, and what is published when.

use std::collections::BTreeMap;

use serde_json::Value;

use super::data;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::instrument::Spec;
use crate::market::{Event, Trade};

/// The socket that a client came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    Public,
    Business,
    Private,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topic {
    /// Snapshot, then chained changes.
    Books,
    /// The five best levels, whole.
    Books5,
    Best,
    /// `single`: each fill; else those of one order at one price in one row.
    Trades {
        single: bool,
    },
    Tickers,
    Candle {
        width_ms: i64,
    },
    Mark,
    Index,
    Funding,
    OpenInterest,
    Liquidations,
    /// Speaks only when something is wrong.
    Status,
}

#[derive(Debug)]
struct Channel {
    what: Topic,
    /// As the venue says it again with all data.
    arg: String,
    instrument: Option<usize>,
    listeners: Vec<ClientId>,
    /// 0: at every operation.
    period_ns: i64,
    due_ns: i64,
    /// The last `seqId` that went out, and when.
    prev: u64,
    sent_ns: i64,
    bids: BTreeMap<i64, (i64, bool)>,
    asks: BTreeMap<i64, (i64, bool)>,
    /// Checksums of the newest changes, by `seqId`: a swapped one goes out later.
    sums: BTreeMap<u64, i32>,
    trades: Vec<Trade>,
    dirty: bool,
    touch: [(i64, i64); 2],
}

/// Trades of one message; more are sent at once.
const TRADES_IN_MESSAGE_MAX: usize = 100;
const SUMS_MAX: usize = 4;
const MS: i64 = 1_000_000;

/// Milliseconds of a candle's width.
pub fn width_ms(word: &str) -> Option<i64> {
    let word = word.strip_suffix("utc").unwrap_or(word);
    let (digits, unit) = word.split_at(word.len().checked_sub(1)?);
    let each = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "H" => 3_600_000,
        "D" => 86_400_000,
        _ => return None,
    };
    ["1", "2", "3", "4", "5", "6", "12", "15", "30"]
        .contains(&digits)
        .then(|| digits.parse::<i64>().unwrap_or(1) * each)
}

/// What an argument means on a socket: the channel with its period in ms; `None` is refused.
fn parse(floor: &Floor, path: Path, arg: &Value) -> Option<(Topic, Option<usize>, i64)> {
    let channel = arg["channel"].as_str()?;
    let symbol = || arg["instId"].as_str().and_then(|symbol| floor.market.find(symbol));
    let swap = || symbol().filter(|i| floor.market.listing(*i).spec.perpetual);
    let index = || {
        let of = |l: &crate::market::Listing| arg["instId"] == data::underlying(&l.spec).as_str();
        floor.market.listings().iter().position(of)
    };
    let (topic, instrument, period_ms, home) = match channel {
        "books" => (Topic::Books, Some(symbol()?), 100, Path::Public),
        "books5" => (Topic::Books5, Some(symbol()?), 100, Path::Public),
        "bbo-tbt" => (Topic::Best, Some(symbol()?), 0, Path::Public),
        "trades" => (Topic::Trades { single: false }, Some(symbol()?), 0, Path::Public),
        "trades-all" => (Topic::Trades { single: true }, Some(symbol()?), 0, Path::Business),
        "tickers" => (Topic::Tickers, Some(symbol()?), 100, Path::Public),
        "mark-price" => (Topic::Mark, Some(symbol()?), 200, Path::Public),
        "index-tickers" => (Topic::Index, Some(index()?), 1_000, Path::Public),
        "funding-rate" => (Topic::Funding, Some(swap()?), 30_000, Path::Public),
        "open-interest" => (Topic::OpenInterest, Some(swap()?), 3_000, Path::Public),
        "liquidation-orders" if arg["instType"] == "SWAP" => (Topic::Liquidations, None, 0, Path::Public),
        "status" => (Topic::Status, None, 0, Path::Public),
        name => {
            let width_ms = width_ms(name.strip_prefix("candle")?)?;
            (Topic::Candle { width_ms }, Some(symbol()?), 1_000, Path::Business)
        }
    };
    (home == path).then_some((topic, instrument, period_ms))
}

#[derive(Debug, Default)]
pub struct Feed {
    /// By the argument's text.
    channels: BTreeMap<String, Channel>,
    next_due_ns: i64,
    /// Sequence numbers began anew behind this update id.
    base: u64,
    /// When a client was sent something last, in real time.
    pub spoken_ms: BTreeMap<ClientId, u64>,
}

/// The argument as the venue repeats it: the channel and what it is of.
pub fn canonical(arg: &Value) -> String {
    let channel = arg["channel"].as_str().unwrap_or_default();
    match ["instId", "instType", "instFamily"].iter().find_map(|key| Some((key, arg[*key].as_str()?))) {
        Some((key, of)) => format!(r#"{{"channel":"{channel}","{key}":"{of}"}}"#),
        None => format!(r#"{{"channel":"{channel}"}}"#),
    }
}

impl Feed {
    /// The number that an update id has in the channels and over REST.
    pub fn seq(&self, update_id: u64) -> u64 {
        update_id.saturating_sub(self.base)
    }

    /// False: there is no such channel on this socket.
    pub fn subscribe(&mut self, floor: &mut Floor, path: Path, arg: &Value, client: ClientId) -> bool {
        let Some((what, instrument, period_ms)) = parse(floor, path, arg) else { return false };
        let (key, base, now) = (canonical(arg), self.base, floor.now_ns);
        let period_ns = period_ms * MS;
        let channel = self.channels.entry(key.clone()).or_insert_with(|| Channel {
            what,
            arg: key,
            instrument,
            listeners: Vec::new(),
            period_ns,
            due_ns: if period_ns == 0 { i64::MAX } else { (now.div_euclid(period_ns) + 1) * period_ns },
            prev: instrument.map_or(0, |i| floor.market.listing(i).update_id.saturating_sub(base)),
            sent_ns: now,
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            sums: BTreeMap::new(),
            trades: Vec::new(),
            dirty: true,
            touch: Default::default(),
        });
        // What is pending belongs to those who listened until now; the newcomer gets a snapshot instead.
        if what == Topic::Books && !channel.listeners.is_empty() {
            flush_book(channel, base, floor, now, &mut self.spoken_ms);
        }
        if !channel.listeners.contains(&client) {
            channel.listeners.push(client);
        }
        self.next_due_ns = self.next_due_ns.min(channel.due_ns);
        true
    }

    pub fn unsubscribe(&mut self, arg: &str, client: ClientId) {
        if let Some(channel) = self.channels.get_mut(arg) {
            channel.listeners.retain(|id| *id != client);
            if channel.listeners.is_empty() {
                self.channels.remove(arg);
            }
        }
    }

    pub fn gone(&mut self, client: ClientId) {
        self.spoken_ms.remove(&client);
        self.channels.retain(|_, channel| {
            channel.listeners.retain(|id| *id != client);
            !channel.listeners.is_empty()
        });
    }

    pub fn listened(&self) -> bool {
        !self.channels.is_empty()
    }

    /// The first message of a newly subscribed channel, where it has one.
    pub fn welcome(&mut self, floor: &mut Floor, client: ClientId, arg: &str) {
        let Some(channel) = self.channels.get_mut(arg) else { return };
        let (Some(i), now) = (channel.instrument, floor.now_ms()) else { return };
        let l = floor.market.listing(i);
        let (action, data) = match channel.what {
            Topic::Books if floor.config.okx.snapshots => {
                let sum = if floor.config.okx.checksums { data::checksum(l) } else { 0 };
                let seq = l.update_id.saturating_sub(self.base);
                // Changes that came and went may have moved the number past what was sent.
                channel.prev = seq;
                let numbers = format!(r#","checksum":{sum},"seqId":{seq},"prevSeqId":-1"#);
                ("snapshot", data::book(l, data::BOOK_LEVELS, now, &numbers))
            }
            Topic::Funding => ("", data::funding(l, now)),
            Topic::Mark => ("", data::mark(l, now)),
            Topic::OpenInterest => ("", data::open_interest(l, now)),
            _ => return,
        };
        let text = wrap(&channel.arg, action, &data);
        self.spoken_ms.insert(client, floor.mono_ms);
        floor.data(client, text);
    }

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, side, price, was, qty, .. } => {
                for channel in self.of(instrument) {
                    if channel.what == Topic::Books {
                        let half = if side == Side::Buy { &mut channel.bids } else { &mut channel.asks };
                        half.entry(price).or_insert((0, was > 0)).0 = qty;
                    }
                    channel.dirty = true;
                }
            }
            Event::Trade(trade) => {
                let (base, spoken) = (self.base, &mut self.spoken_ms);
                for channel in self.channels.values_mut() {
                    match channel.what {
                        Topic::Trades { .. } if channel.instrument == Some(trade.instrument) => {
                            channel.trades.push(trade);
                            if channel.trades.len() >= TRADES_IN_MESSAGE_MAX {
                                publish(channel, base, floor, trade.time_ns, spoken);
                            }
                        }
                        Topic::Liquidations if trade.liquidation => {
                            let spec = &floor.market.listing(trade.instrument).spec;
                            if spec.perpetual {
                                let data = data::liquidation(spec, &trade);
                                send(channel, floor, "", &data, spoken);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Event::Done { instrument, time_ns } => {
                let (base, spoken) = (self.base, &mut self.spoken_ms);
                let mine = |c: &&mut Channel| c.instrument == Some(instrument) && c.period_ns == 0;
                for channel in self.channels.values_mut().filter(mine) {
                    publish(channel, base, floor, time_ns, spoken);
                }
            }
            Event::Fill { .. } => {}
        }
    }

    fn of(&mut self, instrument: usize) -> impl Iterator<Item = &mut Channel> {
        self.channels.values_mut().filter(move |c| c.instrument == Some(instrument))
    }

    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        // After a leap only what was due last is said.
        let horizon = at_ns - 3_600_000 * MS;
        while self.next_due_ns <= at_ns {
            let due = self.next_due_ns.max(horizon);
            let (base, spoken) = (self.base, &mut self.spoken_ms);
            for channel in self.channels.values_mut().filter(|c| c.due_ns <= due) {
                publish(channel, base, floor, channel.due_ns.max(horizon), spoken);
                channel.due_ns = (channel.due_ns.max(horizon).div_euclid(channel.period_ns) + 1) * channel.period_ns;
            }
            self.next_due_ns = self.channels.values().map(|c| c.due_ns).min().unwrap_or(i64::MAX);
        }
    }

    /// Says every book's number again, without a change.
    pub fn keep_alive(&mut self, floor: &mut Floor) {
        let (base, now) = (self.base, floor.now_ns);
        for channel in self.channels.values_mut().filter(|c| c.what == Topic::Books) {
            flush_book(channel, base, floor, now, &mut self.spoken_ms);
            repeat(channel, floor, now, &mut self.spoken_ms);
        }
    }

    /// Sequence numbers begin anew: the next change of each book names the old number and has a small one.
    pub fn reset_sequence(&mut self, floor: &mut Floor) {
        let (base, now) = (self.base, floor.now_ns);
        for channel in self.channels.values_mut().filter(|c| c.what == Topic::Books) {
            flush_book(channel, base, floor, now, &mut self.spoken_ms);
        }
        let lowest = floor.market.listings().iter().map(|l| l.update_id).min().unwrap_or(0);
        self.base = lowest.saturating_sub(1);
    }

    /// A status message, as before maintenance.
    pub fn status(&mut self, floor: &mut Floor, data: &str) {
        for channel in self.channels.values_mut().filter(|c| c.what == Topic::Status) {
            send(channel, floor, "", data, &mut self.spoken_ms);
        }
    }
}

fn wrap(arg: &str, action: &str, data: &str) -> String {
    let action = if action.is_empty() { String::new() } else { format!(r#""action":"{action}","#) };
    format!(r#"{{"arg":{arg},{action}"data":[{data}]}}"#)
}

fn send(channel: &Channel, floor: &mut Floor, action: &str, data: &str, spoken: &mut BTreeMap<ClientId, u64>) {
    let symbol = channel.instrument.map(|i| floor.market.listing(i).spec.symbol.clone()).unwrap_or_default();
    let is_trade = matches!(channel.what, Topic::Trades { .. });
    let text = floor.faults.text(is_trade, &symbol, wrap(&channel.arg, action, data));
    for client in &channel.listeners {
        spoken.insert(*client, floor.mono_ms);
        floor.data(*client, text.clone());
    }
}

fn publish(channel: &mut Channel, base: u64, floor: &mut Floor, at_ns: i64, spoken: &mut BTreeMap<ClientId, u64>) {
    let (Some(i), at_ms) = (channel.instrument, at_ns / MS) else { return };
    let dirty = std::mem::take(&mut channel.dirty);
    let data = match channel.what {
        Topic::Books => return flush_book(channel, base, floor, at_ns, spoken),
        Topic::Trades { single } => {
            let trades = std::mem::take(&mut channel.trades);
            for row in trade_rows(&floor.market.listing(i).spec, &trades, single) {
                send(channel, floor, "", &row, spoken);
            }
            return;
        }
        Topic::Best => {
            let l = floor.market.listing(i);
            let touch = [Side::Buy, Side::Sell].map(|side| l.book.touch(side).unwrap_or_default());
            if std::mem::replace(&mut channel.touch, touch) == touch {
                return;
            }
            data::best(l, at_ms, l.update_id.saturating_sub(base))
        }
        Topic::Books5 if dirty => {
            let l = floor.market.listing(i);
            let numbers = format!(r#","instId":"{}","seqId":{}"#, l.spec.symbol, l.update_id.saturating_sub(base));
            data::book(l, 5, at_ms, &numbers)
        }
        Topic::Tickers if dirty => {
            floor.history[i].pass(at_ms);
            data::ticker(floor.market.listing(i), floor.history[i].day(at_ms).as_ref(), at_ms)
        }
        Topic::Candle { width_ms } if dirty => {
            floor.history[i].pass(at_ms);
            // The bar that ends with this second is sent a last time whole, as closed.
            let open = (at_ms - 1).div_euclid(width_ms) * width_ms;
            let Some(bar) = floor.history[i].bar(width_ms, open) else { return };
            data::candle(&floor.market.listing(i).spec, &bar, open + width_ms <= at_ms).to_string()
        }
        Topic::Mark => data::mark(floor.market.listing(i), at_ms),
        Topic::Index => data::index(floor.market.listing(i), at_ms),
        Topic::Funding => data::funding(floor.market.listing(i), at_ms),
        Topic::OpenInterest => data::open_interest(floor.market.listing(i), at_ms),
        Topic::Books5 | Topic::Tickers | Topic::Candle { .. } | Topic::Liquidations | Topic::Status => return,
    };
    send(channel, floor, "", &data, spoken);
}

/// One message a row, as the venue sends them. Merged rows carry the last id and how many fills they sum up.
fn trade_rows(spec: &Spec, trades: &[Trade], single: bool) -> Vec<String> {
    if single {
        return trades.iter().map(|t| data::trade(spec, t, None)).collect();
    }
    let mut merged: Vec<(Trade, u64)> = Vec::new();
    for t in trades {
        match merged.last_mut() {
            Some((row, count)) if (row.aggregate, row.price, row.taker) == (t.aggregate, t.price, t.taker) => {
                (row.id, row.qty, *count) = (t.id, row.qty + t.qty, *count + 1);
            }
            _ => merged.push((*t, 1)),
        }
    }
    merged.iter().map(|(t, count)| data::trade(spec, t, Some(*count))).collect()
}

fn flush_book(channel: &mut Channel, base: u64, floor: &mut Floor, at_ns: i64, spoken: &mut BTreeMap<ClientId, u64>) {
    let Some(i) = channel.instrument else { return };
    if channel.bids.is_empty() && channel.asks.is_empty() {
        if at_ns - channel.sent_ns >= floor.config.okx.keep_alive_ms * MS {
            repeat(channel, floor, at_ns, spoken);
        }
        return;
    }
    // A level that came and went between two messages is told too: a book by REST from in between may hold it.
    let rows = |half: BTreeMap<i64, (i64, bool)>| half.into_iter().map(|(p, (q, was))| (p, q, was)).collect();
    let (bids, asks) = (rows(std::mem::take(&mut channel.bids)), rows(std::mem::take(&mut channel.asks)));
    let l = floor.market.listing(i);
    let (last, spec) = (l.update_id.saturating_sub(base), l.spec.clone());
    let sum = if floor.config.okx.checksums { data::checksum(l) } else { 0 };
    let wrong = floor.config.okx.checksums && floor.faults.take("wrong_checksum", &spec.symbol).is_some();
    channel.sums.insert(last, if wrong { sum ^ 1 } else { sum });
    while channel.sums.len() > SUMS_MAX {
        channel.sums.pop_first();
    }
    let frame = DepthFrame { time_ns: at_ns, first: last, last, prev: channel.prev, bids, asks };
    (channel.prev, channel.sent_ns) = (last, at_ns);
    for frame in floor.faults.depth(&channel.arg, &spec.symbol, frame) {
        let sum = channel.sums.get(&frame.last).copied().unwrap_or(0);
        send(channel, floor, "update", &data::change(&spec, &frame, sum), spoken);
    }
}

/// The keep-alive of a quiet book: both numbers equal, nothing changed.
fn repeat(channel: &mut Channel, floor: &mut Floor, at_ns: i64, spoken: &mut BTreeMap<ClientId, u64>) {
    let Some(i) = channel.instrument else { return };
    channel.sent_ns = at_ns;
    let l = floor.market.listing(i);
    let sum = if floor.config.okx.checksums { data::checksum(l) } else { 0 };
    let (seq, spec) = (channel.prev, l.spec.clone());
    let frame = DepthFrame { time_ns: at_ns, first: seq, last: seq, prev: seq, bids: Vec::new(), asks: Vec::new() };
    send(channel, floor, "update", &data::change(&spec, &frame, sum), spoken);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::VenueId;

    #[test]
    fn fills_of_one_order_at_one_price_are_one_row_with_the_last_id() {
        let spec = Spec::parse(VenueId::Okx, "BTC-USDT").unwrap();
        let trade = |id, aggregate, price, qty| Trade {
            instrument: 0,
            time_ns: 1_000_000,
            id,
            price,
            qty,
            taker: Side::Buy,
            aggregate,
            liquidation: false,
        };
        let tape =
            [trade(7, 1, 618_000, 2), trade(8, 1, 618_000, 3), trade(9, 1, 618_001, 1), trade(10, 2, 618_001, 1)];
        let read = |single| -> Vec<(String, String, String)> {
            let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
            let rows = trade_rows(&spec, &tape, single);
            let rows = rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap());
            rows.map(|row| (text(&row, "tradeId"), text(&row, "sz"), text(&row, "count"))).collect()
        };
        let row = |id: &str, size: &str, count: &str| (id.to_owned(), size.to_owned(), count.to_owned());
        assert_eq!(read(false), [row("8", "0.00005", "2"), row("9", "0.00001", "1"), row("10", "0.00001", "1")]);
        assert_eq!(
            read(true),
            [row("7", "0.00002", "-"), row("8", "0.00003", "-"), row("9", "0.00001", "-"), row("10", "0.00001", "-")]
        );
    }
}
