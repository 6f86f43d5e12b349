//! Charts as SVG text: axes with units, colours by class so that the page's light and dark themes apply, and what
//! the pointer shows, as JSON beside the picture.

use std::fmt::Write as _;

use time::{Month, OffsetDateTime};

use super::page::escaped;
use super::sheet::{Ohlc, Sample, Trade};

const WIDTH: f64 = 1_080.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Lines of an axis, about.
const TICKS_Y: f64 = 5.0;
const TICKS_X: i64 = 9;
const EXPOSURE_POINTS_MAX: usize = 200;
/// More trades than this on a chart are dots.
const ARROWS_MAX: usize = 120;
/// In place of a chart without points.
const NOTHING: &str = "<p>no bars</p>";
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How numbers of an axis read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Unit {
    Money,
    Percent,
    Price,
}

/// `12,345.68`; negative with the minus sign of typography.
pub fn money(value: f64) -> String {
    grouped(value, 2)
}

/// `1.23 %`
pub fn percent(ratio: f64) -> String {
    format!("{} %", grouped(ratio * 100.0, 2))
}

/// Four digits behind the point for small prices, two for others.
pub fn price(value: f64) -> String {
    grouped(value, if value.abs() < 10.0 { 5 } else { 2 })
}

/// Thousands divided by commas, `digits` behind the point.
pub fn grouped(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out
}

/// `2024-08-08 23:54:01`; without seconds where they are 0.
pub fn clock(ms: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)) else { return ms.to_string() };
    let seconds = if at.second() == 0 { String::new() } else { format!(":{:02}", at.second()) };
    format!("{} {:02}:{:02}{seconds}", at.date(), at.hour(), at.minute())
}

/// The place of values in the picture.
struct Frame {
    height: f64,
    x: (i64, i64),
    y: (f64, f64),
    unit: Unit,
}

impl Frame {
    fn new(height: f64, x: (i64, i64), values: impl Iterator<Item = f64>, zero: bool, unit: Unit) -> Self {
        let start = if zero { (0.0, 0.0) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        let (low, high) = values.filter(|v| v.is_finite()).fold(start, |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        // A flat line stands in the middle.
        let room = if high > low { (high - low) * 0.04 } else { high.abs().max(1.0) * 0.01 };
        let low_room = if zero && low == 0.0 { 0.0 } else { room };
        let high_room = if zero && high == 0.0 { 0.0 } else { room };
        Self { height, x: (x.0, x.1.max(x.0 + 1)), y: (low - low_room, high + high_room), unit }
    }
    fn px(&self, ms: i64) -> f64 {
        LEFT + (ms - self.x.0) as f64 / (self.x.1 - self.x.0) as f64 * (WIDTH - LEFT - RIGHT)
    }
    fn py(&self, value: f64) -> f64 {
        let share = (value - self.y.0) / (self.y.1 - self.y.0);
        self.height - BOTTOM - share * (self.height - TOP - BOTTOM)
    }

    fn axes(&self, svg: &mut String) {
        let step = nice((self.y.1 - self.y.0) / TICKS_Y);
        let first = (self.y.0 / step).ceil() as i64;
        let last = (self.y.1 / step).floor() as i64;
        for i in first..=last {
            let (value, y) = (i as f64 * step, self.py(i as f64 * step));
            let class = if i == 0 { "axis" } else { "grid" };
            put(
                svg,
                format_args!(
                    "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                    WIDTH - RIGHT
                ),
            );
            put(
                svg,
                format_args!(
                    "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 8.0,
                    y + 4.0,
                    self.label(value, step)
                ),
            );
        }
        let mut free_from = f64::NEG_INFINITY;
        for (ms, text) in time_ticks(self.x.0, self.x.1) {
            let x = self.px(ms);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
                    self.height - BOTTOM
                ),
            );
            let half = text.chars().count() as f64 * 3.4;
            if x - half > free_from && x + half < WIDTH {
                free_from = x + half + 6.0;
                put(
                    svg,
                    format_args!(
                        "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                        self.height - 8.0
                    ),
                );
            }
        }
    }

