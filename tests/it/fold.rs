//! What a core says of a stored stream, done here without bus, loop and processes.

use schemas::core::{Core, Listen, Place, Speak};

/// Sequence, subject and payload of every fact of a stream.
pub type Stored = Vec<(u64, String, Vec<u8>)>;

/// The stored outputs of a core over a stored input, without any disturbance.
pub fn fold<C: Core>(core: &mut C, input: &str, facts: &Stored) -> Stored
where
    C::In: Listen,
    C::Out: Speak,
{
    let mut said = Vec::new();
    let mut out = Vec::new();
    for (seq, subject, payload) in facts {
        // What cannot be decoded is counted and passed over by the loop as well.
        let Ok(Some(fact)) = C::In::hear(subject, payload) else { continue };
        core.handle(&Place::new(input, *seq), fact, &mut out).expect("core goes on");
        for fact in out.drain(..).filter(Speak::stored) {
            said.push((said.len() as u64 + 1, fact.subject(), fact.payload()));
        }
    }
    said
}

/// Panics with the first difference, both facts shown.
pub fn assert_same(name: &str, expected: &Stored, found: &Stored) {
    for (e, f) in expected.iter().zip(found) {
        assert!(
            e == f,
            "{name}: first difference at {}:\n  expected {} {:?}\n  found    {} {:?}",
            e.0,
            e.1,
            text(&e.2),
            f.1,
            text(&f.2)
        );
    }
    assert_eq!(expected.len(), found.len(), "{name}: number of facts");
}

fn text(payload: &[u8]) -> String {
    rmp_serde::from_slice::<serde_json::Value>(payload).map_or_else(|_| format!("{payload:?}"), |v| v.to_string())
}
