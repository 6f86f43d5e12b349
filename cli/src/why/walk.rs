//! From a fact back to the ticks: places, their causes, and the orders behind fills. Every read is counted.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use nats::{Bus, Reader, leader};
use schemas::desk::{Intent, Order};
use schemas::exec::{Fill, Sending};
use schemas::raw::Raw;
use schemas::{Cause, Fact};
use serde::Serialize;
use serde_json::Value;

use crate::decode;

/// Header of a message that the server merged into a sequencer: `<stream> <seq> ...`.
const SOURCE: &str = "Nats-Stream-Source";
/// Longest chain from a fact to a tick; a loop in the causes ends here.
const DEPTH_MAX: usize = 24;

/// One fact on the way, with what it follows from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What it is to the fact above it: `cause`, `order`, `decision`, `vote`, `tick`, ...
    pub role: String,
    /// `stream:seq`, for a tick `stream:seq:index`.
    pub place: String,
    /// Where the sequencer recorded it, when the fact above heard it there.
    pub heard_at: Option<String>,
    pub subject: String,
    /// The tick's own fields where it is a tick of a pack, else the whole fact.
    pub fact: Value,
    /// Event time.
    pub ts_ns: Option<i64>,
    /// When the server stored it.
    pub stored_ns: i64,
    /// From its own storing to the storing of the fact above, in ns; absent at the top.
    pub hop_ns: Option<i64>,
    /// Part of the hop before the sequencer had recorded it.
    pub merge_ns: Option<i64>,
    /// A tick: from its receipt by ingest to its storing.
    pub ingest_ns: Option<i64>,
    /// A tick: from the venue's time to its receipt, as far as the two clocks agree.
    pub venue_ns: Option<i64>,
    pub because: Vec<Node>,
}

/// A stored message with its header's source.
#[derive(Clone)]
struct Found {
    stream: String,
    seq: u64,
    subject: String,
    payload: Vec<u8>,
    time_ns: i64,
    source: Option<(String, u64)>,
}

/// Where an order and its executions stand.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Risk's own order, or the executor's `sending` of a protective one.
    order: Option<(String, u64)>,
    fills: Vec<(String, u64)>,
    ended: Option<(String, u64)>,
}

/// Walks facts; reads are bounded.
pub struct Walker {
    bus: Bus,
    reads: u64,
    reads_max: u64,
    scan_max: u64,
    orders: Option<BTreeMap<String, Known>>,
    seen: BTreeMap<(String, u64), Option<Found>>,
}

impl Walker {
    /// `reads_max` bounds single reads of one walk, `scan_max` the order facts that are looked through for an id.
    pub fn new(bus: &Bus, reads_max: u64, scan_max: u64) -> Self {
        Self { bus: bus.clone(), reads: 0, reads_max, scan_max, orders: None, seen: BTreeMap::new() }
    }

    /// Single reads of the last walk.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The tree of an id: a client order id, `<order id>:<n>` for one of its fills, or a place `stream:seq[:index]`.
    pub async fn walk(&mut self, id: &str) -> anyhow::Result<Node> {
        self.reads = 0;
        self.seen.clear();
        if let Some((stream, seq)) = self.place(id).await? {
            let found = self.get(&stream, seq).await?.with_context(|| format!("{stream}:{seq} is not there"))?;
            let index = id.parse::<Cause>().ok().filter(|c| c.stream == stream && c.seq == seq).map(|c| c.index);
            // A place on the desk means what the sequencer recorded there.
            let said = match found.source.clone() {
                Some((stream, seq)) => self.get(&stream, seq).await?,
                None => None,
            };
            return match said {
                Some(said) => self.node("fact", said, Some(&found), index, None, 0).await,
                None => self.node("fact", found, None, index, None, 0).await,
            };
        }
        let (order, n) = match id.rsplit_once(':') {
            Some((order, n)) => (order, Some(n.parse::<u32>().with_context(|| format!("`{id}` is no id or place"))?)),
            None => (id, None),
        };
        let known = self.orders().await?.get(order).cloned().with_context(|| {
            format!("no order `{order}` in RISK_* and EXEC_*; a fact is named by its place, such as RISK_main:12")
        })?;
        if let Some(n) = n {
            let mut fills = known.fills.into_iter();
            let at = fills.nth((n as usize).wrapping_sub(1));
            let (stream, seq) = at.with_context(|| format!("order {order} has no fill {n}"))?;
            let found = self.get(&stream, seq).await?.context("the fill has expired")?;
            return self.node("fill", found, None, None, None, 0).await;
        }
        let (stream, seq) = known.order.with_context(|| format!("order {order} has expired; its fills are there"))?;
        let found = self.get(&stream, seq).await?.context("the order has expired")?;
        let mut node = self.node("order", found, None, None, None, 0).await?;
        // What became of it stands in front; each with its own way back except the order that is shown here.
        let mut ends = Vec::new();
        for (stream, seq) in known.fills.iter().chain(&known.ended) {
            let Some(found) = self.get(stream, *seq).await? else { continue };
            ends.push(self.result(found).await?);
        }
        node.because.splice(0..0, ends);
        Ok(node)
    }

