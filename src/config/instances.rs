//! The fleet: `instances.json` and the files of other tools, each read as a whole or refused as a whole.
//!
//! Every error is found in one reading, each with the path of what is wrong. Secrets come out resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::discovery::{self, Discovery, TargetFiles, TargetGroup, TargetPlace};
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, Errors, JsonErrors, MAX_ERRORS, Place, Problem, Source};
use super::in_force::{self, At, Before, FileRead, InForce, MAX_INSTANCES};
use super::json::{Fields, Json, JsonPath};
use super::keyring::Keyring;
use super::provided::{self, InstanceSource, Provided, ProvidedEntry, ProvidedFile};
use super::reference::{Authorities, References};
use super::target_paths::{self, PathPattern};
use super::{DataDir, entry, files, instance};
use crate::engine::{InstanceKey, Millis};
use crate::targets::Target;

pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

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

/// What came of reading the files.
pub(super) struct Reading {
    /// What is in force by them, and what is wrong with them.
    pub(super) in_force: InForce,
    /// Whether there is an `instances.json`.
    pub(super) is_there: bool,
    /// What it holds, if it could be read at all.
    pub(super) content: Option<Content>,
    /// The files of other tools, and the folders that further ones would appear in.
    pub(super) provided_files: BTreeSet<PathBuf>,
    /// The files that these refer to, as far as they could be read.
    pub(super) referenced_files: BTreeSet<PathBuf>,
}

impl Reading {
    /// The fleet, unless something is wrong with any of the files.
    pub(super) fn into_whole(self) -> Result<(Vec<Instance>, Provided), ConfigErrors> {
        match self.in_force.errors() {
            Some(errors) => Err(errors),
            None => Ok((self.in_force.instances, Provided { parts: self.in_force.provided })),
        }
    }
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
pub(super) fn read(around: Surroundings<'_>, before: Before<'_>) -> Reading {
    let path = around.data_dir.instances_file();
    let content = match files::read(&path, MAX_FILE_BYTES) {
        Ok(None) if before.had_inventory => Err(Problem::Deleted),
        content => content,
    };
    read_with(content, around, before, Authorities::new())
}

/// Reads the files when `instances.json` is to hold this, once files of `authorities` are there.
pub(super) fn read_content(
    content: Content,
    around: Surroundings<'_>,
    before: Before<'_>,
    authorities: Authorities,
) -> Reading {
    read_with(Ok(Some(content)), around, before, authorities)
}

fn read_with(
    content: Result<Option<Content>, Problem>,
    around: Surroundings<'_>,
    before: Before<'_>,
    authorities: Authorities,
) -> Reading {
    let is_there = !matches!(content, Ok(None) | Err(Problem::Deleted));
    let mut reader = FleetReader::new(around, authorities);
    let content = reader.own_file(content);
    reader.provided();
    reader.finish(content, is_there, before)
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

/// A file with instances, as far as it was read.
struct Holder<'a> {
    read: FileRead,
    /// What is known of it if another tool keeps it.
    provided: Option<&'a ProvidedFile>,
    /// Where each key stands.
    seen: BTreeMap<InstanceKey, At>,
}

impl<'a> Holder<'a> {
    fn new(path: PathBuf, source: InstanceSource, provided: Option<&'a ProvidedFile>) -> Self {
        let bytes = provided.map_or(0, |file| file.content.len() as u64);
        let (instances, entries, errors) = (Vec::new(), Vec::new(), Errors::default());
        let read = FileRead { path: path.into(), source, bytes, instances, entries, errors };
        Self { read, provided, seen: BTreeMap::new() }
    }
}

/// Reads one file after the other.
struct FleetReader<'a> {
    around: Surroundings<'a>,
    references: References<'a>,
    files: Vec<FileRead>,
    /// How many instances and how many errors they hold.
    instances: usize,
    errors: usize,
    /// The files of other tools, and the folders that further ones would appear in.
    provided_files: BTreeSet<PathBuf>,
    /// Where further files could not be looked for.
    unlisted: Vec<PathPattern>,
    /// How many bytes the files of other tools may still hold.
    room: u64,
}