    /// As many digits as the step needs.
    fn label(&self, value: f64, step: f64) -> String {
        let digits = |step: f64| (-step.log10().floor()).clamp(0.0, 8.0) as usize;
        match self.unit {
            Unit::Percent => format!("{} %", grouped(value * 100.0, digits(step * 100.0))),
            Unit::Money | Unit::Price => grouped(value, digits(step)),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

/// Round times between two, UTC, with their text.
fn time_ticks(from_ms: i64, to_ms: i64) -> Vec<(i64, String)> {
    let span = (to_ms - from_ms).max(1);
    let steps = [
        1_000,
        5_000,
        15_000,
        30_000,
        MINUTE_MS,
        2 * MINUTE_MS,
        5 * MINUTE_MS,
        15 * MINUTE_MS,
        30 * MINUTE_MS,
        HOUR_MS,
        2 * HOUR_MS,
        4 * HOUR_MS,
        6 * HOUR_MS,
        12 * HOUR_MS,
        DAY_MS,
        2 * DAY_MS,
        7 * DAY_MS,
        14 * DAY_MS,
    ];
    let Some(step) = steps.into_iter().find(|step| span / step <= TICKS_X) else { return month_ticks(from_ms, to_ms) };
    let mut ticks = Vec::new();
    let mut at = from_ms.div_euclid(step) * step;
    if at < from_ms {
        at += step;
    }
    while at <= to_ms {
        let Ok(time) = OffsetDateTime::from_unix_timestamp(at.div_euclid(1_000)) else { break };
        let day = format!("{} {}", time.day(), short(time.month()));
        let text = match step {
            step if step < MINUTE_MS => format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()),
            step if step < DAY_MS && at.rem_euclid(DAY_MS) != 0 => format!("{:02}:{:02}", time.hour(), time.minute()),
            _ => day,
        };
        ticks.push((at, text));
        at += step;
    }
    ticks
}

fn month_ticks(from_ms: i64, to_ms: i64) -> Vec<(i64, String)> {
    let at = |ms: i64| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)).ok();
    let (Some(from), Some(to)) = (at(from_ms), at(to_ms)) else { return Vec::new() };
    let index = |t: OffsetDateTime| t.year() * 12 + i32::from(u8::from(t.month())) - 1;
    let months = index(to) - index(from);
    let step = [1, 2, 3, 6, 12, 24, 60, 120].into_iter().find(|s| months / s <= TICKS_X as i32).unwrap_or(120);
    let mut ticks = Vec::new();
    for i in index(from)..=index(to) {
        let (year, month) = (i.div_euclid(12), i.rem_euclid(12));
        let month = Month::try_from(month as u8 + 1).expect("Invariant: 1 to 12");
        let Ok(date) = time::Date::from_calendar_date(year, month, 1) else { continue };
        let ms = date.midnight().assume_utc().unix_timestamp() * 1_000;
        if i % step == 0 && from_ms <= ms && ms <= to_ms {
            let text = if step >= 12 { year.to_string() } else { format!("{} {year}", short(month)) };
            ticks.push((ms, text));
        }
    }
    ticks
}

fn short(month: Month) -> String {
    month.to_string().chars().take(3).collect()
}

/// Writing to a String cannot fail.
fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(text);
}

/// An `<svg>` with its hover data: `points` are (x in pixels of the view box, text).
fn figure(id: &str, label: &str, height: f64, body: &str, points: &[(f64, String)]) -> String {
    let mut hover = String::from("[");
    for (i, (x, text)) in points.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // `<` would end the script element that holds it.
        let text = serde_json::Value::from(text.as_str()).to_string().replace('<', "\\u003c");
        put(&mut hover, format_args!("{comma}[{x:.1},{text}]"));
    }
    hover.push(']');
    format!(
        "<figure class=\"chart\" id=\"{id}\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">{body}\
         <line class=\"cursor\" y1=\"{TOP}\" y2=\"{:.1}\" x1=\"-9\" x2=\"-9\"/></svg><output class=\"tip\"></output>\
         <script type=\"application/json\">{hover}</script></figure>",
        escaped(label),
        height - BOTTOM,
    )
}

fn span(series: &[Sample]) -> (i64, i64) {
    (series.first().map_or(0, |s| s.open_ms), series.last().map_or(1, |s| s.open_ms))
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.enumerate() {
        put(&mut d, format_args!("{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" }));
    }
    d
}

