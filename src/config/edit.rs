//! Changes of `instances.json` that are asked for: judged whole, then written so that nothing else in the file moves.
//!
//! A secret that is kept goes only where it went before, or to a node of the same cluster, and nothing can be referred
//! to that a hand did not write into the file: or whoever may edit instances could read the daemon's files and variables.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::document::InventoryText;
use super::entry::{self, GivenEntry, ShownEntry};
use super::error::{ConfigError, ConfigErrors, Errors, Place, Problem};
use super::follow::Follower;
use super::instances::{self, Content, Instance, Surroundings, file_error};
use super::json::Json;
use super::keyring::Keyring;
use super::provided::{InstanceSource, Provided, ProvidedEntry};
use super::reference::Authorities;
use super::snapshot::provided_text;
use super::system::SystemConfig;
use super::{files, json};
use crate::engine::InstanceKey;
use crate::targets::Access;

/// What is to become of the inventory.
#[derive(Clone)]
pub enum InventoryEdit {
    /// An instance is added.
    Add(GivenEntry),
    /// Instances are added that sign in like another, and believe the authority that it believes. Whoever asks for this
    /// has seen to it that they are nodes of that one's cluster.
    AddLike(InstanceKey, Vec<GivenEntry>),
    /// The entry of an instance is replaced by another.
    Replace(InstanceKey, GivenEntry),
    /// An instance is removed.
    Remove(InstanceKey),
}

/// Why an edit was not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// It breaks rules.
    #[error("{0}")]
    Refused(ConfigErrors),
    /// There is no such instance.
    #[error("there is no instance {0}")]
    Unknown(InstanceKey),
    /// There is such an instance.
    #[error("there is an instance {0} already; change that one, or give this one another name")]
    Exists(InstanceKey),
    /// It is not what the caller last saw.
    #[error("{0} was changed since it was read; read it again and repeat the edit")]
    Changed(InstanceKey),
    /// The file itself is broken, by hand.
    #[error("instances.json is broken as it stands; mend it first:\n{0}")]
    Broken(ConfigErrors),
    /// Another tool keeps it.
    #[error("{key} stands in {}, which another tool keeps; change it there", .file.as_str())]
    Provided {
        /// Which instance.
        key: InstanceKey,
        /// Where it stands.
        file: InstanceSource,
    },
}

/// A changed inventory that is valid and yet to be written.
pub struct PreparedInventory {
    before: Option<Content>,
    content: Content,
    instances: Arc<[Instance]>,
    /// What other tools provide then, and what is wrong with their files; `None` if that stays.
    provided: Option<(Arc<Provided>, Option<ConfigErrors>)>,
}

/// One instance as it stands in its file.
#[derive(Clone)]
pub struct StoredEntry {
    /// Its entry, without its secrets.
    pub shown: ShownEntry,
    /// A tag that is another one after every change of the entry.
    pub tag: String,
    /// The file. Only what stands in `instances.json` can be edited.
    pub source: InstanceSource,
}

impl PreparedInventory {
    /// What `instances.json` is to hold, its secrets encrypted.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The fleet as it is then.
    pub fn instances(&self) -> &Arc<[Instance]> {
        &self.instances
    }

    /// What the files of other tools hold then, as a [`Snapshot`](super::Snapshot) keeps it; `None` if that stays, or one
    /// of them is broken.
    pub fn provided_text(&self) -> Option<String> {
        let (provided, errors) = self.provided.as_ref()?;
        errors.is_none().then(|| provided_text(provided))
    }

    pub(super) fn provided(&self) -> Option<&(Arc<Provided>, Option<ConfigErrors>)> {
        self.provided.as_ref()
    }
}

