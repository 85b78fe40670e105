//! What `instances.json` refers to instead of holding it: secrets in files and variables, certificate authorities.
//!
//! Each file is read once for a load, however many instances name it, and its path is remembered for watching.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::error::Problem;
use super::files;
use super::keyring::Keyring;
use super::seal::{SealError, SecretPlace};
use crate::targets::Secret;

const MAX_SECRET_BYTES: u64 = 64 * 1024;
pub(super) const MAX_CA_BYTES: u64 = 4 * 1024 * 1024;

/// Files of certificate authorities, and what came of reading them.
pub(super) type Authorities = BTreeMap<PathBuf, Result<Vec<CertificateDer<'static>>, ReferenceError>>;

/// Fetches what is referred to.
pub(super) struct References<'a> {
    folder: &'a Path,
    environment: &'a Environment,
    keys: Option<&'a Keyring>,
    secrets: BTreeMap<PathBuf, Result<Secret, ReferenceError>>,
    authorities: Authorities,
    texts: BTreeSet<PathBuf>,
}

impl<'a> References<'a> {
    /// Paths that are relative are taken from `folder`; `keys` open what is encrypted.
    pub(super) fn new(folder: &'a Path, environment: &'a Environment, keys: Option<&'a Keyring>) -> Self {
        Self {
            folder,
            environment,
            keys,
            secrets: BTreeMap::new(),
            authorities: BTreeMap::new(),
            texts: BTreeSet::new(),
        }
    }

    /// The same with files of authorities that need not be read any more.
    pub(super) fn with_authorities(self, authorities: Authorities) -> Self {
        Self { authorities, ..self }
    }

    /// The secret that is encrypted in place.
    pub(super) fn open(&self, place: SecretPlace<'_>, sealed: &str) -> Result<Secret, SealError> {
        self.keys.ok_or(SealError::NoKey)?.open(place, sealed)
    }

    /// The secret that a variable holds.
    pub(super) fn secret_of_variable(&self, name: &str) -> Result<Secret, ReferenceError> {
        let value = self.environment.get(name).ok_or_else(|| ReferenceError::NotSet(name.to_owned()))?;
        let place = || format!("the environment variable {name}");
        secret(value.to_str().ok_or_else(|| ReferenceError::NotUnicode(place()))?, place)
    }

    /// The secret that a file holds, without the line break at its end.
    pub(super) fn secret_of_file(&mut self, path: &str) -> Result<Secret, ReferenceError> {
        let path = self.folder.join(path);
        self.secrets.entry(path).or_insert_with_key(|path| read_secret(path)).clone()
    }

    /// The text that a file holds, which is no secret.
    pub(super) fn text_of_file(&mut self, path: &str) -> Result<String, ReferenceError> {
        let path = self.folder.join(path);
        let read = open(&path).and_then(|file| read_open(&path, file, MAX_SECRET_BYTES));
        let text = read.and_then(|content| {
            String::from_utf8(content.to_vec()).map_err(|_| ReferenceError::NotUnicode(path.display().to_string()))
        });
        self.texts.insert(path);
        text
    }

    /// The certificates that a PEM file holds.
    pub(super) fn authorities_of_file(&mut self, path: &str) -> Result<Vec<CertificateDer<'static>>, ReferenceError> {
        let path = self.folder.join(path);
        self.authorities.entry(path).or_insert_with_key(|path| read_authorities(path)).clone()
    }

    /// Every file that was referred to, whether or not it could be read.
    pub(super) fn into_files(self) -> BTreeSet<PathBuf> {
        self.secrets.into_keys().chain(self.authorities.into_keys()).chain(self.texts).collect()
    }
}

/// A secret that is not empty and breaks no header.
pub(super) fn secret(text: &str, place: impl Fn() -> String) -> Result<Secret, ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::Empty(place()));
    }
    if text.chars().any(char::is_control) {
        return Err(ReferenceError::ControlCharacter(place()));
    }
    Ok(Secret::new(text.to_owned()))
}

fn read_secret(path: &Path) -> Result<Secret, ReferenceError> {
    let file = open(path)?;
    let mode = file.metadata().map_err(|error| unreadable(path, &error))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(ReferenceError::OpenToAll { file: path.to_owned(), mode: mode & 0o777 });
    }
    let content = read_open(path, file, MAX_SECRET_BYTES)?;
    let place = || path.display().to_string();
    let text = std::str::from_utf8(&content).map_err(|_| ReferenceError::NotUnicode(place()))?;
    secret(text.trim_end_matches(['\r', '\n']), place)
}

/// The certificates of authorities in a PEM file.
pub(crate) fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ReferenceError> {
    let content = read_open(path, open(path)?, MAX_CA_BYTES)?;
    certificates_in(path, &content)
}

