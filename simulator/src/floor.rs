//! One venue's trading floor: market, memory, account, clients and faults, and the contract between the floor and the
//! protocol that speaks for it. No clock, no sockets: virtual and real time are set from outside.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::config::Config;
use crate::faults::{Command, Faults};
use crate::history::History;
use crate::hub::{ClientId, Hub, Out};
use crate::instrument::VenueId;
use crate::market::{Event, Market};
use crate::orders::{Ask, Desk, Refusal, Update};
use crate::recording::Recorded;

/// A REST request as the protocol sees it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Raw query without the question mark.
    pub query: String,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// The answer to a REST request.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Answer this much later.
    pub delay_ms: u64,
    /// Never answer.
    pub lost: bool,
}

impl Reply {
    pub fn json(status: u16, body: impl ToString) -> Self {
        Self { status, body: body.to_string(), ..Self::default() }
    }
}

/// Everything on one venue that is not its protocol.
pub struct Floor {
    pub venue: VenueId,
    pub config: Arc<Config>,
    pub market: Market,
    pub history: Vec<History>,
    pub desk: Desk,
    pub hub: Hub,
    pub faults: Faults,
    /// A recording in place of the seeded market.
    pub recorded: Option<Recorded>,
    /// Virtual time.
    pub now_ns: i64,
    /// Real time since the start, for heartbeats and limits.
    pub mono_ms: u64,
    /// The machine's clock, for signed requests.
    pub wall_ms: i64,
    pub paused: bool,
    hold_until_ms: u64,
    held: VecDeque<(ClientId, Out)>,
    /// Answers that wait for their time.
    late: Vec<(u64, ClientId, Out)>,
}

impl Floor {
    pub fn new(venue: VenueId, config: Arc<Config>, market: Market) -> Self {
        Self {
            venue,
            history: vec![History::default(); market.listings().len()],
            desk: Desk::new(&config),
            hub: Hub::new(config.clients_max, config.client_outbox_frames_max),
            faults: Faults::new(venue, config.faults_armed_max),
            recorded: None,
            now_ns: market.now_ns(),
            mono_ms: 0,
            wall_ms: 0,
            paused: false,
            hold_until_ms: 0,
            held: VecDeque::new(),
            late: Vec::new(),
            market,
            config,
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ns / 1_000_000
    }

    /// Market data for one client: held back while a delay lasts.
    pub fn data(&mut self, client: ClientId, frame: impl Into<Out>) {
        if self.held.is_empty() && self.mono_ms >= self.hold_until_ms {
            self.hub.frame(client, frame);
            return;
        }
        if self.held.len() >= self.hub.outbox_max() {
            self.release(true);
        }
        self.held.push_back((client, frame.into()));
    }

    /// An answer; `late_ack` and its kin make it come later.
    pub fn answer(&mut self, client: ClientId, frame: impl Into<Out>, after_ms: u64) {
        if after_ms == 0 {
            self.hub.frame(client, frame);
        } else {
            self.late.push((self.mono_ms + after_ms, client, frame.into()));
        }
    }

    pub fn hold(&mut self, ms: u64) {
        self.hold_until_ms = self.hold_until_ms.max(self.mono_ms + ms);
    }

    /// Sends what was held and whose time has come.
    pub fn release(&mut self, at_once: bool) {
        if at_once || self.mono_ms >= self.hold_until_ms {
            while let Some((client, frame)) = self.held.pop_front() {
                self.hub.frame(client, frame);
            }
        }
        let now = self.mono_ms;
        let due: Vec<_> = self.late.extract_if(.., |(at, _, _)| *at <= now).collect();
        for (_, client, frame) in due {
            self.hub.frame(client, frame);
        }
    }
}

/// What a venue's protocol does. Another venue is a file with an implementation and a line in `run.rs`.
pub trait Protocol: Send {
    /// Something happened on the market.
    fn event(&mut self, floor: &mut Floor, event: &Event);
    /// Virtual time reached `at_ns`: publish what is due at or before it.
    fn time(&mut self, floor: &mut Floor, at_ns: i64);
    /// Something happened to a user's order.
    fn update(&mut self, floor: &mut Floor, update: &Update);
    /// A WebSocket wants in at this path; an error is the HTTP answer. Called before the client gets anything.
    fn connect(&mut self, floor: &mut Floor, client: ClientId, path: &str, query: &str) -> Result<(), Reply>;
    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str);
    /// A ping or an unsolicited pong counts as a message at some venues.
    fn control(&mut self, floor: &mut Floor, client: ClientId, pong: Option<&[u8]>);
    fn gone(&mut self, floor: &mut Floor, client: ClientId);
    /// Real time passed: heartbeats, deadlines, expiries.
    fn beat(&mut self, floor: &mut Floor);
    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply;
    /// A fault of the moment that only this protocol knows.
    fn strike(&mut self, floor: &mut Floor, command: &Command);
    /// One frame of a recording: the stream's name and the payload as it was.
    fn recorded(&mut self, floor: &mut Floor, stream: &str, data: &str);
    /// Does anybody listen to market data?
    fn listened(&self) -> bool;
}

