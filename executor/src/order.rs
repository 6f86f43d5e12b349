//! The life of an order. End states are absorbing: no event moves an order out of one.
//!
//! ```text
//! new ── send ──> sending ── ack ──> acked ── fill ──> partial ── fill ──> filled
//!                    │                 │                  │
//!                    ├── reject ──> rejected              │
//!                    └── cancel, expire ──> cancelled, expired (from sending, acked and partial)
//! ```

use std::fmt;

use schemas::Qty;
use schemas::desk::Order;
use serde::{Deserialize, Serialize};

/// Where an order stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    New,
    Sending,
    Acked,
    Partial,
    Filled,
    Cancelled,
    Expired,
    Rejected,
}

impl State {
    pub const ALL: [State; 8] = [
        State::New,
        State::Sending,
        State::Acked,
        State::Partial,
        State::Filled,
        State::Cancelled,
        State::Expired,
        State::Rejected,
    ];

    /// Nothing more can happen to the order.
    pub fn ended(self) -> bool {
        match self {
            State::New | State::Sending | State::Acked | State::Partial => false,
            State::Filled | State::Cancelled | State::Expired | State::Rejected => true,
        }
    }
}

/// What can happen to an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Send,
    Ack,
    Fill(Qty),
    Cancel,
    Expire,
    Reject,
}

/// An event that the order's state does not admit; the order is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("order {id} is {state:?} with {left} left and takes no {event:?}")]
pub struct NotAdmitted {
    pub id: String,
    pub state: State,
    pub left: Qty,
    pub event: Event,
}

/// An order with what has happened to it so far.
///
/// Invariant E-1: `state` and `filled` move in [`Tracked::apply`] and nowhere else; `0 <= filled <= order.qty`,
/// and `filled == order.qty` exactly in state `Filled`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tracked {
    order: Order,
    state: State,
    filled: Qty,
    fills: u32,
}

impl Tracked {
    pub fn new(order: Order) -> Self {
        Self { order, state: State::New, filled: Qty::ZERO, fills: 0 }
    }
    pub fn order(&self) -> &Order {
        &self.order
    }
    pub fn state(&self) -> State {
        self.state
    }
    /// Filled in all; never negative.
    pub fn filled(&self) -> Qty {
        self.filled
    }
    /// What is still to be filled; never negative.
    pub fn left(&self) -> Qty {
        self.order.qty - self.filled
    }
    /// Fills so far: the newest fill's `n`.
    pub fn fills(&self) -> u32 {
        self.fills
    }

    /// Moves the order on. Error: its state does not admit the event; nothing has changed then.
    pub fn apply(&mut self, event: Event) -> Result<State, NotAdmitted> {
        let next = match (self.state, event) {
            (State::New, Event::Send) => State::Sending,
            (State::Sending, Event::Ack) => State::Acked,
            (State::New | State::Sending, Event::Reject) => State::Rejected,
            (State::Sending | State::Acked | State::Partial, Event::Cancel) => State::Cancelled,
            (State::Sending | State::Acked | State::Partial, Event::Expire) => State::Expired,
            // A fill may overtake its acknowledgement on a real venue, so `Sending` admits it.
            (State::Sending | State::Acked | State::Partial, Event::Fill(qty)) if self.admits(qty) => {
                self.filled += qty;
                self.fills += 1;
                if self.left().is_zero() { State::Filled } else { State::Partial }
            }
            _ => return Err(self.refusal(event)),
        };
        self.state = next;
        Ok(next)
    }

    fn admits(&self, qty: Qty) -> bool {
        qty > Qty::ZERO && qty <= self.left()
    }
    fn refusal(&self, event: Event) -> NotAdmitted {
        NotAdmitted { id: self.order.id.clone(), state: self.state, left: self.left(), event }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::New => "new",
            State::Sending => "sending",
            State::Acked => "acked",
            State::Partial => "partial",
            State::Filled => "filled",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
            State::Rejected => "rejected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::order;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Send),
            Just(Event::Ack),
            (-1i64..6).prop_map(|q| Event::Fill(Qty::new(q.into()))),
            Just(Event::Cancel),
            Just(Event::Expire),
            Just(Event::Reject),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_an_end_state_or_fills_more_than_was_ordered(events in prop::collection::vec(event(), 0..40)) {
            let mut tracked = Tracked::new(order("buy 10 BTC"));
            for event in events {
                let before = tracked.clone();
                let moved = tracked.apply(event);
                if before.state().ended() {
                    prop_assert!(moved.is_err(), "{:?} admitted {event:?}", before.state());
                }
                if moved.is_err() {
                    prop_assert_eq!(&tracked, &before);
                }
                prop_assert!(tracked.filled() >= before.filled() && tracked.filled() <= tracked.order().qty);
                prop_assert_eq!(tracked.state() == State::Filled, tracked.left().is_zero());
                prop_assert!(tracked.fills() as i64 >= before.fills() as i64);
            }
        }
    }

    #[test]
    fn every_state_that_is_no_end_admits_something_and_every_end_nothing() {
        let events =
            [Event::Send, Event::Ack, Event::Fill(Qty::new(1.into())), Event::Cancel, Event::Expire, Event::Reject];
        for state in State::ALL {
            let admitted = events.iter().filter(|event| {
                let mut tracked = Tracked { state, ..Tracked::new(order("buy 10 BTC")) };
                tracked.apply(**event).is_ok()
            });
            assert_eq!(admitted.count() > 0, !state.ended(), "{state}");
        }
    }

    #[test]
    fn an_order_is_filled_only_by_all_of_its_quantity() {
        let mut tracked = Tracked::new(order("buy 10 BTC"));
        let qty = |n: i64| Event::Fill(Qty::new(n.into()));
        tracked.apply(Event::Send).unwrap();
        tracked.apply(Event::Ack).unwrap();
        assert_eq!(tracked.apply(qty(4)).unwrap(), State::Partial);
        assert!(tracked.apply(qty(7)).is_err());
        assert_eq!(tracked.apply(qty(6)).unwrap(), State::Filled);
    }
}
