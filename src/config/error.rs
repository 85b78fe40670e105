//! What is wrong with the configuration: where, what, and what to do about it.
//!
//! Problems are collected rather than raised, so that an operator mends a file in one go. None of them holds a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::address::AddressError;
use super::duration::SpanError;
use super::json::JsonPath;
use super::reference::ReferenceError;
use super::seal::SealError;
use crate::engine::{InstanceKey, KeyError};

/// How many errors are kept; the rest are only counted.
pub(super) const MAX_ERRORS: usize = 1_000;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// What it is, and what to do.
    pub problem: Problem,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, at a JSON path such as `instances[3].auth.secret`; empty for the file as a whole.
    File {
        /// The file.
        file: PathBuf,
        /// The JSON path.
        at: String,
    },
    /// In an environment variable.
    Variable(String),
    /// In the data folder.
    Folder(PathBuf),
    /// In what was asked for, at this JSON path.
    Request(String),
}

impl Place {
    /// The file that it is in.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => Some(file),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, at } if at.is_empty() => write!(f, "{}", file.display()),
            Self::File { file, at } => write!(f, "{}: {at}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Folder(path) => write!(f, "data folder {}", path.display()),
            Self::Request(at) if at.is_empty() => f.write_str("the request"),
            Self::Request(at) => f.write_str(at),
        }
    }
}

