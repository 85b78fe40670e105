//! The one lane through which every change of the configuration passes: calls, edits of files, commands.
//!
//! What passes is judged whole, kept as a version, written, and followed by the scheduler, before the next one passes.

mod error;
mod files;
mod history;
mod rekey;
mod versions;

use std::future::Future;
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};

use rusqlite::Transaction;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};

pub use error::ChangeError;
pub use history::{Author, Source, Version};
pub use versions::{RolledBack, VersionShown};

use crate::config::{
    Bundle, ConfigEvent, Difference, EditError, Follower, GivenEntry, Instance, InventoryEdit, Keyring, LiveConfig,
    PreparedImport, PreparedInventory, PreparedSettings, Problem, SettingsPatch, Snapshot, StoredEntry, SystemConfig,
};
use crate::engine::InstanceKey;
use crate::fleet::Fleet;
use crate::runtime::{Clock, Handle};
use crate::security::audit::{Attempt, AuditError, AuditLog, Conclusion};
use crate::store::{Store, StoreError};
use crate::targets::Secret;

/// How often a change starts again because somebody else changed the file meanwhile.
const MAX_ATTEMPTS: usize = 5;
/// How many instances the audit log names with all that changed.
const AUDITED_INSTANCES: usize = 50;

/// Changes the configuration. Cheap to clone.
#[derive(Clone)]
pub struct Configurator {
    /// Held by whoever is in the lane.
    lane: Arc<Mutex<()>>,
    /// Used only by whoever is in the lane, on threads that may block.
    follower: Arc<BlockingMutex<Follower>>,
    followers: Followers,
    store: Store,
    clock: Arc<dyn Clock>,
    audit: AuditLog,
}

/// Who has to follow a change.
#[derive(Clone)]
pub struct Followers {
    /// The settings in force, for who reads them.
    pub live: LiveConfig,
    /// The scheduler and its instances; none while the daemon does not run.
    pub scheduler: Option<(Handle, Fleet)>,
}

/// What a change came to.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The version that it made; `None` if it changed nothing that matters.
    pub version: Option<i64>,
    /// What it changed.
    pub difference: Difference,
}

impl Changed {
    /// What the audit log tells of it.
    pub fn conclusion(&self) -> Conclusion {
        let (before, after) = sides(&self.difference);
        let with_version = |mut side: Map<String, Value>| {
            side.insert("version".to_owned(), json!(self.version));
            Value::from(side)
        };
        Conclusion::done(Some(before.into()), Some(with_version(after)))
    }
}

/// What is to be written.
enum Draft {
    Settings(Box<PreparedSettings>),
    Inventory(PreparedInventory),
    Both(Box<PreparedImport>),
}

/// Somebody's place in the lane.
struct Lane<'a> {
    configurator: &'a Configurator,
    _alone: MutexGuard<'a, ()>,
}

impl Configurator {
    /// A lane for the files that `follower` follows.
    pub fn new(follower: Follower, followers: Followers, store: Store, clock: Arc<dyn Clock>, audit: AuditLog) -> Self {
        let follower = Arc::new(BlockingMutex::new(follower));
        Self { lane: Arc::default(), follower, followers, store, clock, audit }
    }

    /// The settings in force, as every change is followed by them.
    pub fn live(&self) -> &LiveConfig {
        &self.followers.live
    }

    /// Has `work` done, audited before it begins and when it has ended; `conclusion` tells what it came to.
    ///
    /// # Errors
    /// It could not be audited, and was not done; inside, why it failed.
    pub async fn audited<T: Send + 'static>(
        &self,
        attempt: Attempt,
        conclusion: fn(&T) -> Conclusion,
        work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<Result<T, ChangeError>, AuditError> {
        let effect = async move {
            let done = work.await;
            let told = done.as_ref().map_or_else(ChangeError::conclusion, conclusion);
            (done, told)
        };
        self.audit.carry_out(attempt, effect).await
    }

