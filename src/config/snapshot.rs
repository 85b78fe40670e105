//! The configuration at one moment, as text: what the history keeps, and how two moments differ.
//!
//! Secrets are in it in encrypted form alone, and a difference tells of them only that they changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::entry::{self, SECRET_FIELDS, ShownEntry, holds_secret, key_of, opened};
use super::json::Json;
use super::keyring::Keyring;
use crate::engine::InstanceKey;

/// What stands for a `system.json` that is not there.
pub(super) const NO_SETTINGS: &str = "{}\n";
/// What stands for an `instances.json` that is not there.
pub(super) const NO_FLEET: &str = "{\n  \"instances\": []\n}\n";
/// How many instances a summary names.
const NAMED: usize = 3;

/// What both files held at one moment; `None` for one that was broken or unknown then.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `system.json`.
    pub settings: Option<String>,
    /// `instances.json`, its secrets encrypted.
    pub inventory: Option<String>,
}

impl Snapshot {
    /// How `after` differs from this. A file that is unknown at one of the moments is passed over.
    pub fn difference(&self, after: &Self, keys: Option<&Keyring>) -> Difference {
        let both = |one: &Option<String>, other: &Option<String>| Some((parse(one)?, parse(other)?));
        let settings = both(&self.settings, &after.settings).filter(|(before, after)| before != after);
        let fleets = both(&self.inventory, &after.inventory).filter(|(before, after)| before != after);
        Difference {
            settings: settings.map(|(before, after)| changed_fields(&before, &after)).unwrap_or_default(),
            instances: fleets.map(|(before, after)| changed_instances(before, after, keys)).unwrap_or_default(),
        }
    }

    /// The settings of `system.json` as they stood there.
    pub fn shown_settings(&self) -> Option<Value> {
        parse(&self.settings).and_then(|json| serde_json::to_value(json).ok())
    }

    /// The instances as they stood in `instances.json`, with `{"set": true}` for every secret.
    pub fn shown_instances(&self) -> Option<Vec<Value>> {
        let entries = entries(parse(&self.inventory)?);
        Some(
            entries
                .into_iter()
                .filter_map(|entry| serde_json::to_value(ShownEntry::new(entry).without_query()).ok())
                .collect(),
        )
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// How the configuration of one moment differs from that of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The settings of `system.json` that differ.
    pub settings: Vec<FieldDifference>,
    /// The instances that differ, in the order of their keys.
    pub instances: Vec<InstanceDifference>,
}

/// How one instance differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceDifference {
    /// `type::name`.
    pub key: String,
    /// What became of it.
    pub change: InstanceChange,
    /// The fields that differ; of an instance that was added or removed, all of them.
    pub fields: Vec<FieldDifference>,
}

/// What became of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstanceChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another than before.
    Changed,
}

/// How one field differs. A secret is shown as `{"set": true}`, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldDifference {
    /// The field, as in `tls.fingerprint`.
    pub field: String,
    /// Its value before; `null` if there was none.
    pub before: Option<Value>,
    /// Its value after; `null` if there is none.
    pub after: Option<Value>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.instances.is_empty()
    }

    /// The difference in one line.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if !self.settings.is_empty() {
            let names = self.settings.iter().map(|field| field.field.clone());
            parts.push(format!("settings: {}", shortened(names.collect())));
        }
        for (change, word) in [
            (InstanceChange::Added, "added"),
            (InstanceChange::Removed, "removed"),
            (InstanceChange::Changed, "changed"),
        ] {
            let keys = self.instances.iter().filter(|it| it.change == change).map(|it| it.key.clone());
            let keys: Vec<String> = keys.collect();
            if !keys.is_empty() {
                parts.push(format!("{word}: {}", shortened(keys)));
            }
        }
        if parts.is_empty() { "nothing that matters".to_owned() } else { parts.join("; ") }
    }
}

