//! What waits for one client, with a bound for each kind: acks first, then logs, then the newest of the rest.
//!
//! Invariant G-1: a client that never reads costs one message per `latest` channel, `log_queue_max` of its logs
//! and `control_queue_max` acks, whatever the market does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::json;

use crate::channel::Policy;

/// A text frame, shared between clients.
pub type Frame = Arc<str>;

/// The bounded queues of one client.
#[derive(Debug)]
pub struct Outbox {
    control: VecDeque<Frame>,
    log: VecDeque<(Arc<str>, u64, Frame)>,
    /// Newest by channel (and key inside it), and the order in which they wait.
    latest: BTreeMap<String, Frame>,
    order: VecDeque<String>,
    /// Dropped log messages not announced yet: channel -> (first seq, last seq, how many).
    lost: BTreeMap<Arc<str>, (u64, u64, u64)>,
    control_max: usize,
    log_max: usize,
    pub conflated: u64,
    pub dropped: u64,
}

/// The client does not even take its acks: close it.
#[derive(Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Outbox {
    pub fn new(control_max: usize, log_max: usize) -> Self {
        Self {
            control: VecDeque::new(),
            log: VecDeque::new(),
            latest: BTreeMap::new(),
            order: VecDeque::new(),
            lost: BTreeMap::new(),
            control_max,
            log_max,
            conflated: 0,
            dropped: 0,
        }
    }

    /// An ack or error; never queues behind data.
    pub fn control(&mut self, frame: Frame) -> Result<(), TooSlow> {
        if self.control.len() >= self.control_max {
            return Err(TooSlow);
        }
        self.control.push_back(frame);
        Ok(())
    }

    /// Data of a channel. `key` tells apart what lives side by side in one channel (positions by instrument).
    pub fn data(&mut self, channel: &Arc<str>, policy: Policy, key: &str, seq: u64, frame: Frame) {
        match policy {
            Policy::Log => {
                if self.log.len() >= self.log_max
                    && let Some((channel, seq, _)) = self.log.pop_front()
                {
                    self.dropped += 1;
                    let lost = self.lost.entry(channel).or_insert((seq, seq, 0));
                    *lost = (lost.0, seq, lost.2 + 1);
                }
                self.log.push_back((channel.clone(), seq, frame));
            }
            Policy::Latest => {
                let slot = format!("{channel}\n{key}");
                if self.latest.insert(slot.clone(), frame).is_some() {
                    self.conflated += 1;
                } else {
                    self.order.push_back(slot);
                }
            }
        }
    }

    /// Forgets what waits for a channel that was unsubscribed.
    pub fn forget(&mut self, channel: &str) {
        let prefix = format!("{channel}\n");
        self.order.retain(|slot| !slot.starts_with(&prefix));
        self.latest.retain(|slot, _| !slot.starts_with(&prefix));
        self.log.retain(|(c, _, _)| c.as_ref() != channel);
        self.lost.remove(channel);
    }

    /// The next frame to write: acks, then one gap per channel that lost messages, then logs, then the latest.
    pub fn pop(&mut self) -> Option<Frame> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if let Some((channel, (from, to, dropped))) = self.lost.pop_first() {
            let gap = json!({"type": "gap", "channel": channel.as_ref(), "from": from, "to": to, "reason": "slow_consumer", "dropped": dropped});
            return Some(gap.to_string().into());
        }
        if let Some((_, _, frame)) = self.log.pop_front() {
            return Some(frame);
        }
        let slot = self.order.pop_front()?;
        self.latest.remove(&slot)
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.control.len() + self.log.len() + self.latest.len() + self.lost.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(text: &str) -> Frame {
        text.into()
    }

    #[test]
    fn only_the_newest_ticker_waits() {
        let mut outbox = Outbox::new(4, 4);
        let channel: Arc<str> = "ticker.binance.X".into();
        outbox.data(&channel, Policy::Latest, "", 1, frame("old"));
        outbox.data(&channel, Policy::Latest, "", 2, frame("new"));
        assert_eq!(outbox.pop().as_deref(), Some("new"));
        assert!(outbox.is_empty());
        assert_eq!(outbox.conflated, 1);
    }

    #[test]
    fn dropped_trades_are_announced_once_with_the_right_ends() {
        let mut outbox = Outbox::new(4, 2);
        let channel: Arc<str> = "trades.binance.X".into();
        for seq in 1..=5 {
            outbox.data(&channel, Policy::Log, "", seq, frame(&format!("t{seq}")));
        }
        let gap: serde_json::Value = serde_json::from_str(&outbox.pop().unwrap()).unwrap();
        assert_eq!((gap["from"].as_u64(), gap["to"].as_u64(), gap["dropped"].as_u64()), (Some(1), Some(3), Some(3)));
        assert_eq!(outbox.pop().as_deref(), Some("t4"));
        assert_eq!(outbox.pop().as_deref(), Some("t5"));
        assert!(outbox.is_empty());
    }

    #[test]
    fn acks_pass_the_data_and_have_a_bound() {
        let mut outbox = Outbox::new(1, 2);
        outbox.data(&"trades.x.y".into(), Policy::Log, "", 1, frame("data"));
        outbox.control(frame("ack")).unwrap();
        assert_eq!(outbox.control(frame("one too many")), Err(TooSlow));
        assert_eq!(outbox.pop().as_deref(), Some("ack"));
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_whatever_comes(ops in prop::collection::vec((0usize..3, 0u8..4), 0..400)) {
            let mut outbox = Outbox::new(8, 16);
            let channels: Vec<Arc<str>> = (0..4).map(|i| Arc::from(format!("c.{i}"))).collect();
            for (seq, (op, c)) in ops.into_iter().enumerate() {
                let channel = &channels[c as usize];
                match op {
                    0 => { let _ = outbox.control(frame("a")); }
                    1 => outbox.data(channel, Policy::Log, "", seq as u64, frame("l")),
                    _ => outbox.data(channel, Policy::Latest, "", seq as u64, frame("t")),
                }
            }
            prop_assert!(outbox.len() <= 8 + 16 + 4 + 4);
        }
    }
}
