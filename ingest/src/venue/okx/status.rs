//! What OKX says of its own state (`status`): maintenances of its systems, before, while and after they are.
//!
//! `{"arg":{"channel":"status"},"data":[{"begin":"1672823400000","end":"1672825980000","scheDesc":"","state":"completed",
//! "system":"unified","env":"1","title":"Trading account WebSocket system upgrade","ts":"1672826038470",...}]}`

use std::borrow::Cow;

use serde::Deserialize;

use super::decode::{Stamp, maybe_stamp, parse};
use crate::event::Event;
use crate::status::{Of, State, Status};

/// `env` of the system for demo trading, whose maintenances are told beside those of the real one. Unconfirmed: the one
/// message that there is has `1`.
const DEMO: &str = "2";

/// Words other than `completed` are the documentation's as it is remembered; no message has one.
fn state(word: &str) -> Result<State, String> {
    match word {
        "scheduled" => Ok(State::Scheduled),
        "ongoing" => Ok(State::Maintenance),
        // Orders are taken that rest or are cancelled, before everything is open again.
        "pre_open" => Ok(State::Restricted),
        "completed" | "canceled" => Ok(State::Online),
        other => Err(format!("status with state `{other}`")),
    }
}

pub(super) fn statuses(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        title: Cow<'a, str>,
        #[serde(borrow)]
        system: Cow<'a, str>,
        #[serde(borrow)]
        state: Cow<'a, str>,
        begin: Option<&'a str>,
        end: Option<&'a str>,
        /// Why it was put to another time.
        #[serde(borrow, default)]
        sche_desc: Cow<'a, str>,
        env: Option<&'a str>,
        ts: Stamp,
    }
    for row in parse::<Vec<Row>>(data)? {
        let demo = if row.env == Some(DEMO) { " of demo trading" } else { "" };
        out.push(Event::Status(Box::new(Status {
            // Several pieces of work on one system may be announced at once: each has a state of its own.
            of: Of::Venue(format!("{}{demo}: {}", row.system, row.title)),
            state: state(&row.state)?,
            word: row.state.into_owned(),
            text: row.sche_desc.into_owned(),
            from: maybe_stamp(row.begin)?,
            to: maybe_stamp(row.end)?,
            ts: Some(row.ts.0),
        })));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::Nanos;

    use super::*;
    use crate::event::Frame;
    use crate::venue::okx::decode::decode;

    fn events(frame: &str) -> Vec<Event> {
        let mut out = Vec::new();
        decode(Frame::Text(frame), &mut out);
        out
    }

    #[test]
    fn the_end_of_a_maintenance_is_told_with_its_times() {
        let Some(root) = schemas::fixtures::root() else { return };
        let frame = std::fs::read_to_string(root.join("fixtures/venues/okx/ws_status.jsonl")).unwrap();
        let said = events(frame.trim());
        let [Event::Status(s)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(
            s.to_string(),
            "online: unified: Trading account WebSocket system upgrade (completed), from 2023-01-04T09:10:00Z, until 2023-01-04T09:53:00Z"
        );
        assert_eq!((s.state, s.ts), (State::Online, Some(Nanos::from_ms(1_672_826_038_470))));
        let odd = events(&frame.replace("completed", "dreaming"));
        assert_eq!(odd, [Event::Malformed("status with state `dreaming`".to_owned())]);
    }

    #[test]
    fn a_maintenance_without_an_end_and_one_of_demo_trading_say_so() {
        let row = |rest: &str| {
            let frame = format!(
                r#"{{"arg":{{"channel":"status"}},"data":[{{"title":"work","system":"unified","ts":"1",{rest}}}]}}"#
            );
            match &events(&frame)[..] {
                [Event::Status(status)] => status.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            row(r#""state":"scheduled","begin":"1672823400000","end":"","env":"2","scheDesc":"put off""#),
            "scheduled: unified of demo trading: work (scheduled), from 2023-01-04T09:10:00Z: put off"
        );
        assert_eq!(row(r#""state":"ongoing""#), "maintenance: unified: work (ongoing)");
        assert_eq!(row(r#""state":"pre_open""#), "restricted: unified: work (pre_open)");
    }
}
