//! `tapeline desk`: the durable trading state of an account, which risk and executor both obey.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::ValueEnum;
use schemas::desk::{DeskState, TradingState};
use schemas::subject::stream;
use schemas::{Fact, Version};
use serde_json::json;

use crate::target;

/// How long to wait until risk has heard the command.
const HEARD_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, ValueEnum)]
enum Wish {
    /// Trade again
    Resume,
    /// Only orders that reduce what is held
    Reduce,
    /// No order of a strategy; resting entries are cancelled
    Halt,
    /// Close every position with reduce-only market orders, then halt
    Flatten,
    /// Only show the state
    Show,
}

/// `tapeline desk`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapeline desk halt --reason 'venue maintenance'\n  tapeline desk flatten\n  tapeline desk resume"
)]
pub struct Args {
    wish: Wish,
    #[arg(long, default_value = "main")]
    account: String,
    /// Stored with the command, for the audit
    #[arg(long, default_value = "operator's command")]
    reason: String,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(command(args, data, json))
}

async fn command(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let bus = target::operator_bus(data).await?;
    let key = stream::desk_state_key(&args.account);
    let (state, flatten) = match args.wish {
        Wish::Resume => (TradingState::Active, false),
        Wish::Reduce => (TradingState::Reducing, false),
        Wish::Halt => (TradingState::Halted, false),
        Wish::Flatten => (TradingState::Halted, true),
        Wish::Show => {
            let found = nats::kv::get(&bus, stream::KV_CONFIG, &key).await.context("read the account's state")?;
            match found {
                Some(entry) => print(&DeskState::decode(&entry.value)?, json),
                None => bail!("account {} has said no state yet: it is ACTIVE from its first order on", args.account),
            }
            return Ok(());
        }
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
    let fact = DeskState {
        v: Version,
        account: args.account.clone(),
        state,
        flatten,
        by: "operator".to_owned(),
        reason: args.reason,
        ts_ns: now.as_nanos() as i64,
        cause: None,
    };
    let (before, state_before) = said(&bus, &args.account, &fact.subject()).await?;
    nats::kv::put(&bus, stream::KV_CONFIG, &key, fact.encode().into()).await.context("write the account's state")?;
    // A wish that changes nothing is not said again.
    if state_before.unwrap_or_default() != state || flatten {
        wait_until_heard(&bus, &fact, before).await?;
    }
    print(&fact, json);
    Ok(())
}

/// The place and content of the newest state that risk said.
async fn said(bus: &nats::Bus, account: &str, subject: &str) -> anyhow::Result<(u64, Option<TradingState>)> {
    let last = nats::leader::last_by_subject(bus, &stream::risk(account), subject).await?;
    Ok(last.map_or((0, None), |m| (m.seq, DeskState::decode(&m.payload).ok().map(|s| s.state))))
}

/// Risk says every change of state: the command is done when it has said this one behind `before`.
async fn wait_until_heard(bus: &nats::Bus, wanted: &DeskState, before: u64) -> anyhow::Result<()> {
    let until = Instant::now() + HEARD_WAIT_MAX;
    loop {
        let (seq, state) = said(bus, &wanted.account, &wanted.subject()).await?;
        if seq > before && state == Some(wanted.state) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!(
                "the state is stored, but risk has not said it within {} s: does it run? (tapeline status)",
                HEARD_WAIT_MAX.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn print(fact: &DeskState, json: bool) {
    let state = serde_json::to_value(fact.state).unwrap_or_default();
    if json {
        println!(
            "{}",
            json!({"account": fact.account, "state": state, "by": fact.by, "reason": fact.reason, "ts_ns": fact.ts_ns})
        );
    } else {
        println!(
            "{}: {} (by {}: {})",
            fact.account,
            state.as_str().unwrap_or("?").to_uppercase(),
            fact.by,
            fact.reason
        );
    }
}
