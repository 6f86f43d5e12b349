//! Events become raw facts: partition, mantissas at the symbol's scale, packs of one symbol and kind.
//!
//! Invariant P-1: ticks of one symbol and kind leave in the order in which they came.
//! Invariant P-2: a trade or book whose numbers the stored form does not hold is a dead letter and a gap; no change of a book
//! follows it before the next snapshot that fits.

use std::collections::BTreeMap;

use schemas::fixed::mantissa_at;
use schemas::raw::{
    BookAction, BookUpdate, Books, Clock, Dead, Gap, LinkEvent, Liquidation, Liquidations, Origin, Quote, Quotes, Raw,
    TickerUpdate, Tickers, Trade, Trades, VenueBar, VenueBars,
};
use schemas::subject::partition;
use schemas::wire::Version;
use schemas::{Decimal, Nanos, Notional, Price, PriceM, Qty, QtyM, Scale};

use crate::event::{self, Event};
use crate::session::Missing;

/// Packs that wait empty for their next use; what is spoken of at once are those of one flush.
const SPARE_MAX: usize = 64;

/// Gathers events of one venue into packs.
#[derive(Debug)]
pub struct Packer {
    venue: String,
    partitions: u32,
    ticks_max: usize,
    /// Which of the two trade tapes is stored.
    aggregates: bool,
    /// Trades are numbered by us; the venue's ids are stored beside.
    venue_ids: bool,
    /// Place in `symbols` by name.
    names: BTreeMap<event::Symbol, usize>,
    symbols: Vec<Symbol>,
    /// The symbol of the last tick; the next is often of the same.
    newest: usize,
    /// Which packs are open, in the order in which they were begun.
    open: Vec<(usize, Kind)>,
    spare_trades: Vec<Raw>,
    spare_quotes: Vec<Raw>,
}

#[derive(Debug)]
struct Symbol {
    name: event::Symbol,
    p: u32,
    scale: Scale,
    /// The open packs, by kind.
    packs: [Option<Raw>; KINDS],
    /// Since when the book has no stored form, and why: until its next snapshot that fits.
    unfit_book: Option<(Nanos, String)>,
}

