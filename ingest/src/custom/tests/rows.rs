//! Files of rows through the player.

use schemas::raw::Raw;

use super::*;
use crate::config::Config;
use crate::recording::{Form, Options, Player, Rows, Tape};

fn play(id: &str, description: &str, files: &[(&str, &str)]) -> Vec<Raw> {
    let described = register(id, "x.toml", description).unwrap();
    let form = Form::Described(Rows(described));
    let mut tape = Tape::new(form, 1 << 20, files.iter().map(|(symbol, text)| (symbol.to_string(), text.as_bytes())));
    let limits = Config::load(None).unwrap().session;
    let options = Options {
        partitions: 4,
        ticks_max: 256,
        aggregates: false,
        frames_per_flush: 1000,
        clock_period_ms: 60_000,
        lateness_ms: 0,
        flush_open: false,
        limits,
    };
    let mut player = Player::new(id, by_id(id), options);
    let mut out = Vec::new();
    while let Some(entry) = tape.next_entry().unwrap() {
        player.take(entry, &mut out);
    }
    player.finish("test", &mut out);
    out
}

fn show(facts: &[Raw]) -> Vec<String> {
    let day = |ns: i64| ns as f64 / Nanos::PER_DAY as f64;
    facts
        .iter()
        .flat_map(|fact| match fact {
            Raw::Bars(pack) => pack
                .items
                .iter()
                .map(|b| {
                    format!(
                        "{} {} {}..{} known {} {}",
                        pack.symbol,
                        day(b.open_ts_ns),
                        b.open,
                        b.close,
                        day(b.ts_ns),
                        b.closed
                    )
                })
                .collect(),
            Raw::Trades(pack) => pack.iter().map(|t| format!("{} trade {} {}", pack.symbol, t.id, t.ts.0)).collect(),
            Raw::Gap(gap) => vec![format!("{} gap {}..{}", gap.symbol, day(gap.from_ns), day(gap.to_ns.unwrap()))],
            Raw::Dead(dead) => vec![format!("dead {}", dead.reason)],
            _ => vec![],
        })
        .collect()
}

const MINI: &str = r#"
trade_ids = "none"
[files]
format = "csv"
delimiter = ";"
skip_lines = 1
[files.calendar]
closed_days = ["sat", "sun"]
[[message]]
kind = "bar"
width = "1d"
open_time = { at = "Day", form = "%d.%m.%Y" }
open = "O"
high = "H"
low = "L"
close = "C"
"#;

#[test]
fn daily_candles_become_bars_known_at_their_close_and_a_missing_day_is_told() {
    // 1970-01-01 is a Thursday; the 6th is a Tuesday, and missing.
    let file = "made up\nDay;O;H;L;C\n01.01.1970;1;2;0.5;1.5\n02.01.1970;\"1.5\";2;1;1.75\n05.01.1970;2;2;2;2\n07.01.1970;2;3;2;3\n";
    let said = show(&play("eod-rows", MINI, &[("X", file)]));
    assert_eq!(
        said,
        [
            "X 0 1..1.5 known 1 true",
            "X 1 1.5..1.75 known 2 true",
            "X 4 2..2 known 5 true",
            "X gap 5..6",
            "X 6 2..3 known 7 true"
        ]
    );
}

#[test]
fn a_row_that_cannot_be_is_a_dead_letter_and_the_others_count() {
    let file = "made up\nDay;O;H;L;C\n02.01.1970;1;2;1;3\n02.01.1970;1;2;1\n02.01.1970;1;2;1;2\n01.01.1970;1;2;1;2\n02.01.1970;1;2;1;2\n";
    let mut said = show(&play("eod-wrong", MINI, &[("X", file)]));
    said.sort();
    assert_eq!(
        said,
        [
            "X 1 1..2 known 2 true",
            "dead 4 cells, the header has 5",
            "dead open 1 and close 3 are not within low 1 and high 2",
            "dead the bar does not open after the one before it",
            "dead the bar does not open after the one before it",
        ]
    );
}

#[test]
fn lines_of_json_give_trades_of_several_symbols_in_order_and_once() {
    let text = r#"
trade_ids = "rising"
[files]
format = "ndjson"
[[message]]
kind = "trade"
symbol = "sym"
price = "px"
size = "sz"
id = "n"
side = { at = "taker", buy = "B", sell = "S" }
time = { at = "at", unit = "us" }
"#;
    let row =
        |sym: &str, n: u64, at: i64| format!(r#"{{"sym":"{sym}","px":1.5,"sz":2,"n":{n},"taker":"S","at":{at}}}"#);
    let file = [row("A", 1, 5), row("B", 9, 6), row("A", 2, 7), row("A", 2, 7), row("A", 3, 6)].join("\n");
    let mut said = show(&play("json-rows", text, &[("", &file)]));
    said.sort();
    let late = "dead the row is older than the one before it: files are read in the order of time";
    assert_eq!(said, ["A trade 1 5000", "A trade 2 7000", "B trade 9 6000", late]);
}
