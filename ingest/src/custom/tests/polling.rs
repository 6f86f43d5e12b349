//! The polled session against a script.

use super::*;
use crate::config::Config;
use crate::session::{Action, HttpAnswer, Plan, Session, Tail};

fn session(covers_ms: i64, stored: Option<u64>) -> Box<dyn Session> {
    let covers = if covers_ms > 0 { format!("covers_ms = {covers_ms}") } else { String::new() };
    let text = BITSTAMP.replace("covers_ms = 60000", &covers);
    let id = format!("polling-{covers_ms}");
    let described = register(&id, "x.toml", &text).unwrap();
    let mut limits = Config::load(None).unwrap().session;
    limits.request_spacing_ms = 1;
    let tail = |id: u64| Tail { id, ts: Nanos::from_ms(1000), venue_ids: vec![] };
    let plan = Plan {
        endpoints: described.endpoints(described.market(), false),
        symbols: vec!["BTCUSD".into()],
        channels: vec!["trades".into()],
        limits,
        pace: Default::default(),
        last_trades: stored.map(|id| ("BTCUSD".to_owned(), tail(id))).into_iter().collect(),
    };
    described.sessions(described.market(), &plan).remove(0)
}

fn page(ids: &[u64]) -> String {
    let row = |id: &u64| format!(r#"{{"date":"{}","tid":"{id}","price":"1","type":"0","amount":"2"}}"#, 100 + id);
    format!("[{}]", ids.iter().map(row).collect::<Vec<_>>().join(","))
}

/// Answers the request that is due at `at_ms` 50 ms later.
fn poll(session: &mut dyn Session, at_ms: i64, status: u16, body: &str) -> Vec<String> {
    let mut out = Vec::new();
    session.on_timer(Nanos::from_ms(at_ms), &mut out);
    let Some(id) = out.iter().find_map(|a| if let Action::Fetch { id, .. } = a { Some(*id) } else { None }) else {
        panic!("nothing is asked at {at_ms}: {out:?}, next {:?}", session.next_timer());
    };
    let answer = HttpAnswer { status, retry_after_s: (status == 429).then_some(7), used: None, body: body.to_owned() };
    let mut said = Vec::new();
    session.on_http(Nanos::from_ms(at_ms + 50), id, Ok(answer), &mut said);
    said.iter()
        .map(|action| match action {
            Action::Emit { event: Event::Trade(t), .. } => format!("trade {}", t.id),
            Action::Gap(gap) => format!("gap {} {}", gap.channel, gap.reason),
            Action::Dead { reason } => format!("dead {reason}"),
            Action::Warn(what) => format!("warn {what}"),
            Action::Reconnect { reason, .. } => format!("reconnect {reason}"),
            other => format!("{other:?}"),
        })
        .collect()
}

/// Opened just before its first request is due.
fn opened(covers_ms: i64, stored: Option<u64>) -> Box<dyn Session> {
    let mut session = session(covers_ms, stored);
    let mut out = Vec::new();
    session.on_open(Nanos::from_ms(0), &mut out);
    let [Action::Fetch { id, request }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(request.path, "/api/v2/transactions/btcusd/?time=minute");
    // An answer of transport: the next is due a period later.
    session.on_http(Nanos::from_ms(5), *id, Err("refused".into()), &mut out);
    assert!(!session.is_whole());
    session
}

/// Told as it begins and as it ends.
const BEHIND: &str = "gap trade what the venue still has of its trades does not reach back to ours";

#[test]
fn pages_overlap_and_each_trade_leaves_once_in_order() {
    let mut s = opened(0, None);
    assert_eq!(poll(&mut *s, 10_000, 200, &page(&[3, 2, 1])), ["trade 1", "trade 2", "trade 3"]);
    assert!(s.is_whole());
    assert_eq!(s.heard(), Some(Nanos::from_ms(10_000)), "complete up to when it was asked, not when it came");
    assert_eq!(poll(&mut *s, 20_000, 200, &page(&[5, 4, 3])), ["trade 4", "trade 5"]);
    assert_eq!(poll(&mut *s, 30_000, 200, &page(&[])), Vec::<String>::new());
    assert_eq!(poll(&mut *s, 40_000, 200, &page(&[9])), [BEHIND, BEHIND, "trade 9"]);
}

#[test]
fn a_page_that_covers_the_time_since_the_last_needs_no_overlap() {
    let mut s = opened(60_000, None);
    assert_eq!(poll(&mut *s, 10_000, 200, &page(&[3])), ["trade 3"]);
    assert_eq!(poll(&mut *s, 20_000, 200, &page(&[9])), ["trade 9"]);
}

#[test]
fn behind_a_restart_the_first_page_must_reach_back_to_what_is_stored() {
    assert_eq!(poll(&mut *opened(60_001, Some(2)), 10_000, 200, &page(&[3, 2])), ["trade 3"]);
    assert_eq!(
        poll(&mut *opened(60_001, Some(2)), 10_000, 200, &page(&[4, 5])),
        [BEHIND, BEHIND, "trade 4", "trade 5"]
    );
}

#[test]
fn a_429_is_obeyed_a_wrong_body_is_kept_and_three_failures_end_the_connection() {
    let mut s = opened(60_002, None);
    assert_eq!(poll(&mut *s, 10_000, 429, ""), ["warn the venue asks for quiet: status 429 for 7 s"]);
    assert_eq!(s.next_timer(), Some(Nanos::from_ms(20_000)));
    assert_eq!(poll(&mut *s, 20_000, 200, &page(&[3])), ["trade 3"]);
    let dead = poll(&mut *s, 30_000, 200, r#"[{"tid":"x"}]"#);
    assert!(dead[0].starts_with("dead trades: message[2] (trade): nothing at `price`: [{"), "{dead:?}");
    assert!(dead[1].starts_with("warn poll trades of BTCUSD"), "{dead:?}");
    assert_eq!(s.heard(), Some(Nanos::from_ms(20_000)), "what was not understood is not complete");
    let refused = r#"{"response_code":"400.002","response_explanation":"slow down"}"#;
    assert_eq!(poll(&mut *s, 40_000, 200, refused), ["warn poll trades of BTCUSD: the venue refused: slow down"]);
    let last = poll(&mut *s, 50_000, 500, "no");
    assert_eq!(last[1], "reconnect 3 requests failed one after the other: status 500: no");
}
