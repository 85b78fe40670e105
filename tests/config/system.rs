//! `system.json`, the environment over it, and changes through the settings API's door.

use std::os::unix::fs::PermissionsExt;

use pulse::config::{ConfigErrors, Origin, Problem, SettingsPatch, SystemConfig};
use pulse::engine::{Millis, SettingsField};

use super::Folder;

fn update(folder: &Folder, patch: &str) -> Result<SystemConfig, ConfigErrors> {
    let patch: SettingsPatch = serde_json::from_str(patch).unwrap();
    folder.load().unwrap().system_file.update(&patch)
}

fn refused(folder: &Folder, patch: &str) -> Vec<String> {
    let before = std::fs::read(folder.path().join("system.json")).ok();
    let errors = update(folder, patch).expect_err("the update is refused").to_string();
    assert_eq!(std::fs::read(folder.path().join("system.json")).ok(), before, "a refused update changes nothing");
    errors.lines().map(str::to_owned).collect()
}

#[test]
fn environment_beats_file_beats_default_and_the_answer_says_which() {
    let folder = Folder::with_environment(&[("ADAPTIVE_POLLING_BASE_INTERVAL", "20s"), ("POLLING_MAX_IN_FLIGHT", "")]);
    folder.write("system.json", r#"{"adaptivePollingBaseInterval": "30s", "pollingMaxInFlight": 64}"#);
    let system = folder.load().unwrap().system;
    assert_eq!(system.settings().base_interval, Millis::from_secs(20));
    assert_eq!(system.settings().max_in_flight, 64, "an empty variable is unset");
    assert_eq!(system.origin(SettingsField::BaseInterval), Origin::Environment);
    assert_eq!(system.origin(SettingsField::MaxInFlight), Origin::File);
    assert_eq!(system.origin(SettingsField::MinInterval), Origin::Default);
    let answer = serde_json::to_value(system.effective()).unwrap();
    assert_eq!(answer[1]["name"], "adaptivePollingBaseInterval");
    assert_eq!(answer[1]["value"], "20s");
    assert_eq!(answer[1]["default"], "10s");
    assert_eq!(answer[1]["origin"], "environment");
    assert_eq!(answer[1]["environment"], "ADAPTIVE_POLLING_BASE_INTERVAL");
}

#[test]
fn a_bare_number_in_the_file_is_seconds_and_in_the_environment_it_is_refused() {
    let folder = Folder::with_environment(&[("ADAPTIVE_POLLING_MAX_INTERVAL", "60")]);
    folder.write("system.json", r#"{"adaptivePollingMinInterval": 0.75}"#);
    let errors = folder.errors();
    assert_eq!(errors, ["environment variable ADAPTIVE_POLLING_MAX_INTERVAL: 60 has no unit; write 60s for seconds"]);
    let folder = Folder { environment: Default::default(), ..folder };
    assert_eq!(folder.load().unwrap().system.settings().min_interval, Millis::new(750));
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
    let folder = Folder::new();
    folder.write("system.json", r#"{"adaptivePolingEnabled": true, "colour": "red"}"#);
    let errors = folder.errors();
    let expected = "system.json: adaptivePolingEnabled: unknown setting; did you mean adaptivePollingEnabled?";
    assert_eq!(errors[0], expected);
    assert!(errors[1].starts_with("system.json: colour: unknown setting; known here: "), "{}", errors[1]);
}

#[test]
fn a_broken_rule_names_both_settings_and_where_they_were_set() {
    let folder = Folder::with_environment(&[("ADAPTIVE_POLLING_MIN_INTERVAL", "25s")]);
    folder.write("system.json", r#"{"adaptivePollingBaseInterval": "20s", "pollingBackoffInitial": "6m"}"#);
    assert_eq!(
        folder.errors(),
        [
            "system.json: adaptivePollingBaseInterval: \
             ADAPTIVE_POLLING_MIN_INTERVAL (25s) must not exceed adaptivePollingBaseInterval (20s)",
            "system.json: pollingBackoffInitial: \
             pollingBackoffInitial (6m) must not exceed the default pollingBackoffMax (5m)",
        ]
    );
}

#[test]
fn a_value_that_cannot_be_read_breaks_no_rule_besides() {
    let folder = Folder::new();
    folder.write("system.json", r#"{"adaptivePollingBaseInterval": "soon", "adaptivePollingMinInterval": "20s"}"#);
    assert_eq!(
        folder.errors(),
        [
            "system.json: adaptivePollingBaseInterval: \"soon\" is not a duration; write it as in 750ms, 10s, 5m or 1m30s"
        ]
    );
}

#[test]
fn a_repeated_setting_is_refused() {
    let folder = Folder::new();
    folder.write("system.json", r#"{"pollingMaxInFlight": 1, "pollingMaxInFlight": 2}"#);
    assert_eq!(folder.errors(), ["system.json: pollingMaxInFlight: is given more than once; keep one"]);
}

#[test]
fn an_update_changes_what_it_names_and_keeps_the_rest_of_the_file_in_its_order() {
    let folder = Folder::new();
    folder
        .write("system.json", r#"{"tcpPollingInterval": 30, "breakerOpenMax": "2m", "adaptivePollingEnabled": true}"#);
    let patch = r#"{"breakerOpenMax": "3m", "pollingMaxInFlight": 8, "adaptivePollingEnabled": null}"#;
    let system = update(&folder, patch).unwrap();
    assert_eq!(system.settings().breaker.open_max, Millis::from_mins(3));
    let expected = "{\n  \"tcpPollingInterval\": 30,\n  \"breakerOpenMax\": \"3m\",\n  \"pollingMaxInFlight\": 8\n}\n";
    assert_eq!(folder.read("system.json"), expected);
    let mode = std::fs::metadata(folder.path().join("system.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(folder.load().unwrap().system, system);
}

#[test]
fn an_update_makes_the_file_where_there_was_none() {
    let folder = Folder::new();
    update(&folder, r#"{"pvePollingTimeout": 5}"#).unwrap();
    assert_eq!(folder.read("system.json"), "{\n  \"pvePollingTimeout\": 5\n}\n");
}

#[test]
fn what_the_answer_shows_can_be_sent_back() {
    let folder = Folder::new();
    let system = folder.load().unwrap().system;
    let all: serde_json::Map<_, _> =
        system.effective().into_iter().map(|setting| (setting.name.to_owned(), setting.value)).collect();
    let updated = update(&folder, &serde_json::to_string(&all).unwrap()).unwrap();
    assert_eq!(updated.settings(), system.settings());
}

#[test]
fn an_update_is_refused_whole_with_all_reasons() {
    let folder = Folder::with_environment(&[("ADAPTIVE_POLLING_BASE_INTERVAL", "20s")]);
    folder.write("system.json", r#"{"pollingMaxInFlight": 8}"#);
    assert_eq!(
        refused(
            &folder,
            r#"{"adaptivePollingBaseInterval": "20s", "pvePollingTimeuot": "5s", "pollingMaxInFlight": 0}"#
        ),
        [
            "adaptivePollingBaseInterval: is pinned by the environment variable ADAPTIVE_POLLING_BASE_INTERVAL; \
             change or unset that, then restart",
            "pvePollingTimeuot: unknown setting; did you mean pvePollingTimeout?",
            "pollingMaxInFlight: is 0, but must be from 1 to 100000",
        ]
    );
    assert_eq!(
        refused(
            &folder,
            r#"{"adaptivePollingMaxInterval": "15s", "pollingMaxInFlight": 0, "pvePollingTimeout": true}"#
        ),
        [
            "pvePollingTimeout: must be a duration such as \"10s\", or a number of seconds, but is true or false",
            "pollingMaxInFlight: is 0, but must be from 1 to 100000",
            "adaptivePollingMaxInterval: \
             ADAPTIVE_POLLING_BASE_INTERVAL (20s) must not exceed adaptivePollingMaxInterval (15s)",
        ]
    );
    let error = serde_json::from_str::<SettingsPatch>("[]").err().unwrap().to_string();
    assert_eq!(error, "must be an object, but is a list");
}

#[test]
fn an_update_does_not_write_over_a_file_that_somebody_is_breaking() {
    let folder = Folder::new();
    let file = folder.load().unwrap().system_file;
    folder.write("system.json", "{\"pollingMaxInFlight\": 8,");
    let patch: SettingsPatch = serde_json::from_str(r#"{"pollingMaxInFlight": 9}"#).unwrap();
    let errors = file.update(&patch).unwrap_err();
    assert!(matches!(errors.iter().next().unwrap().problem, Problem::Syntax { line: 1, .. }));
    assert_eq!(folder.read("system.json"), "{\"pollingMaxInFlight\": 8,");
}

#[test]
fn updates_at_once_lose_nothing_of_each_other_nor_of_an_edit_by_hand() {
    let folder = Folder::new();
    let file = folder.load().unwrap().system_file;
    folder.write("system.json", r#"{"breakerFailureThreshold": 7}"#);
    std::thread::scope(|scope| {
        for name in ["pvePollingTimeout", "pbsPollingTimeout", "pmgPollingTimeout", "httpPollingTimeout"] {
            let file = &file;
            scope.spawn(move || {
                for millis in (2_900..=3_000).step_by(10) {
                    let patch = format!(r#"{{"{name}": "{millis}ms"}}"#);
                    file.update(&serde_json::from_str(&patch).unwrap()).unwrap();
                }
            });
        }
    });
    let settings = folder.load().unwrap().system;
    let three = Millis::from_secs(3);
    let types = settings.settings().types;
    assert_eq!([types.pve, types.pbs, types.pmg, types.http].map(|settings| settings.timeout), [three; 4]);
    assert_eq!(settings.settings().breaker.failure_threshold, 7);
}

#[test]
fn the_retention_of_the_audit_log_is_bounded_wherever_it_is_set() {
    let folder = Folder::with_environment(&[("AUDIT_MAX_ENTRIES", "9")]);
    folder.write("system.json", r#"{"auditRetentionDays": 29}"#);
    let errors = folder.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("system.json: auditRetentionDays: is 29, "), "{errors:?}");
    assert!(errors[1].starts_with("environment variable AUDIT_MAX_ENTRIES: is 9, "), "{errors:?}");
    let folder = Folder::new();
    assert!(refused(&folder, r#"{"auditRetentionDays": 3651}"#)[0].contains("auditRetentionDays"));
    let system = update(&folder, r#"{"auditRetentionDays": 90, "auditMaxEntries": 20000}"#).unwrap();
    assert_eq!((system.audit().retention_days, system.audit().max_entries), (90, 20_000));
    assert_eq!(folder.load().unwrap().system.audit(), system.audit());
}