/// Hands events to memory, account and protocol, and lets the stops that they set off follow.
pub fn run<P: Protocol + ?Sized>(protocol: &mut P, floor: &mut Floor, events: Vec<Event>) {
    let mut events = events;
    // A stop can set off a stop; a chain longer than this waits for the next trade.
    for _ in 0..16 {
        let mut fired = Vec::new();
        for event in events.drain(..) {
            if let Event::Trade(trade) = &event {
                let spec = &floor.market.listing(trade.instrument).spec;
                floor.history[trade.instrument].add(spec, trade);
                fired.extend(floor.desk.triggered(trade));
            }
            if let Some(update) = floor.desk.hear(&floor.market, &event) {
                protocol.update(floor, &update);
            }
            protocol.event(floor, &event);
        }
        fired.dedup();
        if fired.is_empty() {
            return;
        }
        let mut updates = Vec::new();
        for id in fired {
            floor.desk.fire(&mut floor.market, id, &mut updates, &mut events);
        }
        updates.iter().for_each(|u| protocol.update(floor, u));
    }
}

/// Takes a user's order in; its updates and events are told before this returns.
pub fn place<P: Protocol + ?Sized>(protocol: &mut P, floor: &mut Floor, ask: Ask) -> Result<u64, Refusal> {
    let (mut updates, mut events) = (Vec::new(), Vec::new());
    let id = floor.desk.place(&mut floor.market, ask, &mut updates, &mut events)?;
    updates.drain(..).for_each(|u| protocol.update(floor, &u));
    run(protocol, floor, events);
    floor.desk.settle(&floor.market, id, &mut updates);
    updates.iter().for_each(|u| protocol.update(floor, u));
    Ok(id)
}

/// Takes a user's order back; false when it is closed or unknown.
pub fn cancel<P: Protocol + ?Sized>(protocol: &mut P, floor: &mut Floor, id: u64) -> bool {
    let mut events = Vec::new();
    let update = floor.desk.cancel(&mut floor.market, id, &mut events);
    run(protocol, floor, events);
    if let Some(update) = &update {
        protocol.update(floor, update);
    }
    update.is_some()
}

/// A floor with its protocol: one venue.
pub struct Stand {
    pub floor: Floor,
    protocol: Box<dyn Protocol>,
    events: u64,
}

impl Stand {
    pub fn new(floor: Floor, protocol: Box<dyn Protocol>) -> Self {
        Self { floor, protocol, events: 0 }
    }

    /// Operations of the market since the start.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Virtual time passes to `to_ns`. Stops earlier after `operations_max` operations and says how far it came.
    pub fn advance(&mut self, to_ns: i64, operations_max: u64) -> i64 {
        let floor = &mut self.floor;
        if floor.paused || floor.recorded.is_some() {
            return floor.now_ns;
        }
        let mut done = 0;
        while let Some((at, _)) = floor.market.next().filter(|(at, _)| *at <= to_ns) {
            if done == operations_max {
                return floor.now_ns;
            }
            done += 1;
            self.protocol.time(floor, at);
            floor.now_ns = at;
            let mut events = Vec::new();
            floor.market.step(&mut events);
            run(self.protocol.as_mut(), floor, events);
            self.events += 1;
        }
        floor.market.set_time(to_ns);
        floor.now_ns = floor.now_ns.max(to_ns);
        self.protocol.time(floor, to_ns);
        floor.now_ns
    }

    /// Plays the recording up to a receive time, at most `frames_max` frames. Says how far it came.
    pub fn play(&mut self, to_ns: i64, frames_max: u64) -> anyhow::Result<i64> {
        let floor = &mut self.floor;
        let Some(mut recorded) = floor.recorded.take() else { return Ok(floor.now_ns) };
        let mut done = 0;
        // Nobody would hear it: the recording waits.
        while done < frames_max && !floor.paused && self.protocol.listened() {
            match recorded.next_due(to_ns)? {
                crate::recording::Next::Frame { at_ns, stream, data } => {
                    floor.now_ns = at_ns;
                    self.protocol.recorded(floor, &stream, &data);
                    self.events += 1;
                    done += 1;
                }
                crate::recording::Next::Later => {
                    floor.now_ns = floor.now_ns.max(to_ns);
                    break;
                }
                crate::recording::Next::End => break,
            }
        }
        floor.recorded = Some(recorded);
        Ok(floor.now_ns)
    }

