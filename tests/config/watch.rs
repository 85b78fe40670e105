//! Edits while the daemon runs: what is valid takes effect, what is broken is refused and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pulse::config::{Config, ConfigEvent, Follower, Look, LookAtFiles, Looked, watch_files};
use pulse::engine::Millis;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::Folder;

/// What operators are promised.
const TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(2);

async fn next(events: &mut Receiver<ConfigEvent>) -> ConfigEvent {
    let event = tokio::time::timeout(TAKES_EFFECT_WITHIN, events.recv()).await;
    event.expect("the edit takes effect in time").expect("the watcher runs")
}

async fn next_base_interval(events: &mut Receiver<ConfigEvent>) -> Millis {
    match next(events).await {
        ConfigEvent::Settings(system) => system.settings().base_interval,
        other => panic!("expected settings, got {other:?}"),
    }
}

async fn next_refusal(events: &mut Receiver<ConfigEvent>) -> String {
    match next(events).await {
        ConfigEvent::Refused { errors, .. } => errors.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Reads the files and passes on what is new in them, as long as somebody listens.
struct Reporter {
    follower: Follower,
    events: Sender<ConfigEvent>,
}

impl LookAtFiles for Reporter {
    async fn look(&mut self, look: Look) -> Looked {
        let (events, looked) = self.follower.look(look);
        for event in events {
            if self.events.send(event).await.is_err() {
                return Looked::Enough;
            }
        }
        looked
    }
}

async fn watch(config: &Config, events: Sender<ConfigEvent>, shutdown: CancellationToken) {
    watch_files(&config.data_dir, &mut Reporter { follower: Follower::new(config), events }, shutdown).await;
}

/// Runs a watcher over the folder while `edits` are made.
async fn watching(folder: &Folder, edits: impl AsyncFnOnce(&mut Receiver<ConfigEvent>)) {
    let config = folder.load().unwrap();
    let (sender, mut events) = tokio::sync::mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let edits = async {
        edits(&mut events).await;
        shutdown.cancel();
    };
    tokio::join!(watch(&config, sender, shutdown.clone()), edits);
}

fn base_interval(seconds: u64) -> String {
    format!(r#"{{"adaptivePollingBaseInterval": {seconds}}}"#)
}

const TCP: &str = r#"{"instances": [{"type": "tcp", "name": "db", "host": "10.0.0.9", "port": 5432}]}"#;

#[tokio::test]
async fn an_edit_takes_effect_whether_the_file_is_written_renamed_or_linked() {
    let folder = Folder::new();
    watching(&folder, async |events| {
        folder.write("system.json", base_interval(11));
        assert_eq!(next_base_interval(events).await, Millis::from_secs(11));
        folder.write("draft", base_interval(12));
        fs::rename(folder.path().join("draft"), folder.path().join("system.json")).unwrap();
        assert_eq!(next_base_interval(events).await, Millis::from_secs(12));
        let elsewhere = Folder::new();
        elsewhere.write("system.json", base_interval(13));
        fs::remove_file(folder.path().join("system.json")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("system.json"), folder.path().join("system.json")).unwrap();
        assert_eq!(next_base_interval(events).await, Millis::from_secs(13));
        // The folder that the link leads to is not watched; looking has to find this one.
        elsewhere.write("system.json", base_interval(14));
        assert_eq!(next_base_interval(events).await, Millis::from_secs(14));
    })
    .await;
}

#[tokio::test]
async fn a_broken_edit_is_refused_once_and_mending_it_is_told() {
    let folder = Folder::new();
    folder.write("system.json", base_interval(11));
    watching(&folder, async |events| {
        folder.write("system.json", base_interval(1));
        let refusal = next_refusal(events).await;
        assert!(refusal.contains("must not exceed adaptivePollingBaseInterval (1s)"), "{refusal}");
        folder.write("system.json", base_interval(11));
        assert_eq!(next_base_interval(events).await, Millis::from_secs(11));
        folder.write("system.json", base_interval(12));
        assert_eq!(next_base_interval(events).await, Millis::from_secs(12));
    })
    .await;
}

#[tokio::test]
async fn a_deleted_fleet_is_refused_and_not_taken_for_an_empty_one() {
    let folder = Folder::new();
    folder.write("instances.json", TCP);
    watching(&folder, async |events| {
        fs::remove_file(folder.path().join("instances.json")).unwrap();
        let refusal = next_refusal(events).await;
        assert!(refusal.ends_with("instances.json: was deleted; what it held stays in force until it is restored"));
        folder.write("instances.json", r#"{"instances": []}"#);
        assert_eq!(next(events).await, ConfigEvent::Instances([].into()));
    })
    .await;
}

#[tokio::test]
async fn an_edit_that_changes_nothing_is_not_told() {
    let folder = Folder::new();
    folder.write("system.json", base_interval(11));
    watching(&folder, async |events| {
        folder.write("system.json", r#"{ "adaptivePollingBaseInterval": "11s" }"#);
        folder.write("instances.json", TCP);
        let ConfigEvent::Instances(instances) = next(events).await else { panic!("the settings are the same") };
        assert_eq!(instances.len(), 1);
        folder.write("system.json", base_interval(12));
        assert_eq!(next_base_interval(events).await, Millis::from_secs(12));
    })
    .await;
}

#[tokio::test]
async fn an_edit_between_loading_and_watching_is_not_missed() {
    let folder = Folder::new();
    let config = folder.load().unwrap();
    folder.write("system.json", base_interval(11));
    let (sender, mut events) = tokio::sync::mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let expect = async {
        assert_eq!(next_base_interval(&mut events).await, Millis::from_secs(11));
        shutdown.cancel();
    };
    tokio::join!(watch(&config, sender, shutdown.clone()), expect);
}

#[tokio::test]
async fn a_secret_that_is_rotated_or_mended_in_its_own_file_is_taken_up() {
    let folder = Folder::new();
    let secrets = Folder::new();
    let path = secrets.path().join("rack-1");
    let write_secret = |secret: &str| {
        secrets.write("rack-1", secret);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_secret("one");
    let auth = format!(r#"{{"tokenId": "pulse@pve!monitor", "secret": {{"file": "{}"}}}}"#, path.display());
    let fleet = format!(r#"{{"instances": [{{"type": "pve", "name": "rack-1", "url": "10.0.0.1", "auth": {auth}}}]}}"#);
    folder.write("instances.json", fleet);
    let before = folder.load().unwrap().instances[0].revision;
    watching(&folder, async |events| {
        write_secret("two");
        let ConfigEvent::Instances(instances) = next(events).await else { panic!("the fleet is told") };
        assert_ne!(instances[0].revision, before);
        fs::remove_file(&path).unwrap();
        assert!(next_refusal(events).await.contains("instances[0].auth.secret.file"));
        write_secret("one");
        let ConfigEvent::Instances(instances) = next(events).await else { panic!("the fleet is told") };
        assert_eq!(instances[0].revision, before);
    })
    .await;
}
