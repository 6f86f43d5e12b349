//! From decisions to a verdict: every coin judged on its own, by rules with stable codes. What breaks one is no
//! decision for that coin, never a guess and never a hold; a close is not held up by rules meant for opens.
//!
//! | code | rule |
//! |---|---|
//! | V01 | the action is one of open_long, open_short, close, hold |
//! | V02 | the coin is one that was asked about, spelt exactly |
//! | V03 | a coin is decided once, and a field says one thing |
//! | V04 | numbers are plain decimals in range: prices above zero, confidence 0..1 |
//! | V07 | stop loss and take profit stand on their sides of the shown close, the stop at a minimum distance |
//! | V14 | the answer came in time (opens) |
//! | `missing` | a coin that was asked about has no decision |

use std::collections::BTreeMap;

use schemas::llm::{LlmAttempt, LlmCoin, LlmCoinVerdict, LlmReply, LlmVerdict};
use schemas::signal::{Signal, Stance};
use schemas::{Cause, Decimal, Fraction, Price, Version};

use super::json::Json;
use super::parse::{self, Decision, Failure};
use crate::config::{ExpiryClock, Trader};
use crate::text::plain;

/// What one attempt decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Examined {
    /// One a coin that was asked about, in that order; then one a coin that was not.
    pub findings: Vec<(String, Finding)>,
    pub summary: String,
    pub repaired: bool,
}

/// What a decision for one coin is worth.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    Opinion { side: Stance, confidence: Fraction, stop_loss: Option<Price>, take_profit: Option<Price>, why: String },
    Hold { why: String },
    Broken { code: &'static str, detail: String },
}

impl Examined {
    /// What the model should mend, in words.
    pub fn complaints(&self) -> Vec<String> {
        let broken = self.findings.iter().filter_map(|(coin, finding)| match finding {
            Finding::Broken { code, detail } => Some(format!("{coin}: {code} {detail}")),
            _ => None,
        });
        broken.collect()
    }
    fn decides(&self) -> bool {
        self.findings.iter().any(|(_, finding)| !matches!(finding, Finding::Broken { .. }))
    }
}

/// Judges one attempt against the coins that were asked about.
pub fn examine(trader: &Trader, coins: &[LlmCoin], attempt: &LlmAttempt) -> Result<Examined, Failure> {
    let document = parse::document(parse::content(attempt)?)?;
    let mut of: BTreeMap<&str, Vec<&Decision>> = BTreeMap::new();
    for decision in &document.decisions {
        of.entry(&decision.coin).or_default().push(decision);
    }
    let mut findings = Vec::new();
    for coin in coins {
        let finding = match of.remove(coin.coin.as_str()).as_deref() {
            None => Finding::Broken { code: "missing", detail: "no decision for this coin".to_owned() },
            Some([decision]) => finding(trader, coin, decision),
            Some(several) => broken("V03", format!("{} decisions for one coin", several.len())),
        };
        findings.push((coin.coin.clone(), finding));
    }
    for unknown in of.keys() {
        findings.push((plain(unknown, 32), broken("V02", "is not a coin that was asked about".to_owned())));
    }
    Ok(Examined { findings, summary: document.summary, repaired: document.repaired })
}

fn broken(code: &'static str, detail: String) -> Finding {
    Finding::Broken { code, detail }
}

fn finding(trader: &Trader, coin: &LlmCoin, decision: &Decision) -> Finding {
    judged(trader, coin, decision).unwrap_or_else(|broken| broken)
}

