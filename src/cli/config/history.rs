//! `pulse config history`, `show`, `diff` and `rollback`: versions of the configuration, and going back to one.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::super::client::DaemonOption;
use super::super::health::plain_table;
use super::super::offline::Offline;
use super::super::{Failed, print_json, print_line};
use crate::api::{ConfigurationChanged, History, VersionAnswer};
use crate::config::{Difference, Environment};
use crate::configure::{Author, ChangeError, Configurator, RolledBack, Source, Version};
use crate::security::Caller;
use crate::security::audit::Attempt;

const HISTORY_EXAMPLES: &str = "\
Examples:
  pulse config history
  pulse config history --limit 5 --json | jq '.versions[].summary'";

const SHOW_EXAMPLES: &str = "\
Examples:
  pulse config show
      What the last change was, and what is in force.
  pulse config show 12";

const DIFF_EXAMPLES: &str = "\
Examples:
  pulse config diff
      What the last change changed.
  pulse config diff 12
      What changed since version 12.
  pulse config diff 12 15";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  pulse config rollback --reason 'the new intervals were too short'
      Undo the last change.
  pulse config rollback 12 --reason 'back to last week'
      The same is `--version 12`. To go back to a version of the program, see `pulse update restore`.";

/// Lists the versions of the configuration: who changed what, when and why.
#[derive(Debug, Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(super) struct ListVersions {
    /// How many to list, from the newest on.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,

    #[command(flatten)]
    common: Common,
}

/// Shows a version of the configuration, and what it changed. Secrets are not shown.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct Show {
    /// The version; the last one if not given.
    #[arg(value_name = "VERSION")]
    number: Option<i64>,

    #[command(flatten)]
    common: Common,
}

/// Shows how two versions of the configuration differ. Secrets are not shown.
#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(super) struct Diff {
    /// The older version; the one before the last if not given.
    from: Option<i64>,

    /// The newer version; the last one if not given.
    to: Option<i64>,

    #[command(flatten)]
    common: Common,
}

/// Goes back to a version of the configuration. That is a new version, in force at once.
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_EXAMPLES, disable_version_flag = true)]
pub(super) struct Rollback {
    /// The version to go back to; the one before the last if not given.
    #[arg(value_name = "VERSION", value_parser = version_of_configuration)]
    number: Option<i64>,

    /// The same as VERSION.
    #[arg(long = "version", value_name = "VERSION", value_parser = version_of_configuration, conflicts_with = "number")]
    named: Option<i64>,

    /// Why, for the history and the audit log.
    #[arg(long)]
    reason: String,

    #[command(flatten)]
    common: Common,
}

/// Whoever means the program is told where to go.
fn version_of_configuration(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| match text.trim_start_matches('v').split('.').all(|part| part.parse::<u32>().is_ok()) {
        true => {
            "that is a version of the program; `pulse update restore` goes back to the one that ran before".to_owned()
        }
        false => "not the number of a version; `pulse config history` lists them".to_owned(),
    })
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) daemon: DaemonOption,
}

impl Common {
    fn versions(&self, environment: &Environment, limit: u32) -> Result<History, Failed> {
        if self.daemon.is_there(environment)? {
            return self.daemon.get(environment, &format!("/api/config/history?limit={limit}"));
        }
        self.read(environment, async |configurator| {
            let versions = configurator.versions(None, limit).await?;
            Ok(History { versions, next: None })
        })
    }

    fn version(&self, environment: &Environment, version: i64, since: Option<i64>) -> Result<VersionAnswer, Failed> {
        if self.daemon.is_there(environment)? {
            let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
            return self.daemon.get(environment, &format!("/api/config/history/{version}{since}"));
        }
        self.read(environment, async |configurator| {
            let mut shown = configurator.version(version).await?;
            if let Some(since) = since {
                shown.difference = configurator.difference(since, Some(version)).await?;
            }
            Ok(shown.into())
        })
    }

    /// The last version and the one before it.
    fn last_two(&self, environment: &Environment) -> Result<(i64, Option<i64>), Failed> {
        let versions = self.versions(environment, 2)?.versions;
        let number = |at: usize| versions.get(at).map(|version: &Version| version.version);
        let last =
            number(0).ok_or_else(|| Failed::because("there is no version yet; the daemon's first start makes one"))?;
        Ok((last, number(1)))
    }

