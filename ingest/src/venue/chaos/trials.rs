//! Trials that every venue goes through: what happens, what is published, what is marked, how long until all is whole. A
//! venue's own tests say with what they are held, and what differs there.

use std::time::Duration;

use tokio::time::Instant;

use super::{BOUND, Books, Chaos, Fault, Seen, Trial};

/// From the loss of every connection, or of a book, until all is whole: back-off of at most 200 ms an attempt, connections at
/// the venue's pace, subscriptions, REST, a quiet of up to 10 s where the venue asks for one; the rest is for a busy machine.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// Quiet after a 429 that does not say for how long (`pace.quiet_ms` of the venues that are tried).
pub const QUIET_MS: u64 = 10_000;
/// Changes of a book that are awaited to see that it goes on.
const CHANGES: usize = 10;
/// Trades that are awaited to see that they go on.
const TRADES: usize = 20;

/// Trades that were asked for afterwards.
fn fetched(seen: &Seen, symbol: &str) -> usize {
    seen.trades_of(symbol).iter().filter(|t| t.backfill).count()
}

fn connected(seen: &Seen) -> usize {
    seen.links.iter().filter(|(event, _)| *event == "connected").count()
}

/// Faults by their names.
pub fn faults<const N: usize>(kinds: [&str; N]) -> [Fault; N] {
    kinds.map(Fault::new)
}

impl Chaos {
    /// Whole, with some trades and every book.
    pub async fn following(trial: Trial) -> Self {
        let mut chaos = Self::start(trial).await;
        let (symbol, started) = (chaos.symbol(), chaos.next_books());
        let begun = |s: &Seen| s.is_whole() && started(s) && s.trades_of(symbol).len() > trial.trades_min;
        chaos.until("a whole start", begun).await;
        chaos
    }

    fn symbol(&self) -> &'static str {
        self.trial.symbols[0]
    }

    /// What it looks like when every book has started once more, and no gap of one is open.
    fn next_books(&mut self) -> impl Fn(&Seen) -> bool + use<> {
        self.starts += 1;
        let (trial, starts) = (self.trial, self.starts);
        let before = self.seen.snapshots(self.symbol());
        let started = move |snapshots: usize| match trial.books {
            Books::None => snapshots == 0,
            Books::Once => snapshots == starts,
            Books::AtLeastOnce => snapshots >= starts,
            Books::Always => snapshots > before + 2,
        };
        move |seen| trial.symbols.iter().all(|s| started(seen.snapshots(s)) && seen.open_gaps(s, "book") == 0)
    }

    /// Every connection was lost `times` times.
    pub async fn lost(&mut self, times: usize) {
        let aim = times * self.trial.sockets;
        self.until("the loss of every connection", |s| s.lost() == aim).await;
    }

    /// Every book has started once more.
    pub async fn books_again(&mut self) {
        let started = self.next_books();
        self.within(WHOLE_WITHIN, "new books", started).await;
    }

    /// All data is complete, and every book has started once more.
    pub async fn whole_again(&mut self) {
        let started = self.next_books();
        self.within(WHOLE_WITHIN, "whole again", |s| s.is_whole() && started(s)).await;
    }

    /// The book goes on.
    pub async fn changes(&mut self) {
        let symbol = self.symbol();
        let aim = self.seen.books[symbol].updates + CHANGES;
        self.until("more changes", |s| s.books[symbol].updates >= aim).await;
    }

    /// A fault of the books that is none for us: no gap, and changes go on.
    pub async fn harmless(&mut self, fault: Fault) {
        let (kind, before, gaps) = (fault.kind.clone(), self.struck(&fault.kind), self.seen.gaps.len());
        self.fault(fault);
        let end = Instant::now() + BOUND;
        while self.struck(&kind) == before {
            self.step(end, &kind).await;
        }
        self.changes().await;
        assert_eq!(self.seen.gaps.len(), gaps, "{kind}: {:?}", self.seen.gaps);
    }

    /// A fault that breaks every book: told as a gap that another start ends.
    pub async fn restarts(&mut self, fault: Fault) {
        let trial = self.trial;
        let told = move |seen: &Seen| trial.symbols.iter().map(|s| seen.gaps_of(s, "book").len()).min();
        let before = told(&self.seen);
        self.fault(fault);
        self.until("the gap", |s| told(s) > before).await;
        self.books_again().await;
    }

    /// The same, and changes go on.
    pub async fn breaks(&mut self, fault: Fault) {
        self.restarts(fault).await;
        self.changes().await;
    }

    /// A fault that spoils a frame of trades: it is a dead letter, and what it held is asked for.
    pub async fn spoils(&mut self, fault: Fault) {
        let symbol = self.symbol();
        let (dead, before) = (self.seen.dead.len(), fetched(&self.seen, symbol));
        self.fault(fault);
        self.until("the dead letter", |s| s.dead.len() == dead + 1).await;
        let good = |s: &Seen| s.is_whole() && fetched(s, symbol) > before;
        self.within(WHOLE_WITHIN, "the trades that it held", good).await;
    }

    /// A fault for which every connection is given up, with a reason that says `why`; then nothing is missing.
    pub async fn given_up(mut self, fault: Fault, why: &str) -> Seen {
        self.fault(fault);
        self.lost(1).await;
        self.whole_again().await;
        let sockets = self.trial.sockets;
        let seen = self.ends_well().await;
        let given_up = seen.links.iter().filter(|(event, reason)| *event == "lost" && reason.contains(why)).count();
        assert_eq!(given_up, sockets, "{:?}", seen.links);
        seen
    }

    /// What was asked for by the last fault took at least as long as the venue wants to be left alone.
    pub fn assert_waited(&self, quiet_ms: u64) {
        let passed = self.since.elapsed();
        assert!(passed >= Duration::from_millis(quiet_ms), "whole after {passed:?}, quiet was asked for {quiet_ms} ms");
    }

    /// Ends behind some more trades: nothing is missing, nothing came twice, no book was published across a gap.
    pub async fn ends_well(mut self) -> Seen {
        self.trades(self.symbol(), TRADES).await;
        let trial = self.trial;
        let seen = self.end().await;
        trial.symbols.iter().for_each(|symbol| (trial.complete)(&seen, symbol));
        seen.assert_books_are_sound();
        seen
    }
}

