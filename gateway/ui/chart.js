// Candles with indicator overlays and trade markers; the equity curve. Thin wrappers around lightweight-charts.

import { createChart, createSeriesMarkers, CandlestickSeries, LineSeries, AreaSeries, HistogramSeries } from "./vendor/lightweight-charts.js";

const LOOK = {
  layout: { background: { color: "#14181e" }, textColor: "#7e8a99", attributionLogo: true },
  grid: { vertLines: { color: "#1b2129" }, horzLines: { color: "#1b2129" } },
  timeScale: { timeVisible: true, secondsVisible: true, borderColor: "#232a33" },
  rightPriceScale: { borderColor: "#232a33" },
  crosshair: { mode: 0 },
  autoSize: true,
};
const OVERLAYS = [["ema.ema_9", "#5aa9e6"], ["ema.ema_20", "#d9a03f"], ["bbands.upper", "#56616f"], ["bbands.lower", "#56616f"]];
/// Points kept by the chart; older ones are dropped when it is loaded anew.
const POINTS_MAX = 3000;

export const OVERLAY_NAMES = OVERLAYS.map(([name]) => name);
const seconds = (ns) => Math.floor(ns / 1e9);

export class CandleChart {
  constructor(element) {
    this.chart = createChart(element, LOOK);
    this.candles = this.chart.addSeries(CandlestickSeries, { upColor: "#35b37e", downColor: "#e5534b", wickUpColor: "#35b37e", wickDownColor: "#e5534b", borderVisible: false });
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.85, bottom: 0 } });
    this.lines = new Map(OVERLAYS.map(([name, color]) => [name, this.chart.addSeries(LineSeries, { color, lineWidth: 1, lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false })]));
    this.markers = createSeriesMarkers(this.candles, []);
    this.last = 0;
    this.count = 0;
  }

  load(rows) {
    const bars = rows.map(bar).slice(-POINTS_MAX);
    this.candles.setData(bars);
    this.volume.setData(rows.map(volume).slice(-POINTS_MAX));
    for (const [name, line] of this.lines) {
      line.setData(rows.filter((r) => r.indicators?.[name] != null).map((r) => ({ time: seconds(r.open_ns), value: r.indicators[name] })).slice(-POINTS_MAX));
    }
    this.last = bars.at(-1)?.time ?? 0;
    this.count = bars.length;
    this.digits(rows);
    if (bars.length) this.chart.timeScale().setVisibleLogicalRange({ from: Math.max(0, bars.length - 120), to: bars.length + 5 });
  }

  /// As many digits as the prices have.
  digits(rows) {
    const most = rows.slice(-50).reduce((n, r) => Math.max(n, (r.close.split(".")[1] ?? "").length), 0);
    this.candles.applyOptions({ priceFormat: { type: "price", precision: most, minMove: 10 ** -most } });
  }

  /// A forming or just closed candle; false: the chart holds too much and wants a fresh load.
  update(row) {
    const point = bar(row);
    if (point.time < this.last) return true;
    if (point.time > this.last) this.count += 1;
    this.last = point.time;
    this.candles.update(point);
    this.volume.update(volume(row));
    return this.count <= POINTS_MAX;
  }

  indicators(fact) {
    const time = seconds(fact.open_ns);
    for (const [name, line] of this.lines) {
      const value = fact.values[name];
      if (value == null) continue;
      const old = line.data().at(-1);
      if (!old || old.time <= time) line.update({ time, value });
    }
  }

  /// Our executions on this instrument: arrows at the candle in which they happened.
  fills(list, tfSeconds) {
    const marks = list.map((f) => ({
      time: Math.floor(f.ts_ns / 1e9 / tfSeconds) * tfSeconds,
      position: f.side === "buy" ? "belowBar" : "aboveBar",
      shape: f.side === "buy" ? "arrowUp" : "arrowDown",
      color: f.side === "buy" ? "#35b37e" : "#e5534b",
      text: `${f.reduce_only ? "exit" : "entry"} ${f.qty}`,
    }));
    this.markers.setMarkers(marks.sort((a, b) => a.time - b.time));
  }

  remove() { this.chart.remove(); }
}

export class EquityChart {
  constructor(element) {
    this.chart = createChart(element, LOOK);
    this.line = this.chart.addSeries(AreaSeries, { lineColor: "#5aa9e6", topColor: "rgba(90,169,230,.25)", bottomColor: "rgba(90,169,230,0)", lineWidth: 1 });
    this.last = 0;
  }
  load(points) {
    const byTime = new Map(points.map((p) => [seconds(p.ts_ns), Number(p.equity)]));
    const data = [...byTime].sort((a, b) => a[0] - b[0]).map(([time, value]) => ({ time, value }));
    this.line.setData(data);
    this.last = data.at(-1)?.time ?? 0;
    this.chart.timeScale().fitContent();
  }
  add(fact) {
    const time = seconds(fact.ts_ns);
    if (time < this.last) return;
    this.last = time;
    this.line.update({ time, value: Number(fact.equity) });
  }
  remove() { this.chart.remove(); }
}

const bar = (r) => ({ time: seconds(r.open_ns), open: Number(r.open), high: Number(r.high), low: Number(r.low), close: Number(r.close) });
const volume = (r) => ({ time: seconds(r.open_ns), value: Number(r.volume), color: Number(r.close) >= Number(r.open) ? "rgba(53,179,126,.35)" : "rgba(229,83,75,.35)" });

export function tfSeconds(tf) {
  return Number(tf.slice(0, -1)) * { s: 1, m: 60, h: 3600, d: 86400 }[tf.at(-1)];
}