/// The certificates in what the file at `path` holds, or is to hold.
pub(super) fn certificates_in(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, ReferenceError> {
    let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(content).collect();
    let usable = certificates.ok().filter(|certificates| {
        let mut store = RootCertStore::empty();
        !certificates.is_empty() && certificates.iter().all(|certificate| store.add(certificate.clone()).is_ok())
    });
    usable.ok_or_else(|| ReferenceError::NoCertificates(path.to_owned()))
}

fn open(path: &Path) -> Result<File, ReferenceError> {
    files::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReferenceError::NoSuchFile(path.to_owned()),
        _ => unreadable(path, &error),
    })
}

fn read_open(path: &Path, file: File, limit: u64) -> Result<Zeroizing<Vec<u8>>, ReferenceError> {
    files::read_open(file, limit).map_err(|problem| match problem {
        Problem::TooLarge { limit } => ReferenceError::TooLarge { file: path.to_owned(), limit },
        other => ReferenceError::Unreadable { file: path.to_owned(), reason: other.to_string() },
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ReferenceError {
    ReferenceError::Unreadable { file: path.to_owned(), reason: error.to_string() }
}

/// Why what is referred to cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// The file is not there.
    #[error("{} does not exist; create it or mend the path", .0.display())]
    NoSuchFile(PathBuf),
    /// The file cannot be read.
    #[error("{} cannot be read ({reason}); check that it is a file and that this user may read it", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is larger than a secret or a list of authorities can be.
    #[error("{} is larger than {limit} bytes; check the path", .file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The most bytes allowed.
        limit: u64,
    },
    /// Any user of the machine can get at the secret.
    #[error("{0} is open to every user (mode {mode:03o}); run: chmod o-rwx {0}", .file.display())]
    OpenToAll {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set; set it and restart")]
    NotSet(String),
    /// There is no secret.
    #[error("{0} is empty")]
    Empty(String),
    /// A secret is text.
    #[error("{0} does not hold valid UTF-8")]
    NotUnicode(String),
    /// The secret would break the request that carries it.
    #[error("{0} holds a control character or more than one line")]
    ControlCharacter(String),
    /// The file holds nothing to trust.
    #[error("{} does not hold certificates in PEM form", .0.display())]
    NoCertificates(PathBuf),
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> String {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn the_line_break_after_a_secret_is_not_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::default();
        let mut references = References::new(folder.path(), &environment, None);
        file(folder.path(), "secret", b" two words \r\n", 0o640);
        assert_eq!(references.secret_of_file("secret").unwrap().expose(), " two words ");
        assert_eq!(references.into_files(), [folder.path().join("secret")].into());
    }

    #[test]
    fn a_secret_that_any_user_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::default();
        let path = file(folder.path(), "secret", b"hunter2", 0o644);
        let error = References::new(folder.path(), &environment, None).secret_of_file(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{path} is open to every user (mode 644); run: chmod o-rwx {path}"));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment = [("EMPTY", ""), ("TWO_LINES", "hunter2\nhunter3")].into_iter().collect();
        let mut references = References::new(folder.path(), &environment, None);
        let big = vec![b'x'; usize::try_from(MAX_SECRET_BYTES).unwrap() + 1];
        for (content, expected) in [
            (&b"\n"[..], "is empty"),
            (b"hunter2\nhunter3", "control character"),
            (b"hunter2\xff", "UTF-8"),
            (&big, "larger than 65536 bytes"),
        ] {
            let name = expected.replace(' ', "-");
            file(folder.path(), &name, content, 0o600);
            let error = references.secret_of_file(&name).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        assert_eq!(references.secret_of_variable("EMPTY"), Err(ReferenceError::NotSet("EMPTY".into())));
        let error = references.secret_of_variable("TWO_LINES").unwrap_err();
        assert!(matches!(error, ReferenceError::ControlCharacter(_)), "{error}");
        let missing = references.secret_of_file("missing");
        assert_eq!(missing, Err(ReferenceError::NoSuchFile(folder.path().join("missing"))));
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::default();
        let mut references = References::new(folder.path(), &environment, None);
        let key = rcgen::generate_simple_self_signed(["pve".to_owned()]).unwrap();
        file(folder.path(), "ca.pem", key.cert.pem().repeat(2).as_bytes(), 0o644);
        assert_eq!(references.authorities_of_file("ca.pem").unwrap(), [key.cert.der().clone(), key.cert.der().clone()]);
        let fake = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        for (name, content) in [("empty.pem", ""), ("text.pem", "hello"), ("fake.pem", fake)] {
            file(folder.path(), name, content.as_bytes(), 0o644);
            let error = references.authorities_of_file(name).unwrap_err();
            assert_eq!(error, ReferenceError::NoCertificates(folder.path().join(name)));
        }
    }
}
