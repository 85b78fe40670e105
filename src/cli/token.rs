//! `pulse token`: API tokens, made on the daemon's machine.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{DataDirOption, Failed, print_json, print_line};
use crate::config::{DataDir, Environment};
use crate::runtime::{Clock, TokioClock};
use crate::security::TokenStore;

const EXAMPLES: &str = "\
Examples:
  pulse token create --name grafana
  pulse token create --name backup --json
  sudo -u pulse pulse token create --name wall --data-dir /var/lib/pulse";

/// Manages the tokens that calls over TCP need.
#[derive(Debug, Args)]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
}

/// Makes a token and prints it, once. A running daemon honours it from then on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Create {
    /// What it is for.
    #[arg(long)]
    name: String,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl TokenCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Command::Create(create) = self.command;
        create.run(environment)
    }
}

impl Create {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let data_dir = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        let data_dir = DataDir::open(&data_dir).map_err(Failed::configuration)?;
        let store = TokenStore::new(data_dir.path());
        let issued = store.create(&self.name, wall_time()?).map_err(Failed::because)?;
        if self.json {
            let (name, created_at) = (&issued.record.name, issued.record.created_at);
            return print_json(&json!({"name": name, "createdAt": created_at, "token": issued.token.expose()}));
        }
        print_line(issued.token.expose())?;
        eprintln!("This is the token {:?}. It is shown this once; keep it where only its user can read it.", self.name);
        Ok(())
    }
}

fn wall_time() -> Result<jiff::Timestamp, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(Failed::because)?;
    let _inside = runtime.enter();
    Ok(TokioClock::start().wall())
}