/// `Err` holds the broken finding.
fn judged(trader: &Trader, coin: &LlmCoin, decision: &Decision) -> Result<Finding, Finding> {
    let field = |name: &str| {
        let value = decision.field(name).map_err(|()| broken("V03", format!("two different values of {name}")))?;
        Ok::<_, Finding>(value.filter(|value| **value != Json::Null))
    };
    let why = plain(field("justification")?.and_then(Json::text).unwrap_or(""), 360);
    let side = match field("action")?.and_then(Json::text) {
        Some("open_long" | "buy_to_enter") => Stance::Long,
        Some("open_short" | "sell_to_enter") => Stance::Short,
        Some("close" | "close_position") => Stance::Flat,
        Some("hold") => return Ok(Finding::Hold { why }),
        other => return Err(broken("V01", format!("action `{}`", plain(other.unwrap_or(""), 32)))),
    };
    if side == Stance::Flat {
        // A close needs no numbers: what stands beside it is not read, so it cannot hold it up; and it is said with
        // full confidence, so that a bound on confidence further on, which is meant for opens, cannot either.
        return Ok(Finding::Opinion { side, confidence: Fraction::ONE, stop_loss: None, take_profit: None, why });
    }
    let number = |name: &'static str| field(name)?.map(|value| decimal(name, value)).transpose();
    let price = |name: &'static str| {
        let above_zero = |value: Decimal| {
            if Decimal::ZERO < value {
                return Ok(Price::new(value));
            }
            Err(broken("V04", format!("{name} {value} is not above zero")))
        };
        number(name)?.map(above_zero).transpose()
    };
    let confidence = number("confidence")?.ok_or_else(|| broken("V04", "confidence is missing".to_owned()))?;
    let confidence =
        Fraction::new(confidence).map_err(|_| broken("V04", format!("confidence {confidence} is not in 0..=1")))?;
    let (stop_loss, take_profit) = (price("stop_loss")?, price("take_profit")?);
    if stop_loss.is_none() && trader.stop_loss_required {
        return Err(broken("V07", "stop_loss is missing".to_owned()));
    }
    // How far `price` is on the winning side of the close; negative on the losing side.
    let gain = |price: Price| if side == Stance::Long { price - coin.close } else { coin.close - price };
    let stop_gap = coin.close.get() * trader.stop_distance_min.get();
    let words = if side == Stance::Long { "long" } else { "short" };
    if let Some(stop) = stop_loss
        && -gain(stop) < stop_gap.max(Decimal::new(1, 28))
    {
        return Err(broken(
            "V07",
            format!("stop_loss {stop} of a {words} at {} (at least {} away)", coin.close, stop_gap.normalize()),
        ));
    }
    if let Some(target) = take_profit
        && gain(target) <= Decimal::ZERO
    {
        return Err(broken("V07", format!("take_profit {target} of a {words} at {}", coin.close)));
    }
    Ok(Finding::Opinion { side, confidence, stop_loss, take_profit, why })
}

/// A JSON number, or the text of one; exactly the digits that stood there.
fn decimal(name: &str, value: &Json) -> Result<Decimal, Finding> {
    let text = match value {
        Json::Number(text) | Json::Text(text) => text,
        _ => return Err(broken("V04", format!("{name} is not a number"))),
    };
    let plain_digits = text.bytes().all(|b| b.is_ascii_digit() || b".+-eE".contains(&b));
    let value = schemas::num::parse_decimal(text).ok().filter(|_| plain_digits);
    value.ok_or_else(|| broken("V04", format!("{name} `{}` is not a decimal number", plain(text, 32))))
}