/// One event on its way into a pack: what it is, and the numbers that its scale must hold.
enum Tick<'a> {
    Trade(&'a event::Trade),
    Quote(&'a event::Bbo),
    Book(&'a event::Book),
    Ticker(TickerUpdate),
    Bar(VenueBar),
    Liquidation(Liquidation),
}

impl Packer {
    /// `ticks_max`: 1 to 256.
    pub fn new(venue: &str, partitions: u32, ticks_max: usize, aggregates: bool) -> Self {
        Self {
            venue: venue.to_owned(),
            partitions,
            ticks_max,
            aggregates,
            venue_ids: false,
            names: BTreeMap::new(),
            symbols: Vec::new(),
            newest: 0,
            open: Vec::new(),
            spare_trades: Vec::new(),
            spare_quotes: Vec::new(),
        }
    }

    /// Stores the venue's own trade ids beside ours.
    pub fn with_venue_ids(mut self, wanted: bool) -> Self {
        self.venue_ids = wanted;
        self
    }

    /// The digits of an instrument; data with more widens them.
    pub fn instrument(&mut self, symbol: &str, scale: Scale) {
        let at = self.place(symbol);
        let known = &mut self.symbols[at].scale;
        *known = Scale { price: known.price.max(scale.price), qty: known.qty.max(scale.qty) };
    }

    /// Gives a fact back whose bytes were taken: its columns serve a later pack.
    pub fn reuse(&mut self, fact: Raw) {
        match &fact {
            Raw::Trades(_) if self.spare_trades.len() < SPARE_MAX => self.spare_trades.push(fact),
            Raw::Quotes(_) if self.spare_quotes.len() < SPARE_MAX => self.spare_quotes.push(fact),
            _ => {}
        }
    }

    fn place(&mut self, symbol: &str) -> usize {
        if self.symbols.get(self.newest).is_none_or(|s| s.name != symbol) {
            self.newest = match self.names.get(symbol) {
                Some(at) => *at,
                None => {
                    let p = partition(&self.venue, symbol, self.partitions);
                    let packs = [const { None }; KINDS];
                    let scale = Scale::default();
                    self.symbols.push(Symbol { name: symbol.into(), p, scale, packs, unfit_book: None });
                    self.names.insert(symbol.into(), self.symbols.len() - 1);
                    self.symbols.len() - 1
                }
            };
        }
        self.newest
    }

    /// Adds an event read at `recv`; packs that it fills, or that it does not fit in, are appended to `out`. What
    /// is not public market data is passed over.
    pub fn take(&mut self, recv: Nanos, event: &Event, out: &mut Vec<Raw>) {
        let (symbol, tick) = match event {
            Event::Trade(t) if t.aggregate.is_some() == self.aggregates => (&t.symbol, Tick::Trade(t)),
            Event::Trade(_) => return,
            Event::Bbo(b) => (&b.symbol, Tick::Quote(b)),
            Event::Book(b) if self.follows_unfit(b) => return,
            Event::Book(b) => (&b.symbol, Tick::Book(b)),
            Event::Ticker(t) => (&t.symbol, Tick::Ticker(ticker(t, recv))),
            Event::Mark(m) => (&m.symbol, Tick::Ticker(mark(m, recv))),
            Event::Index { symbol, price, ts } => {
                let index = Some(Price::new(*price));
                (symbol, Tick::Ticker(TickerUpdate { ts_ns: ts.0, recv_ns: recv.0, index, ..TickerUpdate::default() }))
            }
            Event::Funding(f) => (&f.symbol, Tick::Ticker(funding(f, recv))),
            Event::FundingOutlook { symbol, rate, due, .. } => {
                let update = TickerUpdate {
                    ts_ns: recv.0,
                    recv_ns: recv.0,
                    funding_rate: rate.map(Price::new),
                    next_funding_ns: due.map(|at| at.0),
                    ..TickerUpdate::default()
                };
                (symbol, Tick::Ticker(update))
            }
            Event::OpenInterest { symbol, size, ts, .. } => {
                let open_interest = Some(Qty::new(*size));
                (
                    symbol,
                    Tick::Ticker(TickerUpdate {
                        ts_ns: ts.0,
                        recv_ns: recv.0,
                        open_interest,
                        ..TickerUpdate::default()
                    }),
                )
            }
            Event::Bar(b) => (&b.symbol, Tick::Bar(bar(b, recv))),
            Event::Liquidation(l) => (&l.symbol, Tick::Liquidation(liquidation(l, recv))),
            Event::Order(_) | Event::Fill(_) | Event::Balance { .. } => return,
            Event::Control(_) | Event::Error { .. } | Event::Ignored { .. } | Event::Other(_) | Event::Malformed(_) => {
                return;
            }
            // A link's fact, where the venue is heard ([`crate::session::Action::Status`]).
            Event::Status(_) => return,
        };
        if let Err(why) = self.add(symbol, recv, tick, out) {
            self.dead(recv, &why, &format!("{event:?}"), out);
            self.unfit(recv, event, why, out);
        }
    }

    /// A change behind a book that has no stored form.
    fn follows_unfit(&mut self, book: &event::Book) -> bool {
        let at = self.place(&book.symbol);
        book.action == BookAction::Update && self.symbols[at].unfit_book.is_some()
    }

    /// What is missing because its numbers do not fit: a trade, one top of a book, or a book until its next snapshot.
    fn unfit(&mut self, recv: Nanos, event: &Event, reason: String, out: &mut Vec<Raw>) {
        let (symbol, channel, from, lasts) = match event {
            Event::Trade(t) => (&t.symbol, "trade", t.ts, false),
            Event::Book(b) => (&b.symbol, "book", b.ts.unwrap_or(recv), !b.partial),
            _ => return,
        };
        let at = self.place(symbol);
        if lasts {
            if self.symbols[at].unfit_book.is_some() {
                return;
            }
            self.symbols[at].unfit_book = Some((from, reason.clone()));
        }
        let to = (!lasts).then_some(from);
        self.gap(&Missing { symbol: symbol.to_string(), channel, from, to, reason }, out);
    }

    /// A snapshot that fits ends the gap of those that did not.
    fn fits_again(&mut self, at: usize, recv: Nanos, tick: &Tick, out: &mut Vec<Raw>) {
        let Tick::Book(b) = tick else { return };
        if !b.partial
            && let Some((from, reason)) = self.symbols[at].unfit_book.take()
        {
            let (symbol, to) = (b.symbol.to_string(), Some(b.ts.unwrap_or(recv).max(from)));
            self.gap(&Missing { symbol, channel: "book", from, to, reason }, out);
        }
    }

    fn add(&mut self, symbol: &str, recv: Nanos, tick: Tick, out: &mut Vec<Raw>) -> Result<(), String> {
        let at = self.place(symbol);
        let known = &mut self.symbols[at];
        let scale = tick.widen(known.scale);
        tick.fits(scale)?;
        known.scale = scale;
        self.fits_again(at, recv, &tick, out);
        let kind = tick.kind();
        // More digits begin a pack of their own, and so does another way of having come here.
        let goes_into = |pack: &Raw| scale_of(pack) == scale && tick.same_origin(pack);
        if !self.symbols[at].packs[kind as usize].as_ref().is_some_and(goes_into) {
            self.close(at, kind, out);
            self.begin(at, &tick, scale);
            self.open.push((at, kind));
        }
        let venue_ids = self.venue_ids;
        let slot = &mut self.symbols[at].packs[kind as usize];
        let ticks = tick.put(recv, scale, venue_ids, slot.as_mut().expect("Invariant: was put there above"));
        if ticks == self.ticks_max {
            self.close(at, kind, out);
        }
        Ok(())
    }

    fn begin(&mut self, at: usize, tick: &Tick, scale: Scale) {
        let Symbol { name, p, packs, .. } = &mut self.symbols[at];
        let slot = &mut packs[tick.kind() as usize];
        let (p, venue, symbol) = (*p, self.venue.as_str(), name.as_str());
        *slot = match tick {
            Tick::Trade(_) => self.spare_trades.pop(),
            Tick::Quote(_) => self.spare_quotes.pop(),
            _ => None,
        };
        match slot {
            Some(Raw::Trades(pack)) => {
                pack.renew(p, venue, symbol, scale);
                pack.origin = tick.origin();
                return;
            }
            Some(Raw::Quotes(pack)) => return pack.renew(p, venue, symbol, scale),
            _ => {}
        }
        *slot = Some(match tick {
            Tick::Trade(_) => Raw::Trades(Trades { origin: tick.origin(), ..Trades::new(p, venue, symbol, scale) }),
            Tick::Quote(_) => Raw::Quotes(Quotes::new(p, venue, symbol, scale)),
            Tick::Book(_) => Raw::Books(Books::new(p, venue, symbol, scale)),
            Tick::Ticker(_) => Raw::Tickers(Tickers::new(p, venue, symbol, scale)),
            Tick::Bar(_) => Raw::Bars(VenueBars::new(p, venue, symbol, scale)),
            Tick::Liquidation(_) => Raw::Liquidations(Liquidations::new(p, venue, symbol, scale)),
        });
    }

    /// Writes a pack if it is open.
    fn close(&mut self, at: usize, kind: Kind, out: &mut Vec<Raw>) {
        if let Some(begun) = self.open.iter().position(|open| *open == (at, kind)) {
            self.open.remove(begun);
            if let Some(pack) = self.symbols[at].packs[kind as usize].take() {
                out.push(pack);
            }
        }
    }

    /// Writes all open packs.
    pub fn flush(&mut self, out: &mut Vec<Raw>) {
        for (at, kind) in self.open.drain(..) {
            if let Some(pack) = self.symbols[at].packs[kind as usize].take() {
                out.push(pack);
            }
        }
    }

    /// Closed candles of one symbol that were asked for, oldest first, read at `recv`.
    pub fn history(&mut self, recv: Nanos, bars: &[event::Bar], out: &mut Vec<Raw>) {
        self.flush(out);
        let Some(first) = bars.first() else { return };
        let at = self.place(&first.symbol);
        let (p, scale) = (self.symbols[at].p, self.symbols[at].scale);
        for some in bars.chunks(self.ticks_max) {
            let mut pack = VenueBars::new(p, &self.venue, &first.symbol, scale);
            let asked = |b: &event::Bar| VenueBar {
                ts_ns: b.close_ts.unwrap_or(b.open_ts).0,
                closed: true,
                origin: Origin::Backfill,
                ..bar(b, recv)
            };
            pack.items.extend(some.iter().map(asked));
            out.push(Raw::Bars(pack));
        }
    }

    /// A gap, behind everything that came before it.
    pub fn gap(&mut self, missing: &Missing, out: &mut Vec<Raw>) {
        self.flush(out);
        out.push(Raw::Gap(Gap {
            v: Version,
            venue: self.venue.clone(),
            symbol: missing.symbol.clone(),
            p: partition(&self.venue, &missing.symbol, self.partitions),
            channel: missing.channel.to_owned(),
            from_ns: missing.from.0,
            to_ns: missing.to.map(|to| to.0),
            reason: missing.reason.clone(),
        }));
    }

    /// A clock in every partition, behind everything that came before it.
    pub fn clock(&mut self, watermark: Nanos, wall: Nanos, out: &mut Vec<Raw>) {
        self.flush(out);
        out.extend((0..self.partitions).map(|p| {
            Raw::Clock(Clock { v: Version, venue: self.venue.clone(), p, watermark_ns: watermark.0, wall_ns: wall.0 })
        }));
    }

    /// A frame that was not understood.
    pub fn dead(&self, recv: Nanos, reason: &str, frame: &str, out: &mut Vec<Raw>) {
        out.push(Raw::Dead(Dead {
            v: Version,
            venue: self.venue.clone(),
            recv_ns: recv.0,
            reason: reason.to_owned(),
            frame: frame.to_owned(),
        }));
    }

    /// A connection made or lost, or a recording begun or finished.
    pub fn link(&self, link: &str, wall: Nanos, event: &str, reason: &str, count: u64, out: &mut Vec<Raw>) {
        out.push(Raw::Link(LinkEvent {
            v: Version,
            venue: self.venue.clone(),
            link: link.to_owned(),
            wall_ns: wall.0,
            event: event.to_owned(),
            reason: reason.to_owned(),
            count,
        }));
    }
}

#[derive(PartialEq, Eq, Clone, Copy, Debug)]
enum Kind {
    Trade,
    Quote,
    Book,
    Ticker,
    Bar,
    Liquidation,
}

const KINDS: usize = Kind::Liquidation as usize + 1;

impl Tick<'_> {
    fn kind(&self) -> Kind {
        match self {
            Tick::Trade(_) => Kind::Trade,
            Tick::Quote(_) => Kind::Quote,
            Tick::Book(_) => Kind::Book,
            Tick::Ticker(_) => Kind::Ticker,
            Tick::Bar(_) => Kind::Bar,
            Tick::Liquidation(_) => Kind::Liquidation,
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Tick::Trade(t) if t.backfill => Origin::Backfill,
            _ => Origin::Live,
        }
    }

    fn same_origin(&self, pack: &Raw) -> bool {
        match pack {
            Raw::Trades(pack) => pack.origin == self.origin(),
            _ => true,
        }
    }

    /// Price and size pairs that are stored as mantissas; the other kinds keep decimals.
    fn each(&self, mut see: impl FnMut(Decimal, Decimal)) {
        match self {
            Tick::Trade(t) => see(t.price, t.size),
            Tick::Quote(q) => q.bid.iter().chain(&q.ask).for_each(|(p, s)| see(*p, *s)),
            Tick::Book(b) => b.bids.iter().chain(&b.asks).for_each(|(p, s)| see(*p, *s)),
            Tick::Ticker(_) | Tick::Bar(_) | Tick::Liquidation(_) => {}
        }
    }

    fn widen(&self, scale: Scale) -> Scale {
        let mut wide = scale;
        self.each(|price, size| wide = wide.widened(price, size));
        wide
    }

    fn fits(&self, scale: Scale) -> Result<(), String> {
        let mut verdict = Ok(());
        self.each(|price, size| {
            if mantissa_at(price, scale.price).is_none() || mantissa_at(size, scale.qty).is_none() {
                verdict =
                    Err(format!("{price} x {size} does not fit 63 bits at {} and {} digits", scale.price, scale.qty));
            }
        });
        verdict
    }

    /// Adds this one to a pack of its kind; how many it holds now.
    fn put(self, recv: Nanos, scale: Scale, venue_ids: bool, pack: &mut Raw) -> usize {
        let pair = |(price, size): (Decimal, Decimal)| (price_m(price, scale), qty_m(size, scale));
        match (pack, self) {
            (Raw::Trades(pack), Tick::Trade(t)) => {
                let (price, size) = pair((t.price, t.size));
                pack.push(Trade { ts: t.ts, recv, id: t.id, price, size, side: t.side });
                if venue_ids {
                    pack.venue_id.push(t.venue_id.as_deref().unwrap_or_default().to_owned());
                }
                pack.len()
            }
            (Raw::Quotes(pack), Tick::Quote(q)) => {
                pack.push(Quote { ts: q.ts.unwrap_or(recv), recv, bid: q.bid.map(pair), ask: q.ask.map(pair) });
                pack.len()
            }
            (Raw::Books(pack), Tick::Book(b)) => {
                let levels =
                    |rows: &[(Decimal, Decimal)]| rows.iter().map(|row| pair(*row)).map(|(p, q)| (p.0, q.0)).collect();
                pack.items.push(BookUpdate {
                    ts_ns: b.ts.unwrap_or(recv).0,
                    recv_ns: recv.0,
                    action: b.action,
                    seq_first: b.seq_first,
                    seq_last: b.seq_last,
                    seq_prev: b.seq_prev,
                    bids: levels(&b.bids),
                    asks: levels(&b.asks),
                });
                pack.items.len()
            }
            (Raw::Tickers(pack), Tick::Ticker(t)) => count(&mut pack.items, t),
            (Raw::Bars(pack), Tick::Bar(b)) => count(&mut pack.items, b),
            (Raw::Liquidations(pack), Tick::Liquidation(l)) => count(&mut pack.items, l),
            _ => unreachable!("Invariant: a tick goes into a pack of its kind"),
        }
    }
}

fn count<T>(items: &mut Vec<T>, item: T) -> usize {
    items.push(item);
    items.len()
}

fn price_m(price: Decimal, scale: Scale) -> PriceM {
    PriceM(mantissa_at(price, scale.price).expect("Invariant: Tick::fits was asked"))
}

fn qty_m(size: Decimal, scale: Scale) -> QtyM {
    QtyM(mantissa_at(size, scale.qty).expect("Invariant: Tick::fits was asked"))
}

/// Of a pack of ticks.
fn scale_of(pack: &Raw) -> Scale {
    match pack {
        Raw::Trades(p) => p.scale,
        Raw::Quotes(p) => p.scale,
        Raw::Books(p) => p.scale,
        Raw::Tickers(p) => p.scale,
        Raw::Bars(p) => p.scale,
        Raw::Liquidations(p) => p.scale,
        Raw::Clock(_) | Raw::Gap(_) | Raw::Link(_) | Raw::Dead(_) => unreachable!("Invariant: a pack of ticks"),
    }
}

fn ticker(t: &event::Ticker, recv: Nanos) -> TickerUpdate {
    let price = |v: Option<Decimal>| v.map(Price::new);
    let qty = |v: Option<Decimal>| v.map(Qty::new);
    TickerUpdate {
        ts_ns: t.ts.unwrap_or(recv).0,
        recv_ns: recv.0,
        last: price(t.last),
        bid: price(t.bid),
        bid_size: qty(t.bid_size),
        ask: price(t.ask),
        ask_size: qty(t.ask_size),
        mark: price(t.mark),
        index: price(t.index.or(t.oracle)),
        funding_rate: price(t.current_funding.or(t.funding_rate)),
        next_funding_ns: None,
        open_interest: qty(t.open_interest),
        volume_24h: qty(t.volume_24h.or(t.volume_base_24h)),
        quote_volume_24h: t.volume_quote_24h.map(Notional::new),
        high_24h: price(t.high_24h),
        low_24h: price(t.low_24h),
        open_24h: price(t.open_24h),
    }
}

fn mark(m: &event::Mark, recv: Nanos) -> TickerUpdate {
    TickerUpdate {
        ts_ns: m.ts.0,
        recv_ns: recv.0,
        mark: Some(Price::new(m.mark)),
        index: m.index.map(Price::new),
        funding_rate: m.funding_rate.map(Price::new),
        next_funding_ns: m.next_funding.map(|t| t.0),
        ..TickerUpdate::default()
    }
}

fn funding(f: &event::Funding, recv: Nanos) -> TickerUpdate {
    TickerUpdate {
        ts_ns: f.ts.0,
        recv_ns: recv.0,
        funding_rate: Some(Price::new(f.rate)),
        next_funding_ns: f.due.or(f.next_due).map(|t| t.0),
        ..TickerUpdate::default()
    }
}

fn bar(b: &event::Bar, recv: Nanos) -> VenueBar {
    VenueBar {
        ts_ns: b.event_ts.unwrap_or(recv).0,
        recv_ns: recv.0,
        interval: b.interval.clone(),
        open_ts_ns: b.open_ts.0,
        open: Price::new(b.open),
        high: Price::new(b.high),
        low: Price::new(b.low),
        close: Price::new(b.close),
        volume: Qty::new(b.volume_base.or(b.volume).unwrap_or_default()),
        // A venue that does not say so sends the bar again while it grows.
        closed: b.closed.unwrap_or(false),
        quote_volume: b.volume_quote.map(Notional::new),
        trades: b.trades,
        origin: Origin::Live,
    }
}

fn liquidation(l: &event::Liquidation, recv: Nanos) -> Liquidation {
    Liquidation { ts_ns: l.ts.0, recv_ns: recv.0, side: l.side, price: Price::new(l.price), size: Qty::new(l.size) }
}

#[cfg(test)]
mod tests;
