use crate::session::{Plan, Session};

/// `{}` is the coin.
pub fn check_channel(channel: &str) -> Result<(), String> {
    const ALLOWED: &str =
        "{}@trades, {}@l2Book, {}@bbo, {}@activeAssetCtx, {}@candle.<width> with a width of the venue";
    let known = match channel.strip_prefix("{}@") {
        Some("trades" | "l2Book" | "bbo" | "activeAssetCtx") => true,
        Some(other) => other.strip_prefix("candle.").is_some_and(|width| WIDTHS.contains(&width)),
        None => false,
    };
    if known { Ok(()) } else { Err(format!("allowed are {ALLOWED}")) }
}

/// Widths of the candles that the venue pushes.
const WIDTHS: &[&str] = &["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M"];

pub fn sessions(_plan: &Plan) -> Vec<Box<dyn Session>> {
    Vec::new()
}
