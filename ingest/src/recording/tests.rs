use std::collections::BTreeSet;
use std::io::BufReader;

use schemas::raw::Raw;
use sha2::{Digest, Sha256};

use super::*;
use crate::config::Config;
use crate::venue;

fn options(frames_per_flush: usize) -> Options {
    let limits = Config::load(None).unwrap().session;
    Options {
        partitions: 4,
        ticks_max: 256,
        aggregates: false,
        frames_per_flush,
        clock_period_ms: 1000,
        lateness_ms: 1000,
        flush_open: false,
        limits,
    }
}

fn play(form: Form, files: Vec<(&str, Vec<u8>)>, options: Options) -> Vec<Raw> {
    play_of("binance", form, files, options)
}

fn play_of(id: &str, form: Form, files: Vec<(&str, Vec<u8>)>, options: Options) -> Vec<Raw> {
    let mut tape = Tape::new(form, 1 << 20, files.iter().map(|(symbol, bytes)| (symbol.to_string(), &bytes[..])));
    let mut player = Player::new(id, venue::by_id(id), options);
    let mut out = Vec::new();
    player.begin("test", Nanos(0), &mut out);
    while let Some(entry) = tape.next_entry().unwrap() {
        player.take(entry, &mut out);
    }
    player.finish("test", &mut out);
    out
}

fn gz(path: std::path::PathBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = BufReader::new(std::fs::File::open(path).unwrap());
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(file), &mut bytes).unwrap();
    bytes
}

fn trades(facts: &[Raw]) -> Vec<(i64, u64, String, String, &'static str)> {
    let packs = facts.iter().filter_map(|f| if let Raw::Trades(t) = f { Some(t) } else { None });
    packs
        .flat_map(|t| {
            t.iter().map(|x| {
                (x.ts.0, x.id, x.price.price(t.scale).to_string(), x.size.qty(t.scale).to_string(), x.side.as_str())
            })
        })
        .collect()
}

#[test]
fn the_trades_of_a_raw_recording_are_those_of_the_csv_made_from_it() {
    let Some(root) = schemas::fixtures::root() else { return };
    let raw = |part: u32| gz(root.join(format!("data/ws_raw/binance_spot_BTCUSDT_part{part}.gz")));
    let csv = gz(root.join("data/ticks/binance_spot_BTCUSDT_2024-08-08T2354.trades.csv.gz"));
    let facts = play(Form::Raw, vec![("BTCUSDT", raw(1)), ("BTCUSDT", raw(2))], options(64));
    let from_raw = trades(&facts);
    let from_csv = trades(&play(Form::Csv, vec![("BTCUSDT", csv)], options(64)));
    assert_eq!(from_raw.len(), 19_904);
    assert!(from_raw == from_csv);
    assert!(!facts.iter().any(|f| matches!(f, Raw::Dead(_))));
    // The book was stale until the recorded snapshot came, and never after.
    let gaps: Vec<_> = facts
        .iter()
        .filter_map(|f| if let Raw::Gap(g) = f { Some((&*g.channel, g.to_ns.is_some())) } else { None })
        .collect();
    assert_eq!(gaps, [("book", false), ("book", true)]);
}

