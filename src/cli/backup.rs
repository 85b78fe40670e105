//! `pulse backup` and `pulse restore`: the data folder in one file, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::DaemonOption;
use super::{DataDirOption, Failed, print_json, print_line, runtime, wall_time};
use crate::backup::{BackupError, Manifest, Restore, Restored, Secrets, make};
use crate::config::Environment;

const BACKUP_EXAMPLES: &str = "\
Examples:
  pulse backup /srv/backup/pulse-$(date +%F).tar.gz
      While the daemon runs. Secrets stay sealed: keep secrets.key of the data folder elsewhere, once.
  pulse backup pulse.tar.gz --with-secrets
      All that another machine needs. Guard it as you guard the data folder.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  sudo systemctl stop pulse && sudo pulse restore pulse.tar.gz --force && sudo systemctl start pulse
      Back to the backup; what was there before is kept beside the data folder.
  pulse restore pulse.tar.gz --data-dir /var/lib/pulse --secrets-from ./kept
      On a new machine, with the secrets.key that was kept elsewhere.";

/// Writes settings, fleet, users, history and audit log into one file; the daemon may run.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct Backup {
    /// The file to make, a gzipped tar; one that is there is not written over.
    file: PathBuf,

    /// Put secrets.key and the files that hold secrets into it too.
    #[arg(long)]
    with_secrets: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

/// Puts a backup in the place of the data folder of a daemon that does not run. Proves all of it before.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreCommand {
    /// The file that `pulse backup` made.
    file: PathBuf,

    /// Restore although the data folder holds something. That is kept beside it.
    #[arg(long)]
    force: bool,

    /// A folder with the files that the backup left out; without it they are taken from the data folder.
    #[arg(long, value_name = "DIR")]
    secrets_from: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl Backup {
    pub(super) fn run(self, environment: &Environment, version: &str) -> Result<(), Failed> {
        let folder = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        let secrets = if self.with_secrets { Secrets::Included } else { Secrets::LeftOut };
        let made = make(&folder, &self.file, secrets, version, wall_time()?).map_err(failed)?;
        let Manifest { files, left_out, created_at, .. } = made;
        if self.json {
            let files: Vec<&str> = files.iter().map(|entry| entry.name.as_str()).collect();
            return print_json(
                &json!({"file": self.file, "createdAt": created_at, "files": files, "leftOut": left_out}),
            );
        }
        print_line(&format!("{} files are in {}.", files.len(), self.file.display()))?;
        if !left_out.is_empty() {
            print_line(&format!("Left out, since they open secrets: {}; keep them elsewhere.", left_out.join(", ")))?;
        }
        Ok(())
    }
}

impl RestoreCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let folder = self.data_dir.choose(environment).map_err(Failed::configuration)?;
        if DaemonOption::here(&self.data_dir).is_there(environment)? {
            return Err(Failed::because(format!(
                "a daemon runs on {}; stop it first, nothing was changed",
                folder.display()
            )));
        }
        let restored = self.restore(&folder)?;
        let Restored { manifest, audit, put_aside, missing } = &restored;
        if self.json {
            return print_json(&json!({
                "dataDir": folder,
                "createdAt": manifest.created_at,
                "version": manifest.version,
                "audit": audit,
                "putAside": put_aside,
                "missing": missing,
            }));
        }
        print_line(&format!(
            "{} is as it was at {}; {} entries of the audit log are proven.",
            folder.display(),
            manifest.created_at.strftime("%F %T UTC"),
            audit.entries
        ))?;
        if let Some(aside) = put_aside {
            print_line(&format!("What was there before is in {}.", aside.display()))?;
        }
        if !missing.is_empty() {
            print_line(&format!(
                "Not in the backup, and not found: {}. Put them into the folder before you start the daemon.",
                missing.join(", ")
            ))?;
        }
        Ok(())
    }

    fn restore(&self, folder: &Path) -> Result<Restored, Failed> {
        let restore = Restore {
            file: &self.file,
            folder,
            force: self.force,
            secrets_from: self.secrets_from.as_deref(),
            now: wall_time()?,
        };
        let runtime = runtime()?;
        runtime.block_on(restore.run()).map_err(failed)
    }
}

fn failed(error: BackupError) -> Failed {
    match error {
        BackupError::NothingThere(_) => Failed::configuration(error),
        _ => Failed::because(error),
    }
}