impl Follower {
    /// The entries of `instances.json` as it stands, in its order, then those of the files of other tools as they were
    /// accepted, in the order of their keys. Blocks on the disk.
    ///
    /// # Errors
    /// `instances.json` is broken.
    pub fn stored_entries(&mut self) -> Result<Vec<(InstanceKey, StoredEntry)>, EditError> {
        let (_, text) = self.read_accepted()?;
        let keys = self.keys().map(Arc::as_ref);
        let provided: BTreeMap<_, _> =
            self.provided().entries().map(|it| (it.key.clone(), provided(it, keys))).collect();
        let stored = |(key, text): (InstanceKey, &str)| Some((key, stored(text, keys)?));
        let own = text.entries().map_err(|problem| self.broken(problem))?.into_iter().filter_map(stored);
        let mut entries: Vec<_> = own.filter(|(key, _)| !provided.contains_key(key)).collect();
        entries.extend(provided);
        Ok(entries)
    }

    /// Works out what an edit makes of the file, and writes nothing. Blocks on the disk.
    ///
    /// `tag` is the entry's tag as the caller last saw it.
    ///
    /// # Errors
    /// All reasons why the edit cannot be made.
    pub fn prepare_edit(&mut self, edit: InventoryEdit, tag: Option<&str>) -> Result<PreparedInventory, EditError> {
        let (before, mut text) = self.read_accepted()?;
        let mut instances = self.instances().to_vec();
        match edit {
            InventoryEdit::Add(given) => {
                let (instance, entry) = self.judge(given, None)?;
                self.insert(&mut text, &mut instances, instance, &entry)?;
            }
            InventoryEdit::AddLike(like, given) => {
                let own = text.entry(&like).map_err(|problem| self.broken(problem))?;
                let provided = || self.provided().entries().find(|it| it.key == like).map(|it| it.entry.clone());
                let model = own.or_else(provided).ok_or(EditError::Unknown(like))?;
                let model = entry::opened(model, self.keys().map(Arc::as_ref));
                for given in given {
                    let (instance, entry) = self.complete(entry::like(given.0, &model))?;
                    self.insert(&mut text, &mut instances, instance, &entry)?;
                }
            }
            InventoryEdit::Replace(key, given) => {
                let at = self.find(&text, &instances, &key, tag)?;
                let stored = text.entry(&key).map_err(|problem| self.broken(problem))?;
                let (instance, entry) = self.judge(given, stored.as_ref().map(|entry| (&instances[at], entry)))?;
                if instance.target.key != key {
                    return Err(refused("name", Problem::OtherInstance));
                }
                text.replace(&key, &entry).map_err(|problem| self.broken(problem))?;
                instances[at] = instance;
            }
            InventoryEdit::Remove(key) => {
                let at = self.find(&text, &instances, &key, tag)?;
                text.remove(&key).map_err(|problem| self.broken(problem))?;
                instances.remove(at);
            }
        }
        let content = Content::new(text.as_bytes().to_vec());
        Ok(PreparedInventory { before, content, instances: instances.into(), provided: None })
    }

    /// Works out what it takes to have `instances.json` hold this under these settings, and writes nothing. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// Everything that is wrong in it, or the file cannot be read.
    pub fn prepare_inventory(&self, content: &[u8], system: &SystemConfig) -> Result<PreparedInventory, ConfigErrors> {
        self.prepare_inventory_with(Content::new(content.to_vec()), system, Authorities::new())
    }

    /// The same, with files of authorities that are yet to be written.
    pub(super) fn prepare_inventory_with(
        &self,
        content: Content,
        system: &SystemConfig,
        authorities: Authorities,
    ) -> Result<PreparedInventory, ConfigErrors> {
        let path = self.data_dir().instances_file();
        let unreadable = |problem| ConfigErrors::from(file_error(&path, problem));
        let before = files::read(&path, instances::MAX_FILE_BYTES).map_err(unreadable)?;
        let around = Surroundings { discovery: system.discovery(), ..self.surroundings() };
        let in_force = instances::read_content(content.clone(), around, self.before(), authorities).in_force;
        if let Some(errors) = in_force.inventory_errors {
            return Err(errors);
        }
        let mut text = InventoryText::new(Some(&content)).map_err(unreadable)?;
        if let Some(keys) = self.keys() {
            text.seal(keys).map_err(unreadable)?;
        }
        let content = Content::new(text.as_bytes().to_vec());
        let provided = Some((Arc::new(Provided { parts: in_force.provided }), in_force.provided_errors));
        Ok(PreparedInventory { before, content, instances: in_force.instances.into(), provided })
    }

