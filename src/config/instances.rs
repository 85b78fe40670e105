//! `instances.json`: the fleet, read as a whole or refused as a whole.
//!
//! Every error is found in one reading, each with the path of what is wrong. Secrets come out resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{ConfigErrors, FileErrors, Problem};
use super::files;
use super::instance;
use super::json::{Fields, Json, JsonPath};
use super::reference::References;
use crate::engine::{InstanceKey, Millis};
use crate::targets::Target;

const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
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

/// What came of reading the file, and the files that it refers to, which are known even if it is refused.
pub(super) struct Reading {
    /// The fleet; `None` if there is no file.
    pub(super) instances: Result<Option<Vec<Instance>>, ConfigErrors>,
    pub(super) referenced_files: BTreeSet<PathBuf>,
}

/// Reads the file; paths in it are taken from the folder that it is in.
pub(super) fn read(file: &Path, environment: &Environment) -> Reading {
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    let mut references = References::new(folder, environment);
    let instances = read_file(file, &mut references);
    Reading { instances, referenced_files: references.into_files() }
}

fn read_file(file: &Path, references: &mut References<'_>) -> Result<Option<Vec<Instance>>, ConfigErrors> {
    let mut errors = FileErrors::new(file);
    let json = match files::read(file, MAX_FILE_BYTES) {
        Ok(None) => return Ok(None),
        Ok(Some(content)) => Json::parse(&content),
        Err(problem) => Err(problem),
    };
    let instances = errors.keep(&JsonPath::Root, json).map(|json| read_document(json, references, &mut errors));
    errors.or(instances)
}

fn read_document(json: Json, references: &mut References<'_>, errors: &mut FileErrors<'_>) -> Vec<Instance> {
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