impl<'a> FleetReader<'a> {
    fn new(around: Surroundings<'a>, authorities: Authorities) -> Self {
        Self {
            around,
            references: around.references().with_authorities(authorities),
            files: Vec::new(),
            instances: 0,
            errors: 0,
            provided_files: BTreeSet::new(),
            unlisted: Vec::new(),
            room: provided::MAX_BYTES,
        }
    }

    fn finish(self, content: Option<Content>, is_there: bool, before: Before<'_>) -> Reading {
        Reading {
            in_force: in_force::judge(self.files, &self.unlisted, before, self.around.keys),
            is_there,
            content,
            provided_files: self.provided_files,
            referenced_files: self.references.into_files(),
        }
    }

    fn add(&mut self, mut read: FileRead) {
        // One of them has to stay, for the file to be refused.
        read.errors.shorten(MAX_ERRORS.saturating_sub(self.errors).max(1));
        self.errors += read.errors.len();
        self.instances += read.instances.len();
        self.files.push(read);
    }

    fn add_broken(&mut self, path: &Path, problem: Problem) {
        let source = provided::source_of(self.around.data_dir, path);
        let mut holder = Holder::new(path.to_owned(), source, None);
        holder.read.errors.append(file_error(path, problem).into());
        self.add(holder.read);
    }

    fn own_file(&mut self, content: Result<Option<Content>, Problem>) -> Option<Content> {
        let path = self.around.data_dir.instances_file();
        let mut holder = Holder::new(path.clone(), InstanceSource::Inventory, None);
        let content = content.unwrap_or_else(|problem| {
            holder.read.errors.append(file_error(&path, problem).into());
            None
        });
        if let Some(content) = &content {
            self.inventory(content, &mut holder);
        }
        self.add(holder.read);
        content
    }

    /// Reads what other tools provide.
    fn provided(&mut self) {
        let fragments = PathPattern::fragments(self.around.data_dir);
        for path in self.files_of(&fragments) {
            self.provided_file(path, |reader, file, holder| reader.inventory(&file.content, holder));
        }
        for (path, (item, other)) in self.target_files() {
            let named_twice = other.map(|other| {
                let both = format!("discovery.files[{item}] and discovery.files[{other}]");
                Problem::Rule(format!("is named by {both} of system.json; let one of them name it"))
            });
            let item = &self.around.discovery.items[item];
            self.provided_file(path.clone(), |reader, file, holder| {
                if let Some(problem) = named_twice {
                    holder.read.errors.append(file_error(&path, problem).into());
                }
                reader.targets(&file.content, item, holder);
            });
        }
    }

    /// The files that a pattern names; none if they cannot be listed, which is told.
    fn files_of(&mut self, pattern: &PathPattern) -> Vec<PathBuf> {
        self.provided_files.insert(pattern.watched().to_owned());
        pattern.files().unwrap_or_else(|problem| {
            self.add_broken(pattern.watched(), problem);
            self.unlisted.push(pattern.clone());
            Vec::new()
        })
    }

    /// The files of targets, each with the item that names it, and another one that does too.
    fn target_files(&mut self) -> BTreeMap<PathBuf, (usize, Option<usize>)> {
        let mut found: BTreeMap<PathBuf, (usize, Option<usize>)> = BTreeMap::new();
        for (number, item) in self.around.discovery.items.iter().enumerate() {
            for pattern in &item.paths {
                for path in self.files_of(pattern) {
                    let (first, other) = found.entry(path).or_insert((number, None));
                    if *first != number {
                        other.get_or_insert(number);
                    }
                }
            }
        }
        found
    }

