//! Which content of each file of the fleet is in force: what it holds now, or what was accepted of it before.
//!
//! A file that is broken, or claims a key that another one holds, keeps what it held, and the others go on.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::discovery::NAME_LABEL;
use super::entry;
use super::error::{ConfigErrors, Errors, MAX_ERRORS, Place, Problem};
use super::instances::Instance;
use super::json::Json;
use super::keyring::Keyring;
use super::provided::{self, InstanceSource, Provided, ProvidedEntry, ProvidedPart};
use super::target_paths::PathPattern;
use crate::engine::InstanceKey;

/// How many instances there may be.
pub(super) const MAX_INSTANCES: usize = 1_000_000;

/// What was in force before the files were read.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    /// The fleet, without two of one key.
    pub(super) instances: &'a [Instance],
    /// What of it the files of other tools held.
    pub(super) provided: &'a Provided,
    /// Whether there ever was an `instances.json`; one that never was is not missed.
    pub(super) had_inventory: bool,
}

/// One file of the fleet as it was read.
pub(super) struct FileRead {
    pub(super) path: Arc<Path>,
    pub(super) source: InstanceSource,
    /// How many bytes of a file of another tool were read.
    pub(super) bytes: u64,
    pub(super) instances: Vec<(At, Instance)>,
    /// The entries of the instances, if another tool keeps the file.
    pub(super) entries: Vec<ProvidedEntry>,
    /// What is wrong with it by itself.
    pub(super) errors: Errors,
}

/// Where an instance stands in its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the list `instances`.
    Entry(usize),
    /// A target, in a group of targets; a label may give it its name.
    Target { group: usize, target: usize, labelled: bool },
}

impl At {
    /// Where its name stands.
    pub(super) fn name(self) -> String {
        match self {
            Self::Target { group, labelled: true, .. } => format!("[{group}].labels.{NAME_LABEL}"),
            Self::Target { .. } => self.to_string(),
            Self::Entry(_) => format!("{self}.name"),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(index) => write!(f, "instances[{index}]"),
            Self::Target { group, target, .. } => write!(f, "[{group}].targets[{target}]"),
        }
    }
}

/// What is in force once the files were read.
pub(super) struct InForce {
    /// The fleet: that of `instances.json`, then that of the files of other tools in the order of their paths.
    pub(super) instances: Vec<Instance>,
    pub(super) provided: BTreeMap<PathBuf, ProvidedPart>,
    /// What is wrong with `instances.json`.
    pub(super) inventory_errors: Option<ConfigErrors>,
    /// What is wrong with the files of other tools, and with their folders.
    pub(super) provided_errors: Option<ConfigErrors>,
}

impl InForce {
    /// What is wrong with any of the files.
    pub(super) fn errors(&self) -> Option<ConfigErrors> {
        ConfigErrors::of_both(self.inventory_errors.as_ref(), self.provided_errors.as_ref())
    }
}

/// Judges the files. Those of the `unlisted` patterns could not be looked for; `keys` seal what is kept.
pub(super) fn judge(
    files: Vec<FileRead>,
    unlisted: &[PathPattern],
    before: Before<'_>,
    keys: Option<&Keyring>,
) -> InForce {
    let mut judge = Judge::new(files, unlisted, before);
    judge.settle_claims();
    judge.settle_bounds();
    judge.finish(keys)
}

/// Who holds a key: by what stands at a place of a file, or by what was accepted of the file before.
#[derive(Clone, Copy)]
struct Claim {
    file: usize,
    at: Option<At>,
}

struct Judge<'a> {
    before: Before<'a>,
    before_by_key: OnceCell<BTreeMap<&'a InstanceKey, &'a Instance>>,
    files: Vec<FileRead>,
    /// Of each file, whether what it held before is in force.
    kept: Vec<bool>,
    claims: BTreeMap<InstanceKey, Claim>,
    /// How many errors there are, of all files.
    told: usize,
}

impl<'a> Judge<'a> {
    fn new(mut files: Vec<FileRead>, unlisted: &[PathPattern], before: Before<'a>) -> Self {
        let is_read = |path: &Path| files.iter().any(|file| *file.path == *path);
        let known = before.provided.parts.iter();
        let unseen = known.filter(|(path, _)| unlisted.iter().any(|pattern| pattern.takes(path)) && !is_read(path));
        let unseen: Vec<FileRead> = unseen.map(|(path, part)| FileRead::unseen(path, part)).collect();
        let mut kept: Vec<bool> = files.iter().map(|file| !file.errors.is_empty()).collect();
        kept.resize(files.len() + unseen.len(), true);
        files.extend(unseen);
        let told = files.iter().map(|file| file.errors.len()).sum();
        Self { before, before_by_key: OnceCell::new(), files, kept, claims: BTreeMap::new(), told }
    }

