//! `system.json`: the settings as they are in force, where each came from, and how they are changed.
//!
//! Environment beats file beats default. A change is validated together with all the rest, then written as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definitions::{SETTINGS, SettingDefinition};
use super::discovery::{self, DISCOVERY, Discovery};
use super::draft::{AuditSettings, Draft, Field};
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, Errors, Place, Problem};
use super::files;
use super::instances::Content;
use super::json::{Json, printable, repeated_names, unknown};
use super::notifications::{self, NOTIFICATIONS};
use crate::engine::{Settings, SettingsError, SettingsErrors};
use crate::notify::NotificationSettings;

/// What tells where secrets are and where they go, so that no call changes it.
const BY_HAND: [&str; 2] = [NOTIFICATIONS, DISCOVERY];
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// How often an update starts again because somebody else changed the file meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// The settings in force, and where each came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemConfig {
    settings: Settings,
    audit: AuditSettings,
    notifications: Arc<NotificationSettings>,
    discovery: Arc<Discovery>,
    /// Files that notifications and discovery refer to.
    referenced_files: BTreeSet<PathBuf>,
    /// Fields that are not here have their default.
    origins: BTreeMap<Field, Origin>,
}

/// Where the value of a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An environment variable, which pins it.
    Environment,
    /// `system.json`.
    File,
    /// Nothing sets it.
    Default,
}

/// One setting as the settings API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSetting {
    /// The name in `system.json`.
    pub name: &'static str,
    /// The value in force, as it is written in `system.json`.
    pub value: Value,
    /// The value when nothing sets it.
    pub default: Value,
    /// Where the value came from.
    pub origin: Origin,
    /// The variable that pins it, or would.
    pub environment: &'static str,
    /// What it is for.
    pub help: &'static str,
}

impl SystemConfig {
    /// The scheduler's settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How much of the audit log is kept.
    pub fn audit(&self) -> AuditSettings {
        self.audit
    }

    /// Whom to tell what.
    pub fn notifications(&self) -> &Arc<NotificationSettings> {
        &self.notifications
    }

    /// Which files name targets.
    pub(super) fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Files that the settings refer to.
    pub(super) fn referenced_files(&self) -> &BTreeSet<PathBuf> {
        &self.referenced_files
    }

    /// Where the value of a field came from.
    pub fn origin(&self, field: impl Into<Field>) -> Origin {
        self.origins.get(&field.into()).copied().unwrap_or(Origin::Default)
    }

    /// Every setting with its value and origin, in the order of the documentation.
    pub fn effective(&self) -> Vec<EffectiveSetting> {
        let draft = Draft { scheduler: self.settings.clone().into(), audit: self.audit };
        let show = |setting: &SettingDefinition| EffectiveSetting {
            name: setting.name,
            value: setting.value(&draft),
            default: setting.default_value(),
            origin: self.origin(setting.field),
            environment: setting.environment,
            help: setting.help,
        };
        SETTINGS.iter().map(show).collect()
    }
}

/// A partial change of the settings: the body of `POST /api/system/settings/update`. `null` means the default.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Json")]
pub struct SettingsPatch(Vec<(String, Json)>);

impl SettingsPatch {
    /// Takes out what is said under `name`, which is no setting.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(entry, value)| entry == name && matches!(value, Json::Text(_)))?;
        self.0.remove(at).1.into_text().ok()
    }
}

impl TryFrom<Json> for SettingsPatch {
    type Error = Problem;

    fn try_from(json: Json) -> Result<Self, Problem> {
        json.into_object().map(Self)
    }
}

/// The file, which need not exist, under the environment that overrides it.
#[derive(Debug)]
pub struct SystemFile {
    path: PathBuf,
    environment: Environment,
    /// Held while the file is being changed.
    update: Mutex<()>,
}

/// Changed settings that are valid and yet to be written.
pub struct PreparedSettings {
    /// What the file held when they were prepared.
    before: Option<Content>,
    /// What it is to hold.
    content: Vec<u8>,
    config: SystemConfig,
}

impl PreparedSettings {
    /// What the file is to hold.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The settings that are then in force.
    pub fn config(&self) -> &SystemConfig {
        &self.config
    }
}