/// As many losses of every connection are told, each from the last event to the first behind it, and no trade is missing.
fn assert_link_gaps(trial: Trial, seen: &Seen, losses: usize) {
    for symbol in trial.symbols {
        let gaps = seen.gaps_of(symbol, "link");
        let ended = gaps.iter().filter(|gap| gap.to.is_some_and(|to| to >= gap.from)).count();
        let open = gaps.iter().filter(|gap| gap.to.is_none()).count();
        let all = losses * trial.sockets;
        assert_eq!((open, ended, seen.gaps_of(symbol, "trade").len()), (all, all, 0), "{symbol}: {:?}", seen.gaps);
    }
}

/// The connections end without a close frame: told as link gaps, and the trades between are fetched.
pub async fn cut(trial: Trial) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new("cut"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    assert_link_gaps(trial, &seen, 1);
    seen
}

/// The sockets live and bring nothing: they are given up after a second, and nothing is missing.
pub async fn silence(trial: Trial) -> Seen {
    let quick = Trial { limits: |limits| limits.idle_timeout_ms = 1000, ..trial };
    Chaos::following(quick).await.given_up(Fault::new("silence"), "idle").await
}

/// Our ping is not answered: the connection is given up although its data flows. The session pings every 20 s.
pub async fn unanswered_ping(trial: Trial) -> Seen {
    let quick = Trial { limits: |limits| limits.ack_timeout_ms = 1000, ..trial };
    Chaos::following(quick).await.given_up(Fault::new("no_pong"), "no answer to a request").await
}

/// The venue's ping wants an answer within half a second: it gets one, and the connection lives.
pub async fn answered_ping(trial: Trial, kind: &str) {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new(kind).ms(500));
    let answered_by = Instant::now() + Duration::from_secs(1);
    while Instant::now() < answered_by {
        chaos.trades(chaos.symbol(), TRADES).await;
    }
    let seen = chaos.ends_well().await;
    assert_eq!((seen.lost(), seen.gaps.len()), (0, 0), "{:?}", seen.links);
}

