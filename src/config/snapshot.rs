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
use super::provided::{INVENTORY, Provided, ProvidedEntry};
use crate::engine::InstanceKey;

/// What stands for a `system.json` that is not there.
pub(super) const NO_SETTINGS: &str = "{}\n";
/// What stands for an `instances.json` that is not there.
pub const NO_FLEET: &str = "{\n  \"instances\": []\n}\n";
/// The member of an entry of [`Snapshot::provided`] that names its file. No instance has a setting of this name.
const SOURCE: &str = "source";
/// How many instances a summary names.
const NAMED: usize = 3;

/// What the files held at one moment; `None` for what was broken or unknown then.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `system.json`.
    pub settings: Option<String>,
    /// `instances.json`, its secrets encrypted.
    pub inventory: Option<String>,
    /// The instances of the files of other tools in the form of `instances.json`, each with the `source` that it stands
    /// in, their secrets encrypted.
    pub provided: Option<String>,
}

impl Snapshot {
    /// How `after` differs from this. A file that is unknown at one of the moments is passed over.
    pub fn difference(&self, after: &Self, keys: Option<&Keyring>) -> Difference {
        let both = |one: &Option<String>, other: &Option<String>| Some((parse(one)?, parse(other)?));
        let settings = both(&self.settings, &after.settings).filter(|(before, after)| before != after);
        let (mut entries_before, mut entries_after) = (Vec::new(), Vec::new());
        if self.inventory != after.inventory || self.provided != after.provided {
            let files = [(&self.inventory, &after.inventory), (&self.provided, &after.provided)];
            for (before, after) in files.into_iter().filter_map(|(before, after)| both(before, after)) {
                entries_before.extend(entries(before));
                entries_after.extend(entries(after));
            }
        }
        Difference {
            settings: settings.map(|(before, after)| changed_fields(&before, &after)).unwrap_or_default(),
            instances: changed_instances(entries_before, entries_after, keys),
        }
    }

    /// The instances of the files of other tools that differ in `after`.
    pub fn provided_difference(&self, after: &Self, keys: Option<&Keyring>) -> Vec<InstanceDifference> {
        let provided = |snapshot: &Self| Some(entries(parse(&snapshot.provided)?));
        let both = provided(self).zip(provided(after));
        both.map(|(before, after)| changed_instances(before, after, keys)).unwrap_or_default()
    }

    /// The settings of `system.json` as they stood there.
    pub fn shown_settings(&self) -> Option<Value> {
        parse(&self.settings).and_then(|json| serde_json::to_value(json).ok())
    }

    /// The instances as they stood in `instances.json`, with `{"set": true}` for every secret.
    pub fn shown_instances(&self) -> Option<Vec<Value>> {
        Some(shown_entries(parse(&self.inventory)?))
    }