fn shortened(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.settings.is_empty() {
            writeln!(f, "system.json")?;
            for field in &self.settings {
                writeln!(f, "  ~ {field}")?;
            }
        }
        if !self.instances.is_empty() {
            writeln!(f, "instances.json")?;
            for InstanceDifference { key, change, fields } in &self.instances {
                let sign = match change {
                    InstanceChange::Added => '+',
                    InstanceChange::Removed => '-',
                    InstanceChange::Changed => '~',
                };
                writeln!(f, "  {sign} {key}")?;
                for field in fields {
                    writeln!(f, "      {field}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_secret = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.get("set").is_some());
        let text = |value: &Option<Value>| match value {
            None => "none".to_owned(),
            Some(_) if is_secret(value) => "(secret)".to_owned(),
            Some(value) => value.to_string(),
        };
        match (&self.before, &self.after) {
            (before, after) if is_secret(before) && is_secret(after) => write!(f, "{}: another secret", self.field),
            (before, after) => write!(f, "{}: {} → {}", self.field, text(before), text(after)),
        }
    }
}

fn parse(text: &Option<String>) -> Option<Json> {
    Json::parse(text.as_ref()?.as_bytes()).ok()
}

fn entries(inventory: Json) -> Vec<Json> {
    let Json::Object(members) = inventory else { return Vec::new() };
    let list = members.into_iter().find(|(name, _)| name == "instances");
    match list {
        Some((_, Json::Array(entries))) => entries,
        _ => Vec::new(),
    }
}

fn changed_instances(before: Json, after: Json, keys: Option<&Keyring>) -> Vec<InstanceDifference> {
    let by_key = |inventory: Json| -> BTreeMap<InstanceKey, Json> {
        let entries = entries(inventory).into_iter();
        entries.filter_map(|entry| Some((key_of(&entry)?, opened(entry, keys)))).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let all: BTreeSet<&InstanceKey> = before.keys().chain(after.keys()).collect();
    let nothing = Json::Object(Vec::new());
    let difference = |key: &InstanceKey| {
        let (change, before, after) = match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => (InstanceChange::Changed, before, after),
            (Some(before), None) => (InstanceChange::Removed, before, &nothing),
            (None, after) => (InstanceChange::Added, &nothing, after.unwrap_or(&nothing)),
        };
        let fields = changed_fields(before, after);
        (!fields.is_empty()).then(|| InstanceDifference { key: key.to_string(), change, fields })
    };
    all.into_iter().filter_map(difference).collect()
}

fn changed_fields(before: &Json, after: &Json) -> Vec<FieldDifference> {
    let (mut fields_before, mut fields_after) = (BTreeMap::new(), BTreeMap::new());
    flatten(before, String::new(), &mut fields_before);
    flatten(after, String::new(), &mut fields_after);
    let all: BTreeSet<&String> = fields_before.keys().chain(fields_after.keys()).collect();
    let differing = all.into_iter().filter(|field| fields_before.get(*field) != fields_after.get(*field));
    differing
        .map(|field| FieldDifference {
            field: field.clone(),
            before: fields_before.get(field).map(|value| shown(field, value)),
            after: fields_after.get(field).map(|value| shown(field, value)),
        })
        .collect()
}

/// The values of an object by their paths. A secret is one value, in whatever form it stands there.
fn flatten<'a>(json: &'a Json, path: String, fields: &mut BTreeMap<String, &'a Json>) {
    match json {
        Json::Null => {}
        Json::Object(members) if !is_secret_field(&path) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(value, path, fields);
            }
        }
        value => drop(fields.insert(path, value)),
    }
}

fn is_secret_field(path: &str) -> bool {
    path.strip_prefix("auth.").is_some_and(|field| SECRET_FIELDS.contains(&field))
}

fn shown(field: &str, value: &Json) -> Value {
    if is_secret_field(field) && holds_secret(value) {
        return serde_json::json!({"set": true});
    }
    match value {
        // It may hold a token of the endpoint's.
        Json::Text(url) if field == "url" => entry::without_query(url).into(),
        value => serde_json::to_value(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(settings: &str, instances: &str) -> Snapshot {
        Snapshot { settings: Some(settings.to_owned()), inventory: Some(format!("{{\"instances\": [{instances}]}}")) }
    }

    fn pve(secret: &str, rest: &str) -> String {
        format!(r#"{{"type": "pve", "name": "a", "auth": {{"tokenId": "t", "secret": {secret}}}{rest}}}"#)
    }

    #[test]
    fn a_difference_names_what_changed_and_no_secret() {
        let before = snapshot(
            r#"{"b": 1, "a": "10s"}"#,
            &format!("{}, {}", pve("\"hunter2\"", ""), r#"{"type":"tcp","name":"x"}"#),
        );
        let after = snapshot(
            r#"{"a": "20s", "b": 1}"#,
            &format!("{}, {}", pve("\"hunter3\"", r#", "interval": "5s""#), r#"{"name":"y","type":"tcp"}"#),
        );
        let difference = before.difference(&after, None);
        assert_eq!(
            difference.to_string(),
            "system.json\n  ~ a: \"10s\" → \"20s\"\ninstances.json\n  ~ pve::a\n      auth.secret: another secret\n      \
             interval: none → \"5s\"\n  - tcp::x\n      name: \"x\" → none\n      type: \"tcp\" → none\n  + tcp::y\n      \
             name: none → \"y\"\n      type: none → \"tcp\"\n"
        );
        assert_eq!(difference.summary(), "settings: a; added: tcp::y; removed: tcp::x; changed: pve::a");
        assert!(!serde_json::to_string(&difference).unwrap().contains("hunter"));
        let shown = serde_json::to_string(&after.shown_instances()).unwrap();
        assert!(!shown.contains("hunter") && shown.contains(r#""secret":{"set":true}"#), "{shown}");
    }

    #[test]
    fn the_same_secret_encrypted_anew_and_another_order_are_no_difference() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::read_or_make(folder.path()).unwrap();
        let sealed = || {
            let key = "pve::a".parse().unwrap();
            let text =
                keys.seal(super::super::seal::SecretPlace { instance: &key, field: "secret" }, "hunter2").unwrap();
            snapshot("{}", &pve(&format!(r#"{{"encrypted": "{text}"}}"#), ""))
        };
        let (before, after) = (sealed(), sealed());
        assert_ne!(before, after);
        assert!(before.difference(&after, Some(&keys)).is_empty());
        assert!(before.difference(&snapshot("{}", &pve("\"hunter2\"", "")), Some(&keys)).is_empty());
        assert_eq!(
            before.difference(&after, None).summary(),
            "changed: pve::a",
            "without the key it may be another one"
        );
    }

    #[test]
    fn a_file_that_is_unknown_at_one_of_the_moments_is_passed_over() {
        let known = snapshot(r#"{"a": 1}"#, "");
        let unknown = Snapshot { settings: None, inventory: known.inventory.clone() };
        assert!(known.difference(&unknown, None).is_empty());
        assert!(unknown.difference(&known, None).is_empty());
    }
}
