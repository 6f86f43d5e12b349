//! What the registry's walk over the fixtures does not show: frames that nobody recorded.

use proptest::prelude::*;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};
use simulator::mexc::proto::Message;

use super::{contract, decode};
use crate::event::{Control, Event, Frame};

fn spot(frame: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    decode::decode(Frame::Binary(frame), &mut out);
    out
}

fn spot_text(frame: &str) -> Event {
    let mut out = Vec::new();
    decode::decode(Frame::Text(frame), &mut out);
    assert_eq!(out.len(), 1, "{out:?}");
    out.remove(0)
}

fn contract_text(frame: &str) -> Vec<Event> {
    let mut out = Vec::new();
    contract::decode(Frame::Text(frame), &mut out);
    out
}

fn malformed(events: &[Event]) -> &str {
    match events {
        [Event::Malformed(reason)] => reason,
        other => panic!("{other:?}"),
    }
}

fn number(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// The recorded binary frames.
fn recorded() -> Vec<Vec<u8>> {
    let Some(root) = schemas::fixtures::root() else { return Vec::new() };
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(root.join("fixtures/venues/mexc")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "hex") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
            frames.push((0..line.len()).step_by(2).map(byte).collect());
        }
    }
    assert_eq!(frames.len(), 6);
    frames
}

fn head(channel: &str) -> Message {
    Message::default().text(1, channel).text(3, "BTCUSDT").int(6, 1_790_281_243_450)
}

fn level(price: &str, size: &str) -> Message {
    Message::default().text(1, price).text(2, size)
}

const DEALS: &str = "spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT";
const DEPTH: &str = "spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT";

fn deal(kind: i64) -> Message {
    Message::default().text(1, "65219.38").text(2, "0.5").int(3, kind).int(4, 1_785_141_192_354).text(5, "7X0_8X0")
}

#[test]
fn a_cut_frame_is_malformed_or_says_nothing_wherever_it_is_cut() {
    for frame in recorded() {
        let whole = spot(&frame);
        assert!(!whole.iter().any(|e| matches!(e, Event::Malformed(_))), "{whole:?}");
        for end in 0..frame.len() {
            let events = spot(&frame[..end]);
            // Cut exactly in front of its body a frame is one of the empty ones that the venue does send.
            let quiet = |e: &Event| matches!(e, Event::Malformed(_) | Event::Ignored { .. });
            assert!(events.len() == 1 && events.iter().all(quiet), "{end}: {events:?}");
        }
    }
}

