//! The report as one HTML file: no network, no other file, a light and a dark theme.

use super::chart::{self, clock, grouped, money, percent, price};
use super::sheet::{Gaps, Group, Sheet, Trade, Year, market_name};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Trades in the list of the page.
const LIST_MAX: usize = 200;

/// `text` inside HTML, in an element or a quoted attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A whole page around `body`, which is HTML.
pub fn frame(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>{body}</main>\n<script>\n{SCRIPT}</script></body></html>\n",
        escaped(title)
    )
}

pub fn html(sheet: &Sheet) -> String {
    let mut body = head(sheet);
    body += &cards(sheet);
    body += &section(
        "Equity",
        "account's currency, at each bar's close",
        &chart::equity(sheet.stats.initial_cash, &sheet.series),
    );
    body += &section("Drawdown", "share of the highest equity so far", &chart::drawdown(&sheet.series));
    body += &section("Exposure", "position value over equity; negative is short", &chart::exposure(&sheet.series));
    body += &section("Monthly returns", "UTC months, against the end of the month before", &months(&sheet.months));
    for (i, market) in sheet.charts.iter().enumerate() {
        let name = escaped(&market.name);
        let folded = match market.folded {
            1 => "each candle of the run".to_owned(),
            n => format!("{n} candles of the run in one"),
        };
        let shown = match sheet.trades_total - sheet.trades.len() {
            0 => "all trades".to_owned(),
            _ => format!("the newest {} of {} trades", grouped(sheet.trades.len() as f64, 0), sheet.trades_total),
        };
        let legend = format!("{folded}; {shown}: green won, red lost, a dot where it ended, a triangle where it began");
        let picture = chart::candles(&format!("candles-{i}"), &market.name, &market.bars, &sheet.trades);
        body += &section(&format!("Trades on {name}"), &legend, &picture);
        if !market.detail.is_empty() {
            let legend = format!("the newest {} candles as they are", market.detail.len());
            let picture = chart::candles(&format!("detail-{i}"), &market.name, &market.detail, &sheet.trades);
            body += &section(&format!("The end of {name}"), &legend, &picture);
        }
    }
    body += &section(
        "Statistics",
        "definitions stand in the documentation of <code>backtest::metrics</code>",
        &statistics(sheet),
    );
    body += &section("By market", "closed trades, net of fees and funding", &groups("Market", &sheet.symbols));
    body += &section("By strategy", "closed trades, net of fees and funding", &groups("Strategy", &sheet.strategies));
    body += &section("Missing data", "trades held while market data was missing", &gaps(&sheet.gaps));
    body += &section("Trades", &newest(sheet), &trades(&sheet.trades));
    body += &section("Settings", "what the run was asked for", &settings(sheet));
    frame(&sheet.title, &body)
}

fn section(title: &str, about: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2><p class=\"about\">{about}</p>{body}</section>\n")
}

fn head(sheet: &Sheet) -> String {
    let period = match (sheet.first_ms, sheet.last_ms) {
        (Some(first), Some(last)) => {
            let (bars, days) = (sheet.stats.bars, sheet.stats.period_days);
            format!(
                "{} to {} UTC · {} bars · {} days",
                clock(first),
                clock(last),
                grouped(bars as f64, 0),
                grouped(days, 2)
            )
        }
        _ => "no bars".to_owned(),
    };
    format!(
        "<header><p class=\"brand\">Tapeline backtest</p><h1>{}</h1><p>{period}</p><p class=\"hash\">{} facts · sha-256 <code>{}</code></p></header>\n",
        escaped(&sheet.title),
        grouped(sheet.facts as f64, 0),
        escaped(&sheet.hash)
    )
}

fn optional(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}

fn plain(value: f64) -> String {
    grouped(value, 2)
}

/// `3 d 4 h`, `2 h 5 min`, `31 s`
fn duration(ms: f64) -> String {
    let seconds = (ms / 1_000.0).round() as i64;
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) if s == 0 => format!("{m} min"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, 0) => format!("{h} h"),
        (0, _, _) => format!("{h} h {m} min"),
        (_, 0, _) => format!("{d} d"),
        _ => format!("{d} d {h} h"),
    }
}

fn sign(value: f64) -> &'static str {
    match value {
        v if v > 0.0 => "pos",
        v if v < 0.0 => "neg",
        _ => "",
    }
}

