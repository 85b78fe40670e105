//! `pulse audit`: what was done, and whether the log of it is as it was written.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use url::form_urlencoded;

use super::client::DaemonOption;
use super::health::plain_table;
use super::{DataDirOption, Failed, print_json, print_line, runtime};
use crate::api::AuditAnswer;
use crate::config::Environment;
use crate::security::KeyFile;
use crate::security::audit::{AUDIT_KEY, AuditEntry, Fault, Proven, verify};
use crate::store::{DATABASE, Store};

const PATH: &str = "/api/audit";

const LIST_EXAMPLES: &str = "\
Examples:
  pulse audit list
  pulse audit list --action breaker. --since 2026-01-31T00:00:00Z
      What was done to breakers since then.
  pulse audit list --actor user:alice --limit 1000 --json";

const EXPORT_EXAMPLES: &str = "\
Examples:
  pulse audit export > audit.jsonl
  pulse audit export --until 2026-02-01T00:00:00Z | gzip > january.jsonl.gz";

const VERIFY_EXAMPLES: &str = "\
Examples:
  pulse audit verify
      Exits with 0 if every entry is as it was written; else names the first that is not, and exits with 1.
  pulse audit verify --noted 812:5f3a…
      Also holds the log against an entry whose number and hash were noted elsewhere, such as in the journal.";

/// Lists, exports and verifies the audit log.
#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Export(Export),
    Verify(Verify),
}

/// Lists what was done, the newest first.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    filter: Filter,

    /// How many at the most, 1 to 1000.
    #[arg(long, default_value_t = 50)]
    limit: u32,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

/// Prints every entry, the oldest first, as JSON lines.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
struct Export {
    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    daemon: DaemonOption,
}

#[derive(Debug, Args)]
struct Filter {
    /// Only what was done by this actor, as in user:alice.
    #[arg(long)]
    actor: Option<String>,

    /// Only this action, as in breaker.reset; `breaker.` stands for all that begin so.
    #[arg(long)]
    action: Option<String>,

    /// Only what was done to this instance, token or user.
    #[arg(long)]
    key: Option<String>,

    /// Only entries of this time or later.
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,

    /// Only entries before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
}

/// Proves that every entry is as it was written, whether or not a daemon runs.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
struct Verify {
    /// An entry that was noted elsewhere: its number and hash. May be given more than once.
    #[arg(long, value_name = "SEQ:HASH")]
    noted: Vec<Noted>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

#[derive(Clone, Debug)]
struct Noted(i64, String);

impl FromStr for Noted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
        let whole = |(_, hash): &(i64, &str)| hash.len() == 64 && hash.chars().all(|digit| digit.is_ascii_hexdigit());
        let (seq, hash) = parts.filter(whole).ok_or("is a number, a colon and a hash of 64 hexadecimal digits")?;
        Ok(Self(seq, hash.to_owned()))
    }
}

impl AuditCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::List(command) => command.run(environment),
            Command::Export(command) => command.run(environment),
            Command::Verify(command) => command.run(environment),
        }
    }
}

impl Filter {
    fn query(&self, more: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(more);
        for (name, value) in [("actor", &self.actor), ("action", &self.action), ("key", &self.key)] {
            query.extend_pairs(value.as_ref().map(|value| (name, value)));
        }
        for (name, at) in [("since", self.since), ("until", self.until)] {
            query.extend_pairs(at.map(|at| (name, at.to_string())));
        }
        format!("{PATH}?{}", query.finish())
    }
}

impl List {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let path = self.filter.query(&[("limit", &self.limit.to_string())]);
        let answer: AuditAnswer = self.daemon.get(environment, &path)?;
        if self.json {
            return print_json(&answer);
        }
        let mut table = plain_table(&["SEQ", "WHEN", "WHO", "FROM", "ACTION", "ON", "OUTCOME", "WHY"]);
        for entry in answer.entries {
            let AuditEntry { seq, at, actor, address, action, key, reason, outcome, detail, .. } = entry;
            table.add_row([
                seq.to_string(),
                at.strftime("%F %T UTC").to_string(),
                actor,
                address.unwrap_or_default(),
                action,
                key.unwrap_or_default(),
                outcome.unwrap_or_else(|| "under way".to_owned()),
                reason.or(detail).unwrap_or_default(),
            ]);
        }
        print_line(&table.to_string())
    }
}

impl Export {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        self.daemon.print(environment, &self.filter.query(&[("format", "jsonl")]))
    }
}

impl Verify {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let folder = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        let noted = self.noted.into_iter().map(|Noted(seq, hash)| (seq, hash)).collect();
        let found = check(folder, noted)?;
        let proven = match &found {
            Ok(proven) => json!({"valid": true, "proven": proven}),
            Err(fault) => json!({"valid": false, "entry": fault.entry(), "fault": fault.to_string()}),
        };
        if self.json {
            print_json(&proven)?;
        }
        match found {
            Err(fault) => Err(Failed::because(format!("the audit log is not as it was written: {fault}"))),
            Ok(_) if self.json => Ok(()),
            Ok(Proven { entries, first, last, head }) => {
                let first = first.unwrap_or(last);
                print_line(&format!("{entries} entries, {first} to {last}, are as they were written."))?;
                print_line(&format!("To prove it later against a copy kept elsewhere, note {last}:{head}"))
            }
        }
    }
}

fn check(folder: PathBuf, noted: Vec<(i64, String)>) -> Result<Result<Proven, Fault>, Failed> {
    let database = folder.join(DATABASE);
    if !database.is_file() {
        return Err(Failed::configuration(format!(
            "data folder {}: there is no {DATABASE} in it; name another with --data-dir",
            folder.display()
        )));
    }
    let key = Arc::new(KeyFile::read(&folder.join(AUDIT_KEY)).map_err(Failed::because)?);
    let store = Store::open_to_read(&database).map_err(Failed::because)?;
    let runtime = runtime()?;
    runtime.block_on(verify(&store, key, noted)).map_err(Failed::because)
}
