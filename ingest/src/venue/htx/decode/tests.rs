use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::text::decimal;

fn packed(text: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(text).unwrap();
    gz.finish().unwrap()
}

fn events(kind: Kind, frame: Frame<'_>) -> Vec<Event> {
    let mut out = Vec::new();
    decode(kind, frame, &mut out);
    out
}

fn reason(kind: Kind, frame: Frame<'_>) -> String {
    match &events(kind, frame)[..] {
        [Event::Malformed(reason)] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// The bytes of base64 text.
fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for byte in text.bytes().filter(|b| *b != b'=') {
        let digit = DIGITS.iter().position(|d| *d == byte).unwrap() as u32;
        (bits, held) = (bits << 6 | digit, held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

#[test]
fn the_recorded_wire_bytes_say_what_their_text_says() {
    let Some(root) = schemas::fixtures::root() else { return };
    let folder = root.join("fixtures/venues/htx");
    let mut frames = 0;
    for (name, kind) in
        [("spot_2021_a", Kind::Spot), ("linear_2022_a", Kind::Linear), ("inverse_2022_a", Kind::Inverse)]
    {
        let read = |file: String| std::fs::read_to_string(folder.join(file)).unwrap();
        let (text, wire) = (read(format!("seq_{name}.jsonl")), read(format!("seq_{name}.frames_gz_b64.txt")));
        assert_eq!(text.lines().count(), wire.lines().count(), "{name}");
        for (text, wire) in text.lines().zip(wire.lines()) {
            let bytes = unbase64(wire.trim());
            let said = events(kind, Frame::Binary(&bytes));
            assert_eq!(said, events(kind, Frame::Text(text)), "{name}: {text:.80}");
            assert!(!said.iter().any(|e| matches!(e, Event::Malformed(_))), "{said:?}");
            frames += 1;
        }
    }
    assert_eq!(frames, 60 + 31 + 27);
}

#[test]
fn a_frame_that_is_damaged_cut_doubled_or_no_gzip_is_malformed() {
    let good = packed(br#"{"ping":1786563068868}"#);
    assert!(matches!(&events(Kind::Spot, Frame::Binary(&good))[..], [Event::Control(Control::Ping { .. })]));
    let mut damaged = good.clone();
    let sum = damaged.len() - 6;
    damaged[sum] ^= 0x40;
    assert!(reason(Kind::Spot, Frame::Binary(&damaged)).contains("not gzip"), "the checksum is looked at");
    assert!(reason(Kind::Spot, Frame::Binary(&good[..good.len() - 3])).contains("not gzip"));
    assert!(reason(Kind::Spot, Frame::Binary(br#"{"ping":1}"#)).contains("not gzip"));
    assert!(reason(Kind::Spot, Frame::Binary(b"")).contains("not gzip"));
    let twice = [good.clone(), good].concat();
    assert!(reason(Kind::Spot, Frame::Binary(&twice)).contains("behind the end of a gzip frame"));
    assert!(reason(Kind::Spot, Frame::Binary(&packed(&[0xff, 0xfe]))).contains("no text"));
}

#[test]
fn a_small_frame_that_unpacks_to_more_than_the_bound_is_malformed_and_one_at_the_bound_is_read() {
    let of = |size: u64| {
        let mut text = br#"{"ping":1}"#.to_vec();
        text.resize(size as usize, b' ');
        packed(&text)
    };
    assert!(matches!(
        &events(Kind::Spot, Frame::Binary(&of(UNPACKED_BYTES_MAX)))[..],
        [Event::Control(Control::Ping { .. })]
    ));
    let bomb = of(UNPACKED_BYTES_MAX * 8);
    assert!(bomb.len() < 64 * 1024, "{}", bomb.len());
    assert_eq!(
        reason(Kind::Spot, Frame::Binary(&bomb)),
        format!("a gzip frame of more than {UNPACKED_BYTES_MAX} bytes")
    );
}

#[test]
fn each_socket_is_answered_in_its_own_words_with_the_number_that_it_sent() {
    for (ping, pong) in [
        (r#"{"ping":1786563068868}"#, r#"{"pong":1786563068868}"#),
        (r#"{"op":"ping","ts":"1492420473058"}"#, r#"{"op":"pong","ts":"1492420473058"}"#),
        (r#"{"action":"ping","data":{"ts":1575537778295}}"#, r#"{"action":"pong","data":{"ts":1575537778295}}"#),
    ] {
        let answer = pong.to_owned();
        assert_eq!(events(Kind::Linear, Frame::Text(ping)), [Event::Control(Control::Ping { answer })]);
    }
    assert_eq!(reason(Kind::Spot, Frame::Text(r#"{"ping":{"a":1}}"#)), r#"ping `{"a":1}`"#);
    assert_eq!(reason(Kind::Spot, Frame::Text(r#"{"op":"ping","ts":"1\",\"x\":\""}"#)).get(..4), Some("ping"));
}

#[test]
fn answers_carry_the_id_of_their_request_or_the_channel_where_there_is_none() {
    let only = |frame: &str| match &events(Kind::Linear, Frame::Text(frame))[..] {
        [event] => event.clone(),
        other => panic!("{other:?}"),
    };
    let subscribed = |id: &str, channel: &str| {
        Event::Control(Control::Subscribed { id: id.to_owned(), channels: vec![channel.to_owned()] })
    };
    let channel = "market.BTC-USDT.bbo";
    assert_eq!(only(r#"{"id":"7","status":"ok","subbed":"market.BTC-USDT.bbo","ts":1}"#), subscribed("7", channel));
    assert_eq!(only(r#"{"id":7,"status":"ok","subbed":"market.BTC-USDT.bbo","ts":1}"#), subscribed("7", channel));
    assert_eq!(only(r#"{"id":null,"status":"ok","subbed":"market.BTC-USDT.bbo"}"#), subscribed(channel, channel));
    let topic = "public.BTC-USDT.funding_rate";
    assert_eq!(
        only(r#"{"op":"sub","cid":"9","topic":"public.BTC-USDT.funding_rate","ts":1,"err-code":0}"#),
        subscribed("9", topic)
    );
    assert_eq!(
        only(r#"{"id":"8","status":"ok","unsubbed":"market.BTC-USDT.bbo","ts":1}"#),
        Event::Control(Control::Ack { id: "8".into() })
    );
    assert_eq!(
        only(r#"{"status":"error","ts":1,"id":"3","err-code":"bad-request","err-msg":"invalid topic market.x.bbo"}"#),
        Event::Error { code: None, message: "bad-request: invalid topic market.x.bbo".into(), id: Some("3".into()) }
    );
    assert_eq!(
        only(
            r#"{"op":"sub","cid":"4","topic":"public.X.funding_rate","ts":1,"err-code":2011,"err-msg":"no contract"}"#
        ),
        Event::Error { code: Some(2011), message: "no contract".into(), id: Some("4".into()) }
    );
    assert_eq!(
        only(r#"{"action":"req","code":2002,"ch":"auth","message":"invalid.auth.state"}"#),
        Event::Error { code: Some(2002), message: "invalid.auth.state".into(), id: Some("auth".into()) }
    );
}

#[test]
fn an_unknown_word_is_not_guessed() {
    let told = |text: &str| reason(Kind::Linear, Frame::Text(text));
    let tick = |channel: &str, tick: &str| told(&format!(r#"{{"ch":"{channel}","ts":1,"tick":{tick}}}"#));
    assert_eq!(tick("market.X.gossip", "{}"), "unknown channel `market.X.gossip`");
    assert_eq!(tick("gossip", "{}"), "unknown channel `gossip`");
    let trade = r#"{"id":1,"ts":1,"data":[{"id":12,"ts":1,"amount":2,"price":1,"direction":"up"}]}"#;
    assert_eq!(tick("market.X.trade.detail", trade), "trade 12 has direction `up`");
    let depth = r#"{"event":"moved","version":1,"bids":[],"asks":[]}"#;
    assert_eq!(tick("market.X.depth.size_150.high_freq", depth), "book event `moved`");
    assert_eq!(tick("market.X.depth.size_150.high_freq", r#"{"version":1}"#), "a book message without its event");
    let unlinked = r#"{"ch":"market.x.mbp.150","ts":1,"tick":{"seqNum":2,"asks":[]}}"#;
    assert_eq!(reason(Kind::Spot, Frame::Text(unlinked)), "changes without prevSeqNum");
    assert_eq!(told(r#"{"op":"shout"}"#), "op `shout`");
    assert_eq!(
        told(r#"{"op":"notify","topic":"public.X.weather","ts":1,"data":[]}"#),
        "unknown topic `public.X.weather`"
    );
    assert_eq!(told(r#"{"action":"shout"}"#), "action `shout`");
    assert_eq!(told(r#"{"hello":1}"#), "neither data nor an answer");
    let forced = r#"{"op":"notify","topic":"public.X.liquidation_orders","ts":1,"data":[{"contract_code":"X","direction":"sell","offset":"shut","volume":1,"price":1,"created_at":1}]}"#;
    assert_eq!(told(forced), "offset `shut`");
}

#[test]
fn a_derivative_trade_without_a_direction_uses_its_id_up_and_nothing_else() {
    let frame = r#"{"ch":"market.BTC-USDT.trade.detail","ts":2,"tick":{"id":1,"ts":1,"data":[{"amount":4,"ts":1,"id":431311833130000,"price":1,"direction":""}]}}"#;
    match &events(Kind::Linear, Frame::Text(frame))[..] {
        [Event::Ignored { trade: Some((symbol, 431_311_833_130_000)), .. }] => assert_eq!(symbol, "BTC-USDT"),
        other => panic!("{other:?}"),
    }
    assert!(reason(Kind::Spot, Frame::Text(frame)).contains("direction ``"));
}

#[test]
fn a_trade_id_of_28_digits_is_kept_as_text_and_a_float_is_no_id() {
    let of = |id: &str| {
        format!(
            r#"{{"ch":"market.x.trade.detail","ts":2,"tick":{{"id":1,"ts":1,"data":[{{"amount":4,"ts":1,"id":{id},"price":1,"direction":"buy"}}]}}}}"#
        )
    };
    match &events(Kind::Spot, Frame::Text(&of("1925822596471664607926422813")))[..] {
        [Event::Trade(t)] => assert_eq!((t.id, t.venue_id.as_deref()), (0, Some("1925822596471664607926422813"))),
        other => panic!("{other:?}"),
    }
    assert_eq!(reason(Kind::Spot, Frame::Text(&of("1.36e+26"))), "trade id `1.36e+26`");
}

#[test]
fn volumes_of_contracts_count_one_side_and_money_too() {
    let frame = r#"{"ch":"market.BTC-USDT.kline.1min","ts":1654081448870,"tick":{"id":1654081440,"mrid":1,"open":31531.9,"close":31531.9,"high":31532,"low":31531.9,"amount":0.532,"vol":532,"trade_turnover":16774.9728,"count":5}}"#;
    let [Event::Bar(bar)] = &events(Kind::Linear, Frame::Text(frame))[..] else { panic!("no bar") };
    let text = |n: Option<Decimal>| n.unwrap().to_string();
    assert_eq!([text(bar.volume_base), text(bar.volume), text(bar.volume_quote)], ["0.266", "266", "8387.4864"]);
    assert_eq!((bar.trades, bar.closed), (Some(5), None));
}

fn fixture(file: &str, line: usize, kind: Kind) -> Option<Vec<Event>> {
    let path = schemas::fixtures::root()?.join("fixtures/venues/htx").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    Some(events(kind, Frame::Text(text.lines().nth(line - 1).unwrap())))
}

#[test]
fn index_and_mark_price_come_from_the_bars_of_their_channels() {
    let Some(index) = fixture("ws_swap_index_kline.jsonl", 1, Kind::Linear) else { return };
    assert_eq!(
        index,
        [Event::Index {
            symbol: "ETH-USDT".into(),
            price: "19242.05".parse().unwrap(),
            ts: instant(1_607_309_592_214)
        }]
    );
    let mark = fixture("ws_swap_mark_price_kline.jsonl", 1, Kind::Linear).unwrap();
    let [Event::Mark(mark)] = &mark[..] else { panic!("{mark:?}") };
    assert_eq!((mark.mark.to_string(), mark.ts), ("9800.12".to_owned(), instant(1_489_474_082_831)));
}

#[test]
fn a_service_that_is_down_is_told_with_the_time_at_which_it_may_be_back() {
    let Some(down) = fixture("ws_swap_heartbeat_status.jsonl", 1, Kind::Linear) else { return };
    let [Event::Status(status)] = &down[..] else { panic!("{down:?}") };
    assert_eq!(status.to_string(), "maintenance: linear-swap (heartbeat 0), until 2014-08-15T04:20:14Z");
    assert_eq!(status.ts, Some(instant(1_580_815_422_403)));
    let beat = |topic: &str, data: &str| {
        let frame = format!(r#"{{"op":"notify","topic":"{topic}","event":"update","ts":1580815422403,"data":{data}}}"#);
        match &events(Kind::Inverse, Frame::Text(&frame))[..] {
            [Event::Status(status)] => status.to_string(),
            [Event::Malformed(why)] => format!("malformed: {why}"),
            other => panic!("{other:?}"),
        }
    };
    let topic = "public.swap.heartbeat";
    assert_eq!(beat(topic, r#"{"heartbeat":1,"estimated_recovery_time":null}"#), "online: swap (heartbeat 1)");
    assert_eq!(beat(topic, r#"{"heartbeat":2}"#), "malformed: swap has heartbeat 2");
    assert_eq!(beat("public.heartbeat", r#"{"heartbeat":1}"#), "malformed: unknown topic `public.heartbeat`");
}

#[test]
fn our_own_orders_fills_and_balances_are_read_from_the_private_sockets() {
    let Some(order) = fixture("ws_spot_private_orders.jsonl", 1, Kind::Spot) else { return };
    let [Event::Order(o)] = &order[..] else { panic!("{order:?}") };
    assert_eq!((o.client_order_id.as_str(), o.venue_order_id.as_str(), o.side), ("test3", "27163533", Side::Sell));
    assert_eq!((o.order_type.as_str(), o.status.as_str()), ("limit", "submitted"));
    assert_eq!((o.price.unwrap().to_string(), o.size.to_string(), o.filled), ("77".into(), "2".into(), Decimal::ZERO));
    let fill = fixture("ws_spot_private_trades.jsonl", 1, Kind::Spot).unwrap();
    let [Event::Fill(f)] = &fill[..] else { panic!("{fill:?}") };
    assert_eq!((f.trade_id.as_str(), f.maker, f.side), ("919219323232", false, Side::Buy));
    assert_eq!((f.fee.to_string(), f.fee_asset.as_deref()), ("19.88".into(), Some("btc")));
    let balance = fixture("ws_spot_private_accounts.jsonl", 1, Kind::Spot).unwrap();
    let [Event::Balance { asset, free, locked, .. }] = &balance[..] else { panic!("{balance:?}") };
    assert_eq!((asset.as_str(), free.to_string(), *locked), ("usdt", "20.29388158".into(), Decimal::ZERO));
    assert!(matches!(&fixture("ws_spot_private_accounts.jsonl", 3, Kind::Spot).unwrap()[..], [Event::Other(_)]));

    let order = fixture("ws_swap_private_orders.jsonl", 1, Kind::Linear).unwrap();
    let [Event::Order(o), Event::Fill(f)] = &order[..] else { panic!("{order:?}") };
    assert_eq!((o.venue_order_id.as_str(), o.client_order_id.as_str()), ("758684042347171840", "10683"));
    assert_eq!((o.status.as_str(), o.filled.to_string(), o.reduce_only), ("filled", "1".into(), Some(false)));
    assert_eq!(
        (f.trade_id.as_str(), f.maker, f.fee.to_string()),
        ("14469-758684042347171840-1", true, "-0.234".into())
    );
    for (line, side, maker) in [(1, Side::Buy, false), (2, Side::Sell, true)] {
        let matched = fixture("ws_swap_private_match_orders.jsonl", line, Kind::Linear).unwrap();
        let [Event::Order(_), Event::Fill(f)] = &matched[..] else { panic!("{matched:?}") };
        assert_eq!((f.side, f.maker, f.client_order_id.as_deref()), (side, maker, None));
    }
    let cross = fixture("ws_swap_private_accounts.jsonl", 2, Kind::Linear).unwrap();
    let [Event::Balance { asset, free, locked, .. }] = &cross[..] else { panic!("{cross:?}") };
    assert_eq!((asset.as_str(), free.to_string()), ("USDT", "1.1721816155538354".to_owned()));
    assert_eq!(locked.to_string(), "19.4312199999999996");
    assert!(matches!(&fixture("ws_swap_private_positions.jsonl", 1, Kind::Linear).unwrap()[..], [Event::Other(_)]));
}

#[test]
fn a_trade_of_ours_tells_what_was_filled_in_all() {
    let push = |rest: &str| {
        let data = format!(
            r#"{{"action":"push","ch":"orders#btcusdt","data":{{"eventType":"trade","symbol":"btcusdt","type":"sell-limit","orderId":9,"clientOrderId":"c","orderSize":"2","tradePrice":"76","tradeVolume":"0.5","tradeId":301,"tradeTime":1583853473000,"aggressor":true,"orderStatus":"partial-filled"{rest}}}}}"#
        );
        events(Kind::Spot, Frame::Text(&data))
    };
    for rest in [r#","execAmt":"1.5""#, r#","remainAmt":"0.500000000000000000000000000000000000""#] {
        let said = push(rest);
        let [Event::Order(o), Event::Fill(f)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((o.filled.normalize().to_string(), f.size.to_string()), ("1.5".to_owned(), "0.5".to_owned()));
    }
    assert!(matches!(&push("")[..], [Event::Malformed(why)] if why.contains("does not tell what was filled")));
}

proptest! {
    /// A sum reads like any number, and what is too long is the same number rounded, its text kept.
    #[test]
    fn a_sum_is_the_number_or_its_rounding(text in "[1-9][0-9]{0,11}(\\.[0-9]{1,40})?") {
        let sum: Sum = parse(&text).unwrap();
        match decimal(&text) {
            Ok(value) => prop_assert_eq!((sum.value, sum.text), (value, None)),
            Err(_) => {
                prop_assert_eq!(sum.text.as_deref(), Some(text.as_str()));
                let exact = &text[..text.len().min(24)];
                let near: Decimal = exact.parse().unwrap();
                prop_assert!((sum.value - near).abs() < Decimal::new(1, 10), "{} {}", sum.value, near);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,64}") {
        events(Kind::Spot, Frame::Binary(&bytes));
        events(Kind::Linear, Frame::Text(&text));
        let unpacked = events(Kind::Inverse, Frame::Binary(&packed(text.as_bytes())));
        prop_assert_eq!(unpacked, events(Kind::Inverse, Frame::Text(&text)));
    }
}
