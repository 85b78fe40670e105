//! The judged process as the conductor sees it: started, asked, heard, and gone when the conductor is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::protocol::{Asked, Told};

/// The name of the hidden subcommand that the judged process runs.
pub(crate) const SUBCOMMAND: &str = "judged";

/// A running judged process. It is killed when this is dropped.
pub(crate) struct Child {
    process: tokio::process::Child,
    asked: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Child {
    /// Starts the judged process with these arguments; what the daemon logs goes to `log`.
    pub(crate) fn spawn(arguments: &[String], log: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the judged process cannot be started: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let file = File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).args(arguments).kill_on_drop(true);
        // In a group of its own, so that an interrupt from the terminal reaches the conductor alone.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut process = command.spawn().map_err(failed)?;
        let (Some(asked), Some(told)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the judged process has no pipes".to_owned());
        };
        Ok(Self { process, asked, told: BufReader::new(told).lines(), log: log.to_owned() })
    }

    /// What it tells next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Told, String> {
        let line = self.told.next_line().await.map_err(|error| error.to_string())?;
        let Some(line) = line else { return Err(self.last_words()) };
        let told = serde_json::from_str(&line).map_err(|error| format!("the judged process babbles: {error}"))?;
        match told {
            Told::Failed { reason } => Err(format!("the daemon cannot run: {reason}")),
            told => Ok(told),
        }
    }

    /// Asks for something.
    pub(crate) async fn ask(&mut self, asked: Asked) -> Result<(), String> {
        let mut line = serde_json::to_string(&asked).map_err(|error| error.to_string())?;
        line.push('\n');
        self.asked.write_all(line.as_bytes()).await.map_err(|_| self.last_words())
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> Result<(), String> {
        drop(self.asked);
        let status = self.process.wait().await.map_err(|error| error.to_string())?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the judged process ended with {status}; its log is {}", self.log.display())),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing");
        format!("the judged process is gone: {last}; its log is {}", self.log.display())
    }
}
