//! The executor's task over a real nats-server, with the executor's rights and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use executor::{Config, ExecutorCore};
use nats::task::{self, Accept};
use nats::telemetry::TaskStats;
use nats::{Bus, BusError, Layout, Writer, kv};
use schemas::config::UserFile;
use schemas::desk::{DeskState, Order, OrderKind, Protect, TradingState};
use schemas::exec::{DoneState, Fill};
use schemas::raw::{Trade, Trades};
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{
    Cause, Core, Fact, Instrument, InstrumentKind, Listen, Nanos, Place, Price, Qty, Scale, Side, Speak, Version,
    fixtures,
};
use tests::{Server, stored, wait_for};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(30);
const VENUE: &str = "binance";
const SYMBOL: &str = "BTCUSDT";
const SCALE: Scale = Scale { price: 2, qty: 5 };

fn config() -> Config {
    let text = "[executor.fill]\nmodel = \"next_trade\"\nlatency_ns = 0\n";
    Config::load(Some(&UserFile { name: "test.toml".into(), text: text.into() })).unwrap()
}

fn instrument() -> Instrument {
    fixtures::instrument(VENUE, SYMBOL, InstrumentKind::Spot, "0.01", "0.00001")
}

fn order(id: &str, qty: i64, ts_ns: i64) -> Order {
    let price = |n: i64| Some(Price::new(n.into()));
    Order {
        v: Version,
        account: "main".into(),
        id: id.into(),
        venue: VENUE.into(),
        symbol: SYMBOL.into(),
        side: Side::Buy,
        kind: OrderKind::Market,
        qty: Qty::new(qty.into()),
        limit: None,
        trigger: None,
        reduce_only: false,
        post_only: false,
        time_in_force: Default::default(),
        protect: Some(Protect { stop_loss: price(90), take_profit: price(120) }),
        parent: None,
        strategies: vec![],
        ts_ns,
        reason: "test".into(),
        cause: Cause::default(),
    }
}

fn trade(id: u64, price: i64, size: i64) -> Trades {
    let mut pack = Trades::new(partition(VENUE, SYMBOL, PARTITIONS), VENUE, SYMBOL, SCALE);
    let ts = Nanos(1_000 * id as i64);
    let (price, size) = (SCALE.price_m(Price::new(price.into())).unwrap(), SCALE.qty_m(Qty::new(size.into())).unwrap());
    pack.push(Trade { ts, recv: ts, id, price, size, side: Side::Buy });
    pack
}

/// A desk with its writers; whatever is written is waited for, so that the merge order is the test's.
struct Desk {
    operator: Bus,
    market: Writer,
    risk: Writer,
    heard: u64,
}

impl Desk {
    async fn open(server: &Server) -> anyhow::Result<Self> {
        let operator = server.bus("operator").await?;
        let (venues, accounts) = (vec![VENUE.to_owned()], vec!["main".to_owned()]);
        Layout { venues, accounts, traders: vec![], partitions: PARTITIONS }.apply(&operator).await?;
        let market = Writer::open(&server.bus("ingest").await?, &stream::raw(VENUE)).await?;
        let risk = Writer::open(&server.bus("risk").await?, &stream::risk("main")).await?;
        Ok(Self { operator, market, risk, heard: 0 })
    }
    async fn trade(&mut self, pack: Trades) -> anyhow::Result<()> {
        self.market.push(pack.subject(), pack.encode()).await?;
        self.market.drain().await?;
        self.arrives(&pack.subject()).await
    }
    async fn order(&mut self, order: Order) -> anyhow::Result<()> {
        self.risk.push(order.subject(), order.encode()).await?;
        self.risk.drain().await?;
        self.arrives(&order.subject()).await
    }
    async fn write(&mut self, bucket: &str, key: &str, value: Vec<u8>) -> anyhow::Result<()> {
        kv::put(&self.operator, bucket, key, value.into()).await?;
        self.arrives(&kv::subject(bucket, key)).await
    }
    /// Waits until one more message of this subject than before is in the desk.
    async fn arrives(&mut self, subject: &str) -> anyhow::Result<()> {
        let desk = stream::desk("main");
        let (operator, from) = (&self.operator, self.heard + 1);
        self.heard = wait_for(&format!("{subject} in the desk"), BOUND, || async {
            let last = nats::leader::last_by_subject(operator, &desk, subject).await.ok()??;
            (last.seq >= from).then_some(last.seq)
        })
        .await?;
        Ok(())
    }
}