    /// Has each key held by one file. Who held it before goes on to, else whoever comes first; the other keeps what it
    /// held, and for good, so that this ends.
    fn settle_claims(&mut self) {
        let broken: Vec<usize> = (0..self.files.len()).filter(|file| self.kept[*file]).collect();
        self.keep(broken.clone());
        for file in (0..self.files.len()).filter(|file| broken.binary_search(file).is_err()) {
            for index in 0..self.files[file].instances.len() {
                let (claim, key) = self.claim(file, index);
                let Some(first) = self.claims.get(&key).copied() else {
                    self.claims.insert(key, claim);
                    continue;
                };
                if !self.kept[first.file] && self.held_before(file, &key) {
                    self.claims.insert(key.clone(), claim);
                    self.refuse(first, claim, key);
                } else {
                    self.refuse(claim, first, key);
                }
            }
        }
        let refused = (0..self.files.len()).filter(|file| !self.kept[*file] && !self.files[*file].errors.is_empty());
        self.keep(refused.collect());
        // Whoever mends a file wants to know all that is wrong with it.
        for file in broken {
            for index in 0..self.files[file].instances.len() {
                let (claim, key) = self.claim(file, index);
                if let Some(first) = self.claims.get(&key).copied().filter(|first| first.file != file) {
                    self.refuse(claim, first, key);
                }
            }
        }
    }

    /// What an instance of a file claims.
    fn claim(&self, file: usize, index: usize) -> (Claim, InstanceKey) {
        let (at, instance) = &self.files[file].instances[index];
        (Claim { file, at: Some(*at) }, instance.target.key.clone())
    }

    /// Has what these files held before in force, and likewise of those that claim something of it.
    fn keep(&mut self, mut files: Vec<usize>) {
        while let Some(file) = files.pop() {
            self.kept[file] = true;
            for (_, instance) in &self.files[file].instances {
                let key = &instance.target.key;
                if self.claims.get(key).is_some_and(|claim| claim.file == file) {
                    self.claims.remove(key);
                }
            }
            for key in self.keys_before(file) {
                let claim = Claim { file, at: None };
                let other = self.claims.insert(key.clone(), claim);
                if let Some(other) = other.filter(|other| !self.kept[other.file]) {
                    if self.files[other.file].errors.is_empty() {
                        files.push(other.file);
                    }
                    self.refuse(other, claim, key);
                }
            }
        }
    }

    /// Has files that grew keep what they held, from the last on, until all of them are within their bounds.
    fn settle_bounds(&mut self) {
        loop {
            let files = 0..self.files.len();
            let total = files.clone().map(|file| self.size(file, self.kept[file]));
            let (instances, bytes) = total.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
            let (too_many, too_large) = (instances > MAX_INSTANCES, bytes > provided::MAX_BYTES);
            let grew = |file: &usize| {
                let ((instances, bytes), before) = (self.size(*file, false), self.size(*file, true));
                (too_many && instances > before.0) || (too_large && bytes > before.1)
            };
            let Some(last) = files.rev().find(|file| !self.kept[*file] && grew(file)) else { return };
            let problem = if too_many {
                Problem::TooMany(MAX_INSTANCES)
            } else {
                Problem::TooLargeTogether { limit: provided::MAX_BYTES }
            };
            self.tell(last, String::new(), problem);
            self.keep(vec![last]);
        }
    }

    /// The instances and the bytes of what a file holds, or held before.
    fn size(&self, file: usize, before: bool) -> (usize, u64) {
        let read = &self.files[file];
        match self.before.provided.parts.get(&*read.path) {
            _ if !before => (read.instances.len(), read.bytes),
            Some(part) => (part.entries.len(), part.bytes),
            None if read.source.is_provided() => (0, 0),
            None => (self.own_before().count(), 0),
        }
    }

    fn own_before(&self) -> impl Iterator<Item = &'a Instance> + use<'a> {
        self.before.instances.iter().filter(|instance| !instance.source.is_provided())
    }

    fn keys_before(&self, file: usize) -> Vec<InstanceKey> {
        match self.before.provided.parts.get(&*self.files[file].path) {
            Some(part) => part.entries.iter().map(|entry| entry.key.clone()).collect(),
            None if self.files[file].source.is_provided() => Vec::new(),
            None => self.own_before().map(|instance| instance.target.key.clone()).collect(),
        }
    }

