//! `instances.json`: the fleet, read as a whole or refused as a whole.
//!
//! Every error is found in one reading, each with the path of what is wrong. Secrets come out resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, JsonErrors, Place, Problem, Source};
use super::files;
use super::instance;
use super::json::{Fields, Json, JsonPath};
use super::keyring::Keyring;
use super::reference::{Authorities, References};
use crate::engine::{InstanceKey, Millis};
use crate::targets::Target;

pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
const MAX_INSTANCES: usize = 1_000_000;

/// One instance of the fleet, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What is polled, and how to get in.
    pub target: Target,
    /// Whether it is polled at all.
    pub enabled: bool,
    /// Its own fixed interval.
    pub interval: Option<Millis>,
    /// Its own timeout.
    pub timeout: Option<Millis>,
    /// Differs when anything differs that decides what a poll meets: addresses, credentials, trust, expectations.
    ///
    /// The same in every run. It is derived from secrets too, so it is for comparing and not for showing.
    pub revision: u64,
}

/// The content of a file, which may hold secrets.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// What came of reading the file, and the files that it refers to, which are known even if it is refused.
pub(super) struct Reading {
    /// The fleet; `None` if there is no file.
    pub(super) instances: Result<Option<Vec<Instance>>, ConfigErrors>,
    /// What the file holds, if it could be read at all.
    pub(super) content: Option<Content>,
    pub(super) referenced_files: BTreeSet<PathBuf>,
}

/// What is around an inventory: it refers to files and variables, and its secrets are encrypted.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// `instances.json`; paths in it are taken from the folder that it is in.
    pub(super) file: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) keys: Option<&'a Keyring>,
}

impl<'a> Surroundings<'a> {
    fn references(self) -> References<'a> {
        let folder = self.file.parent().unwrap_or_else(|| Path::new("/"));
        References::new(folder, self.environment, self.keys)
    }
}

/// Reads the file.
pub(super) fn read(around: Surroundings<'_>) -> Reading {
    match files::read(around.file, MAX_FILE_BYTES) {
        Ok(None) => Reading { instances: Ok(None), content: None, referenced_files: BTreeSet::new() },
        Ok(Some(content)) => read_content(content, around, Authorities::new()),
        Err(problem) => {
            let mut errors = JsonErrors::new(Source::File(around.file));
            errors.add(&JsonPath::Root, problem);
            Reading { instances: errors.or(None), content: None, referenced_files: BTreeSet::new() }
        }
    }
}

/// Reads what the file holds, or is to hold once files of `authorities` are there.
pub(super) fn read_content(content: Content, around: Surroundings<'_>, authorities: Authorities) -> Reading {
    let mut references = around.references().with_authorities(authorities);
    let mut errors = JsonErrors::new(Source::File(around.file));
    let json = errors.keep(&JsonPath::Root, Json::parse(&content));
    let instances = json.map(|json| read_document(json, &mut references, &mut errors));
    Reading { instances: errors.or(instances), content: Some(content), referenced_files: references.into_files() }
}

/// Something that is wrong with a file as a whole.
pub(super) fn file_error(path: &Path, problem: Problem) -> ConfigError {
    ConfigError { place: Place::File { file: path.to_owned(), at: String::new() }, problem }
}

/// Reads one entry that was given in a request.
pub(super) fn read_entry(entry: Json, around: Surroundings<'_>) -> Result<Instance, ConfigErrors> {
    let mut errors = JsonErrors::new(Source::Request);
    let read = |errors: &mut JsonErrors<'_>| {
        let mut fields = Fields::open(entry, &JsonPath::Root, errors)?;
        let identity = instance::read_identity(&mut fields, errors);
        instance::read(identity, fields, &mut around.references(), errors)
    };
    let instance = read(&mut errors);
    errors.or(instance).map(|instance| instance.expect("what is without errors is whole"))
}

fn read_document(json: Json, references: &mut References<'_>, errors: &mut JsonErrors<'_>) -> Vec<Instance> {
    let Some(mut document) = Fields::open(json, &JsonPath::Root, errors) else { return Vec::new() };
    let items = document.require("instances", errors, |list| {
        let items = list.into_array()?;
        if items.len() > MAX_INSTANCES { Err(Problem::TooMany(MAX_INSTANCES)) } else { Ok(items) }
    });
    document.finish(errors);

    let list = JsonPath::Root.field("instances");
    let mut seen: BTreeMap<InstanceKey, usize> = BTreeMap::new();
    let mut instances = Vec::new();
    for (index, item) in items.unwrap_or_default().into_iter().enumerate() {
        let path = list.item(index);
        let Some(mut fields) = Fields::open(item, &path, errors) else { continue };
        let identity = instance::read_identity(&mut fields, errors);
        if let Some(key) = &identity.key {
            let first = *seen.entry(key.clone()).or_insert(index);
            if first != index {
                let first = list.item(first).to_string();
                errors.add(&path.field("name"), Problem::SameName { key: key.clone(), first });
            }
        }
        instances.extend(instance::read(identity, fields, references, errors));
    }
    instances
}