    /// The ids of all orders, in no order.
    pub async fn order_ids(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(self.orders().await?.keys().cloned().collect())
    }

    /// A place when `id` is written like one and its stream exists.
    async fn place(&mut self, id: &str) -> anyhow::Result<Option<(String, u64)>> {
        let parts: Vec<&str> = id.split(':').collect();
        let (stream, seq) = match parts.as_slice() {
            [stream, seq] | [stream, seq, _] => (*stream, seq.parse::<u64>()),
            _ => return Ok(None),
        };
        // An order id is in small letters; stream names begin with a capital.
        let Ok(seq) = seq else { return Ok(None) };
        if !stream.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Ok(None);
        }
        Ok(Some((stream.to_owned(), seq)))
    }

    async fn get(&mut self, stream: &str, seq: u64) -> anyhow::Result<Option<Found>> {
        let key = (stream.to_owned(), seq);
        if let Some(known) = self.seen.get(&key) {
            return Ok(known.clone());
        }
        if self.reads >= self.reads_max {
            bail!("stopped after {} reads; raise --reads-max, or begin nearer to the tick", self.reads);
        }
        self.reads += 1;
        // A leader's read tells whether the stream is there at all; the second one carries the headers.
        let Some(message) = leader::get(&self.bus, stream, seq).await? else {
            self.seen.insert(key, None);
            return Ok(None);
        };
        let source = if stream.starts_with("DESK_") || stream.starts_with("SEQ_") {
            let handle = self.bus.js().get_stream_no_info(stream).await.with_context(|| format!("open {stream}"))?;
            let whole = handle.get_raw_message(seq).await.with_context(|| format!("read {stream}:{seq}"))?;
            whole.headers.get(SOURCE).and_then(|header| source_of(header.as_str()))
        } else {
            None
        };
        let found = Found {
            stream: stream.to_owned(),
            seq,
            subject: message.subject.to_string(),
            payload: message.payload.to_vec(),
            time_ns: message.time_ns,
            source,
        };
        self.seen.insert(key, Some(found.clone()));
        Ok(Some(found))
    }

    /// Every order with its places, read once.
    async fn orders(&mut self) -> anyhow::Result<&BTreeMap<String, Known>> {
        if self.orders.is_none() {
            let mut known = BTreeMap::new();
            let mut names = Vec::new();
            let mut listed = self.bus.js().stream_names();
            while let Some(name) = futures_util::TryStreamExt::try_next(&mut listed).await.context("list streams")? {
                names.push(name);
            }
            for name in names {
                let kinds: &[&str] = match name.split('_').next() {
                    Some("RISK") => &["order"],
                    Some("EXEC") => &["sending", "fill", "done", "reject"],
                    _ => continue,
                };
                for kind in kinds {
                    self.scan(&name, kind, &mut known).await?;
                }
            }
            self.orders = Some(known);
        }
        Ok(self.orders.get_or_insert_default())
    }

    async fn scan(&self, stream: &str, kind: &str, known: &mut BTreeMap<String, Known>) -> anyhow::Result<()> {
        #[derive(serde::Deserialize)]
        struct Id {
            id: String,
        }
        let mut reader = Reader::open(&self.bus, stream, &format!("{kind}.>"), 0).await?;
        let mut left = self.scan_max;
        while !reader.caught_up() {
            for message in reader.next_batch(512).await? {
                left = left
                    .checked_sub(1)
                    .with_context(|| format!("more than {} {kind} facts in {stream}: name the place", self.scan_max))?;
                let at = (stream.to_owned(), message.seq);
                match kind {
                    "order" => {
                        let order = Order::decode(&message.payload)?;
                        known.entry(order.id).or_default().order = Some(at);
                    }
                    "sending" => {
                        let sending = Sending::decode(&message.payload)?;
                        known.entry(sending.order.id).or_default().order.get_or_insert(at);
                    }
                    "fill" => known.entry(Fill::decode(&message.payload)?.id).or_default().fills.push(at),
                    _ => {
                        let Id { id } = schemas::wire::decode(&message.payload)?;
                        known.entry(id).or_default().ended = Some(at);
                    }
                }
            }
        }
        Ok(())
    }

    /// What became of an order, with what it happened on and nothing of the order itself.
    async fn result(&mut self, found: Found) -> anyhow::Result<Node> {
        let mut node = leaf("outcome", &found, None);
        node.because.extend(self.event(&found, 1).await?);
        Ok(node)
    }

    /// What an execution happened on: the tick that it names, or, where the order met what was shown already (or a
    /// clock let it arrive), the newest tick of its instrument that the desk held then.
    async fn event(&mut self, found: &Found, depth: usize) -> anyhow::Result<Vec<Node>> {
        let Some(cause) = cause_of(found) else { return Ok(Vec::new()) };
        let Some(heard) = self.get(&cause.stream, cause.seq).await? else { return Ok(vec![gone("tick", &cause)]) };
        let head = heard.subject.split('.').next().unwrap_or("").to_owned();
        let mut nodes = Vec::new();
        let on_tick = tick_of(&heard, cause.index).is_some();
        if on_tick {
            nodes.extend(self.follow("tick", &cause, found, depth).await?);
        } else if head != "order" {
            // Its own order is shown with its own way back.
            nodes.extend(self.follow("cause", &cause, found, depth).await?);
        }
        let fill = found.subject.starts_with("fill.");
        let by_quote = fill && !of_trade(&decode::json_of(&found.payload));
        if fill && (!on_tick || (by_quote && !heard.subject.contains(".quote."))) {
            let role = if on_tick { "price shown" } else { "tick" };
            nodes.extend(self.shown(role, found, &cause, depth).await?);
        }
        Ok(nodes)
    }

    /// The newest tick of the fill's instrument before `cause` on the desk.
    async fn shown(&mut self, role: &str, fill: &Found, cause: &Cause, depth: usize) -> anyhow::Result<Option<Node>> {
        /// Desk facts that are looked at on the way back.
        const BACK_MAX: u64 = 256;
        let kind = if of_trade(&decode::json_of(&fill.payload)) { "trade" } else { "quote" };
        let instrument = fill.subject.split('.').skip(2).collect::<Vec<_>>().join(".");
        for seq in (cause.seq.saturating_sub(BACK_MAX).max(1)..cause.seq).rev() {
            let Some(near) = self.get(&cause.stream, seq).await? else { return Ok(None) };
            let tokens: Vec<&str> = near.subject.split('.').collect();
            let [_, _, venue, of, symbol] = tokens[..] else { continue };
            if tokens[0] != "raw" || of != kind || format!("{venue}.{symbol}") != instrument {
                continue;
            }
            let newest = match Raw::hear(&near.subject, &near.payload)? {
                Some(Raw::Trades(pack)) => pack.len(),
                Some(Raw::Quotes(pack)) => pack.len(),
                _ => 0,
            };
            let place = Cause { stream: cause.stream.clone(), seq, index: newest.saturating_sub(1) as u16 };
            return self.follow(role, &place, fill, depth).await;
        }
        Ok(None)
    }

    /// A fact with everything that it follows from. `above_ns`: when the fact above was stored.
    async fn node(
        &mut self,
        role: &str,
        found: Found,
        heard_at: Option<&Found>,
        index: Option<u16>,
        above_ns: Option<i64>,
        depth: usize,
    ) -> anyhow::Result<Node> {
        if depth > DEPTH_MAX {
            bail!("the chain of causes is longer than {DEPTH_MAX} facts");
        }
        let mut node = leaf(role, &found, index);
        node.hop_ns = above_ns.map(|above| above - found.time_ns);
        if let Some(heard) = heard_at {
            node.heard_at = Some(format!("{}:{}", heard.stream, heard.seq));
            node.merge_ns = Some(heard.time_ns - found.time_ns);
        }
        let kind = found.subject.split('.').next().unwrap_or("");
        match kind {
            "raw" | "$KV" => {}
            "fill" | "ack" | "reject" | "done" => {
                node.because.extend(self.event(&found, depth).await?);
                if let Some(id) = node.fact["id"].as_str().map(str::to_owned)
                    && let Some((stream, seq)) = self.orders().await?.get(&id).and_then(|known| known.order.clone())
                    && let Some(order) = self.get(&stream, seq).await?
                {
                    let above = found.time_ns;
                    node.because.push(Box::pin(self.node("order", order, None, None, Some(above), depth + 1)).await?);
                }
            }
            "order" | "cancel" | "refusal" => {
                let decision = self.decision(&found).await?;
                match decision {
                    Some(decision) => {
                        let above = found.time_ns;
                        let decision = Box::pin(self.node("decision", decision, None, None, Some(above), depth + 1));
                        node.because.push(decision.await?);
                    }
                    None => {
                        if let Some(cause) = cause_of(&found) {
                            node.because.extend(self.follow("cause", &cause, &found, depth).await?);
                        }
                    }
                }
            }
            "intent" => {
                let intent = Intent::decode(&found.payload).context("read the decision")?;
                for refusal in self.refusals(&found).await? {
                    node.because.push(leaf("refusal", &refusal, None));
                }
                for vote in intent.votes {
                    let role = if vote.counted { "vote" } else { "vote, not counted" };
                    let mut back = self.follow(role, &vote.cause, &found, depth).await?;
                    if let Some(signal) = &mut back {
                        // How the policy counted it stands beside the signal itself.
                        if let Value::Object(fact) = &mut signal.fact {
                            fact.insert("vote_weight".into(), vote.weight.to_string().into());
                            fact.insert("vote_counted".into(), vote.counted.into());
                            fact.insert("vote_note".into(), vote.note.clone().into());
                        }
                    }
                    node.because.extend(back);
                }
                // A decision that was not made by a vote: a fill, a clock, a command.
                let by_vote = node.because.iter().any(|n| n.heard_at.as_deref() == Some(&place_text(&intent.cause)));
                if !by_vote {
                    node.because.extend(self.follow("cause", &intent.cause, &found, depth).await?);
                }
            }
            _ => {
                if let Some(cause) = cause_of(&found) {
                    node.because.extend(self.follow("cause", &cause, &found, depth).await?);
                }
            }
        }
        Ok(node)
    }

    /// The fact at a cause; what a sequencer recorded is looked up where it was said.
    async fn follow(&mut self, role: &str, cause: &Cause, from: &Found, depth: usize) -> anyhow::Result<Option<Node>> {
        let Some(heard) = self.get(&cause.stream, cause.seq).await? else {
            return Ok(Some(gone(role, cause)));
        };
        let above = Some(from.time_ns);
        let Some((stream, seq)) = heard.source.clone() else {
            return Ok(Some(Box::pin(self.node(role, heard, None, Some(cause.index), above, depth + 1)).await?));
        };
        match self.get(&stream, seq).await? {
            Some(said) => {
                let node = Box::pin(self.node(role, said, Some(&heard), Some(cause.index), above, depth + 1));
                Ok(Some(node.await?))
            }
            // The source has expired; the sequencer's copy is the same fact.
            None => Ok(Some(Box::pin(self.node(role, heard, None, Some(cause.index), above, depth + 1)).await?)),
        }
    }

    /// The intent that an order or refusal was said with: the nearest one before it with the same cause.
    async fn decision(&mut self, found: &Found) -> anyhow::Result<Option<Found>> {
        let same = self.siblings(found, "intent").await?;
        Ok(same.into_iter().next())
    }

    async fn refusals(&mut self, found: &Found) -> anyhow::Result<Vec<Found>> {
        self.siblings(found, "refusal").await
    }

    /// Facts of `kind` with the same cause on the same instrument: neighbours, because a task says all that follows
    /// from an input at once.
    async fn siblings(&mut self, found: &Found, kind: &str) -> anyhow::Result<Vec<Found>> {
        const NEIGHBOURS_MAX: u64 = 16;
        let Some(cause) = cause_of(found) else { return Ok(Vec::new()) };
        let instrument = found.subject.split_once('.').map(|(_, rest)| rest.to_owned());
        let mut same = Vec::new();
        let before = (found.seq.saturating_sub(NEIGHBOURS_MAX).max(1)..found.seq).rev().collect::<Vec<_>>();
        let behind = (found.seq + 1..=found.seq + NEIGHBOURS_MAX).collect::<Vec<_>>();
        for side in [before, behind] {
            for seq in side {
                let Some(near) = self.get(&found.stream, seq).await? else { break };
                if cause_of(&near).as_ref() != Some(&cause) {
                    break;
                }
                let here = near
                    .subject
                    .split_once('.')
                    .is_some_and(|(head, rest)| head == kind && Some(rest) == instrument.as_deref());
                if here {
                    same.push(near);
                }
            }
        }
        Ok(same)
    }
}

