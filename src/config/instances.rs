//! The fleet: `instances.json` and the files of other tools, read as a whole or refused as a whole.
//!
//! Every error is found in one reading, each with the path of what is wrong. Secrets come out resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::discovery::{self, Discovery, TargetFiles, TargetGroup, TargetPlace};
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, Errors, JsonErrors, Place, Problem, Source};
use super::json::{Fields, Json, JsonPath};
use super::keyring::Keyring;
use super::provided::{self, InstanceSource, Provided, ProvidedEntry, ProvidedFile};
use super::reference::{Authorities, References};
use super::{DataDir, entry, files, instance};
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
    /// The file that it stands in.
    pub source: InstanceSource,
}

/// The content of a file, which may hold secrets.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// What came of reading the files, and the files that they refer to, which are known even if they are refused.
pub(super) struct Reading {
    /// The fleet, in the order of the files.
    pub(super) instances: Result<Vec<Instance>, ConfigErrors>,
    /// Whether there is an `instances.json`.
    pub(super) is_there: bool,
    /// What it holds, if it could be read at all.
    pub(super) content: Option<Content>,
    /// What other tools provide, as far as it could be read.
    pub(super) provided: Provided,
    pub(super) referenced_files: BTreeSet<PathBuf>,
}

/// What is around an inventory: it refers to files and variables, its secrets are encrypted, and others stand beside it.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Where it is; relative paths are taken from there.
    pub(super) data_dir: &'a DataDir,
    pub(super) environment: &'a Environment,
    pub(super) keys: Option<&'a Keyring>,
    pub(super) discovery: &'a Discovery,
}

impl<'a> Surroundings<'a> {
    fn references(self) -> References<'a> {
        References::new(self.data_dir.path(), self.environment, self.keys)
    }
}

/// Reads the files.
pub(super) fn read(around: Surroundings<'_>) -> Reading {
    let file = around.data_dir.instances_file();
    match files::read(&file, MAX_FILE_BYTES) {
        Ok(content) => read_content(content, around, Authorities::new()),
        Err(problem) => {
            let mut reader = FleetReader::new(around, Authorities::new());
            reader.errors.append(file_error(&file, problem).into());
            reader.provided();
            reader.finish(None, true)
        }
    }
}

/// Reads the files when `instances.json` holds this, or is to hold it once files of `authorities` are there.
pub(super) fn read_content(content: Option<Content>, around: Surroundings<'_>, authorities: Authorities) -> Reading {
    let mut reader = FleetReader::new(around, authorities);
    if let Some(content) = &content {
        let path = around.data_dir.instances_file();
        reader.inventory(content, &Holder { path: path.into(), source: InstanceSource::Inventory, provided: None });
    }
    reader.provided();
    let is_there = content.is_some();
    reader.finish(content, is_there)
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

/// A file with instances.
struct Holder<'a> {
    path: Arc<Path>,
    source: InstanceSource,
    /// What is known of it if another tool keeps it.
    provided: Option<&'a ProvidedFile>,
}

/// Where an instance stands.
#[derive(Clone)]
struct Position {
    file: Arc<Path>,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    /// In the list `instances`.
    Entry(usize),
    /// A target, in a group of targets.
    Target(usize, usize),
}

/// Reads one file after the other.
struct FleetReader<'a> {
    around: Surroundings<'a>,
    references: References<'a>,
    errors: Errors,
    seen: BTreeMap<InstanceKey, Position>,
    instances: Vec<Instance>,
    provided: Provided,
    /// How many bytes the files of other tools may still hold.
    room: u64,
}

impl<'a> FleetReader<'a> {
    fn new(around: Surroundings<'a>, authorities: Authorities) -> Self {
        Self {
            around,
            references: around.references().with_authorities(authorities),
            errors: Errors::default(),
            seen: BTreeMap::new(),
            instances: Vec::new(),
            provided: Provided::default(),
            room: provided::MAX_BYTES,
        }
    }

    fn finish(self, content: Option<Content>, is_there: bool) -> Reading {
        Reading {
            instances: self.errors.or(self.instances),
            is_there,
            content,
            provided: self.provided,
            referenced_files: self.references.into_files(),
        }
    }

    /// Reads what other tools provide.
    fn provided(&mut self) {
        let folder = self.around.data_dir.instances_folder();
        let fragments = provided::fragments(self.around.data_dir);
        let fragments = fragments.unwrap_or_else(|problem| {
            self.errors.append(file_error(&folder, problem).into());
            Vec::new()
        });
        self.provided.files.insert(folder);
        for path in fragments {
            self.provided_file(path, |reader, file, holder| reader.inventory(&file.content, holder));
        }
        for (path, item) in self.target_files() {
            self.provided_file(path, |reader, file, holder| reader.targets(&file.content, item, holder));
        }
    }

    /// The files of targets, each with the item that names it.
    fn target_files(&mut self) -> Vec<(PathBuf, &'a TargetFiles)> {
        let items = &self.around.discovery.items;
        let mut found: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (number, item) in items.iter().enumerate() {
            for pattern in &item.paths {
                self.provided.files.insert(pattern.watched().to_owned());
                let files = pattern.files().unwrap_or_else(|problem| {
                    self.errors.append(file_error(pattern.watched(), problem).into());
                    Vec::new()
                });
                for path in files {
                    let first = *found.entry(path.clone()).or_insert(number);
                    if first != number {
                        let both = format!("discovery.files[{first}] and discovery.files[{number}]");
                        let problem =
                            Problem::Rule(format!("is named by {both} of system.json; let one of them name it"));
                        self.errors.append(file_error(&path, problem).into());
                    }
                }
            }
        }
        found.into_iter().map(|(path, number)| (path, &items[number])).collect()
    }