impl SystemFile {
    /// The file at `path`; nothing is read yet.
    pub fn new(path: PathBuf, environment: Environment) -> Self {
        Self { path, environment, update: Mutex::new(()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// Everything that is wrong in the file and in the environment.
    pub fn load(&self) -> Result<Option<SystemConfig>, ConfigErrors> {
        let Some(content) = self.read()? else { return Ok(None) };
        self.settings_of(&content).map(Some)
    }

    /// The settings if the file held this.
    ///
    /// # Errors
    /// Everything that is wrong in it and in the environment.
    pub(super) fn settings_of(&self, content: &[u8]) -> Result<SystemConfig, ConfigErrors> {
        self.layers(self.parse(content)?, &[])
    }

    /// The settings when there is no file.
    ///
    /// # Errors
    /// Everything that is wrong in the environment.
    pub fn without_file(&self) -> Result<SystemConfig, ConfigErrors> {
        self.layers(Vec::new(), &[])
    }

    /// Changes some settings in the file and gives those that are then in force. Blocks on the disk.
    ///
    /// # Errors
    /// All reasons why nothing was changed: a setting is unknown, repeated or pinned by the environment, a rule would
    /// be broken, the file is broken as it is, it cannot be written, or others keep changing it.
    pub fn update(&self, patch: &SettingsPatch) -> Result<SystemConfig, ConfigErrors> {
        // The lock guards no data, so one that a panic left behind is as good as any.
        let _alone = self.update.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for _ in 0..MAX_ATTEMPTS {
            let prepared = self.prepare(patch)?;
            match self.write(&prepared) {
                Ok(()) => return Ok(prepared.config),
                Err(Problem::KeepsChanging) => {}
                Err(problem) => return Err(self.error(problem)),
            }
        }
        Err(self.error(Problem::KeepsChanging))
    }

    /// Works out what [`Self::update`] would write, and writes nothing.
    ///
    /// # Errors
    /// As for [`Self::update`].
    pub fn prepare(&self, patch: &SettingsPatch) -> Result<PreparedSettings, ConfigErrors> {
        let (patch, refused) = self.check_patch(patch);
        let before = self.read()?;
        let mut entries = before.as_ref().map_or(Ok(Vec::new()), |content| self.parse(content))?;
        for (name, value) in &patch {
            merge(&mut entries, name, value);
        }
        let patched: Vec<&str> = patch.iter().map(|(name, _)| name.as_str()).collect();
        let config = all_reasons(&refused, self.layers(entries.clone(), &patched))?;
        let content = serde_json::to_vec_pretty(&Json::Object(entries));
        let mut content = content.expect("a tree of texts and numbers is always JSON");
        content.push(b'\n');
        Ok(PreparedSettings { before, content, config })
    }

    /// Works out what it takes to have the file hold this, and writes nothing.
    ///
    /// # Errors
    /// Everything that is wrong in it and in the environment, or the file cannot be read.
    pub fn prepare_content(&self, content: Vec<u8>) -> Result<PreparedSettings, ConfigErrors> {
        let config = self.settings_of(&content)?;
        Ok(PreparedSettings { before: self.read()?, content, config })
    }

    /// Writes what was prepared.
    ///
    /// # Errors
    /// The file is not what it was any more, or it cannot be written. It is as it was then.
    pub fn write(&self, prepared: &PreparedSettings) -> Result<(), Problem> {
        self.replace(prepared.before.as_ref(), &prepared.content)
    }

    /// Replaces the file if its content still is what it was `before`.
    fn replace(&self, before: Option<&Content>, text: &[u8]) -> Result<(), Problem> {
        files::replace(&self.path, text, || files::is_still(&self.path, before))
    }

    /// What the file holds; `None` if there is none.
    pub(super) fn read(&self) -> Result<Option<Content>, ConfigErrors> {
        files::read(&self.path, MAX_FILE_BYTES).map_err(|problem| self.error(problem))
    }

    fn parse(&self, content: &[u8]) -> Result<Vec<(String, Json)>, ConfigErrors> {
        Json::parse(content).and_then(Json::into_object).map_err(|problem| self.error(problem))
    }

    fn place(&self, at: &str) -> Place {
        Place::File { file: self.path.clone(), at: printable(at) }
    }

    fn error(&self, problem: Problem) -> ConfigErrors {
        ConfigError { place: self.place(""), problem }.into()
    }

    /// The entries of a patch that name a setting which the environment leaves open, and what is wrong with the rest.
    fn check_patch(&self, patch: &SettingsPatch) -> (Vec<(String, Json)>, Result<(), ConfigErrors>) {
        let mut errors = Errors::default();
        for name in repeated_names(&patch.0) {
            errors.add(Place::Request(printable(&name)), Problem::Repeated);
        }
        let is_open = |name: &str| match SettingDefinition::named(name) {
            None if BY_HAND.contains(&name) => Err(Problem::ByHand),
            None => Err(unknown_setting(name)),
            Some(setting) if self.environment.get(setting.environment).is_some() => {
                Err(Problem::Pinned(setting.environment))
            }
            Some(_) => Ok(()),
        };
        let mut open = Vec::new();
        for (name, value) in &patch.0 {
            match is_open(name) {
                Ok(()) => open.push((name.clone(), value.clone())),
                Err(problem) => errors.add(Place::Request(printable(name)), problem),
            }
        }
        (open, errors.or(()))
    }

    /// Lays the environment over the entries of the file over the defaults. What stands in `patched` was asked for.
    fn layers(&self, entries: Vec<(String, Json)>, patched: &[&str]) -> Result<SystemConfig, ConfigErrors> {
        let mut layers = Layers::default();
        let place =
            |name: &str| if patched.contains(&name) { Place::Request(name.to_owned()) } else { self.place(name) };
        for name in repeated_names(&entries) {
            layers.errors.add(place(&name), Problem::Repeated);
        }
        for (name, json) in entries {
            match (name.as_str(), SettingDefinition::named(&name)) {
                (NOTIFICATIONS | DISCOVERY, _) | (_, Some(_)) if json == Json::Null => {}
                (NOTIFICATIONS, _) => layers.read_notifications(json, self),
                (DISCOVERY, _) => layers.read_discovery(json, self),
                (_, Some(setting)) => {
                    let result = setting.set_from_json(&mut layers.draft, json);
                    layers.record(setting, Origin::File, place(&name), result);
                }
                (_, None) => layers.errors.add(place(&name), unknown_setting(&name)),
            }
        }
        for setting in &SETTINGS {
            if let Some(text) = self.environment.get(setting.environment) {
                let text = text.to_str().ok_or(Problem::NotUnicode);
                let result = text.and_then(|text| setting.set_from_text(&mut layers.draft, text));
                layers.record(setting, Origin::Environment, Place::Variable(setting.environment.to_owned()), result);
            }
        }
        layers.validate(place)
    }
}

/// The settings while they are laid over each other.
#[derive(Default)]
struct Layers {
    draft: Draft,
    notifications: NotificationSettings,
    discovery: Discovery,
    referenced_files: BTreeSet<PathBuf>,
    origins: BTreeMap<Field, Origin>,
    unreadable: Vec<Field>,
    errors: Errors,
}

impl Layers {
    fn read_notifications(&mut self, json: Json, file: &SystemFile) {
        let (read, files) = notifications::read(json, &file.path, &file.environment);
        self.notifications = read.map_err(|errors| self.errors.append(errors)).unwrap_or_default();
        self.referenced_files.extend(files);
    }

    fn read_discovery(&mut self, json: Json, file: &SystemFile) {
        let (read, files) = discovery::read(json, &file.path, &file.environment);
        self.discovery = read.map_err(|errors| self.errors.append(errors)).unwrap_or_default();
        self.referenced_files.extend(files);
    }

    fn record(&mut self, setting: &SettingDefinition, origin: Origin, place: Place, result: Result<(), Problem>) {
        self.origins.insert(setting.field, origin);
        if let Err(problem) = result {
            self.unreadable.push(setting.field);
            self.errors.add(place, problem);
        }
    }

    fn validate(mut self, file_place: impl Fn(&str) -> Place) -> Result<SystemConfig, ConfigErrors> {
        let validated = self.draft.scheduler.clone().validate();
        let broken = validated.as_ref().err().into_iter().flat_map(SettingsErrors::iter);
        // A field that could not be read still has its default, about which a rule says nothing.
        let broken = broken.filter(|rule| !rule.fields().any(|field| self.unreadable.contains(&field.into())));
        for rule in broken {
            let (place, problem) = self.describe(rule, &file_place);
            self.errors.add(place, problem);
        }
        for setting in SETTINGS.iter().filter(|setting| !matches!(setting.field, Field::Scheduler(_))) {
            if let Some(problem) = setting.out_of_range(&self.draft) {
                let place = match self.origins.get(&setting.field) {
                    Some(Origin::Environment) => Place::Variable(setting.environment.to_owned()),
                    _ => file_place(setting.name),
                };
                self.errors.add(place, problem);
            }
        }
        let settings = validated.unwrap_or_default();
        let notifications = Arc::new(self.notifications);
        self.errors.or(SystemConfig {
            settings,
            audit: self.draft.audit,
            notifications,
            discovery: Arc::new(self.discovery),
            referenced_files: self.referenced_files,
            origins: self.origins,
        })
    }

    /// Puts a broken rule where it can be mended: in the file or the request rather than in the environment.
    fn describe(&self, rule: &SettingsError, file_place: impl Fn(&str) -> Place) -> (Place, Problem) {
        let set_by = |origin| rule.fields().find(|field| self.origins.get(&(*field).into()) == Some(&origin));
        let place = if let Some(field) = set_by(Origin::File) {
            file_place(SettingDefinition::of(field).name)
        } else if let Some(field) = set_by(Origin::Environment) {
            Place::Variable(SettingDefinition::of(field).environment.to_owned())
        } else {
            file_place("")
        };
        let out_of_range = |value: String, min: String, max: String| Problem::OutOfRange { value, min, max };
        let problem = match rule {
            SettingsError::SpanOutOfRange { value, min, max, .. } => {
                out_of_range(value.to_string(), min.to_string(), max.to_string())
            }
            SettingsError::CountOutOfRange { value, min, max, .. } => {
                out_of_range(value.to_string(), min.to_string(), max.to_string())
            }
            SettingsError::Reversed { .. } => Problem::Rule(rule.explain(|field| self.name((*field).into()))),
        };
        (place, problem)
    }

    fn name(&self, field: Field) -> String {
        let setting = SettingDefinition::of(field);
        match self.origins.get(&field) {
            Some(Origin::Environment) => setting.environment.to_owned(),
            Some(_) => setting.name.to_owned(),
            None => format!("the default {}", setting.name),
        }
    }
}

/// `laid`, unless something was `refused` before; then the errors of both.
fn all_reasons(
    refused: &Result<(), ConfigErrors>,
    laid: Result<SystemConfig, ConfigErrors>,
) -> Result<SystemConfig, ConfigErrors> {
    let mut errors = Errors::default();
    if let Err(refused) = refused {
        errors.append(refused.clone());
    }
    let config = laid.map_err(|broken| errors.append(broken)).unwrap_or_default();
    errors.or(config)
}

fn unknown_setting(name: &str) -> Problem {
    let names = SETTINGS.iter().map(|setting| setting.name).chain(BY_HAND);
    unknown(name, &names.collect::<Vec<_>>())
}

/// Sets an entry where it stands, adds it at the end, or takes it out if the value is `null`.
fn merge(entries: &mut Vec<(String, Json)>, name: &str, value: &Json) {
    if *value == Json::Null {
        entries.retain(|(entry, _)| entry != name);
    } else if let Some((_, old)) = entries.iter_mut().find(|(entry, _)| entry == name) {
        *old = value.clone();
    } else {
        entries.push((name.to_owned(), value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_came_in_between_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = SystemFile::new(folder.path().join("system.json"), Environment::default());
        std::fs::write(file.path(), "by hand").unwrap();
        assert_eq!(file.replace(None, b"{}"), Err(Problem::KeepsChanging));
        assert_eq!(file.replace(Some(&Content::new(b"before".to_vec())), b"{}"), Err(Problem::KeepsChanging));
        assert_eq!(std::fs::read(file.path()).unwrap(), b"by hand");
        assert_eq!(file.replace(Some(&Content::new(b"by hand".to_vec())), b"{}"), Ok(()));
        assert_eq!(std::fs::read(file.path()).unwrap(), b"{}");
    }
}