/// A fact on its own.
fn leaf(role: &str, found: &Found, index: Option<u16>) -> Node {
    let tick = index.and_then(|index| tick_of(found, index));
    let fact = match &tick {
        Some(tick) => tick.fact.clone(),
        None => decode::json_of(&found.payload),
    };
    let place = match (&tick, index) {
        (Some(_), Some(index)) => format!("{}:{}:{index}", found.stream, found.seq),
        _ => format!("{}:{}", found.stream, found.seq),
    };
    let ts_ns = tick
        .as_ref()
        .map(|t| t.ts_ns)
        .or_else(|| ["ts_ns", "close_ns", "watermark_ns", "as_of_ns"].into_iter().find_map(|name| fact[name].as_i64()));
    Node {
        role: role.to_owned(),
        place,
        heard_at: None,
        subject: found.subject.clone(),
        ts_ns,
        stored_ns: found.time_ns,
        hop_ns: None,
        merge_ns: None,
        ingest_ns: tick.as_ref().map(|t| found.time_ns - t.recv_ns),
        venue_ns: tick.as_ref().map(|t| t.recv_ns - t.ts_ns),
        fact,
        because: Vec::new(),
    }
}

/// A place whose message retention has deleted.
fn gone(role: &str, cause: &Cause) -> Node {
    Node {
        role: role.to_owned(),
        place: cause.to_string(),
        heard_at: None,
        subject: "expired".to_owned(),
        fact: Value::Null,
        ts_ns: None,
        stored_ns: 0,
        hop_ns: None,
        merge_ns: None,
        ingest_ns: None,
        venue_ns: None,
        because: Vec::new(),
    }
}