#[test]
fn trades_that_a_venue_sends_newest_first_are_put_in_order_and_none_is_taken_for_a_copy() {
    let Some(root) = schemas::fixtures::root() else { return };
    let read = |file: &str| std::fs::read_to_string(root.join("fixtures/venues/htx").join(file)).unwrap();
    let (frames, times) = (read("seq_spot_2021_a.jsonl"), read("seq_spot_2021_a.recv.csv"));
    let times = times.lines().skip(1).map(|line| line.split_once(',').unwrap().1);
    let tape: String = times.zip(frames.lines()).map(|(recv, frame)| format!("{recv} {frame}\n")).collect();
    let facts = play_of("htx", Form::Raw, vec![("", tape.into_bytes())], options(64));
    // zeneth's two trades of one frame among them: 212 stood before 211 there.
    let ids: Vec<u64> = trades(&facts).iter().map(|t| t.1).collect();
    let two = ids.iter().position(|id| *id == 100_039_973_211).unwrap();
    assert_eq!((ids.len(), &ids[two..two + 2]), (13, &[100_039_973_211, 100_039_973_212][..]));
    // xvgeth has a level of 5993289.85 coins beside one with 13 decimals: no common scale holds both in 63 bits, and such
    // books are dead letters in a gap. Nothing else is.
    let gaps =
        facts.iter().filter_map(|f| if let Raw::Gap(gap) = f { Some((&*gap.symbol, &*gap.channel)) } else { None });
    assert_eq!(gaps.collect::<BTreeSet<_>>(), BTreeSet::from([("xvgeth", "book")]));
    let dead = facts.iter().filter_map(|f| if let Raw::Dead(dead) = f { Some(dead.reason.as_str()) } else { None });
    let other: Vec<&str> = dead.filter(|reason| !reason.contains("does not fit 63 bits")).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn no_trade_of_the_recording_comes_behind_its_watermark() {
    let Some(root) = schemas::fixtures::root() else { return };
    let raw = gz(root.join("data/ws_raw/binance_spot_BTCUSDT_part1.gz"));
    let mut watermark = i64::MIN;
    let mut clocks = 0;
    for fact in play(Form::Raw, vec![("", raw)], options(64)) {
        match fact {
            Raw::Clock(c) => {
                assert!(c.watermark_ns >= watermark);
                watermark = c.watermark_ns;
                clocks += 1;
            }
            Raw::Trades(t) => assert!(t.ts_ns.iter().all(|ts| *ts > watermark), "a late trade"),
            _ => {}
        }
    }
    // Four partitions, some 345 seconds.
    assert!((4 * 340..4 * 350).contains(&clocks), "{clocks}");
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    let Some(root) = schemas::fixtures::root() else { return };
    let raw = gz(root.join("data/ws_raw/binance_coinm_BTCUSD_PERP_part1.gz"));
    let bytes = |facts: Vec<Raw>| facts.iter().map(|f| (f.subject(), f.encode())).collect::<Vec<_>>();
    let once = bytes(play(Form::Raw, vec![("BTCUSD_PERP", raw.clone())], options(64)));
    assert!(once == bytes(play(Form::Raw, vec![("BTCUSD_PERP", raw)], options(64))));
}

/// Stored streams are compared with what is played again: these sums were written by the first version and never change.
#[test]
fn recordings_give_the_bytes_that_earlier_versions_stored() {
    let Some(root) = schemas::fixtures::root() else { return };
    let sum = |form: Form, symbol: &str, path: &str, flush: usize| {
        let mut hash = Sha256::new();
        for fact in play(form, vec![(symbol, gz(root.join("data").join(path)))], options(flush)) {
            let (subject, payload) = (fact.subject(), fact.encode());
            hash.update((subject.len() as u32).to_be_bytes());
            hash.update(subject);
            hash.update((payload.len() as u32).to_be_bytes());
            hash.update(payload);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let sums = [
        sum(Form::Raw, "BTCUSDT", "ws_raw/binance_spot_BTCUSDT_part1.gz", 64),
        sum(Form::Raw, "", "ws_raw/binance_usdm_BTCUSDT_part1.gz", 300),
        sum(Form::Raw, "BTCUSD_PERP", "ws_raw/binance_coinm_BTCUSD_PERP_part1.gz", 7),
        sum(Form::Csv, "BTCUSDT", "ticks/binance_spot_BTCUSDT_2024-08-08T2354.trades.csv.gz", 64),
        sum(Form::Csv, "ETHUSDT", "ticks/binance_spot_ETHUSDT_2025-03-25T2307.l1.csv.gz", 1000),
    ];
    let stored = ["73939f1ba4939b1a", "573092f16287f2c4", "e0ac297ca09ba065", "fa73d25641545adb", "368a7ac67cc3a091"];
    assert_eq!(sums, stored);
}

#[test]
fn two_symbols_are_merged_by_their_receive_time() {
    let header = "seq,ts_ns,trade_id,price,qty,side,recv_ns\n";
    let a = format!("{header}0,10,7,1.5,1,buy,100\n1,20,8,1.5,1,sell,300\n");
    let b = format!("{header}0,15,3,2,1,buy,200\n1,30,4,2,1,buy,300\n");
    let facts = play(Form::Csv, vec![("A", a.into()), ("B", b.into())], options(1));
    let order: Vec<u64> = trades(&facts).iter().map(|t| t.1).collect();
    assert_eq!(order, [7, 3, 8, 4]);
}

#[test]
fn a_trade_file_without_ids_counts_its_rows_and_copies_are_dropped() {
    let rows = "seq,ts_ns,trade_id,price,qty,side\n0,1,,5,1,buy\n1,2,,5,1,buy\n1,2,,5,1,buy\n2,3,,5,1,sell\n";
    let facts = play(Form::Csv, vec![("X", rows.into())], options(64));
    assert_eq!(trades(&facts).iter().map(|t| t.1).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_line_that_is_not_understood_goes_to_the_dead_letters_with_its_reason() {
    let csv = "ts_ns,price,qty,side\n1,5,1,buy\n2,5,1,hold\n3,five,1,buy\n4,5,1,sell\n";
    let facts = play(Form::Csv, vec![("X", csv.into())], options(64));
    let dead: Vec<_> =
        facts.iter().filter_map(|f| if let Raw::Dead(d) = f { Some(d.reason.clone()) } else { None }).collect();
    assert_eq!(dead, ["side `hold`", "`five` is not a decimal number of at most 28 digits"]);
    assert_eq!(trades(&facts).len(), 2);
    let raw = "no time\n5 {\"e\":\"trade\"}\n6 {\"e\":\"neverHeardOf\"}\n";
    let facts = play(Form::Raw, vec![("", raw.into())], options(64));
    assert_eq!(facts.iter().filter(|f| matches!(f, Raw::Dead(_))).count(), 3);
}

#[test]
fn a_hole_in_the_ids_is_a_gap_between_the_trades_around_it() {
    let line = |recv: i64, id: u64| {
        format!(
            "{recv} {{\"e\":\"trade\",\"E\":{recv},\"s\":\"X\",\"t\":{id},\"p\":\"1\",\"q\":\"1\",\"T\":{recv},\"m\":true}}\n"
        )
    };
    let tape = [line(1000, 5), line(1001, 6), line(1002, 9), line(1003, 9), line(1004, 10)].concat();
    let facts = play(Form::Raw, vec![("", tape.into())], options(64));
    let gap = facts.iter().find_map(|f| if let Raw::Gap(g) = f { Some(g) } else { None }).unwrap();
    assert_eq!((gap.from_ns, gap.to_ns, &*gap.reason), (1_001_000_000, Some(1_002_000_000), "trade 9 after 6"));
    assert_eq!(trades(&facts).iter().map(|t| t.1).collect::<Vec<_>>(), [5, 6, 9, 10]);
}

#[test]
fn with_flush_open_a_last_clock_stands_behind_the_day() {
    let mut options = options(64);
    options.flush_open = true;
    let facts = play(Form::Csv, vec![("X", "ts_ns,price,qty,side\n1,5,1,buy\n".into())], options);
    assert!(facts.iter().any(|f| matches!(f, Raw::Clock(c) if c.watermark_ns == 2 * 86_400 * Nanos::PER_SECOND)));
}