/// Attempts fail while it backs off: still one gap from the loss to the first event behind it. Then it is lost again and again
/// as soon as a connection is back, when others still wait and nothing was subscribed: no hole stays.
pub async fn back_off(trial: Trial) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new("turn_away").count(3));
    chaos.fault(Fault::new("close"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    chaos.trades(chaos.symbol(), TRADES).await;
    assert_eq!(chaos.struck("turn_away"), 3);
    assert_link_gaps(trial, &chaos.seen, 1);
    for kind in ["cut", "close", "cut"] {
        let before = (chaos.seen.lost(), connected(&chaos.seen));
        chaos.fault(Fault::new("turn_away").count(2));
        chaos.fault(Fault::new(kind));
        chaos.until("the loss", |s| s.lost() > before.0).await;
        chaos.until("one is back", |s| connected(s) > before.1).await;
    }
    let healed = |s: &Seen| trial.symbols.iter().all(|n| s.open_gaps(n, "link") + s.open_gaps(n, "book") == 0);
    chaos.within(WHOLE_WITHIN, "whole again", |s| s.is_whole() && healed(s)).await;
    let seen = chaos.ends_well().await;
    assert!(fetched(&seen, trial.symbols[0]) > 0, "{:?}", seen.trades);
    for symbol in trial.symbols {
        assert_eq!((seen.gaps_of(symbol, "trade").len(), seen.open_gaps(symbol, "link")), (0, 0), "{:?}", seen.gaps);
    }
    seen
}

/// Faults of the books one after the other: those that are none for us, then those that break one, all on one connection.
pub async fn books(
    trial: Trial,
    harmless: impl IntoIterator<Item = Fault>,
    breaking: impl IntoIterator<Item = Fault>,
) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    for fault in harmless {
        chaos.harmless(fault).await;
    }
    for fault in breaking {
        chaos.breaks(fault).await;
    }
    let seen = chaos.ends_well().await;
    assert_eq!(seen.lost(), 0, "on the same connection: {:?}", seen.links);
    seen
}

/// A snapshot that is older than the changes that wait, among them, or newer: the book starts all the same.
pub async fn snapshots(trial: Trial) {
    for (kind, ms) in [("snapshot_older", 0), ("snapshot_inside", 300), ("snapshot_newer", 300)] {
        let mut chaos = Chaos::following(Trial { books: Books::AtLeastOnce, ..trial }).await;
        chaos.fault(Fault::new(kind).ms(ms));
        chaos.breaks(Fault::new("drop_depth")).await;
        assert_eq!(chaos.struck(kind), 1, "{kind}");
        chaos.ends_well().await;
    }
}

/// Frames of trades that cannot be read: each is one dead letter, what it held is fetched, the connection stays.
pub async fn spoiled(trial: Trial, faults: impl IntoIterator<Item = Fault>) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    for fault in faults {
        chaos.spoils(fault).await;
        chaos.trades(chaos.symbol(), TRADES).await;
    }
    let seen = chaos.ends_well().await;
    assert_eq!((seen.lost(), seen.gaps_of(trial.symbols[0], "trade").len()), (0, 0), "{:?}", seen.gaps);
    seen
}

/// A 429 while a book starts again: the venue is left alone as long as it wants, then the book starts.
pub async fn limited_book(trial: Trial, quiet_ms: u64) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.restarts(Fault::new("drop_depth")).await;
    chaos.assert_waited(quiet_ms);
    assert_eq!(chaos.struck("rest_429"), 1);
    chaos.changes().await;
    let seen = chaos.ends_well().await;
    assert_eq!(seen.lost(), 0, "{:?}", seen.links);
    seen
}

/// A 429 while trades are asked for: the venue is left alone as long as it wants, then they come.
pub async fn limited_trades(trial: Trial, spoiling: Fault, quiet_ms: u64) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.spoils(spoiling).await;
    chaos.assert_waited(quiet_ms);
    assert_eq!(chaos.struck("rest_429"), 1);
    let seen = chaos.ends_well().await;
    assert_eq!((seen.lost(), seen.gaps_of(trial.symbols[0], "trade").len()), (0, 0), "{:?}", seen.gaps);
    seen
}

/// A symbol that the venue does not know: a gap of each of `channels` that lasts; the others go on, and nothing else is marked.
pub async fn unknown_symbol(trial: Trial, unknown: &'static str, channels: &[&str]) -> Seen {
    let mut chaos = Chaos::following(Trial { unknown: Some(unknown), ..trial }).await;
    chaos.until("the refusals", |s| channels.iter().all(|channel| s.open_gaps(unknown, channel) == 1)).await;
    let seen = chaos.ends_well().await;
    for channel in channels {
        let gaps = seen.gaps_of(unknown, channel);
        assert!(matches!(gaps[..], [gap] if gap.to.is_none()), "{channel}: {gaps:?}");
    }
    let told = seen.gaps.iter().all(|gap| gap.symbol == unknown && gap.reason.contains("did not subscribe"));
    assert!(told && seen.lost() == 0, "{:?} {:?}", seen.gaps, seen.links);
    seen
}

