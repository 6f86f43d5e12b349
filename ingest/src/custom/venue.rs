//! A description at work: a [`Venue`] like those that are built in, and the words of its socket.

use std::sync::Arc;

use schemas::Instrument;

use super::description::{Answer, Channel, Description, Get, How, symbol};
use super::message::About;
use super::polled::Polled;
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Protocol, Topic, cut};
use crate::event::{Bar, Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::rate::Allowance;
use crate::session::{Pace, Plan, Session};
use crate::venue::{Bucket, CONNECT, Endpoints, HistoryPage, Market, REST, Request, Venue, percent};

/// A venue by description. It lives as long as the process: see [`super::register`].
#[derive(Debug)]
pub struct Described {
    id: &'static str,
    markets: &'static [Market],
    buckets: &'static [Bucket],
    pub description: Arc<Description>,
}

impl Described {
    /// `id`, the buckets and the market are leaked: whoever registers bounds how often.
    pub(super) fn leak(id: &str, description: Description) -> &'static Self {
        let id: &'static str = Box::leak(id.to_owned().into_boxed_str());
        let limits = &description.limits;
        let minute = |name, weight| {
            let stated = Some(Allowance { weight, window_ms: 60_000 });
            Bucket { stated, ..Bucket::new(name) }
        };
        let buckets = [minute(REST, limits.requests_per_minute), minute(CONNECT, limits.connects_per_minute)];
        Box::leak(Box::new(Self {
            id,
            markets: Box::leak(Box::new([Market { name: "default", id }])),
            buckets: Box::leak(Box::new(buckets)),
            description: Arc::new(description),
        }))
    }

    pub fn market(&self) -> Market {
        self.markets[0]
    }

    fn channel(&self, name: &str) -> Option<&Channel> {
        self.description.channels.iter().find(|c| c.name == name)
    }
}