    fn found_before(&self, key: &InstanceKey) -> Option<&'a Instance> {
        let instances = self.before.instances.iter();
        let by_key = self.before_by_key.get_or_init(|| instances.map(|it| (&it.target.key, it)).collect());
        by_key.get(key).copied()
    }

    fn held_before(&self, file: usize, key: &InstanceKey) -> bool {
        self.found_before(key).is_some_and(|instance| instance.source == self.files[file].source)
    }

    fn refuse(&mut self, claim: Claim, first: Claim, key: InstanceKey) {
        let Claim { file, at: Some(at) } = claim else { return };
        let holder = self.files[first.file].path.display();
        let first = match first.at {
            Some(at) => format!("{holder}: {at}"),
            None => format!("{holder} as it was before it was broken"),
        };
        self.tell(file, at.name(), Problem::SameName { key, first });
    }

    fn tell(&mut self, file: usize, at: String, problem: Problem) {
        let FileRead { path, errors, .. } = &mut self.files[file];
        if self.told >= MAX_ERRORS && !errors.is_empty() {
            return errors.omit();
        }
        self.told += 1;
        errors.add(Place::File { file: path.to_path_buf(), at }, problem);
    }

    fn finish(mut self, keys: Option<&Keyring>) -> InForce {
        let files = std::mem::take(&mut self.files);
        let (mut own, mut inventory_errors, mut provided_errors) = (Vec::new(), None, Errors::default());
        let mut provided = BTreeMap::new();
        for (file, kept) in files.into_iter().zip(self.kept.clone()) {
            let errors = file.errors.or(()).err();
            let instances = file.instances.into_iter().map(|(_, instance)| instance);
            if !file.source.is_provided() {
                inventory_errors = errors;
                own = if kept { self.own_before().cloned().collect() } else { instances.collect() };
                continue;
            }
            if let Some(errors) = errors {
                provided_errors.append(errors);
            }
            let path = file.path.to_path_buf();
            if !kept {
                let part = ProvidedPart { bytes: file.bytes, entries: file.entries };
                provided.insert(path, (instances.collect(), part));
            } else if let Some(part) = self.before.provided.parts.get(&path) {
                provided.insert(path, self.as_before(part, keys));
            }
        }
        let provided_errors = provided_errors.or(()).err();
        let mut in_force = InForce { instances: own, provided: BTreeMap::new(), inventory_errors, provided_errors };
        for (path, (instances, part)) in provided {
            in_force.instances.extend(instances);
            in_force.provided.insert(path, part);
        }
        in_force
    }

    /// What a file held before. Its secrets are sealed anew: the keys may be others by now.
    fn as_before(&self, part: &ProvidedPart, keys: Option<&Keyring>) -> (Vec<Instance>, ProvidedPart) {
        let mut instances = Vec::new();
        let mut entries = Vec::new();
        for ProvidedEntry { key, source, entry } in &part.entries {
            let Some(instance) = self.found_before(key) else { continue };
            let entry = keys.map_or_else(|| entry.clone(), |keys| sealed_anew(entry.clone(), instance, keys));
            entries.push(ProvidedEntry { key: key.clone(), source: source.clone(), entry });
            instances.push(instance.clone());
        }
        (instances, ProvidedPart { bytes: part.bytes, entries })
    }
}

impl FileRead {
    /// A file of a folder that cannot be listed.
    fn unseen(path: &Path, part: &ProvidedPart) -> Self {
        let source = part.entries.first().map_or(InstanceSource::Provided("".into()), |entry| entry.source.clone());
        let (instances, entries) = (Vec::new(), Vec::new());
        Self { path: path.into(), source, bytes: 0, instances, entries, errors: Errors::default() }
    }
}