    /// Changes some settings.
    ///
    /// # Errors
    /// All reasons why nothing was changed.
    pub async fn update_settings(&self, patch: SettingsPatch, author: Author) -> Result<Changed, ChangeError> {
        let lane = self.enter().await?;
        let patch = Arc::new(patch);
        let draft = move |follower: &mut Follower| {
            let prepared = follower.system_file().prepare(&patch).map_err(ChangeError::Settings)?;
            Ok(Draft::Settings(Box::new(prepared)))
        };
        lane.change(draft, author).await
    }

    /// Adds, changes or removes an instance. The others keep their breakers and schedules.
    ///
    /// `tag` is the entry's tag as the caller last saw it.
    ///
    /// # Errors
    /// All reasons why nothing was changed.
    pub async fn edit_instance(
        &self,
        edit: InventoryEdit,
        tag: Option<String>,
        author: Author,
    ) -> Result<Changed, ChangeError> {
        let lane = self.enter().await?;
        let draft =
            move |follower: &mut Follower| Ok(Draft::Inventory(follower.prepare_edit(edit.clone(), tag.as_deref())?));
        lane.change(draft, author).await
    }

    /// The instances as they stand in their files.
    ///
    /// # Errors
    /// A file is broken as it stands.
    pub async fn stored_entries(&self) -> Result<Vec<(InstanceKey, StoredEntry)>, ChangeError> {
        let lane = self.enter_blindly().await;
        lane.blocking(|follower| Ok(follower.stored_entries()?)).await
    }

    /// The instance that an entry describes, for testing it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub async fn instance_of(&self, given: GivenEntry) -> Result<Instance, ChangeError> {
        let lane = self.enter().await?;
        lane.blocking(|follower| Ok(follower.instance_of(given)?)).await
    }

    /// An instance of the fleet, for testing it.
    ///
    /// # Errors
    /// There is no such instance.
    pub async fn instance(&self, key: InstanceKey) -> Result<Instance, ChangeError> {
        let lane = self.enter_blindly().await;
        let find = move |follower: &mut Follower| {
            let found = follower.instances().iter().find(|it| it.target.key == key).cloned();
            found.ok_or(ChangeError::Edit(EditError::Unknown(key)))
        };
        lane.blocking(find).await
    }

    /// The whole configuration with its secrets, encrypted with a passphrase.
    ///
    /// # Errors
    /// A file is broken as it stands, or the passphrase is too short.
    pub async fn export(&self, passphrase: Secret) -> Result<Vec<u8>, ChangeError> {
        let lane = self.enter().await?;
        lane.blocking(move |follower| Ok(follower.bundle().map_err(ChangeError::Inventory)?.seal(&passphrase)?)).await
    }

    /// Puts an export in the place of the whole configuration.
    ///
    /// # Errors
    /// All reasons why nothing was changed.
    pub async fn import(&self, file: Vec<u8>, passphrase: Secret, author: Author) -> Result<Changed, ChangeError> {
        let bundle = tokio::task::spawn_blocking(move || Bundle::open(&file, &passphrase).map(Arc::new));
        let bundle = bundle.await.map_err(|_| ChangeError::BrokeOff)??;
        let lane = self.enter().await?;
        let draft = move |follower: &mut Follower| {
            let prepared = follower.prepare_import(&bundle).map_err(ChangeError::Inventory)?;
            Ok(Draft::Both(Box::new(prepared)))
        };
        lane.change(draft, author).await
    }

    /// Waits for a place in the lane, and first has everybody follow what the files say.
    async fn enter(&self) -> Result<Lane<'_>, ChangeError> {
        let lane = self.enter_blindly().await;
        lane.catch_up(Source::File).await?;
        Ok(lane)
    }

    /// Waits for a place in the lane, whatever the files say.
    async fn enter_blindly(&self) -> Lane<'_> {
        Lane { configurator: self, _alone: self.lane.lock().await }
    }

    async fn keys(&self) -> Result<Option<Arc<Keyring>>, ChangeError> {
        self.enter_blindly().await.blocking(|follower| Ok(follower.keys().cloned())).await
    }
}