impl Venue for Described {
    fn id(&self) -> &'static str {
        self.id
    }
    fn markets(&self) -> &'static [Market] {
        self.markets
    }
    fn decode(&self, _market: Market, frame: Frame<'_>, out: &mut Vec<Event>) {
        match frame.text() {
            Ok(text) => drop(self.description.decode(text, About::default(), out)),
            Err(why) => out.push(Event::Malformed(why)),
        }
    }
    fn book_rule(&self, _market: Market) -> Rule {
        self.description.book.rule
    }
    fn trade_ids(&self, _market: Market) -> TradeIds {
        self.description.common.ids.rule()
    }
    fn endpoints(&self, _market: Market, test: bool) -> Endpoints {
        let c = &self.description.connect;
        let of =
            |own: &str, test_own: &str| if test && !test_own.is_empty() { test_own.to_owned() } else { own.to_owned() };
        Endpoints { ws: of(&c.url, &c.test_url), rest: of(&c.rest, &c.test_rest) }
    }
    fn buckets(&self, _market: Market) -> &'static [Bucket] {
        self.buckets
    }
    fn stated_pace(&self) -> Option<Pace> {
        let limits = &self.description.limits;
        Some(Pace {
            // Rounded up: never more than the venue takes.
            send_spacing_ms: (999 + limits.messages_per_s) / limits.messages_per_s,
            topics_max: limits.topics_max,
            ping_ms: self.description.ping.as_ref().map_or(0, |(every_ms, _)| *every_ms),
            quiet_ms: limits.quiet_ms,
        })
    }
    fn instrument_requests(&self, _market: Market, _symbols: &[String]) -> Vec<Request> {
        Vec::new()
    }
    fn decode_instruments(&self, _market: Market, _body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
        Err("a described venue states its instruments itself, under [instruments]".to_owned())
    }
    fn stated_instruments(&self, _market: Market, symbols: &[String]) -> Option<Vec<Instrument>> {
        Some(symbols.iter().map(|symbol| self.description.instrument(self.id, symbol)).collect())
    }
    fn history_request(&self, _market: Market, page: HistoryPage<'_>) -> Option<Request> {
        let history = self.description.history.as_ref()?;
        let (_, theirs) = history.widths.iter().find(|(width, _)| *width == page.timeframe)?;
        request(&self.description, &history.get, page.symbol, |place| match place {
            "width" => Some(percent(theirs)),
            "before_ms" => Some(page.before.as_ms().to_string()),
            "before_s" => Some((page.before.as_ms() / 1000).to_string()),
            "limit" => Some(page.limit.to_string()),
            _ => None,
        })
    }
    fn decode_history(&self, _market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
        let mut bars = Vec::new();
        for event in answer(&self.description, "history", page.symbol, body)? {
            match event {
                // A venue may count the candle that opens at the bound among those before it.
                Event::Bar(bar) if bar.open_ts >= page.before => {}
                Event::Bar(mut bar) => {
                    if bar.interval.is_empty() {
                        bar.interval = page.timeframe.to_string();
                    }
                    bars.push(*bar);
                }
                Event::Other(_) => {}
                other => return Err(format!("a candle was asked for: {other:?}")),
            }
        }
        bars.sort_by_key(|bar| bar.open_ts);
        Ok(bars)
    }
    fn check_channel(&self, _market: Market, channel: &str) -> Result<(), String> {
        if self.channel(channel).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.description.channels.iter().map(|c| c.name.as_str()).collect();
        Err(match known[..] {
            [] => "the description has no [[channel]]: it is read from files".to_owned(),
            _ => format!("the description's channels are {}", known.join(", ")),
        })
    }
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>> {
        let mut plan = plan.clone();
        let depth = self.description.book.depth;
        if depth > 0 {
            // What falls behind the venue's depth is not deleted by it: we forget it ourselves.
            let levels = &mut plan.limits;
            levels.book_levels = if levels.book_levels == 0 { depth } else { levels.book_levels.min(depth) };
            levels.book_levels_kept_max = depth;
        }
        let places = |polled: bool| -> Vec<usize> {
            let channels = self.description.channels.iter().enumerate();
            let mine = channels
                .filter(|(_, c)| plan.channels.contains(&c.name) && matches!(c.how, How::Poll { .. }) == polled);
            mine.map(|(n, _)| n).collect()
        };
        let (rule, ids) = (self.book_rule(market), self.trade_ids(market));
        let words = Words { description: Arc::clone(&self.description), channels: places(false) };
        let mut sessions: Vec<Box<dyn Session>> = Vec::new();
        for (symbols, topics) in cut(&plan.symbols, |symbol| words.topics(symbol), Vec::new(), plan.pace.topics_max) {
            let number = sessions.len();
            sessions.push(Box::new(Connection::new(words.clone(), number, &plan, rule, ids, &symbols, topics)));
        }
        let polled = places(true);
        if !polled.is_empty() && !plan.symbols.is_empty() {
            let number = sessions.len();
            sessions.push(Box::new(Polled::new(Arc::clone(&self.description), number, &plan, rule, ids, polled)));
        }
        sessions
    }
}

/// A request about a symbol; `more` knows the places that stand for no symbol.
pub(super) fn request(
    description: &Description,
    get: &Get,
    ours: &str,
    more: impl Fn(&str) -> Option<String>,
) -> Option<Request> {
    let theirs = description.common.symbols.theirs(ours);
    let path = get.path.fill(|place| match more(place) {
        Some(text) => Ok(text),
        None => symbol(place, theirs).map(|text| percent(&text)),
    });
    // Unknown places were refused when the description was read.
    Some(Request::get(path.ok()?).weight(get.weight))
}

/// What an answer says; the error is what of it was not understood.
pub(super) fn answer(description: &Description, channel: &str, ours: &str, body: &str) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    description.decode(body, About { channel, symbol: Some(ours) }, &mut events);
    let wrong = events.iter().find_map(|event| match event {
        Event::Malformed(why) => Some(why.clone()),
        Event::Error { message, .. } => Some(format!("the venue refused: {message}")),
        _ => None,
    });
    wrong.map_or(Ok(events), Err)
}

/// The words of the socket.
#[derive(Clone)]
struct Words {
    description: Arc<Description>,
    /// Places of the channels that are wanted and come on a socket.
    channels: Vec<usize>,
}

impl Words {
    /// Topics with the place of their channel.
    fn of(&self, ours: &str) -> Vec<(usize, Topic)> {
        let theirs = self.description.common.symbols.theirs(ours);
        let topic = |n: &usize| {
            let channel = &self.description.channels[*n];
            let How::Topic { topic, .. } = &channel.how else { return None };
            Some((*n, Topic::new(ours, channel.carries, self.description.topic(topic, theirs))))
        };
        self.channels.iter().filter_map(topic).collect()
    }

