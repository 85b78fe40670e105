//! The environment variables, taken once so that everything else can be handed any environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// A copy of the environment variables. Its `Debug` shows no values.
///
/// ```
/// use pulse::config::Environment;
/// let environment: Environment = [("PULSE_DATA_DIR", "/srv/pulse"), ("EMPTY", "")].into_iter().collect();
/// assert_eq!(environment.get("PULSE_DATA_DIR").unwrap(), "/srv/pulse");
/// assert_eq!(environment.get("EMPTY"), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The same with another value of one variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The value of a variable; one that is empty counts as unset.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let environment: Environment = [("TOKEN", "hunter2")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"TOKEN"}"#);
    }
}
