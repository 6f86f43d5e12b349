-- The ledger's tables (PostgreSQL); ledger/src/schema.rs describes them. Columns ending in _ns are nanoseconds since 1970
-- UTC. Exact numbers are NUMERIC.

-- How far each stream was folded, and what its fold remembers. Updated with the rows, in one transaction.
CREATE TABLE cursors (
    stream TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    state BYTEA
);

CREATE TABLE trades (
    "account" TEXT NOT NULL,
    "venue" TEXT NOT NULL,
    "symbol" TEXT NOT NULL,
    "n" BIGINT NOT NULL,
    "side" TEXT,
    "opened_ns" BIGINT,
    "closed_ns" BIGINT,
    "qty_max" NUMERIC,
    "realised" NUMERIC,
    "fees" NUMERIC,
    "funding" NUMERIC,
    "net_pnl" NUMERIC,
    "entry_price" NUMERIC,
    "exit_price" NUMERIC,
    "qty_in" NUMERIC,
    "qty_out" NUMERIC,
    "fills" BIGINT,
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
    "qty" NUMERIC,
    "limit_price" NUMERIC,
    "trigger_price" NUMERIC,
    "reduce_only" BOOLEAN,
    "post_only" BOOLEAN,
    "time_in_force" TEXT,
    "stop_loss" NUMERIC,
    "take_profit" NUMERIC,
    "parent" TEXT,
    "strategies" JSONB,
    "ordered_ns" BIGINT,
    "reason" TEXT,
    "cause" TEXT,
    "state" TEXT,
    "sent_ns" BIGINT,
    "acked_ns" BIGINT,
    "venue_order_id" TEXT,
    "left_qty" NUMERIC,
    "filled_qty" NUMERIC,
    "ended_ns" BIGINT,
    "end_code" TEXT,
    "end_reason" TEXT,
    "cancel_asked_ns" BIGINT,
    "cancel_reason" TEXT,
    PRIMARY KEY ("account", "id")
);
CREATE INDEX orders_by_time ON orders (ordered_ns);

CREATE TABLE fills (
    "account" TEXT NOT NULL,
    "order_id" TEXT NOT NULL,
    "n" BIGINT NOT NULL,
    "trade_n" BIGINT,
    "venue" TEXT,
    "symbol" TEXT,
    "side" TEXT,
    "price" NUMERIC,
    "qty" NUMERIC,
    "fee" NUMERIC,
    "liquidity" TEXT,
    "reduce_only" BOOLEAN,
    "left_qty" NUMERIC,
    "why" TEXT,
    "ts_ns" BIGINT,
    "cause" TEXT,
    PRIMARY KEY ("account", "order_id", "n")
);
CREATE INDEX fills_by_time ON fills (ts_ns);

CREATE TABLE positions (
    "account" TEXT NOT NULL,
    "venue" TEXT NOT NULL,
    "symbol" TEXT NOT NULL,
    "held" NUMERIC,
    "entry_price" NUMERIC,
    "since_ns" BIGINT,
    "realised" NUMERIC,
    "fees" NUMERIC,
    "funding" NUMERIC,
    "mark" NUMERIC,
    "unrealised" NUMERIC,
    "ts_ns" BIGINT,
    "cause" TEXT,
    PRIMARY KEY ("account", "venue", "symbol")
);

CREATE TABLE account_snapshots (
    "stream" TEXT NOT NULL,
    "seq" BIGINT NOT NULL,
    "account" TEXT,
    "ts_ns" BIGINT,
    "mode" TEXT,
    "cash" NUMERIC,
    "equity" NUMERIC,
    "unrealised" NUMERIC,
    "realised" NUMERIC,
    "fees" NUMERIC,
    "funding" NUMERIC,
    "day_start_equity" NUMERIC,
    "peak_equity" NUMERIC,
    "drawdown" NUMERIC,
    "gross" NUMERIC,
    "net" NUMERIC,
    "state" TEXT,
    "cause" TEXT,
    PRIMARY KEY ("stream", "seq")
);
CREATE INDEX account_snapshots_by_time ON account_snapshots (account, ts_ns);

CREATE TABLE signals (
    "stream" TEXT NOT NULL,
    "seq" BIGINT NOT NULL,
    "origin" TEXT,
    "strategy" TEXT,
    "venue" TEXT,
    "symbol" TEXT,
    "timeframe" TEXT,
    "side" TEXT,
    "strength" NUMERIC,
    "confidence" NUMERIC,
    "ts_ns" BIGINT,
    "valid_until_ns" BIGINT,
    "stop_loss" NUMERIC,
    "take_profit" NUMERIC,
    "reason" TEXT,
    "cause" TEXT,
    PRIMARY KEY ("stream", "seq")
);
CREATE INDEX signals_by_time ON signals (ts_ns);

CREATE TABLE ai_conversations (
    "trader" TEXT NOT NULL,
    "cycle" TEXT NOT NULL,
    "invocation" BIGINT,
    "as_of_ns" BIGINT,
    "valid_until_ns" BIGINT,
    "template" TEXT,
    "request_hash" TEXT,
    "coins" JSONB,
    "system_prompt" TEXT,
    "prompt" TEXT,
    "model" TEXT,
    "response" TEXT,
    "attempts" JSONB,
    "latency_ms" BIGINT,
    "prompt_tokens" BIGINT,
    "completion_tokens" BIGINT,
    "replied_wall_ns" BIGINT,
    "verdict" TEXT,
    "code" TEXT,
    "repaired" BOOLEAN,
    "decision" JSONB,
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
    "open_ns" BIGINT NOT NULL,
    "close_ns" BIGINT,
    "open" NUMERIC,
    "high" NUMERIC,
    "low" NUMERIC,
    "close" NUMERIC,
    "volume" NUMERIC,
    "buy_volume" NUMERIC,
    "quote_volume" NUMERIC,
    "trades" BIGINT,
    "buy_trades" BIGINT,
    "closed_by" TEXT,
    "complete" BOOLEAN,
    "filled" BOOLEAN,
    "indicators" JSONB,
    "cause" TEXT,
    PRIMARY KEY ("venue", "symbol", "timeframe", "open_ns")
);

CREATE TABLE system_config (
    "key" TEXT NOT NULL,
    "value" JSONB,
    "revision" BIGINT,
    "written_wall_ns" BIGINT,
    PRIMARY KEY ("key")
);
