//! `pulse config`: checks the configuration, tells what is in force and what was, goes back, carries it elsewhere.

mod history;
mod transfer;

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::health::plain_table;
use super::{DataDirOption, Failed, print_json, print_line};
use crate::config::{Config, DataDir, Environment};

const VALIDATE_EXAMPLES: &str = "\
Examples:
  pulse config validate
      Check the files of the usual data folder.
  pulse config validate --data-dir ./staging && cp ./staging/*.json /var/lib/pulse/
      Check a copy before it is rolled out.";

const INFO_EXAMPLES: &str = "\
Examples:
  pulse config info
  ADAPTIVE_POLLING_MAX_INTERVAL=2m pulse config info
      See which settings an environment pins.
  pulse config info --json";

/// Checks the configuration, tells what is in force and what was, goes back, and carries it elsewhere.
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Validate(Validate),
    Info(Info),
    History(history::ListVersions),
    Show(history::Show),
    Diff(history::Diff),
    Rollback(history::Rollback),
    Export(transfer::Export),
    Import(transfer::Import),
    Rekey(transfer::Rekey),
}

/// Checks system.json, instances.json, the files of other tools and the environment, and tells every error at once.
/// Changes nothing.
#[derive(Debug, Args)]
#[command(after_help = VALIDATE_EXAMPLES)]
struct Validate {
    #[command(flatten)]
    common: Common,
}

/// Shows every setting, its value and where the value came from.
#[derive(Debug, Args)]
#[command(after_help = INFO_EXAMPLES)]
struct Info {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl ConfigCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::Validate(command) => command.run(environment),
            Command::Info(command) => command.run(environment),
            Command::History(command) => command.run(environment),
            Command::Show(command) => command.run(environment),
            Command::Diff(command) => command.run(environment),
            Command::Rollback(command) => command.run(environment),
            Command::Export(command) => command.run(environment),
            Command::Import(command) => command.run(environment),
            Command::Rekey(command) => command.run(environment),
        }
    }
}

impl Common {
    fn load(&self, environment: &Environment) -> Result<Config, Failed> {
        let data_dir = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        if !data_dir.is_dir() {
            return Err(no_data_dir(&data_dir));
        }
        let data_dir = DataDir::open(&data_dir).map_err(Failed::configuration)?;
        Config::load(data_dir, environment).map_err(Failed::configuration)
    }
}

fn no_data_dir(path: &Path) -> Failed {
    Failed::configuration(format!(
        "data folder {}: there is no such folder; name another with --data-dir, or let `pulse serve` make it",
        path.display()
    ))
}

impl Validate {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let config = self.common.load(environment)?;
        let instances = config.instances.len();
        let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in config.instances.iter() {
            *sources.entry(instance.source.as_str()).or_default() += 1;
        }
        if self.common.json {
            return print_json(&json!({"valid": true, "instances": instances, "sources": sources}));
        }
        let provided = config.instances.iter().filter(|instance| instance.source.is_provided()).count();
        let note = match provided {
            0 => String::new(),
            _ => format!(", {provided} of them from files of other tools"),
        };
        print_line(&format!("The configuration is valid; {instances} instances{note}."))
    }
}

impl Info {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let config = self.common.load(environment)?;
        let settings = config.system.effective();
        if self.common.json {
            let data_dir = config.data_dir.path().display().to_string();
            let instances = config.instances.len();
            return print_json(&json!({"dataDir": data_dir, "instances": instances, "settings": settings}));
        }
        let mut table: Table = plain_table(&["SETTING", "VALUE", "FROM", "ENVIRONMENT"]);
        for setting in &settings {
            let value = setting.value.as_str().map_or_else(|| setting.value.to_string(), str::to_owned);
            let origin = format!("{:?}", setting.origin).to_lowercase();
            table.add_row([setting.name, &value, &origin, setting.environment]);
        }
        print_line(&format!("Data folder: {}", config.data_dir.path().display()))?;
        print_line(&format!("Instances:   {}\n", config.instances.len()))?;
        print_line(&table.to_string())
    }
}
