//! A sweep as one HTML file: warnings first, the map of the grid, the trials, the walk forward.

use toml::Table;

use super::{Axis, Trial, Verdict, ranked, shown};
use crate::report::chart::{self, clock, grouped, percent};
use crate::report::sheet::Sample;
use crate::report::{escaped, frame};
use crate::walk::WalkForward;

/// Trials in the list; the CSV has all.
const LIST_MAX: usize = 100;
/// Points of the stitched equity.
const POINTS_MAX: usize = 1_200;
/// Cells of a map's side; larger grids are shown as a list only.
const SIDE_MAX: usize = 60;
/// Columns of the list.
const COLUMNS: [(&str, &str); 6] = [
    ("total_return", "Return"),
    ("max_drawdown", "Max drawdown"),
    ("sharpe_bar", "Sharpe, by bar"),
    ("sharpe_daily_365", "Sharpe, daily"),
    ("profit_factor", "Profit factor"),
    ("closed_trades", "Trades"),
];

/// What a page of a sweep shows.
pub struct Sweep<'a> {
    pub title: &'a str,
    /// What every trial has in common, for people.
    pub about: &'a str,
    pub axes: &'a [Axis],
    pub trials: &'a [Trial],
    pub by: &'a str,
    pub verdict: &'a Verdict,
    pub walk: Option<&'a WalkForward>,
    pub initial_cash: f64,
}

/// A statistic as people read it.
pub fn cell(by: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    match by.trim_start_matches('-') {
        "total_return" | "max_drawdown" | "win_rate" | "cagr" | "exposure" | "volatility_daily_365" => percent(value),
        "closed_trades" | "longs" | "shorts" | "bars" | "bars_in_position" => grouped(value, 0),
        _ => grouped(value, 2),
    }
}

pub fn html(sweep: &Sweep) -> String {
    let ran = sweep.verdict.trials;
    let mut body = format!(
        "<header><p class=\"brand\">Tapeline sweep</p><h1>{}</h1><p>{ran} of {} combinations ran, best by {}</p><p>{}</p></header>\n",
        escaped(sweep.title),
        sweep.trials.len(),
        escaped(sweep.by),
        escaped(sweep.about)
    );
    body += &verdict(sweep.verdict);
    body += &format!(
        "<section><h2>Map</h2><p class=\"about\">{} of each combination</p>{}</section>\n",
        escaped(sweep.by),
        map(sweep)
    );
    body += &format!(
        "<section><h2>Trials</h2><p class=\"about\">best first, at most {LIST_MAX}</p>{}</section>\n",
        list(sweep)
    );
    if let Some(walk) = sweep.walk {
        body += &walked(walk, sweep.initial_cash);
    }
    frame(sweep.title, &body)
}