    /// The instances of the files of other tools, each with its `source`, with `{"set": true}` for every secret.
    pub fn shown_provided(&self) -> Option<Vec<Value>> {
        Some(shown_entries(parse(&self.provided)?))
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
    /// The file that it stands in, or stood in if it is gone.
    pub source: String,
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
        let sources: BTreeSet<&str> = self.instances.iter().map(|it| it.source.as_str()).collect();
        for source in sources {
            writeln!(f, "{source}")?;
            for InstanceDifference { key, change, fields, .. } in self.instances.iter().filter(|it| it.source == source)
            {
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

fn shown_entries(inventory: Json) -> Vec<Value> {
    let shown = |entry| serde_json::to_value(ShownEntry::new(entry).without_query()).ok();
    entries(inventory).into_iter().filter_map(shown).collect()
}

/// What other tools provide, as a [`Snapshot`] keeps it.
pub(super) fn provided_text(provided: &Provided) -> String {
    if provided.entries().next().is_none() {
        return NO_FLEET.to_owned();
    }
    let entries = provided.entries().map(|ProvidedEntry { source, entry, .. }| {
        let mut members = vec![(SOURCE.to_owned(), Json::Text(source.as_str().to_owned()))];
        if let Json::Object(entry) = entry {
            members.extend(entry.iter().cloned());
        }
        Json::Object(members)
    });
    let text = Json::Object(vec![("instances".to_owned(), Json::Array(entries.collect()))]);
    serde_json::to_string(&text).expect("a tree of texts and numbers is always JSON")
}

/// The entry without the name of the file that it stands in, and that name.
fn split_source(mut entry: Json) -> (String, Json) {
    let Json::Object(members) = &mut entry else { return (INVENTORY.to_owned(), entry) };
    let source = members.iter().position(|(name, _)| name == SOURCE).map(|at| members.remove(at).1);
    let source = source.and_then(|source| source.into_text().ok()).unwrap_or_else(|| INVENTORY.to_owned());
    (source, entry)
}

fn changed_instances(before: Vec<Json>, after: Vec<Json>, keys: Option<&Keyring>) -> Vec<InstanceDifference> {
    let by_key = |entries: Vec<Json>| -> BTreeMap<InstanceKey, (String, Json)> {
        let entries = entries.into_iter().map(split_source);
        entries.filter_map(|(source, entry)| Some((key_of(&entry)?, (source, opened(entry, keys))))).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let all: BTreeSet<&InstanceKey> = before.keys().chain(after.keys()).collect();
    let nothing = Json::Object(Vec::new());
    let difference = |key: &InstanceKey| {
        let moved = |from: &String, to: &String| FieldDifference {
            field: SOURCE.to_owned(),
            before: Some(from.as_str().into()),
            after: Some(to.as_str().into()),
        };
        let (change, source, fields) = match (before.get(key), after.get(key)) {
            (Some((from, before)), Some((to, after))) => {
                let mut fields = changed_fields(before, after);
                fields.extend((from != to).then(|| moved(from, to)));
                (InstanceChange::Changed, to, fields)
            }
            (Some((source, before)), None) => (InstanceChange::Removed, source, changed_fields(before, &nothing)),
            (None, Some((source, after))) => (InstanceChange::Added, source, changed_fields(&nothing, after)),
            (None, None) => return None,
        };
        let source = source.clone();
        (!fields.is_empty()).then(|| InstanceDifference { key: key.to_string(), source, change, fields })
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
        let inventory = Some(format!("{{\"instances\": [{instances}]}}"));
        Snapshot { settings: Some(settings.to_owned()), inventory, provided: Some(NO_FLEET.to_owned()) }
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
    fn an_instance_of_another_tool_is_told_with_its_file_and_one_that_moved_with_both() {
        let provided = |source: &str, rest: &str| {
            let entry = format!(r#"{{"source": "{source}", "type": "tcp", "name": "x"{rest}}}"#);
            Snapshot { provided: Some(format!(r#"{{"instances": [{entry}]}}"#)), ..snapshot("{}", "") }
        };
        let (none, there) = (snapshot("{}", ""), provided("instances.d/a.json", ""));
        let added = none.difference(&there, None);
        let shown = "instances.d/a.json\n  + tcp::x\n      name: none → \"x\"\n      type: none → \"tcp\"\n";
        assert_eq!((added.to_string().as_str(), added.summary().as_str()), (shown, "added: tcp::x"));
        let moved = there.difference(&provided("instances.d/b.json", r#", "port": 1"#), None).to_string();
        let shown = "  ~ tcp::x\n      port: none → 1\n      source: \"instances.d/a.json\" → \"instances.d/b.json\"\n";
        assert_eq!(moved, format!("instances.d/b.json\n{shown}"));
        let taken_over = there.difference(&snapshot("{}", r#"{"type": "tcp", "name": "x"}"#), None);
        assert_eq!(taken_over.instances[0].source, "instances.json");
        assert_eq!(there.provided_difference(&none, None)[0].change, InstanceChange::Removed);
    }

    #[test]
    fn a_file_that_is_unknown_at_one_of_the_moments_is_passed_over() {
        let known = snapshot(r#"{"a": 1}"#, "");
        let unknown = Snapshot { settings: None, ..known.clone() };
        assert!(known.difference(&unknown, None).is_empty());
        assert!(unknown.difference(&known, None).is_empty());
    }
}