/// The venue closes, turns connections away for a while, and its REST is behind: outlasted, told as link gaps, nothing missing.
pub async fn maintenance(trial: Trial) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    // Fewer than the tries for trades.
    chaos.fault(Fault::new("rest_503").count(2));
    chaos.fault(Fault::new("turn_away").count(3));
    chaos.fault(Fault::new("close"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    assert_eq!(chaos.struck("turn_away"), 3);
    let seen = chaos.ends_well().await;
    assert_link_gaps(trial, &seen, 1);
    seen
}

/// The venue announces that it will close: every connection is renewed as planned, none is lost.
pub async fn announced(trial: Trial, notice: Fault) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(notice);
    let planned = |s: &Seen| s.links.iter().filter(|(event, _)| *event == "planned_reconnect").count();
    chaos.until("the change", |s| planned(s) == trial.sockets).await;
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    assert_eq!((planned(&seen), seen.lost()), (trial.sockets, 0), "{:?}", seen.links);
    seen
}

/// The venue tells of a maintenance of `part`, and soon of its end: two statuses, and nothing else is marked.
pub async fn told(trial: Trial, notice: Fault, part: &str) {
    fn statuses(seen: &Seen) -> Vec<&str> {
        seen.links.iter().filter(|(event, _)| *event == "status").map(|(_, reason)| reason.as_str()).collect()
    }
    let mut chaos = Chaos::following(trial).await;
    let before = statuses(&chaos.seen).len();
    chaos.fault(notice.ms(300));
    chaos.until("the maintenance and its end", |s| statuses(s).len() >= before + 2).await;
    let seen = chaos.ends_well().await;
    let [down, up] = statuses(&seen)[before..] else { panic!("{:?}", seen.links) };
    let is_down = down.starts_with("maintenance: ") || down.starts_with("offline: ");
    assert!(is_down && up.starts_with("online: ") && down.contains(part) && up.contains(part), "{down}; {up}");
    let marked = (seen.gaps.len(), seen.dead.len(), seen.lost(), connected(&seen));
    assert_eq!(marked, (0, 0, 0, trial.sockets), "{:?} {:?} {:?}", seen.gaps, seen.dead, seen.links);
}

/// Acknowledgements that come behind their data delay the whole and nothing else.
pub async fn late_ack(trial: Trial, ending: &str) -> Seen {
    let mut chaos = Chaos::following(trial).await;
    chaos.fault(Fault::new("late_ack").ms(700).count(3));
    chaos.fault(Fault::new(ending));
    chaos.lost(1).await;
    chaos.whole_again().await;
    chaos.assert_waited(700);
    assert!(chaos.struck("late_ack") > 0);
    let seen = chaos.ends_well().await;
    assert_link_gaps(trial, &seen, 1);
    seen
}

/// Open interest that comes by REST alone is told again and again, across refusals and a cut; and it is nothing but that: no gap,
/// no other loss.
pub async fn open_interest(trial: Trial) -> Seen {
    let mut chaos = Chaos::following(Trial { limits: |limits| limits.poll_period_ms = 200, ..trial }).await;
    let each = trial.symbols.len() as u64;
    chaos.until("open interest", |s| s.count("open_interest") >= 3 * each).await;
    chaos.fault(Fault::new("rest_503").count(2));
    while chaos.struck("rest_503") != 2 {
        let before = chaos.seen.count("open_interest");
        chaos.until("open interest behind a refusal", |s| s.count("open_interest") > before).await;
    }
    assert_eq!((chaos.seen.lost(), chaos.seen.gaps.len()), (0, 0), "{:?}", chaos.seen.gaps);
    chaos.fault(Fault::new("cut"));
    chaos.lost(1).await;
    let before = chaos.seen.count("open_interest");
    chaos.whole_again().await;
    chaos.until("open interest again", |s| s.count("open_interest") >= before + 2 * each).await;
    let seen = chaos.ends_well().await;
    assert_link_gaps(trial, &seen, 1);
    seen
}
