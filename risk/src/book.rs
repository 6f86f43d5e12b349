//! Everything that is kept of one instrument.

use schemas::desk::Vote;
use schemas::signal::Stance;
use schemas::{Instrument, Qty};
use serde::{Deserialize, Serialize};

use crate::gap::Gaps;
use crate::mark::Marks;
use crate::position::{Contract, Position};
use crate::vote::Votes;

/// One instrument of an account.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    pub instrument: Option<Instrument>,
    pub marks: Marks,
    pub gaps: Gaps,
    pub position: Position,
    /// Strategies whose votes opened or grew the position; empty while flat.
    pub openers: Vec<String>,
    pub votes: Votes,
    /// The side that an entry was ordered for, while the verdict stays there.
    pub acted: Option<Stance>,
    /// The votes that the last entry followed from.
    pub acted_on: String,
    /// A decision waits for the end of what is on its way.
    pub waits: bool,
    pub said: Option<Said>,
}

/// What the last `Intent` said, so that the same is not said again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Said {
    pub side: Option<Stance>,
    /// `order`, `none`, or the code of the limit that refused.
    pub outcome: String,
}

impl Book {
    pub fn held(&self) -> Qty {
        self.position.held()
    }
    /// What the instrument is counted by: of the open position while there is one.
    pub fn contract(&self) -> Contract {
        match &self.instrument {
            Some(instrument) if self.position.is_flat() => Contract::of(instrument),
            _ => self.position.contract(),
        }
    }
    /// The counted votes as one text: equal for equal wishes that follow from the same inputs.
    pub fn vote_set(&self, votes: &[Vote]) -> String {
        let mut set = String::new();
        for vote in votes.iter().filter(|vote| vote.counted) {
            let origin = self.votes.get(&vote.strategy).map(|heard| heard.origin.to_string()).unwrap_or_default();
            set += &format!("{} {:?} {} {origin};", vote.strategy, vote.side, vote.ts_ns);
        }
        set
    }
}
