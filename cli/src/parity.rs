//! `tapeline parity`: the backtest over the recorded ticks beside what the live pipeline said of them.
//!
//! Candles, indicators and signals follow from the ticks alone and must be equal byte for byte. Orders and fills
//! follow from the desk, whose merge order depends on timing. A difference there is explained when it is proved that
//! the order is the only cause: (1) the fold of the recorded desk gives exactly what risk and executor said, (2) the
//! desk holds exactly the ticks and signals that the backtest has, and (3) the difference stands behind the first
//! place where the two orders part.

use std::path::PathBuf;

use anyhow::bail;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use schemas::subject::stream;
use serde_json::{Value, json};

use crate::audit::task::{Scope, audit};
use crate::{cores, target};

pub mod compare;
pub mod desk;

use compare::Row;
use desk::{Desk, Inversion, Tape};

/// `tapeline parity`
#[derive(clap::Args)]
#[command(after_help = "Exit code 1 when a difference is not explained by the recorded merge order.
`equal` counts orders, fills and refusals with the same content; their ids and causes name places of the desk.
Examples:
  tapeline parity                        when the pipeline has caught up (tapeline status: lag 0)
  tapeline parity --account main --json")]
pub struct Args {
    #[arg(long, default_value = "main")]
    account: String,
    /// Messages of one stream that are compared, at most
    #[arg(long, default_value_t = 20_000_000)]
    messages_max: u64,
    /// The tapeline.toml that the pipeline ran with; default: the running pipeline's
    #[arg(long)]
    config: Option<PathBuf>,
}

struct Verdict {
    rows: Vec<Row>,
    /// What of the proof failed; then no difference is explained.
    unproved: Vec<String>,
    first: Option<Inversion>,
    inversions: u64,
    ticks: u64,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let verdict = target::block_on(parity(args, data, json))?;
    let unexplained: u64 = verdict.rows.iter().map(|row| row.unexplained).sum();
    if json {
        println!(
            "{}",
            json!({"kinds": verdict.rows, "unexplained": unexplained, "unproved": verdict.unproved, "first_inversion": verdict.first, "inversions": verdict.inversions, "ticks": verdict.ticks})
        );
    } else {
        show(&verdict);
    }
    if unexplained > 0 {
        bail!("{unexplained} differences are not explained by the merge order");
    }
    Ok(())
}