struct OneTick {
    fact: Value,
    ts_ns: i64,
    recv_ns: i64,
}

/// One tick of a pack.
fn tick_of(found: &Found, index: u16) -> Option<OneTick> {
    let raw = Raw::hear(&found.subject, &found.payload).ok()??;
    let at = usize::from(index);
    let whole = decode::json_of(&found.payload);
    let list = match &raw {
        Raw::Trades(_) | Raw::Quotes(_) => &whole["ticks"],
        Raw::Books(_) | Raw::Tickers(_) | Raw::Bars(_) | Raw::Liquidations(_) => &whole["items"],
        Raw::Clock(_) | Raw::Gap(_) | Raw::Link(_) | Raw::Dead(_) => return None,
    };
    let fact = list.get(at)?.clone();
    let (ts_ns, recv_ns) = (fact["ts_ns"].as_i64()?, fact["recv_ns"].as_i64()?);
    Some(OneTick { fact, ts_ns, recv_ns })
}

/// Whether a fill says that a trade gave its price; otherwise a shown quote did.
fn of_trade(fill: &Value) -> bool {
    fill["why"].as_str().is_some_and(|why| why.starts_with("next trade") || why.starts_with("trade "))
}

fn cause_of(found: &Found) -> Option<Cause> {
    #[derive(serde::Deserialize)]
    struct HasCause {
        cause: Option<Cause>,
    }
    schemas::wire::decode::<HasCause>(&found.payload).ok()?.cause
}

fn place_text(cause: &Cause) -> String {
    format!("{}:{}", cause.stream, cause.seq)
}

/// `RAW_BINANCE 12 raw.> > raw.0.x`; a name may carry the domain behind a colon.
fn source_of(header: &str) -> Option<(String, u64)> {
    let mut words = header.split(' ');
    let stream = words.next()?.split(':').next()?.to_owned();
    Some((stream, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_on_a_source_is_read() {
        let header = "SIG_BINANCE_3 17 > > signal.3.ema.binance.BTCUSDT";
        assert_eq!(source_of(header), Some(("SIG_BINANCE_3".to_owned(), 17)));
        assert_eq!(source_of("RAW_X:abc 4"), Some(("RAW_X".to_owned(), 4)));
        assert_eq!(source_of("nonsense"), None);
    }
}
