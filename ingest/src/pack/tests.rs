use proptest::prelude::*;
use schemas::instrument::SizeUnit;
use schemas::{Fact, Side};

use super::*;

fn trade(symbol: &str, id: u64, price: &str, size: &str) -> Event {
    Event::Trade(event::Trade {
        symbol: symbol.into(),
        id,
        venue_id: None,
        price: price.parse().unwrap(),
        size: size.parse().unwrap(),
        unit: SizeUnit::Base,
        side: Side::Buy,
        ts: Nanos(id as i64),
        event_ts: None,
        aggregate: None,
        backfill: false,
        extra: None,
    })
}

fn sizes(facts: &[Raw]) -> Vec<usize> {
    facts.iter().map(|f| if let Raw::Trades(t) = f { t.len() } else { 0 }).collect()
}

#[test]
fn a_pack_leaves_when_it_is_full_and_the_rest_at_the_flush() {
    let mut packer = Packer::new("binance", 16, 3, false);
    let mut out = Vec::new();
    for id in 0..7 {
        packer.take(Nanos(0), &trade("BTCUSDT", id, "1.5", "2"), &mut out);
    }
    assert_eq!(sizes(&out), [3, 3]);
    packer.flush(&mut out);
    assert_eq!(sizes(&out), [3, 3, 1]);
}

#[test]
fn more_digits_begin_a_pack_of_their_own_and_lose_nothing() {
    let mut packer = Packer::new("binance", 16, 256, false);
    packer.instrument("BTCUSDT", Scale { price: 2, qty: 0 });
    let mut out = Vec::new();
    for (id, price) in [(1, "10"), (2, "10.25"), (3, "10.125"), (4, "10")] {
        packer.take(Nanos(0), &trade("BTCUSDT", id, price, "1"), &mut out);
    }
    packer.flush(&mut out);
    let packs: Vec<_> = out
        .iter()
        .map(|f| {
            let Raw::Trades(t) = f else { panic!() };
            (t.scale.price, t.price.clone())
        })
        .collect();
    assert_eq!(packs, [(2, vec![1000, 1025]), (3, vec![10125, 10000])]);
}

#[test]
fn a_trade_beyond_63_bits_is_a_dead_letter_and_a_gap_and_the_scale_stays() {
    let mut packer = Packer::new("binance", 16, 256, false);
    let mut out = Vec::new();
    packer.take(Nanos(0), &trade("X", 1, "1", "12345678901234567890.5"), &mut out);
    let [Raw::Dead(dead), Raw::Gap(gap)] = &out[..] else { panic!("{out:?}") };
    assert!(dead.reason.contains("63 bits"), "{dead:?}");
    assert_eq!((gap.symbol.as_str(), gap.channel.as_str(), gap.to_ns), ("X", "trade", Some(gap.from_ns)));
    packer.take(Nanos(0), &trade("X", 2, "1", "2"), &mut out);
    packer.flush(&mut out);
    assert!(matches!(&out[2], Raw::Trades(t) if t.scale == Scale::default()));
}

#[test]
fn a_book_beyond_63_bits_is_a_gap_until_its_next_snapshot_and_no_change_lies_in_it() {
    let mut packer = Packer::new("htx", 16, 256, false);
    let mut out = Vec::new();
    let level = |size: &str| vec![(size.parse().unwrap(), size.parse().unwrap())];
    let book = |ms: i64, action: BookAction, size: &str| {
        Event::Book(event::Book {
            symbol: "X".into(),
            action,
            partial: false,
            seq_first: None,
            seq_last: None,
            seq_prev: None,
            bids: level(size),
            asks: Vec::new(),
            unit: SizeUnit::Base,
            checksum: None,
            ts: Some(Nanos::from_ms(ms)),
            event_ts: None,
        })
    };
    let steps = [
        (1, BookAction::Snapshot, "1"),
        (2, BookAction::Update, "12345678901234567890.5"),
        (3, BookAction::Update, "2"),
        (4, BookAction::Snapshot, "12345678901234567890.5"),
        (5, BookAction::Update, "3"),
        (6, BookAction::Snapshot, "4"),
        (7, BookAction::Update, "5"),
    ];
    for (ms, action, size) in steps {
        packer.take(Nanos(0), &book(ms, action, size), &mut out);
    }
    packer.flush(&mut out);
    let told: Vec<String> = out
        .iter()
        .map(|fact| match fact {
            Raw::Books(pack) => {
                format!("books {:?}", pack.items.iter().map(|b| b.ts_ns / Nanos::PER_MS).collect::<Vec<_>>())
            }
            Raw::Gap(gap) => format!(
                "{} gap {} {:?}",
                gap.channel,
                gap.from_ns / Nanos::PER_MS,
                gap.to_ns.map(|t| t / Nanos::PER_MS)
            ),
            Raw::Dead(_) => "dead".to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["dead", "books [1]", "book gap 2 None", "dead", "book gap 2 Some(6)", "books [6, 7]"]);
}

#[test]
fn aggregates_and_trades_never_share_a_tape() {
    let mut packer = Packer::new("binance", 16, 256, false);
    let mut out = Vec::new();
    let Event::Trade(mut aggregate) = trade("X", 1, "1", "1") else { unreachable!() };
    aggregate.aggregate = Some((1, 1));
    packer.take(Nanos(0), &Event::Trade(aggregate), &mut out);
    packer.flush(&mut out);
    assert!(out.is_empty());
}

#[test]
fn a_clock_stands_in_every_partition_behind_the_data() {
    let mut packer = Packer::new("binance", 4, 256, false);
    let mut out = Vec::new();
    packer.take(Nanos(0), &trade("X", 1, "1", "1"), &mut out);
    packer.clock(Nanos(10), Nanos(20), &mut out);
    let subjects: Vec<_> = out.iter().map(Raw::subject).collect();
    assert!(subjects[0].contains(".trade.X"), "{subjects:?}");
    assert_eq!(&subjects[1..], (0..4).map(|p| format!("raw.{p}.binance.clock._")).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn the_ticks_of_a_symbol_leave_in_their_order_whatever_is_between(
        ticks in prop::collection::vec((0u8..3, 0u32..5, 1i64..1_000_000), 1..200),
        ticks_max in 1usize..8,
    ) {
        let mut packer = Packer::new("v", 16, ticks_max, false);
        let mut out = Vec::new();
        let symbols = ["A", "B", "C"];
        let mut came: BTreeMap<&str, Vec<(u64, Decimal)>> = BTreeMap::new();
        for (id, (symbol, digits, mantissa)) in ticks.into_iter().enumerate() {
            let (symbol, price) = (symbols[symbol as usize], Decimal::new(mantissa, digits));
            packer.take(Nanos(0), &trade(symbol, id as u64, &price.to_string(), "1"), &mut out);
            came.entry(symbol).or_default().push((id as u64, price.normalize()));
        }
        packer.flush(&mut out);
        let mut left: BTreeMap<&str, Vec<(u64, Decimal)>> = BTreeMap::new();
        for fact in &out {
            let Raw::Trades(pack) = fact else { panic!() };
            prop_assert!(pack.len() <= ticks_max);
            let back = Trades::decode(&fact.encode()).unwrap().checked().unwrap();
            let symbol = symbols.iter().find(|s| **s == back.symbol).unwrap();
            left.entry(symbol).or_default().extend(back.iter().map(|t| (t.id, t.price.price(back.scale).get())));
        }
        prop_assert_eq!(came, left);
    }
}