impl Lane<'_> {
    /// Has `work` done with the files.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Follower) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let follower = Arc::clone(&self.configurator.follower);
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&follower)));
        done.await.unwrap_or(Err(ChangeError::BrokeOff))
    }

    /// Reads the files, and has everybody follow what is new in them.
    async fn catch_up(&self, source: Source) -> Result<(), ChangeError> {
        let seen = self.blocking(|follower| Ok(follower.read())).await?;
        self.follow_files(seen.events, seen.snapshot, source).await
    }

    /// Works a change out, keeps it as a version, writes it, and has everybody follow it.
    async fn change(
        &self,
        draft: impl Fn(&mut Follower) -> Result<Draft, ChangeError> + Clone + Send + 'static,
        author: Author,
    ) -> Result<Changed, ChangeError> {
        for _ in 0..MAX_ATTEMPTS {
            let prepared = self.blocking(draft.clone()).await?;
            match self.write(Arc::new(prepared), author.clone()).await {
                Err(ChangeError::File(Problem::KeepsChanging)) => self.catch_up(Source::File).await?,
                done => return done,
            }
        }
        Err(ChangeError::File(Problem::KeepsChanging))
    }

    async fn write(&self, draft: Arc<Draft>, author: Author) -> Result<Changed, ChangeError> {
        let follower = Arc::clone(&self.configurator.follower);
        let (at, to_write) = (self.configurator.clock.wall(), Arc::clone(&draft));
        // The version and the files are there together: the files are replaced when only the commit is left.
        let write = move |tx: &Transaction<'_>| {
            let follower = lock(&follower);
            let now = to_write.over(history::snapshot(tx, i64::MAX)?);
            let keys = follower.keys().map(Arc::as_ref);
            let (version, difference) = history::keep(tx, at, &author, &now, keys)?;
            to_write.write(&follower).map_err(ChangeError::File)?;
            Ok(Changed { version, difference })
        };
        let changed = self.configurator.store.write::<_, ChangeError>("config.version", write).await?;
        self.follow_draft(&draft).await?;
        Ok(changed)
    }

    async fn follow_draft(&self, draft: &Draft) -> Result<(), ChangeError> {
        let (settings, inventory) = draft.parts();
        if let Some(settings) = settings {
            lock(&self.configurator.follower).accept_system(settings.config().clone());
            self.follow_settings(settings.config().clone()).await?;
        }
        if let Some(inventory) = inventory {
            lock(&self.configurator.follower).accept_inventory(inventory);
            self.follow_instances(inventory.instances()).await?;
        }
        Ok(())
    }

    async fn follow_settings(&self, system: SystemConfig) -> Result<(), ChangeError> {
        let Followers { live, scheduler } = &self.configurator.followers;
        live.mended(&lock(&self.configurator.follower).data_dir().system_file());
        live.accept_system(system.clone());
        if let Some((handle, _)) = scheduler {
            handle.replace_settings(system.settings().clone()).await?;
        }
        Ok(())
    }

    async fn follow_instances(&self, instances: &[Instance]) -> Result<(), ChangeError> {
        let Followers { live, scheduler } = &self.configurator.followers;
        let (file, refused) = {
            let follower = lock(&self.configurator.follower);
            (follower.data_dir().instances_file(), follower.refused_fleet())
        };
        match refused {
            Some(errors) => live.refuse(file, errors),
            None => live.mended(&file),
        }
        if let Some((handle, fleet)) = scheduler {
            handle.replace_inventory(fleet.replace(instances)).await?;
        }
        Ok(())
    }

    /// Has everybody follow what was found in the files, and keeps it as a version.
    async fn follow_files(
        &self,
        events: Vec<ConfigEvent>,
        snapshot: Snapshot,
        source: Source,
    ) -> Result<(), ChangeError> {
        let quiet = events.is_empty() && source == Source::File;
        for event in events {
            match event {
                ConfigEvent::Settings(system) => self.follow_settings(*system).await?,
                ConfigEvent::Instances(instances) => self.follow_instances(&instances).await?,
                ConfigEvent::Refused { file, errors } => {
                    for error in errors.iter() {
                        tracing::error!(file = %file.display(), "an edit was refused, what was in force stays: {error}");
                    }
                    let conclusion = Conclusion::refused(&errors);
                    self.configurator.followers.live.refuse(file, errors);
                    self.audit(conclusion).await;
                }
            }
        }
        if !quiet {
            self.keep_found(snapshot, source).await;
        }
        Ok(())
    }

    /// Keeps what was found as a version. It is in force whether or not the disk takes it.
    async fn keep_found(&self, snapshot: Snapshot, source: Source) {
        let (at, keys) = (self.configurator.clock.wall(), lock(&self.configurator.follower).keys().cloned());
        let keep =
            move |tx: &Transaction<'_>| history::keep(tx, at, &Author::unknown(source), &snapshot, keys.as_deref());
        match self.configurator.store.write::<_, StoreError>("config.version", keep).await {
            Ok((None, _)) => {}
            Ok((version, difference)) => {
                tracing::info!(version, "an edit was applied: {}", difference.summary());
                self.audit(Changed { version, difference }.conclusion()).await;
            }
            Err(error) => tracing::error!(%error, "an edit is in force, but could not be kept as a version"),
        }
    }

    async fn audit(&self, conclusion: Conclusion) {
        let attempt = Attempt::new(crate::security::Caller::SYSTEM, "config.edit");
        if let Err(error) = self.configurator.audit.record(attempt, conclusion).await {
            tracing::error!(%error, "an edit of a file could not be audited");
        }
    }
}

