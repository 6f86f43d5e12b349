//! The program: flags in, addresses out.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use schemas::config::UserFile;
use simulator::config::Config;
use simulator::faults::FAULTS;
use simulator::instrument::VenueId;
use simulator::run::{Options, Simulator, Speed};

const EXAMPLES: &str = "Examples:
  simulator
      Binance spot, USD-M and Deribit with BTC and ETH on free ports of 127.0.0.1.
  simulator --venue binance --listen 127.0.0.1:9443 --symbols BTCUSDT,SOLUSDT@150 --seed 7 --speed 60
      A minute of market in a second; SOL begins at 150.
  simulator --venue binance --recording binance_spot_BTCUSDT_part1.gz --speed max
      A raw recording over the real protocol, as fast as its clients read. It waits until somebody subscribes.
  simulator --venue binance --flood 20000 --duration 60
      Twenty thousand market operations a second for a minute: for benches.
  curl -X POST http://127.0.0.1:9443/sim/faults -d '{\"kind\":\"drop_depth\",\"symbol\":\"BTCUSDT\"}'
      A fault on command; GET /sim/faults lists the kinds, GET /sim/state shows counters.

Orders: Binance keys and Deribit client_id/client_secret are `account.api_key` and `account.api_secret` of the
configuration (simulator-key, simulator-secret). Money and orders are imaginary.";

/// Venues on loopback that speak the real protocols of Binance, Deribit and HTX, to try strategies offline.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Venues to stand in for: binance, binance-usdm, binance-coinm, deribit, htx, htx-linear, htx-inverse.
    #[arg(long, value_delimiter = ',', default_value = "binance,binance-usdm,deribit", value_parser = VenueId::parse)]
    venue: Vec<VenueId>,
    /// Symbols, each with an optional @START_PRICE; BTCUSDT is BTC-PERPETUAL at Deribit.
    #[arg(long, value_delimiter = ',', default_value = "BTCUSDT,ETHUSDT")]
    symbols: Vec<String>,
    /// The market is a function of this number, the symbols and the start time.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Virtual seconds in a real one, or `max`: as fast as the clients read.
    #[arg(long, default_value = "1", value_parser = speed)]
    speed: Speed,
    /// Address of the first venue; the next venues take the next ports. Port 0 takes free ones.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Allow addresses that other machines can reach. There is no login: everybody could trade and break things.
    #[arg(long)]
    expose: bool,
    /// A raw recording, `<receive time ns> <JSON>` a line, gzip or plain, in place of the seeded market.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Virtual start in milliseconds since 1970; the machine's clock where absent.
    #[arg(long, value_name = "MS")]
    start_time: Option<i64>,
    /// End after so many virtual seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Virtual seconds that have passed before the start, so that there are bars and trades to ask for.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    history: u64,
    /// Market operations (orders, cancels, trades) a virtual second and symbol.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Deviation of a year's price move: 0.8 is 80 %.
    #[arg(long, default_value_t = 0.8)]
    volatility: f64,
    /// How much of every coin's move is the whole market's, 0 to 1.
    #[arg(long, default_value_t = 0.6)]
    correlation: f64,
    /// Book levels a side.
    #[arg(long, default_value_t = 200)]
    levels: usize,
    /// About so many market operations a real second over all symbols of a venue, in place of --rate.
    #[arg(long, value_name = "N")]
    flood: Option<f64>,
    /// Write the addresses as JSON to this file once all listeners are bound.
    #[arg(long, value_name = "PATH")]
    ports_file: Option<PathBuf>,
    /// A tapeline.toml with a [simulator] table.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the addresses as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Print the kinds of faults and end.
    #[arg(long)]
    list_faults: bool,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Unlimited);
    }
    let factor: f64 = text.parse().map_err(|_| format!("`{text}` is neither a number nor `max`"))?;
    if factor == 0.0 { Ok(Speed::Unlimited) } else { Ok(Speed::Factor(factor)) }
}

fn main() {
    let args = Args::parse();
    if args.list_faults {
        for f in FAULTS {
            println!("{:<20} {}", f.name, f.help);
        }
        return;
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (code, error) = match options(args) {
        Err(error) => (64, error),
        Ok((options, report)) => match run(options, report) {
            Ok(()) => return,
            Err(error) => (1, error),
        },
    };
    eprintln!("simulator: {error:#}");
    std::process::exit(code);
}

/// Where the addresses go.
struct Report {
    json: bool,
    ports_file: Option<PathBuf>,
}

fn options(args: Args) -> anyhow::Result<(Options, Report)> {
    let user = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Some(UserFile { name: path.display().to_string(), text })
        }
        None => None,
    };
    anyhow::ensure!(
        args.expose || args.listen.ip().is_loopback(),
        "{} can be reached by other machines; say --expose if that is meant",
        args.listen
    );
    let mut options = Options::new(&args.venue, Config::load(user.as_ref())?);
    options.symbols = args.symbols;
    options.seed = args.seed;
    options.speed = args.speed;
    options.listen = args.listen;
    options.recording = args.recording;
    let ns = |n: u64, unit: i64| i64::try_from(n).ok().and_then(|n| n.checked_mul(unit)).context("a time is too large");
    options.start_ns = args.start_time.map(|ms| ns(u64::try_from(ms)?, 1_000_000)).transpose()?;
    options.duration_ns = args.duration.map(|s| ns(s, 1_000_000_000)).transpose()?;
    options.history_ns = ns(args.history, 1_000_000_000)?;
    options.flow.rate = args.rate;
    options.flow.mood.volatility = args.volatility;
    options.flow.mood.correlation = args.correlation;
    options.flow.levels = args.levels;
    options.flood = args.flood;
    Ok((options, Report { json: args.json, ports_file: args.ports_file }))
}

#[tokio::main]
async fn run(options: Options, report: Report) -> anyhow::Result<()> {
    let mut handle = Simulator::start(options).await?;
    let addrs: serde_json::Map<String, serde_json::Value> =
        handle.addrs().iter().map(|(venue, addr)| (venue.name().to_owned(), addr.to_string().into())).collect();
    if let Some(path) = &report.ports_file {
        // Written beside and renamed, so that a reader never sees half a file.
        let draft = path.with_extension("draft");
        std::fs::write(&draft, serde_json::Value::from(addrs.clone()).to_string())
            .and_then(|()| std::fs::rename(&draft, path))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if report.json {
        println!("{}", serde_json::Value::from(addrs));
    } else {
        for (venue, addr) in handle.addrs() {
            println!("{:<14} ws://{addr}  http://{addr}", venue.name());
        }
        println!("faults and counters: GET /sim/faults and /sim/state on each address. Ctrl-C ends.");
    }
    tokio::select! {
        biased;
        () = interrupted() => {}
        ended = handle.finished() => ended?,
    }
    for state in handle.state() {
        tracing::info!(%state, "simulator ends");
    }
    handle.stop().await
}

async fn interrupted() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        biased;
        // An error here means that there is no signal to wait for: end rather than never end.
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