async fn parity(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<Verdict> {
    let user = cores::user_file(args.config.as_deref(), data.as_deref())?;
    let bus = target::operator_bus(data).await?;
    let account = args.account.as_str();
    let desk_name = stream::desk(account);
    let mut tasks = cores::tasks(&bus, user.as_ref()).await?;
    tasks.retain(|task| match task.stage {
        "aggregate" => true,
        // What an LLM trader said is recorded: the backtest hears it as it hears an operator.
        "strategy" => !task.spec.key.starts_with("llm."),
        _ => task.spec.key == account,
    });
    if !tasks.iter().any(|task| task.spec.input == desk_name) {
        bail!("no account `{account}` in [risk] and [executor] accounts");
    }
    let mut venues = Vec::new();
    for venue in aggregate::config::Config::load(user.as_ref())?.venues {
        match bus.stream(&stream::raw(&venue)).await {
            Ok(state) => venues.push((venue, state.last_seq)),
            // The defaults name venues that this pipeline does not have.
            Err(nats::BusError::StreamAbsent { .. }) => {
                tasks.retain(|task| !task.spec.key.starts_with(&format!("{venue}.")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} {per_sec} {msg} {eta}") {
        bar.set_style(style);
    }
    bar.set_message("read the ticks");
    let tape = Tape::read(&bus, &venues, args.messages_max).await?;
    bar.set_message("read the desk");
    let mut desk = Desk::read(&bus, account, &tape, args.messages_max).await?;
    bar.set_message("backtest");
    bar.set_length(tape.ticks.len() as u64);
    let test = compare::play(&bus, account, &tasks, &tape, &desk, |played| bar.set_position(played)).await?;

    // (2): the same signals on both sides, and where each stands.
    for (name, said) in &test.signals {
        let heard = desk.signals.get(name).cloned().unwrap_or_default();
        if heard.len() < said.len() {
            desk.wrong.push(format!(
                "{desk_name} holds {} signals of {name}, the backtest {}",
                heard.len(),
                said.len()
            ));
        }
        for ((played, subject), (seq, id)) in said.iter().zip(&heard) {
            let there = nats::leader::get(&bus, &desk_name, *seq).await?;
            if there.as_ref().is_none_or(|m| *m.subject != **subject || nats::checkpoint::message_id(m) != *id) {
                desk.wrong.push(format!("{desk_name}:{seq} is not the backtest's signal on {subject}"));
                break;
            }
            if let Some(live) = desk.coordinate(*seq).filter(|live| live != played) {
                desk.note(format!("{desk_name}:{seq}"), subject.clone(), &tape, live, *played);
            }
        }
    }
    desk.sort();
    let mut unproved = desk.wrong.clone();
    // (1): the recorded desk, folded again, is what was said.
    bar.set_message("fold the recorded desk");
    for task in tasks.iter().filter(|task| task.spec.input == desk_name) {
        let outcome = audit(&bus, task, &Scope::default(), &mut Vec::new(), |_, _| {}).await?;
        if let Some(divergence) = outcome.divergence {
            unproved.push(format!("{} is not the fold of its desk from {}", outcome.task, divergence.position));
        } else if outcome.ahead > 0 {
            let task = &outcome.task;
            unproved.push(format!("{task} has yet to say {} facts of its desk: ask again at lag 0", outcome.ahead));
        } else if let Some(why) = outcome.skipped {
            unproved.push(format!("{} cannot be audited: {why}", outcome.task));
        }
    }
    let rows = test.desk(&bus, account, &tape, &desk, unproved.is_empty()).await?;
    bar.finish_and_clear();
    let (first, inversions) = (desk.first().cloned(), desk.inversions_count);
    Ok(Verdict { rows, unproved, first, inversions, ticks: tape.ticks.len() as u64 })
}

fn show(verdict: &Verdict) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["facts", "live", "backtest", "equal", "explained", "unexplained"]);
    for row in &verdict.rows {
        let counts = [row.live, row.backtest, row.equal, row.explained, row.unexplained];
        table.add_row(std::iter::once(row.kind.clone()).chain(counts.map(|n| n.to_string())));
    }
    println!("{table}\n{} raw messages", verdict.ticks);
    for why in &verdict.unproved {
        println!("not proved: {why}");
    }
    if let Some(first) = &verdict.first {
        println!(
            "the merge orders part first at {} ({}): on the desk behind {}, in the backtest behind {}; {} facts stand elsewhere",
            first.desk, first.subject, first.live_behind, first.backtest_behind, verdict.inversions
        );
    }
    for row in &verdict.rows {
        for d in &row.shown {
            let word = if d.explained { "explained" } else { "not explained" };
            println!("{word}: only {}, behind {}: {} {}", d.side, d.behind, d.subject, brief(&d.fact));
            if let Some(i) = &d.because {
                let (live, backtest) = (&i.live_behind, &i.backtest_behind);
                println!("  by {} {}: behind {live} on the desk, behind {backtest} in the backtest", i.desk, i.subject);
            }
        }
    }
}

/// The fields of a fact that people compare.
fn brief(fact: &Value) -> String {
    let names = ["side", "qty", "kind", "limit", "price", "number", "bound", "ts_ns", "reason", "why"];
    let found = names.iter().filter(|name| !fact[**name].is_null()).map(|name| format!("{name}={}", fact[*name]));
    found.collect::<Vec<_>>().join(" ")
}