impl Draft {
    fn parts(&self) -> (Option<&PreparedSettings>, Option<&PreparedInventory>) {
        match self {
            Self::Settings(settings) => (Some(settings), None),
            Self::Inventory(inventory) => (None, Some(inventory)),
            Self::Both(import) => (Some(&import.settings), Some(&import.inventory)),
        }
    }

    /// The configuration once this is written over what was there before.
    fn over(&self, mut before: Snapshot) -> Snapshot {
        let text = |content: &[u8]| Some(String::from_utf8_lossy(content).into_owned());
        let (settings, inventory) = self.parts();
        if let Some(settings) = settings {
            before.settings = text(settings.content());
        }
        if let Some(inventory) = inventory {
            before.inventory = text(inventory.content());
            before.provided = inventory.provided_text().or(before.provided);
        }
        before
    }

    fn write(&self, follower: &Follower) -> Result<(), Problem> {
        if let Self::Both(import) = self {
            follower.write_authorities(import)?;
        }
        let (settings, inventory) = self.parts();
        if let Some(inventory) = inventory {
            follower.write_inventory(inventory)?;
        }
        if let Some(settings) = settings {
            follower.system_file().write(settings)?;
        }
        Ok(())
    }
}

fn lock(follower: &BlockingMutex<Follower>) -> std::sync::MutexGuard<'_, Follower> {
    // What is in force is replaced whole, so it is whole after any panic.
    follower.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the audit log tells of the state before and after; of many instances only how they changed.
fn sides(difference: &Difference) -> (Map<String, Value>, Map<String, Value>) {
    let (mut before, mut after) = (Map::new(), Map::new());
    for field in &difference.settings {
        before.insert(field.field.clone(), json!(field.before));
        after.insert(field.field.clone(), json!(field.after));
    }
    let told = difference.instances.len().min(AUDITED_INSTANCES);
    for instance in &difference.instances[..told] {
        let side = |value: fn(&crate::config::FieldDifference) -> &Option<Value>| -> Map<String, Value> {
            let fields = instance.fields.iter().filter_map(|field| Some((field.field.clone(), value(field).clone()?)));
            fields.collect()
        };
        let (old, new) = (side(|field| &field.before), side(|field| &field.after));
        before.insert(instance.key.clone(), if old.is_empty() { Value::Null } else { old.into() });
        after.insert(instance.key.clone(), if new.is_empty() { Value::Null } else { new.into() });
    }
    if told < difference.instances.len() {
        after.insert("summary".to_owned(), difference.summary().into());
    }
    (before, after)
}
