//! `pulse config export`, `import` and `rekey`: the configuration with its secrets, encrypted for elsewhere or anew.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::client::{BYTES, segment};
use super::super::offline::Offline;
use super::super::{Failed, print_json, print_line};
use super::history::Common;
use crate::api::{ConfigurationChanged, Rekeyed};
use crate::config::{Environment, MAX_BUNDLE_BYTES};
use crate::configure::{Author, Changed, Source};
use crate::security::Caller;
use crate::security::audit::{Attempt, Conclusion};
use crate::targets::Secret;

const MAX_PASSPHRASE_BYTES: u64 = 4096;

const EXPORT_EXAMPLES: &str = "\
Examples:
  pulse config export pulse-backup.bin
      Asks for a passphrase; whoever has it can read every secret.
  pulse config export pulse-backup.bin --passphrase-file /run/secrets/backup";

const IMPORT_EXAMPLES: &str = "\
Examples:
  pulse config import pulse-backup.bin --reason 'moved to a new machine'
  pulse config import pulse-backup.bin --data-dir ./staging --passphrase-file secret --reason test";

const REKEY_EXAMPLES: &str = "\
Examples:
  pulse config rekey --reason 'a backup of the data folder was lost'";

/// Writes the whole configuration with its secrets into a file that a passphrase opens.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct Export {
    /// The file to make; one that is there is not written over.
    file: PathBuf,

    /// A file with the passphrase, of at least 12 characters; asked for if not given.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    common: Common,
}

/// Puts an export in the place of the whole configuration. That is a new version, in force at once.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct Import {
    /// The file that `pulse config export` made.
    file: PathBuf,

    /// A file with the passphrase; asked for if not given.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Why, for the history and the audit log.
    #[arg(long)]
    reason: String,

    #[command(flatten)]
    common: Common,
}

/// Makes a new secrets.key, encrypts every secret with it, and forgets the old one.
///
/// It can be broken off at any point; everything can be read then, and running it again ends it.
#[derive(Debug, Args)]
#[command(after_help = REKEY_EXAMPLES)]
pub(super) struct Rekey {
    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    common: Common,
}

impl Export {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let passphrase = passphrase(self.passphrase_file.as_deref(), true)?;
        let Common { json, daemon } = &self.common;
        let reason = self.reason;
        let export = if daemon.is_there(environment)? {
            let body = Zeroizing::new(json!({"passphrase": passphrase.expose(), "reason": reason}).to_string());
            let body = Some(("application/json", body.as_bytes().to_vec()));
            daemon.send_bytes(environment, Method::POST, "/api/config/export", body)?
        } else {
            let folder = daemon.data_dir(environment)?;
            if !folder.is_dir() {
                return Err(super::no_data_dir(&folder));
            }
            Offline::run(folder, async |world| {
                let configurator = world.configurator(environment)?;
                let attempt = Attempt::new(Caller::of_process(), "config.export").because(reason);
                let work = configurator.clone();
                let work = async move { work.export(passphrase).await };
                let done = configurator.audited(attempt, |_| Conclusion::done(None, None), work).await;
                done.map_err(Failed::because)?.map_err(Failed::because)
            })?
        };
        write_new(&self.file, &export)?;
        if *json {
            return print_json(&json!({"file": self.file, "bytes": export.len()}));
        }
        print_line(&format!("The configuration is in {}; the passphrase opens it.", self.file.display()))
    }
}

impl Import {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let file = read_bounded(&self.file)?;
        let passphrase = passphrase(self.passphrase_file.as_deref(), false)?;
        let Common { json, daemon } = &self.common;
        let reason = self.reason;
        let done: ConfigurationChanged = if daemon.is_there(environment)? {
            let body = [passphrase.expose().as_bytes(), b"\n", &file].concat();
            let path = format!("/api/config/import?reason={}", segment(&reason));
            let answer = daemon.send_bytes(environment, Method::POST, &path, Some((BYTES, body)))?;
            serde_json::from_slice(&answer).map_err(Failed::daemon)?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| {
                let configurator = world.configurator(environment)?;
                configurator.begin().await;
                let by = Caller::of_process();
                let attempt = Attempt::new(by.clone(), "config.import").because(Some(reason.clone()));
                let author = Author { by, source: Source::Import, reason: Some(reason) };
                let change = configurator.clone();
                let change = async move { change.import(file, passphrase, author).await };
                let done = configurator.audited(attempt, Changed::conclusion, change).await;
                let changed = done.map_err(Failed::because)?.map_err(Failed::configuration)?;
                Ok(changed.into())
            })?
        };
        if *json {
            return print_json(&done);
        }
        match done.version {
            Some(version) => {
                print_line(done.difference.to_string().trim_end())?;
                print_line(&format!("\nThe export is in force; that is version {version}."))
            }
            None => print_line("The export is what is in force already."),
        }
    }
}

impl Rekey {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let reason = self.reason;
        let done: Rekeyed = if daemon.is_there(environment)? {
            let body = json!({"reason": reason});
            daemon.send(environment, Method::POST, "/api/config/rekey", Some(&body))?
        } else {
            let folder = daemon.data_dir(environment)?;
            if !folder.is_dir() {
                return Err(super::no_data_dir(&folder));
            }
            Offline::run(folder, async |world| {
                let configurator = world.configurator(environment)?;
                let attempt = Attempt::new(Caller::of_process(), "config.rekey").because(reason);
                let work = configurator.clone();
                let work = async move { work.rekey().await };
                let done = configurator.audited(attempt, |()| Conclusion::done(None, None), work).await;
                done.map_err(Failed::because)?.map_err(Failed::because)?;
                Ok(Rekeyed { success: true })
            })?
        };
        if *json {
            return print_json(&done);
        }
        print_line(
            "Every secret is encrypted with a new secrets.key. Backups that hold the old one still open old files.",
        )
    }
}

/// The passphrase in a file, or as it is typed; twice if it is a new one.
fn passphrase(file: Option<&Path>, is_new: bool) -> Result<Secret, Failed> {
    if let Some(file) = file {
        let failed = |error| Failed::because(format!("cannot read the passphrase in {}: {error}", file.display()));
        let mut text = Zeroizing::new(String::new());
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(failed)?;
        return Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let ask = |prompt: &str| {
        let failed = |error| Failed::because(format!("cannot ask for the passphrase: {error}; give --passphrase-file"));
        rpassword::prompt_password(prompt).map(Secret::new).map_err(failed)
    };
    let typed = ask("Passphrase: ")?;
    if is_new && ask("The same again: ")? != typed {
        return Err(Failed::because("the two passphrases differ; nothing was written"));
    }
    Ok(typed)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Failed> {
    let failed = |error| Failed::because(format!("cannot read {}: {error}", path.display()));
    let mut content = Vec::new();
    let limit = MAX_BUNDLE_BYTES as u64 + 1;
    std::fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Writes a file that was not there, for its owner alone.
fn write_new(path: &Path, content: &[u8]) -> Result<(), Failed> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failed::because(format!("{} is there already; choose another name", path.display()))
        }
        _ => Failed::because(format!("cannot write {}: {error}", path.display())),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}
