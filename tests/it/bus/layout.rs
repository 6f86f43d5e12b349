//! Subjects, partitions and the streams of the layout; the desk as the merge of its sources.

use async_nats::jetstream::stream::{Config as StreamConfig, SubjectTransform};
use nats::{Config, Layout, Reader, Writer, kv};
use schemas::config::UserFile;
use tests::{Server, stored, wait_for};

use super::{BOUND, make, make_checkpoints, make_with, server_and_bus, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_partition_is_the_servers() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make_with(
        &bus,
        StreamConfig {
            name: "P".into(),
            subjects: vec!["part.*.*".into()],
            subject_transform: Some(SubjectTransform {
                source: "part.*.*".into(),
                destination: "placed.{{partition(16,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}".into(),
            }),
            ..Default::default()
        },
    )
    .await?;
    let symbols: Vec<String> = (0..500).map(|i| format!("SYM{}/{}.é{i}", i % 7, i * 31)).collect();
    for symbol in &symbols {
        let subject = format!("part.binance.{}", schemas::subject::escape(symbol));
        bus.js().publish(subject, "".into()).await?.await?;
    }
    for (seq, (symbol, (_, subject, _))) in symbols.iter().zip(stored(&bus, "P").await?).enumerate() {
        let p = schemas::subject::partition("binance", symbol, 16);
        assert_eq!(subject, format!("placed.{p}.binance.{}", schemas::subject::escape(symbol)), "{seq}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn escaped_symbols_are_good_subjects_and_good_keys() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make(&bus, "RAW_X", "raw.*.x.>").await?;
    make_checkpoints(&bus).await?;
    let mut writer = Writer::open(&bus, "RAW_X").await?;
    let symbols = ["BTC/USDT:USDT", "1INCH.USD", "BTC-USDT", "*", ">", "a b", "a..b", "=", "", "é漢%~$@#", ".x.", "-"];
    for symbol in symbols {
        let subject = schemas::subject::raw(0, "x", "trade", symbol);
        writer.push(subject.clone(), symbol).await?;
        writer.drain().await?;
        let key = format!("x.{}", schemas::subject::escape(symbol));
        kv::put(&bus, "ckpt", &key, format!("value of {symbol}").into()).await?;
        assert_eq!(value(&bus, "ckpt", &key).await?, Some(format!("value of {symbol}")));
        // The literal subject is a filter that matches this symbol alone.
        let found = Reader::latest(&bus, "RAW_X", &subject, 10).await?;
        assert_eq!(found.len(), 1, "{symbol}");
        assert_eq!(&found[0].payload[..], symbol.as_bytes());
    }
    let all = Reader::latest(&bus, "RAW_X", "raw.*.x.trade.*", 100).await?;
    assert_eq!(all.len(), symbols.len());
    Ok(())
}

fn layout() -> Layout {
    Layout { venues: vec!["x".into()], accounts: vec!["main".into()], traders: vec!["owl".into()], partitions: 2 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layout_is_applied_twice_and_its_partitions_are_frozen() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    layout().apply(&bus).await?;
    for stream in layout().streams() {
        bus.stream(&stream).await?;
    }
    let more = Layout { venues: vec!["x".into(), "y".into()], ..layout() };
    more.apply(&bus).await?;
    let desk = bus.js().get_stream("DESK_main").await?.cached_info().config.clone();
    assert!(desk.sources.iter().flatten().any(|s| s.name == "RAW_Y"), "a new venue reaches the desk");
    assert_eq!(nats::layout::partitions(&bus, "x").await?, Some(2));
    let error = Layout { partitions: 4, ..layout() }.apply(&bus).await.unwrap_err().to_string();
    assert!(error.contains("frozen"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_the_configuration_are_the_streams_and_a_full_disk_is_told_with_a_remedy() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let bus_with = async |text: &str| {
        let user = UserFile { name: "test".into(), text: format!("[nats.layout]\n{text}") };
        server.bus_with("operator", Config::load(Some(&user))?).await
    };
    let bus = bus_with("desk_bytes_max = 1048576\nrisk_messages_max = 77\n").await?;
    layout().apply(&bus).await?;
    for (stream, messages, bytes) in
        [("DESK_main", 50_000_000, 1 << 20), ("RISK_main", 77, -1), ("SIG_EXT", 50_000_000, -1)]
    {
        let config = bus.js().get_stream(stream).await?.cached_info().config.clone();
        assert_eq!((config.max_messages, config.max_bytes), (messages, bytes), "{stream}");
    }
    let vast = bus_with("raw_bytes_max = 1152921504606846976\n").await?;
    let more = Layout { venues: vec!["z".into()], ..layout() };
    let error = more.apply(&vast).await.unwrap_err().to_string();
    assert!(error.contains("RAW_Z") && error.contains("nats.layout."), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_desk_is_the_recorded_merge_of_its_sources_over_a_kill_of_the_server() -> anyhow::Result<()> {
    const N: u64 = 600;
    let (mut server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    // (stream, subjects in turn, how many of them the desk hears)
    let sources: &[(&str, &[&str], &[&str])] = &[
        (
            "RAW_X",
            &[
                "raw.1.x.trade.A",
                "raw.0.x.clock._",
                "raw.1.x.clock._",
                "raw.1.x.book.A",
                "raw.0.x.quote.B",
                "raw.0.x.gap.B",
            ],
            &["raw.1.x.trade.A", "raw.0.x.clock._", "raw.0.x.quote.B", "raw.0.x.gap.B"],
        ),
        ("SIG_X_1", &["signal.1.ema.x.A"], &["signal.1.ema.x.A"]),
        ("SIG_EXT", &["signal.ext.mine.x.A"], &["signal.ext.mine.x.A"]),
        ("SIG_LLM_owl", &["llm.owl.verdict", "signal.llm.owl.x.A"], &["signal.llm.owl.x.A"]),
        (
            "RISK_main",
            &["order.main.x.A", "cancel.main.x.A", "position.main.x.A", "state.main"],
            &["order.main.x.A", "cancel.main.x.A", "state.main"],
        ),
        ("EXEC_main", &["ack.main.x.A", "fill.main.x.A"], &["ack.main.x.A", "fill.main.x.A"]),
    ];
    for half in 0..2 {
        for (stream, subjects, _) in sources {
            let mut writer = Writer::open(&bus, stream).await?;
            for i in half * N / 2..(half + 1) * N / 2 {
                writer.push(subjects[i as usize % subjects.len()], i.to_string()).await?;
            }
            writer.drain().await?;
        }
        kv::put(&bus, "cfg", "desk.main", format!("state {half}").into()).await?;
        kv::put(&bus, "cfg", "desk.other", "not ours".into()).await?;
        // Two keys: of one key, the older value is gone from its bucket as soon as the newer is there.
        kv::put(&bus, "instruments", &format!("x.{half}"), format!("instrument {half}").into()).await?;
        if half == 0 {
            server.kill9()?;
            server.restart().await?;
        }
    }
    let heard_of = |stream: &(&str, &[&str], &[&str])| -> Vec<(String, Vec<u8>)> {
        (0..N)
            .map(|i| (stream.1[i as usize % stream.1.len()].to_owned(), i.to_string().into_bytes()))
            .filter(|(subject, _)| stream.2.contains(&subject.as_str()))
            .collect()
    };
    let expected: usize = sources.iter().map(|s| heard_of(s).len()).sum::<usize>() + 4;
    let desk_bus = &bus;
    wait_for("the desk to hear everything", BOUND, || async {
        let state = desk_bus.stream("DESK_main").await.ok()?;
        (state.last_seq as usize >= expected).then_some(())
    })
    .await?;
    let desk = stored(&bus, "DESK_main").await?;
    assert_eq!(desk.len(), expected, "nothing is missing and nothing is there twice");
    for source in sources {
        let wanted = heard_of(source);
        let subjects: Vec<&str> = source.2.to_vec();
        let heard: Vec<_> = desk
            .iter()
            .filter(|(_, s, _)| subjects.contains(&s.as_str()))
            .map(|(_, s, p)| (s.clone(), p.clone()))
            .collect();
        assert_eq!(heard, wanted, "{} keeps its order and its subjects", source.0);
    }
    let of = |subject: &str| -> Vec<String> {
        desk.iter().filter(|(_, s, _)| s == subject).map(|(_, _, p)| String::from_utf8_lossy(p).into_owned()).collect()
    };
    assert_eq!(of("$KV.cfg.desk.main"), ["state 0", "state 1"]);
    assert_eq!([of("$KV.instruments.x.0"), of("$KV.instruments.x.1")], [["instrument 0"], ["instrument 1"]]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_opened_later_does_not_trade_the_past() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    let mut raw = Writer::open(&bus, "RAW_X").await?;
    raw.push("raw.0.x.trade.A", "old").await?;
    raw.drain().await?;
    kv::put(&bus, "instruments", "x.A", "instrument".into()).await?;
    Layout { accounts: vec!["main".into(), "late".into()], ..layout() }.apply(&bus).await?;
    raw.push("raw.0.x.trade.A", "new").await?;
    raw.drain().await?;
    let late = &bus;
    wait_for("the late desk", BOUND, || async { (late.stream("DESK_late").await.ok()?.last_seq >= 2).then_some(()) })
        .await?;
    let mut heard: Vec<String> = stored(&bus, "DESK_late")
        .await?
        .into_iter()
        .map(|(_, _, p)| String::from_utf8_lossy(&p).into_owned())
        .collect();
    heard.sort();
    assert_eq!(heard, ["instrument", "new"]);
    Ok(())
}
