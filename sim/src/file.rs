//! Scenario files: how they are read, and what is said of a wrong one.

use std::io::Read;
use std::path::Path;

use thiserror::Error;

use crate::scenario::Scenario;

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}; `sim list` names the built-in scenarios")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("{file}:{line}:{column}: {message}")]
    Wrong {
        /// The file.
        file: String,
        /// Where in it, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
}

impl Scenario {
    /// Reads a scenario as TOML; `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ScenarioError> {
        let wrong = |offset: usize, message: String| {
            let before = text.get(..offset).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            ScenarioError::Wrong { file: file.display().to_string(), line, column, message }
        };
        let scenario: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            wrong(error.span().map_or(0, |span| span.start), error.message().lines().collect::<Vec<_>>().join("; "))
        })?;
        match scenario.check() {
            Ok(()) => Ok(scenario),
            Err(problem) => Err(wrong(problem.offset(text), problem.to_string())),
        }
    }

    /// Reads a scenario as JSON, as a saved finding holds it; `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column where the JSON itself is.
    pub fn parse_json(text: &str, file: &Path) -> Result<Self, ScenarioError> {
        let wrong =
            |line, column, message| ScenarioError::Wrong { file: file.display().to_string(), line, column, message };
        let scenario: Self = serde_json::from_str(text)
            .map_err(|error| wrong(error.line(), error.column().max(1), error.to_string()))?;
        scenario.check().map_err(|problem| wrong(1, 1, problem.to_string()))?;
        Ok(scenario)
    }

    /// Reads a scenario from a file: JSON if it is called so, else TOML.
    ///
    /// # Errors
    /// The file cannot be read, is no text, is larger than 4 MiB, or is wrong.
    pub fn read(file: &Path) -> Result<Self, ScenarioError> {
        let unreadable = |source| ScenarioError::Unreadable { file: file.display().to_string(), source };
        let mut text = String::new();
        let most = MAX_FILE + 1;
        std::fs::File::open(file)
            .and_then(|open| open.take(most).read_to_string(&mut text))
            .map_err(unreadable)
            .and_then(|read| match read as u64 == most {
                true => Err(unreadable(std::io::Error::other("it is larger than 4 MiB"))),
                false => Ok(()),
            })?;
        match file.extension().is_some_and(|extension| extension == "json") {
            true => Self::parse_json(&text, file),
            false => Self::parse(&text, file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Scenario::parse(text, "file.toml".as_ref()).unwrap_err().to_string()
    }

    const HOSTS: &str = "[[hosts]]\ngroup = \"a\"\ncount = 1\n";

    #[test]
    fn an_error_names_line_and_column() {
        let head = format!("name = \"x\"\nduration = \"1m\"\n{HOSTS}");
        let fault = |line: &str| format!("{head}[[faults]]\n{line}\nfrom = \"1s\"\nfor = \"1s\"\n");
        let unknown = error(&fault("kind = \"meteor\""));
        assert!(unknown.starts_with("file.toml:7:8: unknown variant `meteor`"), "{unknown}");
        let rate = error(&fault("kind = \"hang\"\nrate = 1.5"));
        assert_eq!(rate, "file.toml:8:8: a rate is between 0 and 1, and this is 1.5");
        let group = error(&fault("kind = \"hang\"\ngroup = \"b\""));
        assert_eq!(group, "file.toml:8:9: no group of hosts is called \"b\"");
    }

    #[test]
    fn every_slip_of_the_pen_gets_one_line_that_says_where() {
        let head = format!("name = \"b\"\nduration = \"1m\"\n{HOSTS}");
        let fault = |line: &str| format!("{head}[[faults]]\nkind = \"hang\"\nfrom = \"1s\"\n{line}\n");
        let host = |line: &str| format!("name = \"b\"\nduration = \"1m\"\n[[hosts]]\n{line}\n");
        let wrong = [
            (String::new(), "file.toml:1:1: missing field `name`"),
            ("name = \"b\"\nduration = \"0s\"\n".to_owned() + HOSTS, "file.toml:2:12: the duration is no time at all"),
            ("name = \"b\"\nduration = \"9000h\"\n".to_owned() + HOSTS, "file.toml:2:12: 9000h is longer than a year"),
            (
                "name = \"b\"\nduration = 60\n".to_owned() + HOSTS,
                "file.toml:2:12: invalid type: integer `60`, expected a span",
            ),
            (host("group = \"a\"\ncount = -1"), "file.toml:5:9: invalid value: integer `-1`, expected u32"),
            (host("group = \"a\"\ncount = 0"), "file.toml:5:9: a group has 1 to 1000000 hosts, and this one 0"),
            (host("group = \"a\"\ncount = 4000000000"), "file.toml:5:9: a group has 1 to 1000000 hosts"),
            (host("group = \"\"\ncount = 1"), "file.toml:4:9: a group needs a name"),
            (host("group = \"a\"\ncount = 1\ninterval = \"50ms\""), "file.toml:6:12: a fixed interval is 100ms to 24h"),
            (format!("{head}{HOSTS}"), "file.toml:7:9: two groups of hosts are called \"a\""),
            (fault("for = \"1s\"\nrate = nan"), "file.toml:10:8: a rate is between 0 and 1, and this is NaN"),
            (fault("for = \"1s\"\nrate = -0.5"), "file.toml:10:8: a rate is between 0 and 1, and this is -0.5"),
            (fault("for = \"-1s\""), "file.toml:9:7: "),
            (fault("for = \"0s\""), "file.toml:9:7: a fault lasts some time"),
            (fault("for = \"1s\"\ngroup = \"b\""), "file.toml:10:9: no group of hosts is called \"b\""),
            (fault("for = \"1s\"\nby = \"1h\""), "file.toml:10:6: only clock_ahead and clock_behind have a `by`"),
            (fault("for = \"1s\"\nflapping = \"0s\""), "file.toml:10:12: a period is at least 1ms"),
            (
                format!("{head}[expect.groups.b]\nrecovers = true\n"),
                "file.toml:6:16: no group of hosts is called \"b\"",
            ),
            (
                format!("{head}[[operators]]\naction = \"pause\"\nuntil = \"1m\"\nevery = \"0s\"\n"),
                "file.toml:9:9: an operator waits at least 100ms in between",
            ),
            (
                host(
                    "group = \"a\"\ncount = 1\nlatencyQuantiles = { p50 = \"2s\", p90 = \"1s\", p99 = \"3s\", max = \"4s\" }",
                ),
                "file.toml:6:20: the quantiles of a latency rise",
            ),
        ];
        for (text, start) in wrong {
            let said = error(&text);
            assert!(said.starts_with(start), "{said}\nand not {start}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn a_scenario_without_hosts_is_refused() {
        let none = error("name = \"x\"\nduration = \"1m\"\nhosts = []\n");
        assert_eq!(none, "file.toml:3:9: a scenario needs at least one group of hosts");
        assert!(error("name = \"x\"\nduration = \"1m\"\n").contains("missing field `hosts`"));
    }

    #[test]
    fn settings_have_the_names_and_rules_of_the_configuration() {
        let with = |line: &str| format!("name = \"x\"\nduration = \"1m\"\n{HOSTS}[settings]\n{line}\n");
        let scenario = Scenario::parse(&with("adaptivePollingBaseInterval = \"7s\""), "f".as_ref()).unwrap();
        assert_eq!(scenario.settings.base_interval, pulse::engine::Millis::from_secs(7));
        assert!(error(&with("basement = \"7s\"")).contains("no setting of the scheduler is called \"basement\""));
        assert!(error(&with("adaptivePollingBaseInterval = \"1s\"")).contains("min"), "a rule is broken");
    }
}