fn cards(sheet: &Sheet) -> String {
    let s = &sheet.stats;
    let card = |name: &str, value: String, class: &str, note: String| {
        format!(
            "<div class=\"card\"><span>{name}</span><strong class=\"{class}\">{value}</strong><em>{note}</em></div>"
        )
    };
    let signed = |value: Option<f64>| sign(value.unwrap_or(0.0));
    let mut out = String::from("<div class=\"cards\">");
    out += &card(
        "Total return",
        percent(s.total_return),
        sign(s.total_return),
        format!("{} to {}", money(s.initial_cash), money(s.final_equity)),
    );
    out += &card("CAGR", optional(s.cagr, percent), signed(s.cagr), "a year of 365 days".to_owned());
    out += &card(
        "Sharpe",
        optional(s.sharpe_daily_365, plain),
        signed(s.sharpe_daily_365),
        format!("daily; by bar {}", optional(s.sharpe_bar, plain)),
    );
    out += &card("Sortino", optional(s.sortino_daily_365, plain), signed(s.sortino_daily_365), "daily".to_owned());
    out += &card(
        "Max drawdown",
        percent(s.max_drawdown),
        if s.max_drawdown > 0.0 { "neg" } else { "" },
        format!("longest {} days", grouped(s.drawdown_days_max, 1)),
    );
    out +=
        &card("Win rate", optional(s.win_rate, percent), "", format!("{} trades", grouped(s.closed_trades as f64, 0)));
    out += &card(
        "Profit factor",
        optional(s.profit_factor, plain),
        signed(s.profit_factor.map(|p| p - 1.0)),
        format!("payoff {}", optional(s.payoff_ratio, plain)),
    );
    out += &card(
        "Probabilistic Sharpe",
        optional(s.probabilistic_sharpe, percent),
        "",
        "that the true one is above 0".to_owned(),
    );
    out + "</div>\n"
}

fn statistics(sheet: &Sheet) -> String {
    let s = &sheet.stats;
    let count = |n: usize| grouped(n as f64, 0);
    let groups: [(&str, Vec<(&str, String)>); 4] = [
        (
            "Return",
            vec![
                ("Initial cash", money(s.initial_cash)),
                ("Final equity", money(s.final_equity)),
                ("Total return", percent(s.total_return)),
                ("CAGR", optional(s.cagr, percent)),
                ("Turnover, × mean equity", optional(s.turnover, plain)),
                ("Turnover a year", optional(s.turnover_per_year, plain)),
                ("Fees of closed trades", money(s.fees_paid_in_closed_trades)),
                ("Exposure, share of bars", optional(s.exposure, percent)),
            ],
        ),
        (
            "Risk",
            vec![
                ("Volatility a year, daily", optional(s.volatility_daily_365, percent)),
                ("Max drawdown", percent(s.max_drawdown)),
                ("Longest drawdown, days", grouped(s.drawdown_days_max, 2)),
                ("Sharpe, daily", optional(s.sharpe_daily_365, plain)),
                ("Sharpe, by bar", optional(s.sharpe_bar, plain)),
                ("Sortino, daily", optional(s.sortino_daily_365, plain)),
                ("Calmar", optional(s.calmar, plain)),
            ],
        ),
        (
            "Trades",
            vec![
                ("Closed", count(s.closed_trades)),
                ("Long / short", format!("{} / {}", count(s.longs), count(s.shorts))),
                ("Win rate", optional(s.win_rate, percent)),
                ("Mean win", optional(s.mean_win, money)),
                ("Mean loss", optional(s.mean_loss, money)),
                ("Payoff ratio", optional(s.payoff_ratio, plain)),
                ("Profit factor", optional(s.profit_factor, plain)),
                ("Expectancy a trade", optional(s.expectancy, money)),
                ("Expectancy, × mean loss", optional(s.expectancy_ratio, |v| grouped(v, 3))),
            ],
        ),
        (
            "Evidence",
            vec![
                ("Days", grouped(s.period_days, 2)),
                ("Bars", count(s.bars)),
                ("Skewness, daily", optional(s.skewness_daily, plain)),
                ("Kurtosis, daily", optional(s.kurtosis_daily, plain)),
                ("Probabilistic Sharpe", optional(s.probabilistic_sharpe, percent)),
            ],
        ),
    ];
    let mut out = String::from("<div class=\"columns\">");
    for (title, rows) in groups {
        out += &format!("<table class=\"pairs\"><caption>{title}</caption><tbody>");
        for (name, value) in rows {
            out += &format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
        }
        out += "</tbody></table>";
    }
    out + "</div>"
}

fn months(years: &[Year]) -> String {
    let all = years.iter().flat_map(|y| y.months.iter().flatten());
    let largest = all.fold(0.0f64, |m, r| m.max(r.abs())).max(1e-9);
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut out = String::from("<div class=\"scroll\"><table class=\"months\"><thead><tr><th></th>");
    for name in names {
        out += &format!("<th scope=\"col\">{name}</th>");
    }
    out += "<th scope=\"col\">Year</th></tr></thead><tbody>";
    for year in years {
        out += &format!("<tr><th scope=\"row\">{}</th>", year.year);
        for month in year.months {
            out += &match month {
                None => "<td class=\"none\">·</td>".to_owned(),
                Some(r) => format!(
                    "<td class=\"{}\" style=\"--share:{:.0}%\">{}</td>",
                    sign(r),
                    12.0 + 58.0 * r.abs() / largest,
                    percent(r)
                ),
            };
        }
        out += &format!("<td class=\"total {}\">{}</td></tr>", sign(year.total), percent(year.total));
    }
    out + "</tbody></table></div>"
}