    /// Reads a file of another tool, if it is there and there is room for what it holds.
    fn provided_file(&mut self, path: PathBuf, read: impl FnOnce(&mut Self, &ProvidedFile, &Holder<'_>)) {
        self.provided.files.insert(path.clone());
        match ProvidedFile::read(&path, self.room) {
            Ok(None) => {}
            Ok(Some(file)) => {
                self.room -= file.content.len() as u64;
                let source = provided::source_of(self.around.data_dir, &path);
                read(self, &file, &Holder { path: path.into(), source, provided: Some(&file) });
            }
            Err(Problem::TooLarge { .. }) => {
                let problem = Problem::TooLargeTogether { limit: provided::MAX_BYTES };
                self.errors.append(file_error(&path, problem).into());
            }
            Err(problem) => self.errors.append(file_error(&path, problem).into()),
        }
    }

    /// Reads a file of targets.
    fn targets(&mut self, content: &[u8], item: &TargetFiles, holder: &Holder<'_>) {
        let mut errors = JsonErrors::new(Source::File(&holder.path));
        let json = errors.keep(&JsonPath::Root, Json::parse(content));
        let groups = json.map(|json| discovery::read_groups(json, &mut errors)).unwrap_or_default();
        if let Err(broken) = errors.or(()) {
            self.errors.append(broken);
        }
        let system_file = self.around.data_dir.system_file();
        // What targets share is wrong with each of them, and told once.
        let mut told: Vec<ConfigError> = Vec::new();
        for (group, TargetGroup { targets, labels }) in groups {
            told.retain(|error| error.place.file() == Some(system_file.as_path()));
            for (target, address) in targets.iter().enumerate() {
                let here =
                    TargetPlace { system_file: &system_file, file: &holder.path, group, target, labels: &labels };
                let read = self.target(item.entry(address, &labels), At::Target(group, target), holder);
                for error in read.err().iter().flat_map(ConfigErrors::iter) {
                    let error = item.relocate(error, &here);
                    if told.contains(&error) {
                        continue;
                    }
                    if error.place != here.place() {
                        told.push(error.clone());
                    }
                    self.errors.append(error.into());
                }
            }
        }
    }

    fn target(&mut self, entry: Json, at: At, holder: &Holder<'_>) -> Result<(), ConfigErrors> {
        let mut errors = JsonErrors::new(Source::File(&holder.path));
        self.entry(entry, &JsonPath::Root, holder, at, &mut errors);
        if self.instances.len() > MAX_INSTANCES {
            self.instances.truncate(MAX_INSTANCES);
            errors.add(&JsonPath::Root, Problem::TooMany(MAX_INSTANCES));
        }
        errors.or(())
    }

    /// Reads a file of the form of `instances.json`.
    fn inventory(&mut self, content: &[u8], holder: &Holder<'_>) {
        let mut errors = JsonErrors::new(Source::File(&holder.path));
        if let Some(json) = errors.keep(&JsonPath::Root, Json::parse(content)) {
            self.document(json, holder, &mut errors);
        }
        if let Err(broken) = errors.or(()) {
            self.errors.append(broken);
        }
    }

    fn document(&mut self, json: Json, holder: &Holder<'_>, errors: &mut JsonErrors<'_>) {
        let Some(mut document) = Fields::open(json, &JsonPath::Root, errors) else { return };
        let room = MAX_INSTANCES.saturating_sub(self.instances.len());
        let items = document.require("instances", errors, |list| list.into_array_of(room));
        document.finish(errors);
        let list = JsonPath::Root.field("instances");
        for (index, item) in items.unwrap_or_default().into_iter().enumerate() {
            self.entry(item, &list.item(index), holder, At::Entry(index), errors);
        }
    }

    fn entry(
        &mut self,
        mut entry: Json,
        path: &JsonPath<'_>,
        holder: &Holder<'_>,
        at: At,
        errors: &mut JsonErrors<'_>,
    ) {
        if let Some(file) = holder.provided {
            file.judge_secrets(&mut entry, &holder.path, path, errors);
        }
        let kept = holder.source.is_provided().then(|| entry.clone());
        let Some(mut fields) = Fields::open(entry, path, errors) else { return };
        let identity = instance::read_identity(&mut fields, errors);
        if let Some(key) = &identity.key {
            let here = Position { file: Arc::clone(&holder.path), at };
            if let Some(first) = self.seen.get(key) {
                let first = first.seen_from(&holder.path);
                errors.add(&path.field("name"), Problem::SameName { key: key.clone(), first });
            } else {
                self.seen.insert(key.clone(), here);
            }
        }
        let Some(mut instance) = instance::read(identity, fields, &mut self.references, errors) else { return };
        instance.source = holder.source.clone();
        if let Some(kept) = kept {
            let key = instance.target.key.clone();
            let sealed = match self.around.keys {
                Some(keys) => errors.keep(path, entry::sealed(kept, &key, keys)),
                None => Some(kept),
            };
            let source = holder.source.clone();
            self.provided.entries.extend(sealed.map(|entry| ProvidedEntry { key, source, entry }));
        }
        self.instances.push(instance);
    }
}

impl Position {
    /// As it is told to who looks into `file`.
    fn seen_from(&self, file: &Path) -> String {
        let at = match self.at {
            At::Entry(index) => format!("instances[{index}]"),
            At::Target(group, target) => format!("[{group}].targets[{target}]"),
        };
        if *self.file == *file { at } else { format!("{}: {at}", self.file.display()) }
    }
}
