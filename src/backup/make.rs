//! Making a backup, whether or not a daemon runs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::archive::{describe, write, write_private};
use super::{BackupError, Entry, FORMAT, Manifest, Secrets};
use crate::config::{FRAGMENTS, SOCKET, is_fragment};
use crate::security::audit::AUDIT_KEY;
use crate::store::{DATABASE, snapshot};

/// How often the files are read again because one of them changed meanwhile.
const ATTEMPTS: u32 = 10;
const SETTINGS: &str = "system.json";
const INSTANCES: &str = "instances.json";

/// Writes the data folder `folder` into the new file `target`, for its owner alone.
///
/// The files and the database are of one moment: if a file changes while the database is copied, both are taken again.
///
/// # Errors
/// Something cannot be read or written, `target` is there already, or the configuration never rests.
pub fn make(
    folder: &Path,
    target: &Path,
    secrets: Secrets,
    version: &str,
    now: jiff::Timestamp,
) -> Result<Manifest, BackupError> {
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    if !folder.join(DATABASE).is_file() {
        return Err(BackupError::NothingThere(folder.to_owned()));
    }
    let beside = std::path::absolute(target).map_err(BackupError::file("cannot write", target))?;
    let beside = beside.parent().unwrap_or(Path::new("/"));
    let unwritable = || BackupError::file("cannot write in", beside);
    let copy = tempfile::Builder::new().prefix(".pulse-backup-").tempdir_in(beside).map_err(unwritable())?;
    let (files, left_out) = copy_at_rest(folder, copy.path(), secrets)?;
    let manifest = Manifest { format: FORMAT, version: version.to_owned(), created_at: now, files, left_out };
    let draft = tempfile::NamedTempFile::new_in(beside).map_err(unwritable())?;
    let written = write(draft.as_file(), &manifest, copy.path()).and_then(|()| draft.as_file().sync_all());
    written.map_err(BackupError::file("cannot write", target))?;
    draft.persist_noclobber(target).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.to_owned()),
        _ => BackupError::file("cannot write", target)(error.error),
    })?;
    Ok(manifest)
}

/// Copies everything into `copy`, and gives what was copied and what was left out.
fn copy_at_rest(folder: &Path, copy: &Path, secrets: Secrets) -> Result<(Vec<Entry>, Vec<String>), BackupError> {
    for attempt in 0..ATTEMPTS {
        let attempt = copy.join(attempt.to_string());
        fs::create_dir(&attempt).map_err(BackupError::file("cannot make", &attempt))?;
        let (mut files, left_out) = copy_files(folder, &attempt, secrets)?;
        snapshot(&folder.join(DATABASE), &attempt.join(DATABASE))?;
        // What is there after the database was copied has to be what was there before.
        if files.iter().all(|entry| describe(folder, &entry.name).is_ok_and(|now| now == *entry)) {
            files.push(describe(&attempt, DATABASE).map_err(BackupError::file("cannot read", &attempt))?);
            files.sort_by(|one, other| one.name.cmp(&other.name));
            for entry in &files {
                let (from, to) = (attempt.join(&entry.name), copy.join(&entry.name));
                let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(from, &to));
                made.map_err(BackupError::file("cannot move", to))?;
            }
            return Ok((files, left_out));
        }
    }
    Err(BackupError::KeepsChanging)
}

fn copy_files(folder: &Path, copy: &Path, secrets: Secrets) -> Result<(Vec<Entry>, Vec<String>), BackupError> {
    let names = file_names(folder).map_err(BackupError::file("cannot list", folder))?;
    let open = names_without_secrets(folder);
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        let is_open = open.contains(&name) || name.starts_with("authorities/") || fragment_name(&name).is_some();
        if secrets == Secrets::LeftOut && !is_open {
            left_out.push(name);
            continue;
        }
        let path = folder.join(&name);
        let copied = fs::File::open(&path).and_then(|mut file| write_private(&copy.join(&name), &mut file));
        let (bytes, sha256) = copied.map_err(BackupError::file("cannot copy", &path))?;
        // Judged as it was copied: its owner may write another one at any time.
        let holds_secrets = || fragment_name(&name).is_some() && !is_free_of_secrets(&copy.join(&name));
        if secrets == Secrets::LeftOut && holds_secrets() {
            fs::remove_file(copy.join(&name)).map_err(BackupError::file("cannot remove", copy.join(&name)))?;
            left_out.push(name);
            continue;
        }
        files.push(Entry { name, bytes, sha256 });
    }
    Ok((files, left_out))
}

/// The files of a data folder but for the database and what is of a moment only, sorted.
fn file_names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner)? {
            let entry = entry?;
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            let is_passing = name.starts_with('.') || name == SOCKET || name.starts_with(DATABASE);
            // The demo is a data folder of its own, made anew at each start.
            if is_passing || name == "demo" {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

/// The files that are known to hold no secret, or none that is not sealed.
///
/// `audit.key` is one: without it the log in the database proves nothing, and it opens no host.
fn names_without_secrets(folder: &Path) -> BTreeSet<String> {
    let mut open: BTreeSet<String> = [SETTINGS, INSTANCES, AUDIT_KEY].map(str::to_owned).into();
    let fragments = fs::read_dir(folder.join(FRAGMENTS)).into_iter().flatten().flatten();
    let fragments = fragments.filter(|entry| is_fragment(&entry.file_name().to_string_lossy()));
    for file in fragments.map(|entry| entry.path()).chain([folder.join(INSTANCES)]) {
        for instance in instances_in(&file).unwrap_or_default() {
            if let Some(authority) = instance["tls"]["caFile"].as_str() {
                let inside = Path::new(authority).strip_prefix(folder).unwrap_or(Path::new(authority));
                open.insert(inside.to_string_lossy().into_owned());
            }
        }
    }
    open
}

/// The name of a file in the folder in which other tools keep instances, if it is one that is read.
fn fragment_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix(FRAGMENTS)?.strip_prefix('/')?;
    (!name.contains('/') && is_fragment(name)).then_some(name)
}

fn instances_in(file: &Path) -> Option<Vec<Value>> {
    let mut inventory: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    match inventory["instances"].take() {
        Value::Array(instances) => Some(instances),
        _ => None,
    }
}

/// Whether a file of instances holds none of their secrets itself; what cannot be read may hold any.
fn is_free_of_secrets(file: &Path) -> bool {
    let is_plain = |instance: &Value| ["secret", "password"].iter().any(|field| instance["auth"][field].is_string());
    instances_in(file).is_some_and(|instances| !instances.iter().any(is_plain))
}
