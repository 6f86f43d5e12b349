//! Every policy on a tape, once deciding and once without an opinion.

use expect_test::expect;

use crate::tape::check_with;

#[test]
fn majority() {
    check_with(
        "policy = { quorum = 2 }",
        "show intents | mark BTC 100 | vote ema long | vote rsi short | vote macd long",
        expect![[r#"
            intent none target 0 held 0 working 0: none (1 of 2 votes needed)
              ema long weight 1
            intent none target 0 held 0 working 0: none (tie)
              ema long weight 1
              rsi short weight 1
            intent long target 10 held 0 working 0: order (2 of 3 weight)
              ema long weight 1
              macd long weight 1
              rsi short weight 1
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn weighted_sum() {
    check_with(
        "policy = { name = \"weighted_sum\" }\nsizing = { strength = \"scaled\" }",
        "show intents | mark BTC 100 | vote ema long 0.8 | fill | vote rsi short 0.7 | vote macd short 0.9",
        expect![[r#"
            intent long target 8 held 0 working 0: order (mean 0.8 against 0.2)
              ema long weight 1
            order buy 8 BTC stop 95
            intent none target 8 held 8 working 0: none (mean 0.05 against 0.2)
              ema long weight 1
              rsi short weight 1
            intent short target -2.666 held 8 working 0: order (mean -0.266666666667 against 0.2)
              ema long weight 1
              macd short weight 1
              rsi short weight 1
            order sell 10.666 BTC stop 105
        "#]],
    );
}

#[test]
fn leader() {
    check_with(
        "policy = { name = \"leader\", leader = \"ema\" }",
        "show intents | mark BTC 100 | vote rsi long | vote ema short",
        expect![[r#"
            intent none target 0 held 0 working 0: none (no vote of ema counts)
              rsi long weight 1
            intent short target -10 held 0 working 0: order (ema leads)
              ema short weight 1
              rsi long weight 1
            order sell 10 BTC stop 105
        "#]],
    );
}

#[test]
fn risk_override() {
    check_with(
        "policy = { name = \"risk_override\", guardians = [\"guard\"] }",
        "show intents | mark BTC 100 | vote ema long | fill | vote rsi long | vote guard flat | fill",
        expect![[r#"
            intent long target 10 held 0 working 0: order (1 of 1 weight)
              ema long weight 1
            order buy 10 BTC stop 95
            intent long target 10 held 10 working 0: none (2 of 2 weight; it is held)
              ema long weight 1
              rsi long weight 1
            intent flat target 0 held 10 working 0: order (guard overrides)
              ema long weight 1
              guard flat weight 1
              rsi long weight 1
            order sell 10 BTC reduce-only
        "#]],
    );
}