    /// Looks at the history of a daemon that does not run.
    fn read<T>(
        &self,
        environment: &Environment,
        look: impl AsyncFnOnce(Configurator) -> Result<T, ChangeError>,
    ) -> Result<T, Failed> {
        let folder = self.daemon.data_dir(environment)?;
        if !folder.is_dir() {
            return Err(super::no_data_dir(&folder));
        }
        Offline::run(folder, async |world| look(world.configurator(environment)?).await.map_err(Failed::because))
    }
}

impl ListVersions {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let history = self.common.versions(environment, self.limit)?;
        if self.common.json {
            return print_json(&history);
        }
        let mut table = plain_table(&["VERSION", "AT", "BY", "VIA", "CHANGED", "REASON"]);
        for version in history.versions {
            let Version { version, at, by, source, summary, reason, .. } = version;
            let at = at.strftime("%F %T UTC").to_string();
            let (version, source) = (version.to_string(), source.as_str().to_owned());
            table.add_row([version, at, by, source, summary, reason.unwrap_or_else(|| "–".to_owned())]);
        }
        print_line(&table.to_string())
    }
}

impl Show {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let version = match self.number {
            Some(version) => version,
            None => self.common.last_two(environment)?.0,
        };
        let shown = self.common.version(environment, version, None)?;
        if self.common.json {
            return print_json(&shown);
        }
        let VersionAnswer { version, difference, settings, instances, provided } = shown;
        print_line(&format!("Version {} of {}", version.version, version.at.strftime("%F %T UTC")))?;
        let address = version.address.map(|address| format!(" from {address}")).unwrap_or_default();
        print_line(&format!("By {}{address}, via {}: {}", version.by, version.source.as_str(), version.summary))?;
        if let Some(reason) = version.reason {
            print_line(&format!("Reason: {reason}"))?;
        }
        print_line(&format!("\n{}", differences(&difference)))?;
        let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).map_err(Failed::because);
        if let Some(settings) = settings {
            print_line(&format!("system.json\n{}\n", pretty(&settings)?))?;
        }
        if let Some(instances) = instances {
            print_line(&format!("instances.json\n{}", pretty(&json!({"instances": instances}))?))?;
        }
        match provided.filter(|provided| !provided.is_empty()) {
            Some(provided) => print_line(&format!("\nfiles of other tools\n{}", pretty(&json!(provided))?)),
            None => Ok(()),
        }
    }
}

impl Diff {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let (from, to) = match (self.from, self.to) {
            (Some(from), Some(to)) => (Some(from), to),
            (Some(from), None) => (Some(from), self.common.last_two(environment)?.0),
            (None, _) => (None, self.common.last_two(environment)?.0),
        };
        let difference = self.common.version(environment, to, from)?.difference;
        if self.common.json {
            return print_json(&difference);
        }
        print_line(differences(&difference).trim_end())
    }
}

impl Rollback {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Self { number, named, reason, common } = self;
        let number = number.or(named);
        let done: ConfigurationChanged = if common.daemon.is_there(environment)? {
            let body = json!({"version": number, "reason": reason});
            common.daemon.send(environment, Method::POST, "/api/config/rollback", Some(&body))?
        } else {
            Offline::run(common.daemon.data_dir(environment)?, async |world| {
                let configurator = world.configurator(environment)?;
                configurator.begin().await;
                let by = Caller::of_process();
                let attempt = Attempt::new(by.clone(), "config.rollback").because(Some(reason.clone()));
                let author = Author { by, source: Source::Rollback, reason: Some(reason) };
                let change = configurator.clone();
                let change = async move { change.roll_back(number, author).await };
                let conclusion = |done: &RolledBack| done.changed.conclusion();
                let done = configurator.audited(attempt, conclusion, change).await;
                Ok(done.map_err(Failed::because)?.map_err(Failed::because)?.into())
            })?
        };
        if common.json {
            return print_json(&done);
        }
        print_line(differences(&done.difference).trim_end())?;
        if !done.left_alone.is_empty() {
            let keys = done.left_alone.join(", ");
            print_line(&format!("\nLeft alone, since files of other tools hold them: {keys}"))?;
        }
        print_line(&match (done.restored, done.version) {
            (Some(restored), Some(version)) => format!("\nBack to version {restored}; that is version {version} now."),
            _ => "\nThe files are mended; what is in force did not change.".to_owned(),
        })
    }
}

fn differences(difference: &Difference) -> String {
    if difference.is_empty() { "Nothing that matters differs.\n".to_owned() } else { difference.to_string() }
}
