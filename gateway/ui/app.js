// The dashboard: prices, candles with overlays and trade markers, positions, equity, stages. REST fills each
// panel once, the live feed keeps it true.

import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Feed, get, token } from "./feed.js";
import { CandleChart, EquityChart, OVERLAY_NAMES, tfSeconds } from "./chart.js";

const ACCOUNT_POLL_MS = 5_000;   // status and lists that no channel carries
const PAINT_MS = 100;            // prices are painted at most ten times a second
const TIMEFRAMES = ["1s", "1m", "5m", "15m", "1h"];
const ROWS_SHOWN = 60;

const feed = new Feed(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/stream`);

/// Decimal text with thin grouping; what is no number is shown as it is.
function num(text, digits) {
  if (text == null || text === "") return "";
  const value = Number(text);
  if (!Number.isFinite(value)) return String(text);
  return digits == null ? String(text) : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
const clock = (ns) => ns ? new Date(ns / 1e6).toISOString().slice(11, 19) : "";
const sign = (text) => Number(text) > 0 ? "up" : Number(text) < 0 ? "down" : "";
const age = (ms) => ms == null ? "–" : ms < 1000 ? `${Math.max(0, Math.round(ms))} ms` : ms < 120_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;

/// Fetches now and every `periodMs`; keeps the last good answer.
function usePoll(path, periodMs) {
  const [value, set] = useState(null);
  useEffect(() => {
    let gone = false;
    const ask = () => get(path).then((v) => { if (!gone) set(v); }).catch((e) => console.warn(e.message));
    ask();
    const timer = setInterval(ask, periodMs);
    return () => { gone = true; clearInterval(timer); };
  }, [path, periodMs]);
  return value;
}

function useChannel(channel, first) {
  const [value, set] = useState(first);
  useEffect(() => channel ? feed.on(channel, (data) => set(data)) : undefined, [channel]);
  return value;
}

/// Newest rows of a REST list, then of its log channel.
function useLog(path, field, channel, id) {
  const [rows, set] = useState([]);
  useEffect(() => { get(`${path}?limit=${ROWS_SHOWN}`).then((v) => set(v[field])).catch((e) => console.warn(e.message)); }, [path]);
  useEffect(() => channel ? feed.on(channel, (row) => set((old) => [row, ...old.filter((r) => id(r) !== id(row))].slice(0, ROWS_SHOWN))) : undefined, [channel]);
  return rows;
}

/// All tickers, painted together at most every PAINT_MS.
function useTickers() {
  const [tickers, set] = useState([]);
  const store = useRef(new Map());
  useEffect(() => {
    const ends = [];
    let dirty = false;
    const hear = (t) => {
      const key = `${t.venue}.${t.symbol}`;
      const old = store.current.get(key);
      const move = old && old.last != null && t.last !== old.last ? (Number(t.last) > Number(old.last) ? "up" : "down") : old?.move;
      store.current.set(key, { ...t, key, move, changed: old && t.last !== old.last ? Date.now() : old?.changed ?? 0 });
      dirty = true;
    };
    const known = new Set();
    const join = () => get("/api/crypto-prices").then(({ prices }) => {
      for (const t of prices) {
        const channel = `ticker.${t.venue}.${token(t.symbol)}`;
        if (known.has(channel)) continue;
        known.add(channel);
        hear(t);
        ends.push(feed.on(channel, hear));
      }
    }).catch((e) => console.warn(e.message));
    join();
    const seek = setInterval(join, ACCOUNT_POLL_MS);
    const paint = setInterval(() => {
      if (!dirty) return;
      dirty = false;
      set([...store.current.values()].sort((a, b) => a.key < b.key ? -1 : 1));
    }, PAINT_MS);
    return () => { clearInterval(seek); clearInterval(paint); ends.forEach((end) => end()); };
  }, []);
  return tickers;
}

function Header({ status, account, link }) {
  const [, tick] = useState(0);
  useEffect(() => { const timer = setInterval(() => tick((n) => n + 1), 500); return () => clearInterval(timer); }, []);
  const silent = link.lastFrame ? Date.now() - link.lastFrame : null;
  const state = status?.state ?? "active";
  const dot = !link.open ? "bad" : silent > 10_000 ? "bad" : silent > 2_000 ? "slow" : "ok";
  const day = account ? Number(account.equity) - Number(account.day_start_equity) : null;
  return html`<header>
    <h1>Tapeline</h1>
    <span class="badge ${status?.mode ?? ""}" data-testid="mode">${(status?.mode ?? "…").toUpperCase()}</span>
    <span class="badge ${state}" title=${status?.state_reason ?? ""} data-testid="state">${state.toUpperCase()}</span>
    <div class="kpi"><span>equity</span><b data-testid="equity-now">${account ? num(account.equity, 2) : "–"}</b></div>
    <div class="kpi"><span>today</span><b class=${sign(day)}>${day == null ? "–" : num(day, 2)}</b></div>
    <div class="kpi"><span>drawdown</span><b>${account ? `${(Number(account.drawdown) * 100).toFixed(2)} %` : "–"}</b></div>
    <div class="kpi"><span>gross / net</span><b>${account ? `${num(account.gross, 0)} / ${num(account.net, 0)}` : "–"}</b></div>
    <div class="kpi"><span>fees</span><b>${account ? num(account.fees, 2) : "–"}</b></div>
    <div class="right">
      ${link.gaps > 0 && html`<span class="amber" title="messages dropped because this page was slow">${link.gaps} dropped</span>`}
      <span data-testid="link"><span class="dot ${dot}"></span>${link.open ? `data ${age(silent)} old` : "reconnecting"}</span>
    </div>
  </header>`;
}

function Prices({ tickers, chosen, choose }) {
  const now = Date.now();
  return html`<section class="left"><h2>Prices</h2><div class="body">
    ${tickers.length === 0 ? html`<p class="empty">no price yet</p>` : html`<table>
      <thead><tr><th>instrument</th><th class="num">last</th><th class="num">bid</th><th class="num">ask</th><th class="num">change</th></tr></thead>
      <tbody>${tickers.map((t) => {
        const change = t.first && t.last ? (Number(t.last) / Number(t.first) - 1) * 100 : null;
        return html`<tr key=${t.key} class="pick ${chosen === t.key ? "chosen" : ""}" onClick=${() => choose(t.key)}>
          <td class="name">${t.symbol}<br /><span class="dim">${t.venue}</span></td>
          <td class="num ${t.move ?? ""} ${now - t.changed < 300 ? `flash-${t.move}` : ""}" data-price=${t.key}>${num(t.last)}</td>
          <td class="num dim">${num(t.bid)}</td><td class="num dim">${num(t.ask)}</td>
          <td class="num ${sign(change)}">${change == null ? "" : `${change.toFixed(2)} %`}</td></tr>`;
      })}</tbody></table>`}
  </div></section>`;
}

function Candles({ instrument, fills }) {
  const [tf, setTf] = useState("1s");
  const holder = useRef(null), chart = useRef(null);
  const [version, reload] = useState(0);
  const [shown, setShown] = useState(0);
  useEffect(() => {
    if (!instrument || !holder.current) return undefined;
    const { venue, symbol } = instrument;
    const drawn = new CandleChart(holder.current);
    chart.current = drawn;
    let gone = false;
    const early = [];
    let loaded = false;
    const take = (row) => { if (!drawn.update(row)) reload((n) => n + 1); setShown(drawn.count); };
    const ends = [
      feed.on(`candle.${venue}.${token(symbol)}.${tf}`, (row) => loaded ? take(row) : early.push(row)),
      feed.on(`indicator.${venue}.${token(symbol)}.${tf}`, (fact) => { if (loaded) drawn.indicators(fact); }),
    ];
    const query = new URLSearchParams({ venue, symbol, tf, limit: "500", indicators: OVERLAY_NAMES.join(",") });
    get(`/api/candles?${query}`).catch((e) => { console.warn(e.message); return { candles: [] }; }).then(({ candles }) => {
      if (gone) return;
      drawn.load(candles);
      loaded = true;
      early.forEach(take);
      setShown(drawn.count);
      mark();
    });
    return () => { gone = true; ends.forEach((end) => end()); drawn.remove(); chart.current = null; };
  }, [instrument?.venue, instrument?.symbol, tf, version]);
  const mark = () => chart.current?.fills(fills.filter((f) => f.venue === instrument?.venue && f.symbol === instrument?.symbol), tfSeconds(tf));
  useEffect(mark, [fills, instrument, tf, shown > 0]);
  return html`<section class="middle"><h2>
      ${instrument ? `${instrument.symbol} · ${instrument.venue}` : "Candles"}
      <span class="dim">ema 9, ema 20, bollinger</span>
      <span class="controls">${TIMEFRAMES.map((t) => html`<button class=${t === tf ? "on" : ""} onClick=${() => setTf(t)}>${t}</button>`)}</span>
    </h2><div id="chart" ref=${holder} data-candles=${shown}></div></section>`;
}

function Equity({ account }) {
  const holder = useRef(null), chart = useRef(null);
  useEffect(() => {
    const drawn = new EquityChart(holder.current);
    chart.current = drawn;
    get("/api/equity").then(({ equity }) => drawn.load(equity)).catch((e) => console.warn(e.message));
    return () => { chart.current = null; drawn.remove(); };
  }, []);
  useEffect(() => { if (account) chart.current?.add(account); }, [account]);
  return html`<section class="rightcol"><h2>Equity</h2><div id="equity" ref=${holder}></div></section>`;
}

function Positions({ positions }) {
  const open = positions.filter((p) => Number(p.held) !== 0);
  return html`<section class="rightcol"><h2>Positions <span class="dim">${open.length}</span></h2><div class="body">
    ${open.length === 0 ? html`<p class="empty">flat</p>` : html`<table data-testid="positions">
      <thead><tr><th>instrument</th><th class="num">held</th><th class="num">entry</th><th class="num">mark</th><th class="num">unrealised</th></tr></thead>
      <tbody>${open.map((p) => html`<tr key=${p.venue + p.symbol}><td>${p.symbol}<br /><span class="dim">${p.venue}</span></td>
        <td class="num ${sign(p.held)}">${num(p.held)}</td><td class="num">${num(p.entry, 2)}</td><td class="num">${num(p.mark, 2)}</td>
        <td class="num ${sign(p.unrealised)}">${num(p.unrealised, 2)}</td></tr>`)}</tbody></table>`}
  </div></section>`;
}

function Stages({ stages }) {
  return html`<section class="left"><h2>Stages <span class="dim">${stages.length}</span></h2><div class="body">
    ${stages.length === 0 ? html`<p class="empty">no stage answers</p>` : html`<table data-testid="stages">
      <thead><tr><th>stage</th><th class="num">tasks</th><th class="num">heard</th><th class="num">lag</th></tr></thead>
      <tbody>${stages.map((s) => {
        const lag = s.tasks.reduce((n, t) => Math.max(n, t.lag ?? 0), 0);
        const heard = s.tasks.reduce((n, t) => n + (t.heard ?? 0), 0);
        return html`<tr key=${s.id ?? s.stage}><td><span class="dot ${lag > 1000 ? "bad" : lag > 100 ? "slow" : "ok"}"></span>${s.stage}</td>
          <td class="num">${s.tasks.length}</td><td class="num">${heard.toLocaleString("en-US")}</td><td class="num">${lag}</td></tr>`;
      })}</tbody></table>`}
  </div></section>`;
}

const TABS = ["fills", "orders", "signals", "decisions", "refusals", "conversations"];

function Log({ fills, account }) {
  const [tab, setTab] = useState("fills");
  const orders = useLog("/api/orders", "orders", `orders.${account}`, (r) => r.id);
  const signals = useLog("/api/signals", "signals", "signals", (r) => `${r.strategy}.${r.venue}.${r.symbol}.${r.timeframe}.${r.ts_ns}`);
  const decisions = useLog("/api/decisions", "decisions", `intents.${account}`, (r) => `${r.cause}`);
  const refusals = usePoll(`/api/refusals?limit=${ROWS_SHOWN}`, ACCOUNT_POLL_MS)?.refusals ?? [];
  const conversations = usePoll("/api/conversations?limit=20", ACCOUNT_POLL_MS)?.conversations ?? [];
  const table = (heads, rows) => rows.length === 0 ? html`<p class="empty">nothing yet</p>` : html`<table data-testid=${tab}>
    <thead><tr>${heads.map((h) => html`<th>${h}</th>`)}</tr></thead><tbody>${rows}</tbody></table>`;
  const side = (s) => html`<span class=${s === "buy" || s === "long" ? "up" : s === "sell" || s === "short" ? "down" : "dim"}>${s ?? "none"}</span>`;
  const body = {
    fills: () => table(["time", "instrument", "side", "qty", "price", "fee", "why"], fills.map((f) => html`<tr key=${f.id + f.n}><td>${clock(f.ts_ns)}</td><td>${f.symbol} <span class="dim">${f.venue}</span></td><td>${side(f.side)}</td><td>${f.qty}</td><td>${f.price}</td><td>${num(f.fee, 4)}</td><td class="reason" title=${f.why}>${f.why}</td></tr>`)),
    orders: () => table(["time", "instrument", "side", "kind", "qty", "filled", "state", "reason"], orders.map((o) => html`<tr key=${o.id}><td>${clock(o.ts_ns)}</td><td>${o.symbol} <span class="dim">${o.venue}</span></td><td>${side(o.side)}</td><td>${o.kind}${o.reduce_only ? " reduce" : ""}</td><td>${o.qty}</td><td>${o.filled}</td><td>${o.status}</td><td class="reason" title=${o.reason}>${o.note || o.reason}</td></tr>`)),
    signals: () => table(["time", "strategy", "instrument", "tf", "side", "strength", "reason"], signals.map((s) => html`<tr><td>${clock(s.ts_ns)}</td><td>${s.strategy}</td><td>${s.symbol} <span class="dim">${s.venue}</span></td><td>${s.timeframe}</td><td>${side(s.side)}</td><td>${s.strength}</td><td class="reason" title=${s.reason}>${s.reason}</td></tr>`)),
    decisions: () => table(["time", "instrument", "policy", "side", "votes", "outcome", "reason"], decisions.map((d) => html`<tr><td>${clock(d.ts_ns)}</td><td>${d.symbol} <span class="dim">${d.venue}</span></td><td>${d.policy}</td><td>${side(d.side)}</td><td class="reason">${d.votes.map((v) => `${v.strategy} ${v.side}${v.counted ? "" : " (not counted)"}`).join(", ")}</td><td>${d.outcome}</td><td class="reason" title=${d.reason}>${d.reason}</td></tr>`)),
    refusals: () => table(["time", "instrument", "side", "qty", "limit", "number", "bound"], refusals.map((r) => html`<tr><td>${clock(r.ts_ns)}</td><td>${r.symbol} <span class="dim">${r.venue}</span></td><td>${side(r.side)}</td><td>${r.qty}</td><td>${r.limit}</td><td>${r.number}</td><td>${r.bound}</td></tr>`)),
    conversations: () => table(["cycle", "trader", "verdict", "coins", "summary"], conversations.map((c) => html`<tr><td>${c.cycle}</td><td>${c.trader}</td><td>${c.verdict ? `${c.verdict.verdict} ${c.verdict.code ?? ""}` : c.reply ? "replied" : "asked"}</td><td class="reason">${(c.verdict?.coins ?? []).map((x) => `${x.coin} ${x.verdict}`).join(", ")}</td><td class="reason" title=${c.verdict?.summary}>${c.verdict?.summary}</td></tr>`)),
  };
  return html`<section class="wide"><h2>Log <span class="controls">${TABS.map((t) => html`<button class=${t === tab ? "on" : ""} data-tab=${t} onClick=${() => setTab(t)}>${t}</button>`)}</span></h2>
    <div class="body">${body[tab]()}</div></section>`;
}

function App() {
  const status = usePoll("/api/status", ACCOUNT_POLL_MS);
  const [link, setLink] = useState(feed.status);
  useEffect(() => feed.onStatus(setLink), []);
  const name = status?.account;
  const tickers = useTickers();
  const [chosen, choose] = useState(null);
  const key = chosen ?? tickers[0]?.key ?? null;
  const instrument = tickers.find((t) => t.key === key);
  const account = useChannel(name && `account.${token(name)}`, null);
  const stages = useChannel("stages", []);
  const [positions, setPositions] = useState(new Map());
  useEffect(() => name ? feed.on(`positions.${token(name)}`, (p) => setPositions((old) => new Map(old).set(`${p.venue}.${p.symbol}`, p))) : undefined, [name]);
  const fills = useLog("/api/trades", "trades", name && `fills.${token(name)}`, (f) => `${f.id}.${f.n}`);
  return html`
    <${Header} status=${status} account=${account} link=${link} />
    <main>
      <${Prices} tickers=${tickers} chosen=${key} choose=${choose} />
      <${Candles} instrument=${instrument} fills=${fills} />
      <${Equity} account=${account} />
      <${Stages} stages=${stages} />
      <${Positions} positions=${[...positions.values()]} />
      ${name && html`<${Log} fills=${fills} account=${token(name)} />`}
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
