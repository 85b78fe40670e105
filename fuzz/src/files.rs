//! The files of the configuration, those of other tools among them, mutated, through the doors by which the daemon
//! reads them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use pulse::config::{Config, DataDir, Environment, Follower, Keyring};
use pulse::targets::{Client, Connector};
use serde_json::Value;

use crate::calls::memory_folder;
use crate::corpus::{self, HOST_SECRETS};
use crate::mutator::Mutator;
use crate::report::Report;
use crate::secrets::{Place, Secrets};
use crate::watch::Watch;

/// What is mutated: our files, and one of each form that other tools write.
const FILES: [&str; 5] =
    ["system.json", "instances.json", "instances.d/rack.json", "targets/rack.json", "targets/rack.yml"];
/// The stream of draws of this part of a run.
const STREAM: u64 = 1 << 40;

/// Has so many broken files read.
///
/// # Panics
/// There is no folder to write to.
#[expect(clippy::expect_used, reason = "without a folder there is nothing to find")]
pub fn break_files(seed: u64, count: u64) -> Report {
    let watch = Watch::begin();
    let mut report = Report::default();
    let mut draws = Mutator::new(seed, STREAM);
    let mut secrets = Secrets::new();
    HOST_SECRETS.iter().for_each(|secret| secrets.keep("a host's secret", secret));
    let folder = tempfile::tempdir_in(memory_folder()).expect("there is a folder");
    let data_dir = DataDir::open(folder.path()).expect("the folder is ours");
    let keys = Arc::new(Keyring::read_or_make(folder.path()).expect("a key can be made"));
    // It reads the system's certificates, which is slower than all the rest.
    let connector = Arc::new(Connector::default());
    for inner in ["instances.d", "targets"] {
        std::fs::create_dir(folder.path().join(inner)).expect("the folder is ours");
    }
    let valid = [corpus::settings_with_discovery(), corpus::fleet(), corpus::fragment(), corpus::targets()];
    let [settings, fleet, fragment, targets] = valid.map(|content| content.to_string());
    let valid = [settings, fleet, fragment, targets, corpus::TARGETS_IN_YAML.to_owned()];
    for number in 0..count {
        let which = draws.below(FILES.len());
        let mut texts = valid.clone().map(String::into_bytes);
        match draws.below(12) {
            0 => texts[which] = draws.noise(400),
            1 => {}
            _ => draws.mutate_json(&mut texts[which]),
        }
        write(folder.path(), &texts);
        let read = read(&data_dir, &keys, &connector, &mut secrets);
        report.inputs += 1;
        for panic in watch.panics() {
            report.find(format!("a panic: {panic}"), number, &texts[which]);
        }
        let log = watch.log();
        report.log_bytes += log.len() as u64;
        if let Some(what) = secrets.told(&log, Place::Anywhere) {
            report.find(format!("the log tells {what}: {}", String::from_utf8_lossy(&log)), number, &texts[which]);
        }
        match read {
            Ok(verdict) => report.reach(format!("{}: {verdict}", FILES[which])),
            Err(fault) => report.find(fault, number, &texts[which]),
        }
        if report.is_full() {
            break;
        }
    }
    report
}

#[expect(clippy::expect_used, reason = "without a folder there is nothing to find")]
fn write(folder: &Path, texts: &[Vec<u8>; 5]) {
    for (name, text) in FILES.into_iter().zip(texts) {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        // Plain secrets of a file of another tool are taken only from one that not everybody can read.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
    }
}

/// Reads the files as the daemon does at its start and after an edit; the kind of verdict, or what is wrong with it.
fn read(
    data_dir: &DataDir,
    keys: &Arc<Keyring>,
    connector: &Arc<Connector>,
    secrets: &mut Secrets,
) -> Result<String, String> {
    let environment = Environment::default();
    let loaded = std::panic::catch_unwind(|| Config::load(data_dir.clone(), &environment));
    let Ok(loaded) = loaded else { return Ok("a panic".to_owned()) };
    let config = match loaded {
        Ok(config) => config,
        Err(errors) => {
            let text = format!("{errors}\n{errors:?}");
            if let Some(what) = secrets.told(text.as_bytes(), Place::Anywhere) {
                return Err(format!("an error tells {what}: {errors}"));
            }
            let kind = errors.iter().next().map(|error| format!("{:?}", error.problem));
            let kind = kind.unwrap_or_default();
            return Ok(format!("refused: {}", kind.split([' ', '(']).next().unwrap_or_default()));
        }
    };
    for name in FILES {
        let held = std::fs::read(data_dir.path().join(name)).map_err(|error| error.to_string())?;
        if serde_json::from_slice(&held).is_ok_and(|held| lies_open(&held, secrets)) {
            return Ok("taken: a secret in a place that is shown".to_owned());
        }
    }
    let text = format!("{config:?}");
    if let Some(what) = secrets.told(text.as_bytes(), Place::Anywhere) {
        return Err(format!("the configuration's debug form tells {what}"));
    }
    let settings = config.system.settings();
    if settings.min_interval > settings.base_interval || settings.base_interval > settings.max_interval {
        return Err(format!("settings were taken that break their rules: {settings:?}"));
    }
    for instance in config.instances.iter() {
        // Only has to hold together; nothing is sent.
        let _ = Client::new(instance.target.clone(), connector);
        if let Some(what) = secrets.told(instance.target.connection().as_bytes(), Place::Anywhere) {
            return Err(format!("a connection tells {what}"));
        }
    }
    let mut follower = Follower::new(&config);
    follower.use_keys(Arc::clone(keys));
    follower.read();
    let kept = std::fs::read(data_dir.instances_file()).map_err(|error| error.to_string())?;
    let in_auth = HOST_SECRETS.iter().take(3).any(|secret| {
        let held = format!("\"{secret}\"");
        kept.windows(held.len()).any(|window| window == held.as_bytes())
    });
    match config.instances.is_empty() {
        _ if in_auth => Err("a secret stayed in the file in plain text".to_owned()),
        true => Ok("taken: an empty fleet".to_owned()),
        false => Ok("taken: a fleet".to_owned()),
    }
}

/// Whether the mutator has put a secret where operators write what everybody may read: a name, or the path of a URL.
fn lies_open(value: &Value, secrets: &mut Secrets) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, field)| match (name.as_str(), field) {
            ("auth", _) => false,
            ("url", Value::String(url)) => {
                let shown = url.split('?').next().unwrap_or_default();
                secrets.told(shown.as_bytes(), Place::Anywhere).is_some()
            }
            _ => lies_open(field, secrets),
        }),
        Value::Array(items) => items.iter().any(|item| lies_open(item, secrets)),
        Value::String(text) => secrets.told(text.as_bytes(), Place::Anywhere).is_some(),
        _ => false,
    }
}