/// The entry of an instance with its secret encrypted by these keys; without it if that cannot be.
fn sealed_anew(mut entry: Json, instance: &Instance, keys: &Keyring) -> Json {
    for (_, value) in entry::secrets_mut(&mut entry) {
        if let Some(secret) = instance.target.access.secret().filter(|_| entry::holds_secret(value)) {
            *value = Json::Text(secret.expose().to_owned());
        }
    }
    entry::sealed(entry.clone(), &instance.target.key, keys).unwrap_or_else(|_| entry::masked(entry))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::targets::{Access, Target, TcpCheck};

    const OWN: &str = "/data/instances.json";

    fn instance(name: u8, source: &InstanceSource) -> Instance {
        let key: InstanceKey = format!("tcp::{name}").parse().unwrap();
        let access = Access::Tcp(TcpCheck { host: "a".into(), port: 1 });
        let target = Target { key, display_name: "a".into(), access };
        let (enabled, interval, timeout, revision) = (true, None, None, 0);
        Instance { target, enabled, interval, timeout, revision, source: source.clone() }
    }

    fn read(path: &str, names: impl IntoIterator<Item = u8>, broken: bool) -> FileRead {
        let source = if path == OWN { InstanceSource::Inventory } else { InstanceSource::Provided(path.into()) };
        let instances: Vec<_> = names.into_iter().map(|name| instance(name, &source)).collect();
        let mut errors = Errors::default();
        if broken {
            errors.add(Place::File { file: path.into(), at: String::new() }, Problem::Missing);
        }
        let entry = |it: &Instance| ProvidedEntry {
            key: it.target.key.clone(),
            source: source.clone(),
            entry: Json::Object(Vec::new()),
        };
        let entries = if path == OWN { Vec::new() } else { instances.iter().map(entry).collect() };
        let instances = instances.into_iter().enumerate().map(|(at, it)| (At::Entry(at), it)).collect();
        FileRead { path: Path::new(path).into(), source, bytes: 0, instances, entries, errors }
    }

    #[derive(Default)]
    struct World {
        instances: Vec<Instance>,
        provided: Provided,
    }

    impl World {
        fn read(&mut self, files: Vec<FileRead>) -> (Option<ConfigErrors>, Option<ConfigErrors>) {
            let before = Before { instances: &self.instances, provided: &self.provided, had_inventory: true };
            let now = judge(files, &[], before, None);
            (self.instances, self.provided) = (now.instances, Provided { parts: now.provided });
            (now.inventory_errors, now.provided_errors)
        }

        fn keys_of(&self, path: &str) -> Vec<String> {
            let source = if path == OWN { "instances.json" } else { path };
            let own = self.instances.iter().filter(|it| it.source.as_str() == source);
            own.map(|it| it.target.key.to_string()).collect()
        }
    }

    proptest! {
        /// Whatever is written into the files: each holds what it says, or what it held, and says so; no key is held twice.
        #[test]
        fn each_file_is_in_force_whole_as_it_is_or_as_it_was(
            steps in vec(vec((btree_set(0..8_u8, 0..4), proptest::bool::weighted(0.2)), 4), 1..8),
        ) {
            let paths = [OWN, "/data/a", "/data/b", "/data/c"];
            let mut world = World::default();
            for step in steps {
                let before: Vec<_> = paths.iter().map(|path| world.keys_of(path)).collect();
                let files = paths.iter().zip(&step).map(|(path, (names, broken))| read(path, names.clone(), *broken));
                let (own, others) = world.read(files.collect());
                let told = ConfigErrors::of_both(own.as_ref(), others.as_ref());
                let told = told.map(|errors| errors.to_string()).unwrap_or_default();
                let mut seen = std::collections::BTreeSet::new();
                for ((path, (names, broken)), before) in paths.iter().zip(&step).zip(before) {
                    let now = world.keys_of(path);
                    let written: Vec<String> = names.iter().map(|name| format!("tcp::{name}")).collect();
                    let refused = told.lines().any(|line| line.starts_with(&format!("{path}: ")));
                    prop_assert!(!broken || refused, "{path}: {told}");
                    prop_assert_eq!(&now, if refused { &before } else { &written }, "{}: {}", path, told);
                    prop_assert!(now.into_iter().all(|key| seen.insert(key)), "{told}");
                }
            }
        }
    }

    #[test]
    fn files_that_are_kept_count_against_the_bound_of_all() {
        let mut world = World::default();
        let sized = |path, name, bytes, broken| FileRead { bytes, ..read(path, [name], broken) };
        let most = provided::MAX_BYTES;
        world.read(vec![sized(OWN, 0, 0, false), sized("/data/a", 1, most, false)]);
        let files = vec![sized(OWN, 0, 0, false), sized("/data/a", 1, 1, true), sized("/data/b", 2, 1, false)];
        let (own, others) = world.read(files);
        assert!(
            own.is_none() && others.unwrap().to_string().contains("/data/b: makes the files of other tools larger")
        );
        assert_eq!((world.keys_of("/data/a").len(), world.keys_of("/data/b").len()), (1, 0));
    }
}