    /// Reads a file of another tool, if it is there and there is room for what it holds.
    fn provided_file(&mut self, path: PathBuf, read: impl FnOnce(&mut Self, &ProvidedFile, &mut Holder<'_>)) {
        self.provided_files.insert(path.clone());
        match ProvidedFile::read(&path, self.room) {
            Ok(None) => {}
            Ok(Some(file)) => {
                self.room -= file.content.len() as u64;
                let source = provided::source_of(self.around.data_dir, &path);
                let mut holder = Holder::new(path, source, Some(&file));
                read(self, &file, &mut holder);
                self.add(holder.read);
            }
            Err(Problem::TooLarge { .. }) => {
                self.add_broken(&path, Problem::TooLargeTogether { limit: provided::MAX_BYTES });
            }
            Err(problem) => self.add_broken(&path, problem),
        }
    }

    /// Reads a file of targets.
    fn targets(&mut self, content: &[u8], item: &TargetFiles, holder: &mut Holder<'_>) {
        let path = Arc::clone(&holder.read.path);
        let mut errors = JsonErrors::new(Source::File(&path));
        let json = errors.keep(&JsonPath::Root, target_paths::parse(&path, content));
        let groups = json.map(|json| discovery::read_groups(json, &mut errors)).unwrap_or_default();
        if let Err(broken) = errors.or(()) {
            holder.read.errors.append(broken);
        }
        let system_file = self.around.data_dir.system_file();
        // What targets share is wrong with each of them, and told once.
        let mut told: Vec<ConfigError> = Vec::new();
        for (group, TargetGroup { targets, labels }) in groups {
            told.retain(|error| error.place.file() == Some(system_file.as_path()));
            let labelled = labels.iter().any(|(label, _)| *label == discovery::NAME_LABEL);
            for (target, address) in targets.iter().enumerate() {
                let here = TargetPlace { system_file: &system_file, file: &path, group, target, labels: &labels };
                let read = self.target(item.entry(address, &labels), At::Target { group, target, labelled }, holder);
                for error in read.err().iter().flat_map(ConfigErrors::iter) {
                    let error = item.relocate(error, &here);
                    if told.contains(&error) {
                        continue;
                    }
                    if error.place != here.place() {
                        told.push(error.clone());
                    }
                    holder.read.errors.append(error.into());
                }
            }
        }
    }

    fn target(&mut self, entry: Json, at: At, holder: &mut Holder<'_>) -> Result<(), ConfigErrors> {
        let path = Arc::clone(&holder.read.path);
        let mut errors = JsonErrors::new(Source::File(&path));
        if self.instances + holder.read.instances.len() < MAX_INSTANCES {
            self.entry(entry, &JsonPath::Root, holder, at, &mut errors);
        } else {
            errors.add(&JsonPath::Root, Problem::TooMany(MAX_INSTANCES));
        }
        errors.or(())
    }

    /// Reads a file of the form of `instances.json`.
    fn inventory(&mut self, content: &[u8], holder: &mut Holder<'_>) {
        let path = Arc::clone(&holder.read.path);
        let mut errors = JsonErrors::new(Source::File(&path));
        if let Some(json) = errors.keep(&JsonPath::Root, Json::parse(content)) {
            self.document(json, holder, &mut errors);
        }
        if let Err(broken) = errors.or(()) {
            holder.read.errors.append(broken);
        }
    }

    fn document(&mut self, json: Json, holder: &mut Holder<'_>, errors: &mut JsonErrors<'_>) {
        let Some(mut document) = Fields::open(json, &JsonPath::Root, errors) else { return };
        let room = MAX_INSTANCES.saturating_sub(self.instances);
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
        holder: &mut Holder<'_>,
        at: At,
        errors: &mut JsonErrors<'_>,
    ) {
        if let Some(file) = holder.provided {
            file.judge_secrets(&mut entry, &holder.read.path, path, errors);
        }
        let kept = holder.read.source.is_provided().then(|| entry.clone());
        let Some(mut fields) = Fields::open(entry, path, errors) else { return };
        let identity = instance::read_identity(&mut fields, errors);
        let first = identity.key.clone().map(|key| *holder.seen.entry(key).or_insert(at));
        let again = first.filter(|first| *first != at).zip(identity.key.clone());
        if let Some((first, key)) = &again {
            errors.add(&path.field("name"), Problem::SameName { key: key.clone(), first: first.to_string() });
        }
        let Some(mut instance) = instance::read(identity, fields, &mut self.references, errors) else { return };
        if again.is_some() {
            return;
        }
        instance.source = holder.read.source.clone();
        if let Some(kept) = kept {
            let key = instance.target.key.clone();
            let sealed = match self.around.keys {
                Some(keys) => errors.keep(path, entry::sealed(kept, &key, keys)),
                None => Some(kept),
            };
            let source = holder.read.source.clone();
            holder.read.entries.extend(sealed.map(|entry| ProvidedEntry { key, source, entry }));
        }
        holder.read.instances.push((at, instance));
    }
}