/// Rows of (HTML, class); a column stands on the side on which its first row's class puts it.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<(String, &'static str)>>) -> String {
    let mut rows = rows.peekable();
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for (i, column) in columns.iter().enumerate() {
        let side = rows.peek().map_or("", |row| if row[i].1 == "name" { "name" } else { "" });
        out += &format!("<th scope=\"col\" class=\"{side}\">{column}</th>");
    }
    out += "</tr></thead><tbody>";
    if rows.peek().is_none() {
        out += &format!("<tr><td class=\"none\" colspan=\"{}\">none</td></tr>", columns.len());
    }
    for row in rows {
        out += "<tr>";
        for (text, class) in row {
            out += &format!("<td class=\"{class}\">{text}</td>");
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn groups(name: &str, groups: &[Group]) -> String {
    let columns =
        [name, "Trades", "Long", "Win rate", "Net", "Fees", "Profit factor", "Best", "Worst", "Mean time held"];
    table(
        &columns,
        groups.iter().map(|g| {
            vec![
                (escaped(&g.name), "name"),
                (grouped(g.trades as f64, 0), ""),
                (grouped(g.longs as f64, 0), ""),
                (optional(g.win_rate, percent), ""),
                (money(g.net), sign(g.net)),
                (money(g.fees), ""),
                (optional(g.profit_factor, plain), ""),
                (optional(g.best, money), ""),
                (optional(g.worst, money), ""),
                (optional(g.held_ms, duration), ""),
            ]
        }),
    )
}

fn gaps(gaps: &Gaps) -> String {
    if gaps.windows_total == 0 {
        return "<p>No gap and no incomplete candle in this run.</p>".to_owned();
    }
    let summary = format!(
        "<p>{} windows without data. {} trades were held over one; they made <b class=\"{}\">{}</b> net: {} of the net PnL, {} of all wins and losses added up.</p>",
        grouped(gaps.windows_total as f64, 0),
        grouped(gaps.trades as f64, 0),
        sign(gaps.net),
        money(gaps.net),
        optional(gaps.net_share, percent),
        optional(gaps.absolute_share, percent),
    );
    let ms = |ns: i64| ns.div_euclid(1_000_000);
    let rows = gaps.windows.iter().map(|w| {
        vec![
            (escaped(&market_name(&w.venue, &w.symbol)), "name"),
            (clock(ms(w.from_ns)), ""),
            (clock(ms(w.to_ns)), ""),
            (duration((w.to_ns - w.from_ns) as f64 / 1e6), ""),
            (escaped(&w.why), "name"),
        ]
    });
    summary + &table(&["Market", "From (UTC)", "To (UTC)", "Length", "Why"], rows)
}

fn newest(sheet: &Sheet) -> String {
    let shown = sheet.trades.len().min(LIST_MAX);
    match sheet.trades_total {
        total if total == shown => format!("all {shown}, newest first; times in UTC"),
        total => format!(
            "the newest {shown} of {}, newest first; times in UTC; <code>trades.csv</code> has all",
            grouped(total as f64, 0)
        ),
    }
}

fn trades(trades: &[Trade]) -> String {
    let columns = ["Entry", "Exit", "Held", "Side", "Units", "Entry price", "Exit price", "Fees", "Net", "Data"];
    table(
        &columns,
        trades.iter().rev().take(LIST_MAX).map(|t| {
            vec![
                (clock(t.entry_ms), "name"),
                (clock(t.exit_ms), "name"),
                (duration((t.exit_ms - t.entry_ms) as f64), ""),
                (if t.long { "long" } else { "short" }.to_owned(), "name"),
                (grouped(t.units, 4), ""),
                (price(t.entry_price), ""),
                (price(t.exit_price), ""),
                (money(t.fees), ""),
                (money(t.net), sign(t.net)),
                (if t.gap { "gap" } else { "" }.to_owned(), "name"),
            ]
        }),
    )
}

fn settings(sheet: &Sheet) -> String {
    let mut out = String::from("<div class=\"columns\"><table class=\"pairs wide\"><caption>Run</caption><tbody>");
    for setting in &sheet.settings {
        out +=
            &format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(&setting.name), escaped(&setting.value));
    }
    out += "</tbody></table>";
    for (title, counts) in [("Facts by kind", &sheet.kinds), ("Refusals by limit", &sheet.refusals)] {
        out += &format!("<table class=\"pairs\"><caption>{title}</caption><tbody>");
        if counts.is_empty() {
            out += "<tr><td class=\"none\">none</td></tr>";
        }
        for (name, count) in counts {
            out += &format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(name), grouped(*count as f64, 0));
        }
        out += "</tbody></table>";
    }
    out + "</div>"
}