    pub fn listened(&self) -> bool {
        self.protocol.listened()
    }

    /// Real time passed.
    pub fn beat(&mut self) {
        self.floor.release(false);
        self.protocol.beat(&mut self.floor);
    }

    pub fn connect(&mut self, client: ClientId, path: &str, query: &str) -> Result<(), Reply> {
        if self.floor.faults.take("turn_away", "").is_some() {
            return Err(Reply::json(503, ""));
        }
        self.protocol.connect(&mut self.floor, client, path, query)
    }
    pub fn message(&mut self, client: ClientId, text: &str) {
        self.protocol.message(&mut self.floor, client, text);
    }
    pub fn control(&mut self, client: ClientId, pong: Option<&[u8]>) {
        self.protocol.control(&mut self.floor, client, pong);
    }
    pub fn gone(&mut self, client: ClientId) {
        self.floor.hub.leave(client);
        self.protocol.gone(&mut self.floor, client);
    }

    pub fn rest(&mut self, request: &Request) -> Reply {
        if request.path.starts_with("/sim/") {
            return self.control_panel(request);
        }
        let floor = &mut self.floor;
        if floor.faults.take("rest_503", "").is_some() {
            return Reply::json(
                503,
                r#"{"code":-1000,"msg":"Unknown error, please check your request or try again later."}"#,
            );
        }
        let mut reply = self.protocol.rest(floor, request);
        if let Some(fault) = floor.faults.take("rest_delay", "") {
            reply.delay_ms += fault.ms;
        }
        reply.lost |= floor.faults.take("rest_lost", "").is_some();
        reply
    }

    /// `GET /sim/faults`, `POST /sim/faults`, `DELETE /sim/faults`, `GET /sim/state`.
    fn control_panel(&mut self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/sim/faults") => Reply::json(200, self.floor.faults.report()),
            ("DELETE", "/sim/faults") => {
                self.floor.faults.disarm();
                Reply::json(200, r#"{"ok":true}"#)
            }
            ("POST", "/sim/faults") => {
                let armed = serde_json::from_str::<Command>(&request.body)
                    .map_err(|e| format!("the body is not a fault: {e}"))
                    .and_then(|command| self.fault(command));
                match armed {
                    Ok(()) => Reply::json(200, r#"{"ok":true}"#),
                    Err(why) => Reply::json(400, serde_json::json!({ "error": why })),
                }
            }
            ("GET", "/sim/state") => Reply::json(200, self.state()),
            _ => Reply::json(404, r#"{"error":"there are /sim/faults and /sim/state"}"#),
        }
    }

    /// What the program shows about itself.
    pub fn state(&self) -> serde_json::Value {
        let floor = &self.floor;
        serde_json::json!({
            "venue": floor.venue.name(),
            "symbols": floor.market.listings().iter().map(|l| l.spec.symbol.as_str()).collect::<Vec<_>>(),
            "time_ns": floor.now_ns,
            "clients": floor.hub.ids().len(),
            "frames": floor.hub.frames(),
            "operations": self.events,
            "slow_clients_cut": floor.hub.slow(),
            "paused": floor.paused,
            "recording": floor.recorded.is_some(),
            "recording_ended": floor.recorded.as_ref().is_some_and(Recorded::ended),
        })
    }

    /// Arms a fault, or strikes when it is one of the moment.
    pub fn fault(&mut self, command: Command) -> Result<(), String> {
        let kind = self.floor.faults.kind(&command.kind)?;
        if let Some(symbol) = &command.symbol
            && self.floor.market.find(symbol).is_none()
        {
            return Err(format!("symbol `{symbol}` is not traded at {}", self.floor.venue.name()));
        }
        if kind.occasion != crate::faults::Occasion::Now {
            if command.kind == "snapshot_older" {
                self.protocol.strike(&mut self.floor, &command);
            }
            return self.floor.faults.arm(command);
        }
        self.floor.faults.note(&command.kind);
        let floor = &mut self.floor;
        let clients = floor.hub.ids();
        match command.kind.as_str() {
            "pause" => floor.paused = true,
            "resume" => floor.paused = false,
            "delay" => floor.hold(command.ms),
            "silence" => clients.iter().for_each(|id| floor.hub.silence(*id)),
            "cut" => clients.iter().for_each(|id| floor.hub.put(*id, Out::Cut)),
            "close" => clients.iter().for_each(|id| floor.hub.put(*id, Out::Close(1001, "going away".to_owned()))),
            _ => self.protocol.strike(floor, &command),
        }
        Ok(())
    }
}