/// Equity over time, the initial cash as a dashed line.
pub fn equity(initial: f64, series: &[Sample]) -> String {
    if series.is_empty() {
        return NOTHING.to_owned();
    }
    let frame = Frame::new(300.0, span(series), series.iter().map(|s| s.equity).chain([initial]), false, Unit::Money);
    let mut svg = String::new();
    frame.axes(&mut svg);
    let y = frame.py(initial);
    put(
        &mut svg,
        format_args!("<line class=\"base\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT),
    );
    let d = path(series.iter().map(|s| (frame.px(s.open_ms), frame.py(s.equity))));
    let floor = frame.height - BOTTOM;
    let (first, last) = (frame.px(frame.x.0), frame.px(span(series).1));
    put(
        &mut svg,
        format_args!(
            "<path class=\"equity-area\" d=\"{d}L{last:.1} {floor:.1}L{first:.1} {floor:.1}Z\"/><path class=\"equity\" d=\"{d}\"/>"
        ),
    );
    let points: Vec<_> = series
        .iter()
        .map(|s| {
            let text = format!(
                "{}\nequity {}\n{} since the start",
                clock(s.open_ms),
                money(s.equity),
                percent(s.equity / initial - 1.0)
            );
            (frame.px(s.open_ms), text)
        })
        .collect();
    figure("equity", "Equity over time", frame.height, &svg, &points)
}

/// Drawdown over time, downward from 0.
pub fn drawdown(series: &[Sample]) -> String {
    area("drawdown", "Drawdown over time", "drawdown", series, |s| -s.drawdown)
}

/// Position value over equity, the mean of neighbouring samples: a position that turns often would be a wall of lines.
pub fn exposure(series: &[Sample]) -> String {
    let per_point = series.len().div_ceil(EXPOSURE_POINTS_MAX).max(1);
    let mean = |part: &[Sample]| {
        let exposure = part.iter().map(|s| s.exposure).sum::<f64>() / part.len() as f64;
        Sample { exposure, ..part[part.len() - 1] }
    };
    let series: Vec<Sample> = series.chunks(per_point).map(mean).collect();
    area("exposure", "Exposure over time", "mean exposure", &series, |s| s.exposure)
}

fn area(id: &str, label: &str, word: &str, series: &[Sample], value: impl Fn(&Sample) -> f64) -> String {
    if series.is_empty() {
        return NOTHING.to_owned();
    }
    let frame = Frame::new(150.0, span(series), series.iter().map(&value), true, Unit::Percent);
    let mut svg = String::new();
    frame.axes(&mut svg);
    let d = path(series.iter().map(|s| (frame.px(s.open_ms), frame.py(value(s)))));
    let zero = frame.py(0.0);
    let (first, last) = (frame.px(frame.x.0), frame.px(span(series).1));
    put(
        &mut svg,
        format_args!(
            "<path class=\"{id}-area\" d=\"{d}L{last:.1} {zero:.1}L{first:.1} {zero:.1}Z\"/><path class=\"{id}\" d=\"{d}\"/>"
        ),
    );
    let text = |s: &Sample| format!("{}\n{word} {}", clock(s.open_ms), percent(value(s)));
    let points: Vec<_> = series.iter().map(|s| (frame.px(s.open_ms), text(s))).collect();
    figure(id, label, frame.height, &svg, &points)
}

/// Candles with the trades on them: a triangle in the trade's direction where it began, a line to the dot where it
/// ended; only that dot where there are many.
pub fn candles(id: &str, name: &str, bars: &[Ohlc], trades: &[Trade]) -> String {
    let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return NOTHING.to_owned() };
    let x = (first.open_ms, last.close_ms);
    let inside = |ms: i64| x.0 <= ms && ms <= x.1;
    let shown = || trades.iter().filter(|t| t.symbol == name && inside(t.entry_ms) && inside(t.exit_ms));
    let arrows = shown().count() <= ARROWS_MAX;
    let frame = Frame::new(400.0, x, bars.iter().flat_map(|b| [b.low, b.high]), false, Unit::Price);
    let mut svg = String::new();
    frame.axes(&mut svg);
    let width = ((WIDTH - LEFT - RIGHT) / bars.len() as f64 * 0.7).clamp(0.8, 12.0);
    let mut points = Vec::with_capacity(bars.len());
    for bar in bars {
        let x = frame.px(bar.open_ms + (bar.close_ms - bar.open_ms) / 2);
        let (top, bottom) = (frame.py(bar.open.max(bar.close)), frame.py(bar.open.min(bar.close)));
        let class = if bar.close >= bar.open { "up" } else { "down" };
        let (high, low) = (frame.py(bar.high), frame.py(bar.low));
        let (left, height) = (x - width / 2.0, (bottom - top).max(0.6));
        put(&mut svg, format_args!("<path class=\"{class}\" d=\"M{x:.1} {high:.1}V{low:.1}\"/>"));
        put(
            &mut svg,
            format_args!(
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            ),
        );
        let [o, h, l, c] = [bar.open, bar.high, bar.low, bar.close].map(price);
        points.push((x, format!("{}\nopen {o}  high {h}\nlow {l}  close {c}", clock(bar.open_ms))));
    }
    for trade in shown() {
        mark(&mut svg, &frame, trade, arrows);
    }
    figure(id, &format!("Candles and trades of {name}"), frame.height, &svg, &points)
}