    /// Writes what was prepared. Blocks on the disk.
    ///
    /// # Errors
    /// The file is not what it was any more, or it cannot be written. It is as it was then.
    pub fn write_inventory(&self, prepared: &PreparedInventory) -> Result<(), Problem> {
        let path = self.data_dir().instances_file();
        files::replace(&path, &prepared.content, || files::is_still(&path, prepared.before.as_ref()))
    }

    /// The instance that an entry describes, without adding it to the fleet. Blocks on the disk.
    ///
    /// Secrets of the stored instance of the same key may be kept if addresses and trust are the stored ones.
    ///
    /// # Errors
    /// Everything that is wrong with the entry.
    pub fn instance_of(&mut self, given: GivenEntry) -> Result<Instance, EditError> {
        let (_, text) = self.read_accepted()?;
        let key = entry::key_of(&given.0);
        let known = key.and_then(|key| self.instances().iter().find(|it| it.target.key == key).cloned());
        let stored = match &known {
            Some(known) => text.entry(&known.target.key).map_err(|problem| self.broken(problem))?,
            None => None,
        };
        let keeps = entry::keeps_secrets(&given.0);
        let (instance, _) = self.judge(given, known.as_ref().zip(stored.as_ref()))?;
        // Whoever may test is less trusted than whoever may edit: not even another certificate may see a kept secret.
        let same_trust = known.is_some_and(|known| trust(&known.target.access) == trust(&instance.target.access));
        if keeps && !same_trust { Err(refused("auth", Problem::SecretElsewhere)) } else { Ok(instance) }
    }

    /// What the file holds now, if it was accepted.
    fn read_accepted(&self) -> Result<(Option<Content>, InventoryText), EditError> {
        if let Some(errors) = self.refused_inventory() {
            return Err(EditError::Broken(errors.clone()));
        }
        let path = self.data_dir().instances_file();
        let content = files::read(&path, instances::MAX_FILE_BYTES).map_err(|problem| self.broken(problem))?;
        let text = InventoryText::new(content.as_ref().map(|content| content.as_slice()));
        Ok((content, text.map_err(|problem| self.broken(problem))?))
    }

    fn insert(
        &self,
        text: &mut InventoryText,
        instances: &mut Vec<Instance>,
        instance: Instance,
        entry: &Json,
    ) -> Result<(), EditError> {
        let key = &instance.target.key;
        if let Some(other) = instances.iter().find(|other| other.target.key == *key) {
            return Err(not_ours(other).unwrap_or_else(|| EditError::Exists(key.clone())));
        }
        text.insert(entry).map_err(|problem| self.broken(problem))?;
        let behind_ours = instances.partition_point(|other| !other.source.is_provided());
        instances.insert(behind_ours, instance);
        Ok(())
    }

    fn find(
        &self,
        text: &InventoryText,
        instances: &[Instance],
        key: &InstanceKey,
        tag: Option<&str>,
    ) -> Result<usize, EditError> {
        let at = instances.iter().position(|it| it.target.key == *key);
        if let Some(refused) = at.and_then(|at| not_ours(&instances[at])) {
            return Err(refused);
        }
        let entries = text.entries().map_err(|problem| self.broken(problem))?;
        let entry = entries.iter().find(|(entry, _)| entry == key);
        let (Some(at), Some((_, entry))) = (at, entry) else { return Err(EditError::Unknown(key.clone())) };
        let keys = self.keys();
        match tag {
            Some(tag) if keys.is_none_or(|keys| keys.tag(entry.as_bytes()) != tag) => {
                Err(EditError::Changed(key.clone()))
            }
            _ => Ok(at),
        }
    }

