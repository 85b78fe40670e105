//! API tokens: 256 random bits, of which only a SHA-256 digest is kept in `tokens.json`.
//!
//! A slow password hash would add nothing: there is no dictionary of such tokens to try.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::targets::Secret;

const PREFIX: &str = "pulse_";
const FILE_NAME: &str = "tokens.json";
const MAX_TOKENS: usize = 1_000;
const MAX_NAME_CHARS: usize = 100;
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The tokens of one daemon, in `tokens.json` of its data folder, mode 0600.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
/// use pulse::security::TokenStore;
/// let store = TokenStore::new(folder.path());
/// let issued = store.create("backup script", now)?;
/// let holder = store.find(issued.token.expose())?.expect("the token was just made");
/// assert_eq!(holder.name, "backup script");
/// assert!(store.find("pulse_guess")?.is_none());
/// # Ok::<(), pulse::security::TokenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenStore {
    file: PathBuf,
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRecord {
    /// What it is for.
    pub name: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// SHA-256 of the token, in hexadecimal.
    sha256: String,
}

/// A new token. It cannot be shown again.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token itself.
    pub token: Secret,
    /// What is kept of it.
    pub record: TokenRecord,
}

/// Why tokens could not be read or written.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file is there and cannot be read.
    #[error("cannot read {file}: {source}; check its owner and mode (0600)")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what this program writes.
    #[error("{file} is not a list of tokens: {source}; move it away to start with none")]
    Broken {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {file}: {source}; check the folder's owner and the free space")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The name says nothing or too much.
    #[error("the name of a token has 1 to {MAX_NAME_CHARS} characters, none of them a control character")]
    BadName,
    /// The name is taken.
    #[error("there is a token named {0:?} already; choose another name")]
    NameTaken(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens already; remove some from tokens.json")]
    TooMany,
    /// The system has no randomness to give.
    #[error("the system gave no randomness for a token")]
    NoRandomness,
}

impl TokenStore {
    /// The tokens of the daemon with this data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self { file: data_dir.join(FILE_NAME) }
    }

    /// Every token's record.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn list(&self) -> Result<Vec<TokenRecord>, TokenError> {
        let unreadable = |source| TokenError::Unreadable { file: self.file.clone(), source };
        match std::fs::metadata(&self.file) {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
                return Err(unreadable(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            _ => {}
        }
        let text = std::fs::read(&self.file).map_err(unreadable)?;
        serde_json::from_slice(&text).map_err(|source| TokenError::Broken { file: self.file.clone(), source })
    }

    /// Makes a token. `now` is when.
    ///
    /// # Errors
    /// The name is unfit or taken, there are too many, or the file cannot be read or written.
    pub fn create(&self, name: &str, now: jiff::Timestamp) -> Result<IssuedToken, TokenError> {
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            return Err(TokenError::BadName);
        }
        let mut records = self.list()?;
        if records.iter().any(|record| record.name == name) {
            return Err(TokenError::NameTaken(name.to_owned()));
        }
        if records.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let token = Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes()?)));
        let record = TokenRecord { name: name.to_owned(), created_at: now, sha256: digest(token.expose()) };
        records.push(record.clone());
        self.write(&records)?;
        Ok(IssuedToken { token, record })
    }

    /// The record of the token that somebody sent; `None` if it is none of ours.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn find(&self, token: &str) -> Result<Option<TokenRecord>, TokenError> {
        let sent = digest(token);
        // All are compared, each in constant time, so that the time tells nothing.
        let matching = |found: Option<TokenRecord>, record: TokenRecord| {
            let same: bool = record.sha256.as_bytes().ct_eq(sent.as_bytes()).into();
            if same { Some(record) } else { found }
        };
        Ok(self.list()?.into_iter().fold(None, matching))
    }

    fn write(&self, records: &[TokenRecord]) -> Result<(), TokenError> {
        let text = serde_json::to_vec_pretty(records)
            .map_err(|source| TokenError::Broken { file: self.file.clone(), source })?;
        write_private(&self.file, &text).map_err(|source| TokenError::Unwritable { file: self.file.clone(), source })
    }
}

/// Replaces a file as a whole, readable by its owner alone.
fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = file.with_extension("json.new");
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    out.write_all(content)?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)
}

/// Tokens need randomness that nobody can reproduce; this is the one place that asks the system for it.
fn random_bytes() -> Result<[u8; 32], TokenError> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes)
}

fn digest(token: &str) -> String {
    use fmt::Write as _;
    Sha256::digest(token.as_bytes()).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_is_kept_as_a_digest_in_a_file_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::new(folder.path());
        let issued = store.create("first", now()).unwrap();
        let file = folder.path().join("tokens.json");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(issued.token.expose()));
        assert!(!text.contains(&issued.token.expose()[PREFIX.len()..]));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_tokens_are_never_alike_and_each_is_found_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::new(folder.path());
        let (first, second) = (store.create("a", now()).unwrap(), store.create("b", now()).unwrap());
        assert_ne!(first.token.expose(), second.token.expose());
        assert_eq!(store.find(first.token.expose()).unwrap().unwrap().name, "a");
        assert_eq!(store.find(second.token.expose()).unwrap().unwrap().name, "b");
        assert!(store.find("").unwrap().is_none());
    }

    #[test]
    fn a_bad_name_or_one_that_is_taken_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::new(folder.path());
        for name in ["", "a\nb", &"x".repeat(101)] {
            assert!(matches!(store.create(name, now()), Err(TokenError::BadName)));
        }
        assert!(!folder.path().join("tokens.json").exists());
        store.create("a", now()).unwrap();
        assert!(matches!(store.create("a", now()), Err(TokenError::NameTaken(_))));
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn a_broken_file_is_an_error_and_not_an_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokens.json"), "{").unwrap();
        assert!(matches!(TokenStore::new(folder.path()).list(), Err(TokenError::Broken { .. })));
    }
}
