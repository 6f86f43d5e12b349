//! The tables, as the migrations create them; a test compares the two.

/// What a column holds. Exact numbers are `TEXT` in SQLite (cast where you sum: `SUM(CAST(fee AS REAL))` for a
/// picture, in your program for the books) and `NUMERIC` in PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Int,
    Decimal,
    Bool,
    Json,
}

/// A table and its primary key. `_ns` columns are nanoseconds since 1970 UTC, event time unless the column says
/// otherwise.
#[derive(PartialEq, Eq, Debug)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub columns: &'static [(&'static str, Kind)],
}

impl Table {
    pub fn kind(&self, column: &str) -> Option<Kind> {
        self.columns.iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind)
    }
}

use Kind::{Bool, Decimal, Int, Json, Text};

/// Our round trips: one row from flat to flat. The `n`-th of an instrument in an account.
pub static TRADES: Table = Table {
    name: "trades",
    key: &["account", "venue", "symbol", "n"],
    columns: &[
        ("account", Text),
        ("venue", Text),
        ("symbol", Text),
        ("n", Int),
        ("side", Text),
        ("opened_ns", Int),
        ("closed_ns", Int),
        ("qty_max", Decimal),
        ("realised", Decimal),
        ("fees", Decimal),
        ("funding", Decimal),
        ("net_pnl", Decimal),
        ("entry_price", Decimal),
        ("exit_price", Decimal),
        ("qty_in", Decimal),
        ("qty_out", Decimal),
        ("fills", Int),
    ],
};

/// Every order, from risk's decision to its end.
pub static ORDERS: Table = Table {
    name: "orders",
    key: &["account", "id"],
    columns: &[
        ("account", Text),
        ("id", Text),
        ("venue", Text),
        ("symbol", Text),
        ("side", Text),
        ("kind", Text),
        ("qty", Decimal),
        ("limit_price", Decimal),
        ("trigger_price", Decimal),
        ("reduce_only", Bool),
        ("post_only", Bool),
        ("time_in_force", Text),
        ("stop_loss", Decimal),
        ("take_profit", Decimal),
        ("parent", Text),
        ("strategies", Json),
        ("ordered_ns", Int),
        ("reason", Text),
        ("cause", Text),
        ("state", Text),
        ("sent_ns", Int),
        ("acked_ns", Int),
        ("venue_order_id", Text),
        ("left_qty", Decimal),
        ("filled_qty", Decimal),
        ("ended_ns", Int),
        ("end_code", Text),
        ("end_reason", Text),
        ("cancel_asked_ns", Int),
        ("cancel_reason", Text),
    ],
};

/// Executions of our orders.
pub static FILLS: Table = Table {
    name: "fills",
    key: &["account", "order_id", "n"],
    columns: &[
        ("account", Text),
        ("order_id", Text),
        ("n", Int),
        ("trade_n", Int),
        ("venue", Text),
        ("symbol", Text),
        ("side", Text),
        ("price", Decimal),
        ("qty", Decimal),
        ("fee", Decimal),
        ("liquidity", Text),
        ("reduce_only", Bool),
        ("left_qty", Decimal),
        ("why", Text),
        ("ts_ns", Int),
        ("cause", Text),
    ],
};

/// What is held now.
pub static POSITIONS: Table = Table {
    name: "positions",
    key: &["account", "venue", "symbol"],
    columns: &[
        ("account", Text),
        ("venue", Text),
        ("symbol", Text),
        ("held", Decimal),
        ("entry_price", Decimal),
        ("since_ns", Int),
        ("realised", Decimal),
        ("fees", Decimal),
        ("funding", Decimal),
        ("mark", Decimal),
        ("unrealised", Decimal),
        ("ts_ns", Int),
        ("cause", Text),
    ],
};

/// The account at every fill and full minute.
pub static ACCOUNT_SNAPSHOTS: Table = Table {
    name: "account_snapshots",
    key: &["stream", "seq"],
    columns: &[
        ("stream", Text),
        ("seq", Int),
        ("account", Text),
        ("ts_ns", Int),
        ("mode", Text),
        ("cash", Decimal),
        ("equity", Decimal),
        ("unrealised", Decimal),
        ("realised", Decimal),
        ("fees", Decimal),
        ("funding", Decimal),
        ("day_start_equity", Decimal),
        ("peak_equity", Decimal),
        ("drawdown", Decimal),
        ("gross", Decimal),
        ("net", Decimal),
        ("state", Text),
        ("cause", Text),
    ],
};

/// Every opinion.
pub static SIGNALS: Table = Table {
    name: "signals",
    key: &["stream", "seq"],
    columns: &[
        ("stream", Text),
        ("seq", Int),
        ("origin", Text),
        ("strategy", Text),
        ("venue", Text),
        ("symbol", Text),
        ("timeframe", Text),
        ("side", Text),
        ("strength", Decimal),
        ("confidence", Decimal),
        ("ts_ns", Int),
        ("valid_until_ns", Int),
        ("stop_loss", Decimal),
        ("take_profit", Decimal),
        ("reason", Text),
        ("cause", Text),
        ("gap_bars", Int),
    ],
};

/// One question to a model, what came back and what became of it.
pub static AI_CONVERSATIONS: Table = Table {
    name: "ai_conversations",
    key: &["trader", "cycle"],
    columns: &[
        ("trader", Text),
        ("cycle", Text),
        ("invocation", Int),
        ("as_of_ns", Int),
        ("valid_until_ns", Int),
        ("template", Text),
        ("request_hash", Text),
        ("coins", Json),
        ("system_prompt", Text),
        ("prompt", Text),
        ("model", Text),
        ("response", Text),
        ("attempts", Json),
        ("latency_ms", Int),
        ("prompt_tokens", Int),
        ("completion_tokens", Int),
        ("replied_wall_ns", Int),
        ("verdict", Text),
        ("code", Text),
        ("repaired", Bool),
        ("decision", Json),
        ("summary", Text),
    ],
};

/// Closed candles with their indicators.
pub static MARKET_DATA: Table = Table {
    name: "market_data",
    key: &["venue", "symbol", "timeframe", "open_ns"],
    columns: &[
        ("venue", Text),
        ("symbol", Text),
        ("timeframe", Text),
        ("open_ns", Int),
        ("close_ns", Int),
        ("open", Decimal),
        ("high", Decimal),
        ("low", Decimal),
        ("close", Decimal),
        ("volume", Decimal),
        ("buy_volume", Decimal),
        ("quote_volume", Decimal),
        ("trades", Int),
        ("buy_trades", Int),
        ("closed_by", Text),
        ("complete", Bool),
        ("filled", Bool),
        ("indicators", Json),
        ("cause", Text),
    ],
};

/// The newest value of every key in KV `cfg`.
pub static SYSTEM_CONFIG: Table = Table {
    name: "system_config",
    key: &["key"],
    columns: &[("key", Text), ("value", Json), ("revision", Int), ("written_wall_ns", Int)],
};

/// All tables of facts, in the order of the pipeline's end.
pub static TABLES: [&Table; 9] = [
    &TRADES,
    &ORDERS,
    &FILLS,
    &POSITIONS,
    &ACCOUNT_SNAPSHOTS,
    &SIGNALS,
    &AI_CONVERSATIONS,
    &MARKET_DATA,
    &SYSTEM_CONFIG,
];