struct Running {
    stop: CancellationToken,
    handle: tokio::task::JoinHandle<Result<(), BusError>>,
}

fn run(bus: &Bus) -> Running {
    let stop = CancellationToken::new();
    let (bus, token) = (bus.clone(), stop.clone());
    let stats: Arc<TaskStats> = TaskStats::new("main");
    let handle = tokio::spawn(async move {
        let core = ExecutorCore::new("main", &config());
        task::run(&bus, &executor::run::spec("main"), core, Accept::default(), &stats, &token).await
    });
    Running { stop, handle }
}

/// Kinds in `EXEC_main` once there are `n`.
async fn kinds(bus: &Bus, n: usize) -> anyhow::Result<Vec<String>> {
    let exec = stream::exec("main");
    wait_for(&format!("{n} facts of the executor"), BOUND, || async {
        let said = stored(bus, &exec).await.ok()?;
        (said.len() >= n).then(|| said.iter().map(|(_, s, _)| s.split('.').next().unwrap_or("").to_owned()).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_lives_through_a_crash_and_the_journal_is_the_fold_of_the_desk() -> anyhow::Result<()> {
    let server = Server::start_with_rights().await?;
    let mut desk = Desk::open(&server).await?;
    let bus = server.bus("executor").await?;
    desk.write(stream::KV_INSTRUMENTS, &stream::instrument_key(VENUE, SYMBOL), instrument().encode()).await?;

    // Half of an order is filled and protected; then the executor dies without a word.
    let first = run(&bus);
    desk.order(order("entry", 4, 1)).await?;
    desk.trade(trade(1, 100, 2)).await?;
    let said = kinds(&desk.operator, 7).await?;
    assert_eq!(said, ["sending", "ack", "fill", "sending", "sending", "ack", "ack"]);
    first.handle.abort();
    assert!(first.handle.await.is_err_and(|e| e.is_cancelled()));

    // The market goes on meanwhile; the next one takes up where the journal stands.
    desk.trade(trade(2, 101, 9)).await?;
    let second = run(&bus);
    let said = kinds(&desk.operator, 15).await?;
    assert_eq!(said[7..], ["fill", "done", "sending", "sending", "ack", "done", "ack", "done"]);

    // An operator halts the account: no entry any more, while the stop still closes.
    let halt = DeskState {
        v: Version,
        account: "main".into(),
        state: TradingState::Halted,
        flatten: false,
        by: "operator".into(),
        reason: "test".into(),
        ts_ns: 3,
        cause: None,
    };
    desk.write(stream::KV_CONFIG, &stream::desk_state_key("main"), halt.encode()).await?;
    desk.order(order("late", 1, 2_500)).await?;
    desk.trade(trade(3, 89, 9)).await?;
    desk.trade(trade(4, 88, 9)).await?;
    let said = kinds(&desk.operator, 19).await?;
    assert_eq!(said[15..], ["reject", "fill", "done", "done"]);
    second.stop.cancel();
    tokio::time::timeout(BOUND, second.handle).await???;

    let mut core = ExecutorCore::new("main", &config());
    let mut folded = Vec::new();
    for (seq, subject, payload) in stored(&desk.operator, &stream::desk("main")).await? {
        if let Some(input) = executor::In::hear(&subject, &payload)? {
            core.handle(&Place::new(&stream::desk("main"), seq), input, &mut folded)
                .map_err(|f| anyhow::anyhow!(f.0))?;
        }
    }
    let folded: Vec<_> = folded.iter().zip(1..).map(|(fact, seq)| (seq, fact.subject(), fact.payload())).collect();
    let journal = stored(&desk.operator, &stream::exec("main")).await?;
    assert_eq!(journal, folded);
    assert!(core.held(VENUE, SYMBOL).is_zero());
    let fills =
        journal.iter().filter(|(_, subject, _)| subject.starts_with("fill.")).map(|(_, _, bytes)| Fill::decode(bytes));
    let fills = fills.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(fills.iter().map(|f| f.qty.to_string()).collect::<Vec<_>>(), ["2", "2", "4"]);
    let last = schemas::exec::Done::decode(&journal[journal.len() - 1].2)?;
    assert_eq!(last.state, DoneState::Cancelled);
    Ok(())
}
