//! `pulse update`: installs a signed release, and goes back to the one before.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::health::plain_table;
use super::{DataDirOption, Failed, print_json, print_line, runtime};
use crate::config::Environment;
use crate::engine::Millis;
use crate::update::{Applied, Outcome, Patience, Program, Record, Release, Service, Switch, UpdateError};

const STOP: &str = "systemctl stop pulse.service";
/// A service that failed too often is not started before that is forgotten.
const RESTART: &str = "systemctl reset-failed pulse.service; systemctl --no-block restart pulse.service";

const APPLY_EXAMPLES: &str = "\
Examples:
  sudo pulse update apply pulse-0.2.0-x86_64-linux.tar.gz
      Verifies pulse-0.2.0-x86_64-linux.tar.gz.minisig beside it with the key of the installation, switches, and goes back
      by itself if the new version is not well within a minute.
  sudo pulse update apply FILE --restart-with 'sv restart pulse' --stop-with 'sv stop pulse'
      Where no systemd runs the service.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  sudo pulse update restore
      The version before, with the settings of now.
  sudo pulse update restore --with-settings
      The version before, with the settings, users and logs of then; those of now are kept beside the data folder.";

/// Installs signed releases, lists them, and goes back.
#[derive(Debug, Args)]
pub(super) struct UpdateCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Apply(Apply),
    Restore(Restore),
    History(History),
}

/// Installs a release archive whose signature is good, and switches to it.
#[derive(Debug, Args)]
#[command(after_help = APPLY_EXAMPLES)]
struct Apply {
    /// The archive; its signature is FILE.minisig.
    file: PathBuf,

    /// Install it although it is older than what runs.
    #[arg(long)]
    allow_older: bool,

    #[command(flatten)]
    how: How,
}

/// Switches to the version that ran before.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
struct Restore {
    /// Put back the data folder too, as it was before the version of now was installed.
    #[arg(long)]
    with_settings: bool,

    #[command(flatten)]
    how: How,
}

/// Lists what was installed, and what went back by itself.
#[derive(Debug, Args)]
struct History {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct How {
    /// Seconds in which the version that is started has to become well; else the one before is started again.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,

    /// Seconds for which it has to answer without a break.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    steady: u64,

    /// Command that starts the service anew.
    #[arg(long, value_name = "COMMAND", default_value = RESTART)]
    restart_with: String,

    /// Command that stops the service.
    #[arg(long, value_name = "COMMAND", default_value = STOP)]
    stop_with: String,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl UpdateCommand {
    pub(super) fn run(self, environment: &Environment, version: &'static str) -> Result<(), Failed> {
        let program = Program::of_process(version);
        match self.command {
            Command::Apply(command) => command.run(environment, &program),
            Command::Restore(command) => command.run(environment, &program),
            Command::History(command) => command.run(&program),
        }
    }
}

impl Apply {
    fn run(self, environment: &Environment, program: &Program) -> Result<(), Failed> {
        let switch = self.how.switch(environment, program)?;
        let release = Release::verified(&self.file, switch.installation).map_err(Failed::because)?;
        self.how.carry_out(async { switch.apply(&release, self.allow_older).await })
    }
}

impl Restore {
    fn run(self, environment: &Environment, program: &Program) -> Result<(), Failed> {
        let switch = self.how.switch(environment, program)?;
        self.how.carry_out(async { switch.restore_previous(self.with_settings).await })
    }
}

impl How {
    fn switch<'a>(&self, environment: &Environment, program: &'a Program) -> Result<Switch<'a>, Failed> {
        let installation = program.installation.as_ref().ok_or_else(|| Failed::because(UpdateError::NotManaged))?;
        let data_dir = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        let service = Service { data_dir, stop: self.stop_with.clone(), restart: self.restart_with.clone() };
        let patience = Patience { within: Millis::from_secs(self.within), steady: Millis::from_secs(self.steady) };
        Ok(Switch { installation, service, patience, by: program.version })
    }

    fn carry_out(&self, work: impl Future<Output = Result<Applied, UpdateError>>) -> Result<(), Failed> {
        let runtime = runtime()?;
        let Applied { record, is_well } = runtime.block_on(work).map_err(Failed::because)?;
        if self.json {
            print_json(&record)?;
        }
        let Record { from, to, outcome, detail, .. } = record;
        let detail = detail.unwrap_or_default();
        match (outcome, is_well) {
            (Outcome::Applied, _) if self.json => Ok(()),
            (Outcome::Applied, _) => print_line(&format!("Version {to} runs; {from} is kept.")),
            (_, true) => Err(Failed::because(format!("{detail}; version {from} runs again"))),
            (_, false) => Err(Failed::because(format!(
                "{detail}; and version {from} is not well either since it was started again: look at the service's log"
            ))),
        }
    }
}

impl History {
    fn run(self, program: &Program) -> Result<(), Failed> {
        let installation = program.installation.as_ref().ok_or_else(|| Failed::because(UpdateError::NotManaged))?;
        let updates = installation.updates().map_err(Failed::because)?;
        if self.json {
            return print_json(&updates);
        }
        let mut table = plain_table(&["WHEN", "FROM", "TO", "OUTCOME", "WHY"]);
        for Record { at, from, to, outcome, detail } in updates {
            let outcome = match outcome {
                Outcome::UnderWay => "under way, or broken off",
                Outcome::Applied => "applied",
                Outcome::WentBack => "went back",
            };
            let at = at.strftime("%F %T UTC").to_string();
            table.add_row([&at, &from, &to, outcome, &detail.unwrap_or_default()]);
        }
        print_line(&table.to_string())
    }
}