/// What is wrong, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each message documents its variant")]
pub enum Problem {
    #[error("line {line}, column {column}: {reason}")]
    Syntax { line: usize, column: usize, reason: String },
    #[error("is larger than {limit} bytes; split the fleet or remove what is not needed")]
    TooLarge { limit: u64 },
    #[error("cannot be read ({0}); check that it is a file and that this user may read it")]
    Unreadable(String),
    #[error("cannot be listed ({0}); check that it is a folder and that this user may read it")]
    Unlisted(String),
    #[error("holds more than {0} such files; put several instances into one")]
    TooManyFiles(usize),
    #[error(
        "makes the files of other tools larger than {limit} bytes together; split the fleet or remove what is not needed"
    )]
    TooLargeTogether { limit: u64 },
    #[error("cannot be written ({0}); check the folder's owner, its mode and the space left")]
    Unwritable(String),
    #[error("was deleted; what it held stays in force until it is restored")]
    Deleted,
    #[error("kept changing while it was being updated; try again")]
    KeepsChanging,
    #[error("is required")]
    Missing,
    #[error("unknown setting{}", hint(.suggestion.as_deref(), .known))]
    Unknown { suggestion: Option<String>, known: Vec<&'static str> },
    #[error("is given more than once; keep one")]
    Repeated,
    #[error("must be {expected}, but is {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("must be one of {}", .0.join(", "))]
    NotOneOf(Vec<&'static str>),
    #[error("holds more than {0} entries; remove some")]
    TooMany(usize),
    #[error("{0}")]
    Span(#[from] SpanError),
    #[error("is {value}, but must be from {min} to {max}")]
    OutOfRange { value: String, min: String, max: String },
    #[error("{0}")]
    Rule(String),
    #[error("is pinned by the environment variable {0}; change or unset that, then restart")]
    Pinned(&'static str),
    #[error("{0}")]
    Name(#[from] KeyError),
    #[error("{key} is already the name of {first}; give one of them another name")]
    SameName { key: InstanceKey, first: String },
    #[error("must not be empty")]
    Empty,
    #[error("holds {0} bytes; at most {1} are allowed")]
    TooLong(usize, usize),
    #[error("holds a control character; remove it")]
    ControlCharacter,
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("{0}")]
    Reference(#[from] ReferenceError),
    #[error("is the same address as one before it; remove one")]
    SameAddress,
    #[error("must be written user@realm!token-name, as in pulse@pve!monitor")]
    TokenId,
    #[error("must be written user@realm, as in pulse@pmg")]
    User,
    #[error("must hold either tokenId with secret, or user with password")]
    AuthForm,
    #[error("must be a text, {{\"file\": …}}, {{\"env\": …}} or {{\"encrypted\": …}}")]
    SecretForm,
    #[error("{0}")]
    Sealed(#[from] SealError),
    #[error("is encrypted, which only instances.json can hold; give {{\"file\": …}}, {{\"env\": …}} or a text")]
    SealedByOthers,
    #[error("cannot be kept, since none is stored; give it")]
    NoStoredSecret,
    #[error("must be given anew, since the address is another one and the stored secret is not sent elsewhere")]
    SecretElsewhere,
    #[error("refers to something on the daemon's machine; that is written into instances.json by hand")]
    ReferenceByHand,
    #[error("is written into system.json by hand, since it names files and where their content goes")]
    ByHand,
    #[error("names another instance than the one that is changed; remove that one and add this")]
    OtherInstance,
    #[error("cannot be encrypted, since the system gave no randomness; try again")]
    NoRandomness,
    #[error("{0}")]
    Key(String),
    #[error("must hold either caFile or fingerprint")]
    TlsForm,
    #[error("has no meaning for an http:// address; use https:// or remove it")]
    TlsWithoutHttps,
    #[error("must be 64 hexadecimal digits (SHA-256), with or without colons")]
    Fingerprint,
    #[error("must be a status from 100 to 599 or a range such as 200-299")]
    Status,
    #[error("cannot be checked with HEAD, which has no body; use GET")]
    BodyWithHead,
    #[error("must be a port from 1 to 65535")]
    Port,
    #[error("must be a host name or an IP address, without scheme or port")]
    Host,
    #[error("exists, but is not a folder; choose another with --data-dir or PULSE_DATA_DIR")]
    NotAFolder,
    #[error("cannot be created ({0}); create it, or choose another with --data-dir or PULSE_DATA_DIR")]
    FolderNotCreated(String),
    #[error("cannot be written to ({0}); mend its owner or mode, or choose another with --data-dir or PULSE_DATA_DIR")]
    FolderNotWritable(String),
    #[error("cannot be chosen, since HOME is not set; give one with --data-dir or PULSE_DATA_DIR")]
    NoHome,
    #[error("is not valid UTF-8")]
    NotUnicode,
    #[error("must be true or false (1, 0, yes, no, on, off)")]
    NotASwitch,
    #[error("must be a whole number from 0 to 4294967295")]
    NotACount,
}

fn hint(suggestion: Option<&str>, known: &[&str]) -> String {
    match suggestion {
        Some(suggestion) => format!("; did you mean {suggestion}?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// Everything that is wrong; never empty. Prints one error a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    omitted: usize,
}

impl ConfigErrors {
    /// The errors, in the order they were found; at most 1000.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// The errors by the file that they are in; those that are in none are those of `otherwise`.
    pub fn by_file<'a>(&'a self, otherwise: &'a Path) -> BTreeMap<&'a Path, Vec<&'a ConfigError>> {
        let mut files: BTreeMap<&Path, Vec<&ConfigError>> = BTreeMap::new();
        for error in &self.errors {
            files.entry(error.place.file().unwrap_or(otherwise)).or_default().push(error);
        }
        files
    }

    /// The errors of both, if there are any.
    pub(super) fn of_both(one: Option<&Self>, other: Option<&Self>) -> Option<Self> {
        let mut errors = Errors::default();
        [one, other].into_iter().flatten().for_each(|it| errors.append(it.clone()));
        errors.or(()).err()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error], omitted: 0 }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n… and {} more", self.omitted)?;
        }
        Ok(())
    }
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Errors {
    errors: Vec<ConfigError>,
    omitted: usize,
}

impl Errors {
    pub(super) fn add(&mut self, place: Place, problem: impl Into<Problem>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(ConfigError { place, problem: problem.into() });
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn append(&mut self, other: ConfigErrors) {
        let room = MAX_ERRORS.saturating_sub(self.errors.len());
        self.omitted += other.omitted + other.errors.len().saturating_sub(room);
        self.errors.extend(other.errors.into_iter().take(room));
    }

    /// Counts one more that is not kept.
    pub(super) fn omit(&mut self) {
        self.omitted += 1;
    }

    /// Keeps the first `room` of them at the most; the rest are only counted.
    pub(super) fn shorten(&mut self, room: usize) {
        self.omitted += self.errors.len().saturating_sub(room);
        self.errors.truncate(room);
    }

    pub(super) fn len(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// `value`, unless something was wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        Err(ConfigErrors { errors: self.errors, omitted: self.omitted })
    }
}

/// What a JSON value was read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    File(&'a Path),
    Request,
}

/// The errors found so far in one JSON value.
#[derive(Debug)]
pub(super) struct JsonErrors<'a> {
    source: Source<'a>,
    errors: Errors,
}

impl<'a> JsonErrors<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, errors: Errors::default() }
    }

    pub(super) fn add(&mut self, at: &JsonPath<'_>, problem: impl Into<Problem>) {
        let at = at.to_string();
        let place = match self.source {
            Source::File(file) => Place::File { file: file.to_owned(), at },
            Source::Request => Place::Request(at),
        };
        self.errors.add(place, problem);
    }

    /// Records the error of a result and keeps its value.
    pub(super) fn keep<T, E: Into<Problem>>(&mut self, at: &JsonPath<'_>, result: Result<T, E>) -> Option<T> {
        result.map_err(|problem| self.add(at, problem)).ok()
    }

    pub(super) fn or<T>(self, value: T) -> Result<T, ConfigErrors> {
        self.errors.or(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_errors_is_bounded_and_says_how_many_are_left_out() {
        let mut errors = Errors::default();
        for _ in 0..MAX_ERRORS + 5 {
            errors.add(Place::Variable("X".into()), Problem::Missing);
        }
        let errors = errors.or(()).unwrap_err();
        assert_eq!(errors.iter().count(), MAX_ERRORS);
        assert!(errors.to_string().ends_with("\n… and 5 more"));
    }
}