    /// Topics whose channel has a request of its own go with it; the others together.
    fn own(&self, topic: &Topic, on: bool) -> Option<(usize, &super::value::Template)> {
        let (n, _) = self.of(&topic.symbol).into_iter().find(|(_, t)| t.text == topic.text)?;
        let How::Topic { subscribe, unsubscribe, .. } = &self.description.channels[n].how else { return None };
        let own = if on { subscribe } else { unsubscribe };
        Some((n, own.as_ref()?))
    }
}

impl Protocol for Words {
    fn group(&self) -> &'static str {
        "stream"
    }

    fn path(&self) -> String {
        self.description.connect.path.clone()
    }

    fn ping(&self) -> Option<String> {
        self.description.ping.as_ref().map(|(_, text)| text.clone())
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        self.of(symbol).into_iter().map(|(_, topic)| topic).collect()
    }

    fn hello(&mut self, _ids: &mut Ids) -> Vec<Call> {
        self.description.connect.hello.iter().map(Call::unanswered).collect()
    }

    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let Some(common) = &self.description.subscribe else { return Vec::new() };
        let usual = if on { &common.message } else { &common.unsubscribe };
        let (alone, together): (Vec<&Topic>, Vec<&Topic>) = topics.iter().partition(|t| self.own(t, on).is_some());
        let alone = alone.chunks(1).map(|one| (self.own(one[0], on).map_or(usual, |(_, own)| own), one));
        let together = together.chunks(common.topics_per_message).map(|batch| (usual, batch));
        let mut calls = Vec::new();
        for (message, batch) in alone.chain(together) {
            let id = ids.take();
            let theirs = |t: &Topic| self.description.common.symbols.theirs(&t.symbol).to_owned();
            let pairs: Vec<(String, String)> = batch.iter().map(|t| (t.text.clone(), theirs(t))).collect();
            // It was filled in once when the description was read.
            let Ok(text) = self.description.request(message, id, &pairs) else { continue };
            let batch: Vec<Topic> = batch.iter().map(|t| (*t).clone()).collect();
            calls.push(match common.answer {
                Answer::Id => Call::by_id(id, text, &batch),
                Answer::Topic => Call::by_topic(text, &batch),
                Answer::Nothing => Call::unanswered(text),
            });
        }
        calls
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        match frame.text() {
            Ok(text) => drop(self.description.decode(text, About::default(), out)),
            Err(why) => out.push(Event::Malformed(why)),
        }
    }

    fn book(&mut self, _ids: &mut Ids, symbol: &str) -> BookSource {
        let get = self.description.book.snapshot.as_ref();
        match get.and_then(|get| request(&self.description, get, symbol, |_| None)) {
            Some(request) => BookSource::Rest(request),
            None => BookSource::Resubscribe,
        }
    }

    fn decode_book(&self, symbol: &str, body: &str) -> Result<Event, String> {
        let mut events = answer(&self.description, "snapshot", symbol, body)?;
        match events.pop() {
            Some(Event::Book(mut book)) if events.is_empty() => {
                book.symbol = symbol.into();
                Ok(Event::Book(book))
            }
            other => Err(format!("not an order book: {other:?}")),
        }
    }

    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request> {
        let get = self.description.backfill.as_ref()?;
        request(&self.description, get, symbol, |place| match place {
            "after" => Some(after.to_string()),
            "next" => Some(after.saturating_add(1).to_string()),
            _ => None,
        })
    }

    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        let mut trades = trades(answer(&self.description, "backfill", symbol, body)?)?;
        trades.sort_by_key(|t| (t.id, t.ts));
        Ok(trades)
    }
}

/// The trades of an answer that must hold nothing else.
pub(super) fn trades(events: Vec<Event>) -> Result<Vec<Trade>, String> {
    events
        .into_iter()
        .filter(|event| !matches!(event, Event::Other(_)))
        .map(|event| match event {
            Event::Trade(trade) => Ok(trade),
            other => Err(format!("trades were asked for: {other:?}")),
        })
        .collect()
}

/// Whether a channel's answers are trades.
pub(super) fn carries_trades(channel: &Channel) -> bool {
    channel.carries == Carries::Trades
}