/// The verdict on a reply, and the signals that follow from it.
///
/// The newest attempt that decides anything counts: a repair replaces what it mends, and when the repair itself
/// fails, what the first answer decided soundly still stands.
pub fn judge(trader: &Trader, reply: &LlmReply, cause: &Cause) -> (LlmVerdict, Vec<Signal>) {
    let examined: Vec<_> = reply.attempts.iter().map(|attempt| examine(trader, &reply.coins, attempt)).collect();
    let counts = examined.iter().rev().find_map(|e| e.as_ref().ok().filter(|e| e.decides()));
    let counts = counts.or_else(|| examined.iter().rev().find_map(|e| e.as_ref().ok()));
    let mut verdict = LlmVerdict {
        v: Version,
        trader: reply.trader.clone(),
        cycle: reply.cycle.clone(),
        as_of_ns: reply.as_of_ns,
        verdict: "no_decision".to_owned(),
        code: None,
        repaired: false,
        coins: Vec::new(),
        summary: String::new(),
        cause: cause.clone(),
    };
    let Some(counts) = counts else {
        let failure = match examined.into_iter().next_back() {
            Some(Err(failure)) => failure,
            _ => Failure::new("no_attempt", "nothing was asked"),
        };
        let none = |coin: &LlmCoin| coin_verdict(coin, "no_decision", Some(&failure.code), &failure.detail);
        verdict.coins = reply.coins.iter().map(none).collect();
        verdict.code = Some(failure.code);
        return (verdict, Vec::new());
    };

    let late = trader.expiry_clock == ExpiryClock::Event && reply.valid_until_ns < reply.wall_ns;
    let mut signals = Vec::new();
    for (name, finding) in &counts.findings {
        let Some(coin) = reply.coins.iter().find(|coin| coin.coin == *name) else {
            let unknown = LlmCoin {
                coin: name.clone(),
                venue: String::new(),
                symbol: String::new(),
                timeframe: String::new(),
                close: Price::ZERO,
                gap_bars: 0,
            };
            if let Finding::Broken { code, detail } = finding {
                verdict.coins.push(coin_verdict(&unknown, "no_decision", Some(code), detail));
            }
            continue;
        };
        verdict.coins.push(match finding {
            Finding::Broken { code, detail } => coin_verdict(coin, "no_decision", Some(code), detail),
            Finding::Hold { why } => coin_verdict(coin, "hold", None, why),
            Finding::Opinion { side, .. } if late && *side != Stance::Flat => {
                let ms = (reply.wall_ns - reply.valid_until_ns) / 1_000_000;
                coin_verdict(coin, "no_decision", Some("V14"), &format!("the answer is {ms} ms too late to open"))
            }
            Finding::Opinion { side, confidence, stop_loss, take_profit, why } => {
                let signal = Signal {
                    v: Version,
                    origin: "llm".to_owned(),
                    strategy: trader.name.clone(),
                    venue: coin.venue.clone(),
                    symbol: coin.symbol.clone(),
                    timeframe: coin.timeframe.clone(),
                    side: *side,
                    strength: trader.strength,
                    confidence: *confidence,
                    ts_ns: reply.as_of_ns,
                    valid_until_ns: reply.as_of_ns.saturating_add(trader.timeframe.ns() * i64::from(trader.valid_bars)),
                    reason: why.clone(),
                    stop_loss: *stop_loss,
                    take_profit: *take_profit,
                    gap_bars: coin.gap_bars,
                    cause: cause.clone(),
                };
                let detail = said(&signal);
                signals.push(signal);
                coin_verdict(coin, "signal", None, &detail)
            }
        });
    }
    let decided = verdict.coins.iter().any(|coin| coin.verdict != "no_decision");
    let all_one_code = verdict.coins.first().and_then(|first| first.code.clone());
    let same = verdict.coins.iter().all(|coin| coin.code == all_one_code);
    verdict.verdict = if decided { "decided" } else { "no_decision" }.to_owned();
    verdict.code = if decided { None } else { all_one_code.filter(|_| same).or_else(|| Some("coins".to_owned())) };
    verdict.repaired = counts.repaired || reply.attempts.iter().any(|attempt| attempt.kind == "repair");
    verdict.summary = counts.summary.clone();
    (verdict, signals)
}

fn coin_verdict(coin: &LlmCoin, verdict: &str, code: Option<&str>, detail: &str) -> LlmCoinVerdict {
    LlmCoinVerdict {
        coin: coin.coin.clone(),
        venue: coin.venue.clone(),
        symbol: coin.symbol.clone(),
        verdict: verdict.to_owned(),
        code: code.map(str::to_owned),
        detail: detail.to_owned(),
    }
}

fn said(signal: &Signal) -> String {
    let side = match signal.side {
        Stance::Long => "long",
        Stance::Flat => "flat",
        Stance::Short => "short",
    };
    let price = |name: &str, price: Option<Price>| price.map(|p| format!(", {name} {p}")).unwrap_or_default();
    let (stop, target) = (price("stop", signal.stop_loss), price("target", signal.take_profit));
    format!("{side}{stop}{target}, confidence {}", signal.confidence)
}

#[cfg(test)]
pub(crate) mod tests;
