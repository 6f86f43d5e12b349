//! The core by its journal: a tape in, the facts that it says out.

mod desk;
mod fills;
mod journal;
mod liquidation;
mod passing;
mod protection;

use crate::config::Config;
use crate::tape::config;

fn with(model: &str, change: impl FnOnce(&mut Config)) -> Config {
    let mut c = config(model);
    change(&mut c);
    c
}
