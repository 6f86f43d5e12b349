//! The same votes lead to one order: a signal that is delivered twice, or a decision that is made again, orders
//! nothing more.

use super::{Asked, Broken, Limit, Limits};

pub struct DuplicateIntent;

impl Limit for DuplicateIntent {
    fn id(&self) -> &'static str {
        "duplicate_intent"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.duplicate_intent.on
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        if asked.duplicate {
            return Err(Broken::new(2, 1, "the same votes have led to an order before"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn new_votes_pass_and_the_same_votes_again_are_refused() {
        check(&DuplicateIntent, "", "passes");
        check(&DuplicateIntent, "duplicate", "2, allowed 1");
    }
}
