//! Every task of a configuration with its real core, for commands that fold stored facts again.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use nats::{Bus, StageArgs, TaskSpec};
use schemas::config::UserFile;
use schemas::subject::{PARTITIONS, stream};
use schemas::{Core, Fault, Listen, Place, Speak, WireError};

use crate::config_cmd;

/// A stored output of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub subject: String,
    pub payload: Vec<u8>,
}

/// What a core made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Fact,
    /// A kind that the core does not listen to; the stage loop passes it over as well.
    Unknown,
    /// Not what its subject promises; the stage loop counts it and passes it over.
    Undecodable(String),
}

/// A core of any kind, as the stage loop treats it.
pub trait AnyCore: Send {
    /// Folds the message that stands at `place`; what is to be stored is appended to `out`.
    ///
    /// # Errors
    /// The core halts on this input.
    fn fold(&mut self, place: &Place, subject: &str, payload: &[u8], out: &mut Vec<Said>) -> Result<Heard, Fault>;
    fn save(&self) -> Vec<u8>;
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError>;
    fn code_version(&self) -> u32;
    fn watermark_ns(&self) -> Option<i64>;
}

struct Real<C>(C);

impl<C: Core + Send> AnyCore for Real<C> {
    fn fold(&mut self, place: &Place, subject: &str, payload: &[u8], out: &mut Vec<Said>) -> Result<Heard, Fault> {
        let input = match C::In::hear(subject, payload) {
            Ok(Some(input)) => input,
            Ok(None) => return Ok(Heard::Unknown),
            Err(error) => return Ok(Heard::Undecodable(error.to_string())),
        };
        let mut said = Vec::new();
        self.0.handle(place, input, &mut said)?;
        let stored = said.iter().filter(|fact| fact.stored());
        out.extend(stored.map(|fact| Said { subject: fact.subject(), payload: fact.payload() }));
        Ok(Heard::Fact)
    }
    fn save(&self) -> Vec<u8> {
        self.0.save()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.0.restore(state)
    }
    fn code_version(&self) -> u32 {
        C::CODE_VERSION
    }
    fn watermark_ns(&self) -> Option<i64> {
        self.0.watermark().map(|w| w.0)
    }
}

type Make = Arc<dyn Fn() -> anyhow::Result<Box<dyn AnyCore>> + Send + Sync>;

/// One deterministic task.
#[derive(Clone)]
pub struct Task {
    /// The program that runs it: `aggregate`, `strategy`, `risk`, `executor`.
    pub stage: &'static str,
    pub spec: TaskSpec,
    make: Make,
}

impl Task {
    fn new<C: Core + Send + 'static>(
        stage: &'static str,
        spec: TaskSpec,
        make: impl Fn() -> anyhow::Result<C> + Send + Sync + 'static,
    ) -> Self {
        Self { stage, spec, make: Arc::new(move || Ok(Box::new(Real(make()?)) as Box<dyn AnyCore>)) }
    }

    /// `<stage>.<key>`: its name in `--tasks` lists and its checkpoint's key.
    pub fn name(&self) -> String {
        nats::checkpoint::key(self.stage, &self.spec.key)
    }

    /// Its core as the stage makes it, empty.
    pub fn core(&self) -> anyhow::Result<Box<dyn AnyCore>> {
        (self.make)().with_context(|| format!("make the core of {}", self.name()))
    }

    /// `pattern` is its stage, its name, or the beginning of its name up to a dot.
    pub fn is(&self, pattern: &str) -> bool {
        let name = self.name();
        name == pattern || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The configuration that a command means: the named file, else what `tapeline up` wrote beside the data.
pub fn user_file(named: Option<&Path>, data: Option<&Path>) -> anyhow::Result<Option<UserFile>> {
    if named.is_some() {
        return config_cmd::user_file(named);
    }
    let folder = match data {
        Some(folder) => Some(folder.to_owned()),
        None if std::env::var_os("NATS_URL").is_some() => None,
        None => crate::target::folder(None).ok(),
    };
    let effective = folder.map(|folder| folder.join("effective.toml")).filter(|path| path.is_file());
    config_cmd::user_file(effective.as_deref())
}

/// Every deterministic task that the stages would run with this configuration, in the order of the pipeline.
/// Partitions are those that a venue's stream was created with.
pub async fn tasks(bus: &Bus, user: Option<&UserFile>) -> anyhow::Result<Vec<Task>> {
    let mut tasks = Vec::new();
    let config = aggregate::config::Config::load(user)?;
    for venue in &config.venues {
        let mut one = config.clone();
        one.venues = vec![venue.clone()];
        for spec in aggregate::run::tasks(&one, &share(bus, venue).await?)? {
            let config = config.clone();
            tasks.push(Task::new("aggregate", spec, move || Ok(aggregate::core::AggregateCore::new(&config)?)));
        }
    }
    let config = strategy::Config::load(user)?;
    for venue in &config.venues {
        let mut one = config.clone();
        one.venues = vec![venue.clone()];
        for spec in strategy::run::rule_tasks(&one, &share(bus, venue).await?)? {
            let config = config.clone();
            tasks.push(Task::new("strategy", spec, move || Ok(strategy::StrategyCore::new(&config)?)));
        }
    }
    for trader in config.traders()? {
        let name = &trader.name;
        let spec = |part: &str, input: String, output: String| TaskSpec {
            key: format!("{}.{name}.{part}", strategy::run::LLM),
            input,
            filter: ">".to_owned(),
            output,
        };
        let prompt = spec("prompt", stream::llm_desk(name), stream::llm_prompt(name));
        let verdict = spec("verdict", stream::llm_reply(name), stream::llm_signal(name));
        let (asks, judges) = (trader.clone(), trader.clone());
        tasks.push(Task::new("strategy", prompt, move || Ok(strategy::llm::core::PromptCore::new(asks.clone()))));
        tasks.push(Task::new("strategy", verdict, move || Ok(strategy::llm::core::VerdictCore::new(judges.clone()))));
    }
    let config = risk::Config::load(user)?;
    for (account, spec) in risk::run::tasks(&config, &StageArgs::default())? {
        let config = config.clone();
        tasks.push(Task::new("risk", spec, move || Ok(risk::RiskCore::new(&account, &config)?)));
    }
    let config = executor::Config::load(user)?;
    for account in config.accounts.clone() {
        let config = config.clone();
        let spec = executor::run::spec(&account);
        tasks.push(Task::new("executor", spec, move || Ok(executor::ExecutorCore::new(&account, &config))));
    }
    Ok(tasks)
}

/// All partitions of a venue.
async fn share(bus: &Bus, venue: &str) -> anyhow::Result<StageArgs> {
    let partitions = nats::layout::partitions(bus, venue).await?.unwrap_or(PARTITIONS);
    Ok(StageArgs { partitions, ..StageArgs::default() })
}

/// Those of `tasks` that some pattern names; all without patterns.
///
/// # Errors
/// A pattern names none of them.
pub fn chosen(tasks: Vec<Task>, patterns: &[String]) -> anyhow::Result<Vec<Task>> {
    for pattern in patterns {
        if !tasks.iter().any(|task| task.is(pattern)) {
            let names: Vec<String> = tasks.iter().map(Task::name).collect();
            anyhow::bail!("no task `{pattern}`; there are {}", names.join(", "));
        }
    }
    Ok(tasks.into_iter().filter(|task| patterns.is_empty() || patterns.iter().any(|p| task.is(p))).collect())
}