fn verdict(v: &Verdict) -> String {
    let number = |value: Option<f64>, digits| value.map_or_else(|| "–".to_owned(), |v| grouped(v, digits));
    let rows = [
        ("Trials", v.trials.to_string()),
        ("Returns of each", v.periods.to_string()),
        ("Sharpe ratio of the best, a period", number(v.sharpe, 4)),
        ("Sharpe ratio of the best by luck alone", number(v.sharpe_by_luck, 4)),
        ("Probabilistic Sharpe ratio, as if it were the only trial", number(v.probabilistic_sharpe, 3)),
        ("Deflated Sharpe ratio", number(v.deflated_sharpe, 3)),
        ("Probability of overfitting", number(v.overfitting_probability, 3)),
        ("Probability of a loss where it was not chosen", number(v.loss_probability, 3)),
    ];
    let mut out = String::from(
        "<section><h2>How much of the best is luck</h2><p class=\"about\">Bailey and Lopez de Prado: probabilistic, deflated Sharpe ratio, CSCV</p>",
    );
    for warning in &v.warnings {
        out += &format!("<p class=\"warning\">{}</p>", escaped(warning));
    }
    out += "<table class=\"pairs narrow\"><tbody>";
    for (name, value) in rows {
        out += &format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    out + "</tbody></table></section>\n"
}

/// The first two axes as a map; of further ones the best.
fn map(sweep: &Sweep) -> String {
    let (Some(rows), columns) = (sweep.axes.first(), sweep.axes.get(1)) else {
        return "<p>one combination</p>".to_owned();
    };
    let one = Axis { key: String::new(), values: vec![toml::Value::Boolean(true)] };
    let columns = columns.unwrap_or(&one);
    if rows.values.len() > SIDE_MAX || columns.values.len() > SIDE_MAX {
        return format!("<p>more than {SIDE_MAX} values a side: see the list</p>");
    }
    let of = |row: &toml::Value, column: &toml::Value| {
        let fits =
            |params: &Table| params[&rows.key] == *row && (columns.key.is_empty() || params[&columns.key] == *column);
        sweep.trials.iter().filter(|t| fits(&t.params)).filter_map(|t| t.score(sweep.by)).max_by(f64::total_cmp)
    };
    let all: Vec<f64> = sweep.trials.iter().filter_map(|t| t.score(sweep.by)).collect();
    let best = all.iter().copied().max_by(f64::total_cmp);
    let largest = all.iter().fold(1e-12f64, |m, v| m.max(v.abs()));
    let mut out = format!(
        "<div class=\"scroll\"><table class=\"heat\"><thead><tr><th>{} \\ {}</th>",
        escaped(&rows.key),
        escaped(&columns.key)
    );
    for value in &columns.values {
        out += &format!(
            "<th scope=\"col\">{}</th>",
            if columns.key.is_empty() { String::new() } else { escaped(&shown(value)) }
        );
    }
    out += "</tr></thead><tbody>";
    for row in &rows.values {
        out += &format!("<tr><th scope=\"row\">{}</th>", escaped(&shown(row)));
        for column in &columns.values {
            let value = of(row, column);
            out += &match value {
                None => "<td class=\"none\">–</td>".to_owned(),
                Some(v) => format!(
                    "<td class=\"{}\" style=\"--tint:var(--{});--share:{:.0}%\">{}</td>",
                    if value == best { "best" } else { "" },
                    if v >= 0.0 { "green" } else { "red" },
                    6.0 + 64.0 * v.abs() / largest,
                    cell(sweep.by, value)
                ),
            };
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn list(sweep: &Sweep) -> String {
    let mut columns: Vec<(&str, &str)> = COLUMNS.to_vec();
    if !columns.iter().any(|(key, _)| *key == sweep.by) {
        columns.insert(0, (sweep.by, sweep.by));
    }
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr><th>#</th>");
    for axis in sweep.axes {
        out += &format!("<th scope=\"col\">{}</th>", escaped(&axis.key));
    }
    for (_, name) in &columns {
        out += &format!("<th scope=\"col\">{}</th>", escaped(name));
    }
    out += "</tr></thead><tbody>";
    for (rank, place) in ranked(sweep.trials, sweep.by).into_iter().take(LIST_MAX).enumerate() {
        let trial = &sweep.trials[place];
        out += &format!("<tr><td class=\"name\">{}</td>", rank + 1);
        for axis in sweep.axes {
            out += &format!("<td>{}</td>", escaped(&shown(&trial.params[&axis.key])));
        }
        match &trial.outcome {
            Ok(_) => columns.iter().for_each(|(key, _)| out += &format!("<td>{}</td>", cell(key, trial.score(key)))),
            Err(why) => out += &format!("<td class=\"none\" colspan=\"{}\">{}</td>", columns.len(), escaped(why)),
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn walked(walk: &WalkForward, initial: f64) -> String {
    let step = walk.equity.len().div_ceil(POINTS_MAX).max(1);
    let sample = |part: &[(i64, f64)]| {
        part.last().map(|(open_ms, equity)| Sample { open_ms: *open_ms, equity: *equity, drawdown: 0.0, exposure: 0.0 })
    };
    let series: Vec<Sample> = walk.equity.chunks(step).filter_map(sample).collect();
    let mut out = format!(
        "<section><h2>Walk forward</h2><p class=\"about\">out of sample: {} return, {} max drawdown, {} trades, efficiency {}; {} windows, {} not traded</p>{}",
        percent(walk.total_return),
        percent(walk.max_drawdown),
        walk.test_trades,
        walk.efficiency.map_or_else(|| "–".to_owned(), |e| grouped(e, 2)),
        walk.steps.len() + walk.idle,
        walk.idle,
        chart::equity(initial, &series)
    );
    out += "<div class=\"scroll\"><table><thead><tr>";
    let columns = ["Test from (UTC)", "to", "Chosen", "Train score", "Train return", "Test return", "Trades"];
    for (i, column) in columns.into_iter().enumerate() {
        out += &format!("<th scope=\"col\" class=\"{}\">{column}</th>", if i < 3 { "name" } else { "" });
    }
    out += "</tr></thead><tbody>";
    for s in &walk.steps {
        let params: Vec<_> = s.params.iter().map(|(key, value)| format!("{key} {}", shown(value))).collect();
        let cells = [
            clock(s.window.test_from_ms),
            clock(s.window.test_to_ms),
            escaped(&params.join(", ")),
            cell(&walk.by, s.train_score),
            percent(s.train_return),
            percent(s.test_return),
            s.test_trades.to_string(),
        ];
        out += "<tr>";
        for (i, text) in cells.into_iter().enumerate() {
            out += &format!("<td class=\"{}\">{text}</td>", if i < 3 { "name" } else { "" });
        }
        out += "</tr>";
    }
    out + "</tbody></table></div></section>\n"
}
