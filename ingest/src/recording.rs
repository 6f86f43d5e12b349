//! Recordings as a source: entries of files in time order (`tape`), and the facts that follow from them (`Player`).
//!
//! Invariant R-1: the facts follow from the entries and the options alone. Played again, or killed and played
//! again, a recording gives the same bytes.

use schemas::Nanos;
use schemas::raw::Raw;

use crate::custom::files::Said;
use crate::event::{Event, Frame};
use crate::feed::{Feed, TradeIds, subject_of};
use crate::pack::Packer;
use crate::session::{Action, Limits};
use crate::venue::{Market, Venue};
use crate::watermark::Watermark;

pub mod tape;

pub use tape::{Entry, Form, Rows, Tape, What};

/// What the facts of a recording depend on besides its entries.
#[derive(Clone, Debug)]
pub struct Options {
    pub partitions: u32,
    pub ticks_max: usize,
    /// Which trade tape is stored where a recording holds both.
    pub aggregates: bool,
    pub frames_per_flush: usize,
    pub clock_period_ms: i64,
    pub lateness_ms: i64,
    /// A last clock, a day behind the last event, closes everything that is open.
    pub flush_open: bool,
    pub limits: Limits,
}

/// Folds entries to facts.
pub struct Player {
    venue: Option<(&'static dyn Venue, Market)>,
    options: Options,
    packer: Packer,
    feed: Feed,
    watermark: Watermark,
    /// The next clock is due at this receive time.
    clock_due: Option<Nanos>,
    frames: usize,
    now: Nanos,
    first_event: Option<Nanos>,
    events: Vec<Event>,
    actions: Vec<Action>,
}

impl Player {
    /// `venue` decodes frames; trade files need none. `id` is the venue token of the facts.
    pub fn new(id: &str, venue: Option<(&'static dyn Venue, Market)>, options: Options) -> Self {
        let rule = venue.map_or(crate::book::Rule::Chain, |(venue, market)| venue.book_rule(market));
        let ids = venue.map_or(TradeIds::Consecutive, |(venue, market)| venue.trade_ids(market));
        Self {
            venue,
            packer: Packer::new(id, options.partitions, options.ticks_max, options.aggregates)
                .with_venue_ids(ids == TradeIds::Unordered),
            feed: Feed::new(rule, ids, &options.limits, false),
            watermark: Watermark::new(options.lateness_ms, Nanos(i64::MIN)),
            clock_due: None,
            frames: 0,
            now: Nanos(i64::MIN),
            first_event: None,
            events: Vec::new(),
            actions: Vec::new(),
            options,
        }
    }

    /// The first fact: names the recording, so that a later run finds where it began.
    pub fn begin(&mut self, name: &str, first: Nanos, out: &mut Vec<Raw>) {
        self.now = first;
        self.packer.link("recording", first, "connected", name, 1, out);
    }

    /// The digits of an instrument that is known beforehand.
    pub fn instrument(&mut self, symbol: &str, scale: schemas::Scale) {
        self.packer.instrument(symbol, scale);
    }

    /// Takes the next entry.
    pub fn take(&mut self, entry: Entry<'_>, out: &mut Vec<Raw>) {
        self.now = self.now.max(entry.recv);
        self.clock(out);
        match entry.what {
            What::Frame(frame) => self.frame(entry.recv, entry.symbol, frame, out),
            What::Event(event) => self.event(entry.recv, *event, None, out),
            What::Row { said, line } => {
                for said in said {
                    match said {
                        Said::Event(Event::Bar(bar)) if bar.closed == Some(true) => {
                            if let Some(known) = bar.event_ts {
                                self.first_event.get_or_insert(known);
                                self.watermark.observe(known, entry.recv);
                            }
                            // A candle that was closed elsewhere: aggregate says it as one of its own.
                            self.packer.history(entry.recv, &[*bar], out);
                        }
                        Said::Event(event) => self.event(entry.recv, event, Some(line), out),
                        Said::Gap(missing) => self.packer.gap(&missing, out),
                    }
                }
            }
            What::Bad { reason, line } => self.packer.dead(entry.recv, &reason, line, out),
        }
        self.frames += 1;
        if self.frames >= self.options.frames_per_flush {
            self.frames = 0;
            self.packer.flush(out);
        }
    }

    /// Gives a fact back whose bytes were taken.
    pub fn reuse(&mut self, fact: Raw) {
        self.packer.reuse(fact);
    }

    fn clock(&mut self, out: &mut Vec<Raw>) {
        if self.clock_due.is_some_and(|due| self.now < due) {
            return;
        }
        let period = self.options.clock_period_ms * Nanos::PER_MS;
        let boundary = Nanos(self.now.0.div_euclid(period) * period);
        match self.clock_due {
            None => self.clock_due = Some(boundary.plus_ns(period)),
            Some(due) if boundary >= due => {
                // Silent periods get no clock of their own: the last one says all.
                self.clock_due = Some(boundary.plus_ns(period));
                if let Some(watermark) = self.watermark.at(boundary) {
                    self.frames = 0;
                    self.packer.clock(watermark, boundary, out);
                }
            }
            Some(_) => {}
        }
    }

    fn frame(&mut self, recv: Nanos, symbol: &str, frame: &str, out: &mut Vec<Raw>) {
        let Some((venue, market)) = self.venue else {
            self.packer.dead(recv, "a frame where trades were expected", frame, out);
            return;
        };
        let mut events = std::mem::take(&mut self.events);
        venue.decode(market, Frame::Text(frame), &mut events);
        self.feed.order(&mut events);
        for mut event in events.drain(..) {
            if self.feed.passes(&event) {
                self.say(recv, &event, out);
                continue;
            }
            // A REST book tells no symbol: it is the recording's, or that of the one book that waits for it.
            if let Event::Book(book) = &mut event
                && book.symbol.is_empty()
            {
                let known = if symbol.is_empty() { self.feed.only_waiting_book() } else { Some(symbol.to_owned()) };
                let Some(known) = known else {
                    self.packer.dead(recv, "an order book without a symbol", frame, out);
                    continue;
                };
                book.symbol = known.into();
            }
            self.event(recv, event, Some(frame), out);
        }
        self.events = events;
    }

    fn event(&mut self, recv: Nanos, event: Event, frame: Option<&str>, out: &mut Vec<Raw>) {
        if let Event::Malformed(reason) = &event {
            self.packer.dead(recv, reason, frame.unwrap_or(""), out);
            return;
        }
        if frame.is_none() {
            // Ids of trade files are the collector's affair: a jump is no proof of a gap.
            self.say(recv, &event, out);
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        // What a live session would ask the venue for is in the recording, or nowhere.
        self.feed.take(recv, event, &mut actions, &mut Vec::new());
        for action in actions.drain(..) {
            match action {
                Action::Emit { recv, event } => self.say(recv, &event, out),
                Action::Gap(missing) => self.packer.gap(&missing, out),
                Action::Dead { reason } => self.packer.dead(recv, &reason, frame.unwrap_or(""), out),
                Action::Send(_) | Action::Fetch { .. } | Action::Aside { .. } | Action::Reconnect { .. } => {}
                // A recording's link facts are its beginning and its end: how far it was stored is read from them.
                Action::Stale(_) | Action::Warn(_) | Action::Status(_) => {}
            }
        }
        self.actions = actions;
    }

    fn say(&mut self, recv: Nanos, event: &Event, out: &mut Vec<Raw>) {
        if let Some((_, Some(ts))) = subject_of(event) {
            self.first_event.get_or_insert(ts);
            self.watermark.observe(ts, recv);
        }
        self.packer.take(recv, event, out);
    }

    /// Event time of the first event that had one.
    pub fn first_event(&self) -> Option<Nanos> {
        self.first_event
    }

    /// The last facts.
    pub fn finish(&mut self, name: &str, out: &mut Vec<Raw>) {
        self.packer.flush(out);
        if let (true, Some(newest)) = (self.options.flush_open, self.watermark.newest()) {
            const DAY_NS: i64 = 86_400 * Nanos::PER_SECOND;
            let end = Nanos((newest.0.div_euclid(DAY_NS) + 2) * DAY_NS);
            self.packer.clock(end, self.now, out);
        }
        self.packer.link("recording", self.now, "finished", name, 1, out);
    }
}

#[cfg(test)]
mod tests;
