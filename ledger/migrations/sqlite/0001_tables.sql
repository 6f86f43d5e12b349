-- The ledger's tables (SQLite); ledger/src/schema.rs describes them. Columns ending in _ns are nanoseconds since 1970
-- UTC. Exact numbers are decimal TEXT: compare and sum them as REAL only where a picture will do.

-- How far each stream was folded, and what its fold remembers. Updated with the rows, in one transaction.
CREATE TABLE cursors (
    stream TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    state BLOB
);

CREATE TABLE trades (
    "account" TEXT NOT NULL,
    "venue" TEXT NOT NULL,
    "symbol" TEXT NOT NULL,
    "n" INTEGER NOT NULL,
    "side" TEXT,
    "opened_ns" INTEGER,
    "closed_ns" INTEGER,
    "qty_max" TEXT,
    "realised" TEXT,
    "fees" TEXT,
    "funding" TEXT,
    "net_pnl" TEXT,
    "entry_price" TEXT,
    "exit_price" TEXT,
    "qty_in" TEXT,
    "qty_out" TEXT,
    "fills" INTEGER,
    PRIMARY KEY ("account", "venue", "symbol", "n")
);
CREATE INDEX trades_by_time ON trades (opened_ns);

CREATE TABLE orders (
    "account" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "venue" TEXT,
    "symbol" TEXT,
    "side" TEXT,
    "kind" TEXT,
    "qty" TEXT,
    "limit_price" TEXT,
    "trigger_price" TEXT,
    "reduce_only" INTEGER,
    "post_only" INTEGER,
    "time_in_force" TEXT,
    "stop_loss" TEXT,
    "take_profit" TEXT,
    "parent" TEXT,
    "strategies" TEXT,
    "ordered_ns" INTEGER,
    "reason" TEXT,
    "cause" TEXT,
    "state" TEXT,
    "sent_ns" INTEGER,
    "acked_ns" INTEGER,
    "venue_order_id" TEXT,
    "left_qty" TEXT,
    "filled_qty" TEXT,
    "ended_ns" INTEGER,
    "end_code" TEXT,
    "end_reason" TEXT,
    "cancel_asked_ns" INTEGER,
    "cancel_reason" TEXT,
    PRIMARY KEY ("account", "id")
);
CREATE INDEX orders_by_time ON orders (ordered_ns);

CREATE TABLE fills (
    "account" TEXT NOT NULL,
    "order_id" TEXT NOT NULL,
    "n" INTEGER NOT NULL,
    "trade_n" INTEGER,
    "venue" TEXT,
    "symbol" TEXT,
    "side" TEXT,
    "price" TEXT,
    "qty" TEXT,
    "fee" TEXT,
    "liquidity" TEXT,
    "reduce_only" INTEGER,
    "left_qty" TEXT,
    "why" TEXT,
    "ts_ns" INTEGER,
    "cause" TEXT,
    PRIMARY KEY ("account", "order_id", "n")
);
CREATE INDEX fills_by_time ON fills (ts_ns);

CREATE TABLE positions (
    "account" TEXT NOT NULL,
    "venue" TEXT NOT NULL,
    "symbol" TEXT NOT NULL,
    "held" TEXT,
    "entry_price" TEXT,
    "since_ns" INTEGER,
    "realised" TEXT,
    "fees" TEXT,
    "funding" TEXT,
    "mark" TEXT,
    "unrealised" TEXT,
    "ts_ns" INTEGER,
    "cause" TEXT,
    PRIMARY KEY ("account", "venue", "symbol")
);

CREATE TABLE account_snapshots (
    "stream" TEXT NOT NULL,
    "seq" INTEGER NOT NULL,
    "account" TEXT,
    "ts_ns" INTEGER,
    "mode" TEXT,
    "cash" TEXT,
    "equity" TEXT,
    "unrealised" TEXT,
    "realised" TEXT,
    "fees" TEXT,
    "funding" TEXT,
    "day_start_equity" TEXT,
    "peak_equity" TEXT,
    "drawdown" TEXT,
    "gross" TEXT,
    "net" TEXT,
    "state" TEXT,
    "cause" TEXT,
    PRIMARY KEY ("stream", "seq")
);
CREATE INDEX account_snapshots_by_time ON account_snapshots (account, ts_ns);

CREATE TABLE signals (
    "stream" TEXT NOT NULL,
    "seq" INTEGER NOT NULL,
    "origin" TEXT,
    "strategy" TEXT,
    "venue" TEXT,
    "symbol" TEXT,
    "timeframe" TEXT,
    "side" TEXT,
    "strength" TEXT,
    "confidence" TEXT,
    "ts_ns" INTEGER,
    "valid_until_ns" INTEGER,
    "stop_loss" TEXT,
    "take_profit" TEXT,
    "reason" TEXT,
    "cause" TEXT,
    PRIMARY KEY ("stream", "seq")
);
CREATE INDEX signals_by_time ON signals (ts_ns);

CREATE TABLE ai_conversations (
    "trader" TEXT NOT NULL,
    "cycle" TEXT NOT NULL,
    "invocation" INTEGER,
    "as_of_ns" INTEGER,
    "valid_until_ns" INTEGER,
    "template" TEXT,
    "request_hash" TEXT,
    "coins" TEXT,
    "system_prompt" TEXT,
    "prompt" TEXT,
    "model" TEXT,
    "response" TEXT,
    "attempts" TEXT,
    "latency_ms" INTEGER,
    "prompt_tokens" INTEGER,
    "completion_tokens" INTEGER,
    "replied_wall_ns" INTEGER,
    "verdict" TEXT,
    "code" TEXT,
    "repaired" INTEGER,
    "decision" TEXT,
    "summary" TEXT,
    -- What came of it so far: asked, replied, then the verdict (decided, no_decision).
    "execution_status" TEXT GENERATED ALWAYS AS (
        CASE
            WHEN verdict IS NOT NULL THEN verdict
            WHEN attempts IS NOT NULL THEN 'replied'
            ELSE 'asked'
        END
    ) STORED,
    PRIMARY KEY ("trader", "cycle")
);

CREATE TABLE market_data (
    "venue" TEXT NOT NULL,
    "symbol" TEXT NOT NULL,
    "timeframe" TEXT NOT NULL,
    "open_ns" INTEGER NOT NULL,
    "close_ns" INTEGER,
    "open" TEXT,
    "high" TEXT,
    "low" TEXT,
    "close" TEXT,
    "volume" TEXT,
    "buy_volume" TEXT,
    "quote_volume" TEXT,
    "trades" INTEGER,
    "buy_trades" INTEGER,
    "closed_by" TEXT,
    "complete" INTEGER,
    "filled" INTEGER,
    "indicators" TEXT,
    "cause" TEXT,
    PRIMARY KEY ("venue", "symbol", "timeframe", "open_ns")
);

CREATE TABLE system_config (
    "key" TEXT NOT NULL,
    "value" TEXT,
    "revision" INTEGER,
    "written_wall_ns" INTEGER,
    PRIMARY KEY ("key")
);