    /// The instance that a given entry describes, and the entry as it is to be written: its secrets encrypted, or kept.
    fn judge(&self, given: GivenEntry, stored: Option<(&Instance, &Json)>) -> Result<(Instance, Json), EditError> {
        let keeps = entry::keeps_secrets(&given.0);
        let merged = merge(given.0, stored.map(|(_, entry)| entry)).map_err(EditError::Refused)?;
        let (instance, entry) = self.complete(merged)?;
        if keeps && !stored.is_some_and(|(stored, _)| goes_where(&stored.target.access, &instance.target.access)) {
            return Err(refused("auth", Problem::SecretElsewhere));
        }
        Ok((instance, entry))
    }

    /// The instance that a whole entry describes, and the entry with its secrets encrypted.
    fn complete(&self, merged: Json) -> Result<(Instance, Json), EditError> {
        let instance = instances::read_entry(merged.clone(), self.surroundings()).map_err(EditError::Refused)?;
        let Some(keys) = self.keys() else { return Err(refused("", Problem::NoRandomness)) };
        let entry = entry::sealed(merged, &instance.target.key, keys).map_err(|problem| refused("auth", problem))?;
        Ok((instance, entry))
    }

    fn broken(&self, problem: Problem) -> EditError {
        EditError::Broken(file_error(&self.data_dir().instances_file(), problem).into())
    }
}

fn stored(text: &str, keys: Option<&Keyring>) -> Option<StoredEntry> {
    let shown = ShownEntry::new(Json::parse(text.as_bytes()).ok()?);
    Some(StoredEntry { shown, tag: tag(text.as_bytes(), keys), source: InstanceSource::Inventory })
}

fn provided(entry: &ProvidedEntry, keys: Option<&Keyring>) -> StoredEntry {
    // Its secrets are encrypted anew at each reading, so they say nothing about changes.
    let shown = ShownEntry::new(entry.entry.clone());
    let text = serde_json::to_vec(&shown).expect("a tree of texts and numbers is always JSON");
    StoredEntry { shown, tag: tag(&text, keys), source: entry.source.clone() }
}

fn tag(text: &[u8], keys: Option<&Keyring>) -> String {
    keys.map(|keys| keys.tag(text)).unwrap_or_default()
}

fn not_ours(instance: &Instance) -> Option<EditError> {
    let (key, file) = (instance.target.key.clone(), instance.source.clone());
    file.is_provided().then_some(EditError::Provided { key, file })
}

fn refused(at: &str, problem: Problem) -> EditError {
    EditError::Refused(ConfigError { place: Place::Request(at.to_owned()), problem }.into())
}

/// The given entry with what it keeps filled in from the stored one.
fn merge(mut given: Json, stored: Option<&Json>) -> Result<Json, ConfigErrors> {
    let mut errors = Errors::default();
    let mut add = |at: &str, problem| errors.add(Place::Request(json::printable(at)), problem);
    let stored_at = |parent: &str, field: &str| stored.and_then(|entry| entry.get(parent)?.get(field));
    for (field, value) in entry::secrets_mut(&mut given) {
        let stored = stored_at("auth", field);
        if entry::is_set(value) {
            match stored {
                Some(stored) => *value = stored.clone(),
                None => add(&format!("auth.{field}"), Problem::NoStoredSecret),
            }
        } else if matches!(value, Json::Object(_)) && Some(&*value) != stored {
            add(&format!("auth.{field}"), Problem::ReferenceByHand);
        }
    }
    if let Some(file) = given.get("tls").and_then(|tls| tls.get("caFile"))
        && stored_at("tls", "caFile") != Some(file)
    {
        add("tls.caFile", Problem::ReferenceByHand);
    }
    errors.or(given)
}

/// Whether everything that `after` connects to is something that `before` connects to.
fn goes_where(before: &Access, after: &Access) -> bool {
    let members = |access: &Access| match access {
        Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => access.members.clone(),
        Access::Http(_) | Access::Tcp(_) => Vec::new(),
    };
    let known = members(before);
    members(after).iter().all(|member| known.contains(member))
}

fn trust(access: &Access) -> Option<&crate::targets::Trust> {
    match access {
        Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => Some(&access.trust),
        Access::Http(check) => Some(&check.trust),
        Access::Tcp(_) => None,
    }
}