fn mark(svg: &mut String, frame: &Frame, trade: &Trade, arrows: bool) {
    let (x1, y1) = (frame.px(trade.entry_ms), frame.py(trade.entry_price));
    let (x2, y2) = (frame.px(trade.exit_ms), frame.py(trade.exit_price));
    let class = if trade.net > 0.0 { "won" } else { "lost" };
    let side = if trade.long { "long" } else { "short" };
    let [units, net] = [grouped(trade.units, 4), money(trade.net)];
    let [from, to] = [trade.entry_ms, trade.exit_ms].map(clock);
    let [entry, exit] = [trade.entry_price, trade.exit_price].map(price);
    put(
        svg,
        format_args!(
            "<g class=\"trade {class}\"><title>{side} {units}\n{from} at {entry}\n{to} at {exit}\nnet {net}</title>"
        ),
    );
    if arrows {
        let (left, right, tip) = (x1 - 5.0, x1 + 5.0, y1 + if trade.long { -9.0 } else { 9.0 });
        put(
            svg,
            format_args!(
                "<path class=\"way\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/><path class=\"entry {side}\" d=\"M{left:.1} {y1:.1}L{right:.1} {y1:.1}L{x1:.1} {tip:.1}Z\"/>"
            ),
        );
    }
    let radius = if arrows { 3.0 } else { 2.1 };
    put(svg, format_args!("<circle class=\"exit\" cx=\"{x2:.1}\" cy=\"{y2:.1}\" r=\"{radius}\"/></g>"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!((money(1_234_567.891).as_str(), money(-0.001).as_str()), ("1,234,567.89", "0.00"));
        assert_eq!((percent(-0.1234).as_str(), grouped(999.0, 0).as_str()), ("−12.34 %", "999"));
        assert_eq!((price(0.012_345).as_str(), money(f64::NAN).as_str()), ("0.01235", "–"));
        assert_eq!(clock(1_723_161_241_000), "2024-08-08 23:54:01");
    }

    #[test]
    fn axes_have_round_steps_and_not_too_many() {
        for step in [0.000_13, 0.9, 1.0, 1.1, 3.0, 7.0, 12_345.0] {
            let nice = nice(step);
            assert!(nice >= step * 0.999 && nice < step * 2.51 + 1e-9, "{step}: {nice}");
        }
        let start = 1_723_161_241_000;
        for span in
            [5_000, 600_000, HOUR_MS, 7 * HOUR_MS, DAY_MS, 9 * DAY_MS, 50 * DAY_MS, 400 * DAY_MS, 9_000 * DAY_MS]
        {
            let ticks = time_ticks(start, start + span);
            assert!((1..=TICKS_X as usize + 2).contains(&ticks.len()), "{span}: {ticks:?}");
            assert!(ticks.windows(2).all(|w| w[0].0 < w[1].0));
            assert!(ticks.iter().all(|(ms, _)| start <= *ms && *ms <= start + span));
        }
        assert_eq!(time_ticks(0, 400 * DAY_MS)[1].1, "Mar 1970");
    }
}