#[test]
fn asks_are_the_first_field_of_a_depth_frame_and_versions_are_text() {
    let body = Message::default()
        .message(1, level("84270.01", "5.4"))
        .message(1, level("84270.02", "0"))
        .message(2, level("84270", "0.1"))
        .text(3, "spot@public.aggre.depth.v3.api.pb@100ms")
        .text(4, "10589632359")
        .text(5, "10589632361")
        .int(6, 1_790_281_243_400);
    let events = spot(&head(DEPTH).message(313, body).0);
    let [Event::Book(book)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((book.action, book.partial), (BookAction::Update, false));
    assert_eq!((book.seq_first, book.seq_last), (Some(10_589_632_359), Some(10_589_632_361)));
    assert_eq!(book.asks, [(number("84270.01"), number("5.4")), (number("84270.02"), Decimal::ZERO)]);
    assert_eq!(book.bids, [(number("84270"), number("0.1"))]);
    assert_eq!(book.ts, Some(Nanos(1_790_281_243_450_000_000)));
}

#[test]
fn a_depth_frame_without_a_version_is_no_book() {
    let body = Message::default().message(1, level("1", "1")).text(4, "5");
    assert_eq!(malformed(&spot(&head(DEPTH).message(313, body).0)), "a book without its versions");
    let body = Message::default().text(4, "5").text(5, "next");
    assert_eq!(malformed(&spot(&head(DEPTH).message(313, body).0)), "version `next`");
}

#[test]
fn a_frame_without_a_body_says_nothing_and_one_with_an_empty_list_neither() {
    assert!(matches!(&spot(&head(DEALS).0)[..], [Event::Ignored { trade: None, .. }]));
    assert_eq!(spot(&head(DEALS).message(314, Message::default()).0), []);
    assert_eq!(
        malformed(&spot(&head("spot@public.gossip.v3.api.pb@X").0)),
        "unknown channel `spot@public.gossip.v3.api.pb@X`"
    );
}

#[test]
fn a_side_of_the_book_ticker_without_orders_is_none() {
    let body = Message::default().text(3, "84270.01").text(4, "5").text(5, "7");
    let events = spot(&head("spot@public.aggre.bookTicker.v3.api.pb@10ms@BTCUSDT").message(315, body).0);
    let [Event::Bbo(best)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((best.bid, best.ask, best.seq), (None, Some((number("84270.01"), number("5"))), Some(7)));
}

#[test]
fn a_word_that_spot_does_not_have_is_not_guessed() {
    let of = |body: u32, message: Message| malformed(&spot(&head(DEALS).message(body, message).0)).to_owned();
    let list = |message: Message| Message::default().message(1, message);
    assert_eq!(of(314, list(deal(3))), "trade type 3");
    assert_eq!(of(314, list(Message::default().text(1, "1").text(2, "1").int(3, 1))), "a trade without its time");
    assert_eq!(of(316, Message::default()), format!("unknown body 316 on channel `{DEALS}`"));
    assert_eq!(of(314, list(deal(1).int(1, 65))), "a number where bytes belong");
    let order = |kind: i64, status: i64| Message::default().text(1, "C02__1").int(7, kind).int(8, 1).int(15, status);
    assert_eq!(of(304, order(9, 1)), "order type 9");
    assert_eq!(of(304, order(1, 6)), "order state 6");
}

#[test]
fn a_spot_order_its_fill_and_the_balance_behind_it_are_read_from_their_fields() {
    let order = Message::default()
        .text(1, "C02__443776347957968896088")
        .text(2, "tl-1")
        .text(3, "36092.50")
        .text(4, "0.02")
        .text(5, "721.85")
        .text(6, "36092.1")
        .int(7, 1)
        .int(8, 2)
        .int(9, 1)
        .text(11, "0.015")
        .text(13, "0.005")
        .int(15, 5)
        .int(16, 1_661_938_138_000)
        .text(17, "later fields");
    let events = spot(&head("spot@private.orders.v3.api.pb").message(304, order).0);
    let [Event::Order(order)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (order.side, order.order_type.as_str(), order.status.as_str()),
        (Side::Sell, "LIMIT", "PARTIALLY_CANCELED")
    );
    assert_eq!((order.venue_order_id.as_str(), order.client_order_id.as_str()), ("C02__443776347957968896088", "tl-1"));
    assert_eq!((order.size, order.filled, order.avg_price), (number("0.02"), number("0.005"), Some(number("36092.1"))));
    assert_eq!((order.price, order.ts), (Some(number("36092.5")), Nanos(1_790_281_243_450_000_000)));

    let fill = Message::default()
        .text(1, "36092.1")
        .text(2, "0.005")
        .text(3, "180.4605")
        .int(4, 2)
        .int(5, 0)
        .text(7, "505979017439002624X1")
        .text(9, "C02__443776347957968896088")
        .text(10, "0.09")
        .text(11, "USDT")
        .int(12, 1_661_938_980_325);
    let events = spot(&head("spot@private.deals.v3.api.pb").message(306, fill).0);
    let [Event::Fill(fill)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((fill.side, fill.price, fill.size, fill.maker), (Side::Sell, number("36092.1"), number("0.005"), false));
    assert_eq!((fill.fee, fill.fee_asset.as_deref()), (number("0.09"), Some("USDT")));
    assert_eq!((fill.trade_id.as_str(), fill.client_order_id.as_deref()), ("505979017439002624X1", None));
    assert_eq!(fill.ts, Nanos(1_661_938_980_325_000_000));

    let balance = Message::default()
        .text(1, "USDT")
        .text(2, "128f")
        .text(3, "21.94")
        .text(4, "-5")
        .text(5, "5")
        .int(8, 1_678_185_928_428);
    let events = spot(&head("spot@private.account.v3.api.pb").message(307, balance).0);
    let [Event::Balance { asset, free, locked, ts }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((asset.as_str(), *free, *locked), ("USDT", number("21.94"), number("5")));
    assert_eq!(*ts, Nanos(1_678_185_928_428_000_000));
}

#[test]
fn a_refused_channel_has_code_0_too_and_is_named() {
    let channel = "spot@public.deals.v3.api.pb@BTCUSDT";
    let text = format!(r#"{{"id":0,"code":0,"msg":"Not Subscribed successfully! [{channel}].  Reason： Blocked! "}}"#);
    let Event::Error { code, message, id } = spot_text(&text) else { panic!() };
    assert_eq!((code, id.as_deref()), (Some(0), Some(channel)));
    assert_eq!(message, format!("Not Subscribed successfully! [{channel}].  Reason： Blocked!"));
    let ack = spot_text(&format!(r#"{{"id":0,"code":0,"msg":"{channel}"}}"#));
    assert_eq!(ack, Event::Control(Control::Ack { id: channel.into() }));
    // The channel's name with another code is a refusal all the same.
    let Event::Error { code, id, .. } = spot_text(&format!(r#"{{"id":0,"code":1,"msg":"{channel}"}}"#)) else {
        panic!()
    };
    assert_eq!((code, id.as_deref()), (Some(1), Some(channel)));
    assert_eq!(spot_text(r#"{"id":0,"code":0,"msg":"PONG"}"#), Event::Control(Control::Pong));
    assert!(matches!(spot_text("{}"), Event::Malformed(_)));
    assert!(matches!(
        spot_text(r#"{"channel":"spot@public.kline.v3.api.pb@X@Min1","symbol":"X"}"#),
        Event::Malformed(_)
    ));
}

#[test]
fn a_contract_answer_names_its_method_or_nothing() {
    let one = |frame: &str| contract_text(frame).remove(0);
    assert_eq!(
        one(r#"{"channel":"rs.sub.deal","data":"success","ts":1}"#),
        Event::Control(Control::Ack { id: "sub.deal".into() })
    );
    let error = |code, message: &str, id: Option<&str>| Event::Error {
        code,
        message: message.into(),
        id: id.map(str::to_owned),
    };
    assert_eq!(
        one(r#"{"channel":"rs.error","data":"Contract [X_USDT] not exists","ts":1}"#),
        error(None, "Contract [X_USDT] not exists", None)
    );
    assert_eq!(one(r#"{"channel":"rs.sub.deal","data":"failed","ts":1}"#), error(None, "failed", Some("sub.deal")));
    assert_eq!(malformed(&contract_text(r#"{"channel":"push.gossip","data":1}"#)), "unknown channel `push.gossip`");
    assert_eq!(malformed(&contract_text(r#"{"channel":"gossip","data":1}"#)), "unknown channel `gossip`");
}

#[test]
fn a_word_that_contract_does_not_have_is_not_guessed() {
    let push = |channel: &str, data: &str| {
        let frame = format!(r#"{{"channel":"push.{channel}","data":{data},"symbol":"BTC_USDT","ts":1}}"#);
        malformed(&contract_text(&frame)).to_owned()
    };
    assert_eq!(push("deal", r#"{"p":1,"v":1,"T":3,"O":1,"M":1,"t":1}"#), "trade type 3");
    let order = |side: u8, state: u8| {
        format!(
            r#"{{"orderId":"1","symbol":"BTC_USDT","side":{side},"orderType":1,"state":{state},"price":1,"vol":1,"dealVol":0,"dealAvgPrice":0}}"#
        )
    };
    assert_eq!(push("personal.order", &order(5, 1)), "side 5");
    assert_eq!(push("personal.order", &order(1, 7)), "order state 7");
}

#[test]
fn a_contract_book_change_may_sum_up_several_versions() {
    let frame = |range: &str| {
        format!(
            r#"{{"channel":"push.depth","data":{{"asks":[],"bids":[[6858.5,0,0]],{range}"version":12}},"symbol":"BTC_USDT","ts":5}}"#
        )
    };
    let versions = |range: &str| match &contract_text(&frame(range))[..] {
        [Event::Book(book)] => (book.seq_first, book.seq_last),
        other => panic!("{other:?}"),
    };
    assert_eq!(versions(""), (Some(12), Some(12)));
    assert_eq!(versions(r#""begin":10,"end":12,"#), (Some(10), Some(12)));
    assert_eq!(versions(r#""begin":"10","end":"12","#), (Some(10), Some(12)));
}

#[test]
fn the_turnover_of_an_inverse_contract_is_in_coins() {
    let bar = |symbol: &str| {
        let frame = format!(
            r#"{{"channel":"push.kline","data":{{"a":2.5,"c":1,"h":1,"interval":"Min1","l":1,"o":1,"q":31468,"symbol":"{symbol}","t":1654083480}},"symbol":"{symbol}","ts":1654083512507}}"#
        );
        match &contract_text(&frame)[..] {
            [Event::Bar(bar)] => (bar.volume_base, bar.volume_quote, bar.volume),
            other => panic!("{other:?}"),
        }
    };
    let (amount, contracts) = (Some(number("2.5")), Some(number("31468")));
    assert_eq!(bar("BTC_USDT"), (None, amount, contracts));
    assert_eq!(bar("BTC_USD"), (amount, None, contracts));
}

/// The private frames of the fixtures: the expectation asks only that they parse.
#[test]
fn the_recorded_contract_orders_fills_and_balances_are_held() {
    let Some(root) = schemas::fixtures::root() else { return };
    let read = |name: &str| {
        let path = root.join(format!("fixtures/venues/mexc/ws_contract_private_{name}.jsonl"));
        contract_text(std::fs::read_to_string(path).unwrap().trim())
    };
    let [Event::Order(order)] = &read("order")[..] else { panic!() };
    assert_eq!((order.side, order.reduce_only, order.status.as_str()), (Side::Sell, Some(true), "COMPLETED"));
    assert_eq!((order.size, order.filled, order.avg_price), (number("1"), number("1"), Some(number("0.731"))));
    assert_eq!(order.client_order_id, "_m_95bc2b72d3784bce8f9efecbdef9fe35");
    assert_eq!((order.venue_order_id.as_str(), order.order_type.as_str()), ("102067003631907840", "MARKET"));
    let [Event::Fill(fill)] = &read("order_deal")[..] else { panic!() };
    assert_eq!((fill.side, fill.price, fill.size, fill.maker), (Side::Buy, number("45000.5"), number("10"), false));
    assert_eq!((fill.trade_id.as_str(), fill.venue_order_id.as_str()), ("987654321", "123456789"));
    assert_eq!((fill.fee, fill.client_order_id.as_deref()), (number("0.225"), Some("ext_001")));
    let [Event::Balance { asset, free, locked, .. }] = &read("asset")[..] else { panic!() };
    assert_eq!((asset.as_str(), *free, *locked), ("USDT", number("0.7514236"), Decimal::ZERO));
    for other in ["position", "plan_order", "stop_order", "track_order", "liquidation"] {
        assert!(matches!(&read(other)[..], [Event::Other(_)]), "{other}");
    }
}

/// A field that the schema does not have, of any wire type.
fn strange() -> impl Strategy<Value = Message> {
    (400u32..5000, 0u8..4, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(number, what, bytes)| match what {
        0 => Message::default().int(number, i64::from(bytes.len() as u32)),
        1 => Message::default().fixed64(number, 1),
        2 => Message::default().fixed32(number, 1),
        _ => Message::default().bytes(number, &bytes),
    })
}

proptest! {
    /// Whatever the venue adds, and in whichever order it writes: what is known is read as before.
    #[test]
    fn fields_of_a_later_schema_and_another_order_change_nothing(
        extra in prop::collection::vec(strange(), 5),
        order in Just([0usize, 1, 2, 3]).prop_shuffle(),
        inner in Just([0usize, 1, 2, 3, 4, 5]).prop_shuffle(),
    ) {
        let fields = [
            Message::default().text(1, "65219.38"), Message::default().text(2, "0.5"), Message::default().int(3, 1),
            Message::default().int(4, 1_785_141_192_354), Message::default().text(5, "7X0_8X0"), extra[0].clone(),
        ];
        let one: Vec<u8> = inner.iter().flat_map(|at| fields[*at].0.clone()).collect();
        let body = Message([extra[1].0.clone(), Message::default().bytes(1, &one).0, extra[2].0.clone()].concat());
        let outer = [
            Message::default().text(1, DEALS), Message::default().text(3, "BTCUSDT"),
            Message::default().int(6, 1_790_281_243_450), Message::default().message(314, body),
        ];
        let frame: Vec<u8> = order.iter().flat_map(|at| [outer[*at].0.clone(), extra[3].0.clone()].concat()).collect();
        let plain = head(DEALS).message(314, Message::default().message(1, deal(1)));
        prop_assert_eq!(spot(&frame), spot(&plain.0));
        prop_assert!(matches!(&spot(&plain.0)[..], [Event::Trade(t)] if t.venue_id.as_deref() == Some("7X0_8X0")));
    }

    #[test]
    fn a_frame_with_a_byte_changed_never_panics(
        pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let frames = recorded();
        if !frames.is_empty() {
            let mut frame = frames[pick.index(frames.len())].clone();
            let at = at.index(frame.len());
            frame[at] = byte;
            spot(&frame);
        }
    }
}
