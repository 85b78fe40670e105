//! `discovery` of `system.json`: files of targets in the form of Prometheus (`file_sd`), and what their instances share.
//!
//! A target becomes an entry of `instances.json` and is read as one. What is wrong with it is told where it was written:
//! at the target, at a label, or at what all share.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::entry;
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, JsonErrors, Place, Problem, Source};
use super::instance;
use super::json::{Fields, Json, JsonPath, unknown};
use super::reference::References;
use super::target_paths::PathPattern;
use crate::engine::InstanceType;

/// Its name in `system.json`.
pub(super) const DISCOVERY: &str = "discovery";
const MAX_ITEMS: usize = 32;
const MAX_PATHS: usize = 32;
/// The label that names a target.
pub(super) const NAME_LABEL: &str = "__pulse_name";
/// Labels with this prefix are for Pulse; all others are passed over.
const PREFIX: &str = "__pulse_";
/// The labels that set something, and the fields that they set.
const LABELS: [(&str, &str); 11] = [
    ("__pulse_body_contains", "bodyContains"),
    ("__pulse_display_name", "displayName"),
    ("__pulse_enabled", "enabled"),
    ("__pulse_expected_status", "expectedStatus"),
    ("__pulse_fingerprint", "tls"),
    ("__pulse_interval", "interval"),
    ("__pulse_members", "members"),
    ("__pulse_method", "method"),
    (NAME_LABEL, "name"),
    ("__pulse_timeout", "timeout"),
    ("__pulse_type", "type"),
];
/// What a target is, and so nothing that all share.
const OF_TARGETS: [&str; 6] = ["name", "displayName", "url", "members", "host", "port"];
/// What a target of another type than the others shares with them.
const OF_ALL_TYPES: [&str; 3] = ["enabled", "interval", "timeout"];

/// Which files name targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Discovery {
    pub(super) items: Vec<TargetFiles>,
}

/// Files whose targets have the same form.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TargetFiles {
    pub(super) paths: Vec<PathPattern>,
    /// What the entries of all targets hold; no secret is in it.
    shared: Vec<(String, Json)>,
    /// Where it stands, in `system.json`.
    at: String,
}

impl fmt::Debug for TargetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetFiles").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// Reads the entry of `system.json`, which is the file at `path`; and the files that it refers to.
pub(super) fn read(
    json: Json,
    path: &Path,
    environment: &Environment,
) -> (Result<Discovery, ConfigErrors>, BTreeSet<PathBuf>) {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut references = References::new(folder, environment, None);
    let mut errors = JsonErrors::new(Source::File(path));
    let place = JsonPath::Root.field(DISCOVERY);
    let mut discovery = Discovery::default();
    if let Some(mut fields) = Fields::open(json, &place, &mut errors) {
        let items = fields.require("files", &mut errors, |json| json.into_array_of(MAX_ITEMS));
        fields.finish(&mut errors);
        let list = place.field("files");
        for (index, item) in items.unwrap_or_default().into_iter().enumerate() {
            let item = TargetFiles::read(item, &list.item(index), folder, &mut references, &mut errors);
            discovery.items.extend(item);
        }
    }
    (errors.or(discovery), references.into_files())
}

impl TargetFiles {
    fn read(
        json: Json,
        path: &JsonPath<'_>,
        folder: &Path,
        references: &mut References<'_>,
        errors: &mut JsonErrors<'_>,
    ) -> Option<Self> {
        let mut fields = Fields::open(json, path, errors)?;
        let list = path.field("paths");
        let given = fields.require("paths", errors, |json| match json.into_array_of(MAX_PATHS)? {
            none if none.is_empty() => Err(Problem::Empty),
            given => Ok(given),
        });
        let mut paths = Vec::new();
        for (index, item) in given.unwrap_or_default().into_iter().enumerate() {
            let pattern = item.into_text().and_then(|text| PathPattern::read(&text, folder));
            paths.extend(errors.keep(&list.item(index), pattern));
        }
        let shared = fields.into_rest();
        judge_shared(&shared, path, references, errors);
        Some(Self { paths, shared, at: path.to_string() })
    }

    /// The entry that a target becomes, with what its labels set.
    pub(super) fn entry(&self, target: &str, labels: &[(&'static str, String)]) -> Json {
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_str());
        let shared_type = type_of(&self.shared);
        let kind = label("__pulse_type").unwrap_or(shared_type);
        let is_shared = |name: &str| kind == shared_type || OF_ALL_TYPES.contains(&name);
        let is_set = |name: &str| labels.iter().any(|(label, _)| field_of(label) == Some(name));
        let shared = self.shared.iter().filter(|(name, _)| name != "type" && is_shared(name) && !is_set(name));
        let mut entry = vec![
            ("type".to_owned(), text(kind)),
            ("name".to_owned(), text(label(NAME_LABEL).unwrap_or_else(|| name_of(target)))),
        ];
        entry.extend(address(kind, target));
        entry.extend(shared.cloned());
        for (label, value) in labels {
            if let Some(field) = field_of(label).filter(|field| !["type", "name"].contains(field)) {
                entry.push((field.to_owned(), value_of(field, value)));
            }
        }
        Json::Object(entry)
    }

    /// Puts an error where it can be mended: `error` is at a field of the entry that `target` of `file` became.
    pub(super) fn relocate(&self, error: &ConfigError, here: &TargetPlace<'_>) -> ConfigError {
        let at = match &error.place {
            Place::File { at, .. } => at.as_str(),
            _ => "",
        };
        let field = at.split(['.', '[']).next().unwrap_or_default();
        let label = here.labels.iter().find(|(label, _)| field_of(label) == Some(field));
        let place = match label {
            Some((label, _)) => here.in_file(format!("[{}].labels.{label}", here.group)),
            None if field.is_empty() || OF_TARGETS.contains(&field) => here.place(),
            None => Place::File { file: here.system_file.to_owned(), at: format!("{}.{at}", self.at) },
        };
        ConfigError { place, problem: error.problem.clone() }
    }
}

/// Where a target was written.
pub(super) struct TargetPlace<'a> {
    pub(super) system_file: &'a Path,
    pub(super) file: &'a Path,
    pub(super) group: usize,
    pub(super) target: usize,
    pub(super) labels: &'a [(&'static str, String)],
}

impl TargetPlace<'_> {
    pub(super) fn place(&self) -> Place {
        self.in_file(format!("[{}].targets[{}]", self.group, self.target))
    }

    fn in_file(&self, at: String) -> Place {
        Place::File { file: self.file.to_owned(), at }
    }
}

/// Reads what all share by means of a target that there might be.
fn judge_shared(
    shared: &[(String, Json)],
    path: &JsonPath<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) {
    let mut sound = true;
    let mut refuse = |at: &JsonPath<'_>, text: &str| {
        sound = false;
        errors.add(at, Problem::Rule(text.to_owned()));
    };
    for (name, _) in shared.iter().filter(|(name, _)| OF_TARGETS.contains(&name.as_str())) {
        refuse(&path.field(name), "is what a target tells; remove it here");
    }
    let mut entry = Json::Object(shared.to_vec());
    let auth = path.field("auth");
    for (field, value) in entry::secrets_mut(&mut entry) {
        if entry::holds_secret(value) {
            let rule = "must be {\"file\": …} or {\"env\": …}; secrets do not stand in system.json";
            refuse(&auth.field(field), rule);
        }
    }
    let Json::Object(mut sample) = entry else { return };
    if !sound {
        return;
    }
    let address = address(type_of(&sample), "192.0.2.1:1");
    sample.push(("name".to_owned(), text("sample")));
    sample.extend(address);
    if let Some(mut fields) = Fields::open(Json::Object(sample), path, errors) {
        let identity = instance::read_identity(&mut fields, errors);
        instance::read(identity, fields, references, errors);
    }
}

/// The type that an entry with these fields is of; nothing if it tells none.
fn type_of(fields: &[(String, Json)]) -> &str {
    let kind = fields.iter().find_map(|(name, value)| match value {
        Json::Text(kind) if name == "type" => Some(kind.as_str()),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// The name that a target has by itself: its address, without what may be secret in it.
fn name_of(target: &str) -> &str {
    let address = target.split('?').next().unwrap_or_default();
    address.rsplit('@').next().unwrap_or_default()
}

/// The fields that tell where a target is.
fn address(kind: &str, target: &str) -> Vec<(String, Json)> {
    if kind != InstanceType::Tcp.as_str() {
        return vec![("url".to_owned(), text(target))];
    }
    let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
    let port = port.parse::<u16>().map_or_else(|_| text(port), |port| Json::Number(port.into()));
    vec![("host".to_owned(), text(host)), ("port".to_owned(), port)]
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn field_of(label: &str) -> Option<&'static str> {
    LABELS.iter().find(|(name, _)| *name == label).map(|(_, field)| *field)
}

/// The value of a field that a label sets. Labels are texts.
fn value_of(field: &str, value: &str) -> Json {
    match (field, value) {
        ("enabled", "true") => Json::Bool(true),
        ("enabled", "false") => Json::Bool(false),
        ("tls", fingerprint) => Json::Object(vec![("fingerprint".to_owned(), text(fingerprint))]),
        ("members", members) => Json::Array(members.split(',').map(|member| text(member.trim())).collect()),
        _ => text(value),
    }
}

/// Targets with the labels that they share.
pub(super) struct TargetGroup {
    pub(super) targets: Vec<String>,
    /// Those that are for Pulse.
    pub(super) labels: Vec<(&'static str, String)>,
}

/// Reads a file of targets. The groups come with their positions.
pub(super) fn read_groups(json: Json, errors: &mut JsonErrors<'_>) -> Vec<(usize, TargetGroup)> {
    let groups = errors.keep(&JsonPath::Root, json.into_array()).unwrap_or_default();
    let mut read = Vec::new();
    for (index, group) in groups.into_iter().enumerate() {
        let path = JsonPath::Root.item(index);
        let Some(mut fields) = Fields::open(group, &path, errors) else { continue };
        let targets = fields.require("targets", errors, Json::into_array).unwrap_or_default();
        let labels = fields.read("labels", errors, Json::into_object).unwrap_or_default();
        fields.finish(errors);
        let list = path.field("targets");
        let targets: Vec<Option<String>> = targets
            .into_iter()
            .enumerate()
            .map(|(at, target)| errors.keep(&list.item(at), instance::short_text(target, MAX_TARGET_BYTES)))
            .collect();
        let labels = read_labels(labels, &path.field("labels"), errors);
        // With one of them unreadable the file is refused whatever the others are.
        if let Some(targets) = targets.into_iter().collect() {
            read.push((index, TargetGroup { targets, labels }));
        }
    }
    read
}

/// As long as a URL may be that a name is made of.
const MAX_TARGET_BYTES: usize = 2048;

fn read_labels(
    labels: Vec<(String, Json)>,
    path: &JsonPath<'_>,
    errors: &mut JsonErrors<'_>,
) -> Vec<(&'static str, String)> {
    let mut known: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in labels {
        let at = path.field(&name);
        if matches!(value, Json::Null) {
            continue;
        }
        let Some(value) = errors.keep(&at, value.into_text()) else { continue };
        if !name.starts_with(PREFIX) {
            continue;
        }
        match LABELS.iter().find(|(label, _)| *label == name) {
            Some((label, _)) if known.iter().any(|(other, _)| other == label) => errors.add(&at, Problem::Repeated),
            Some((label, _)) => known.push((label, value)),
            None => errors.add(&at, unknown(&name, &LABELS.map(|(label, _)| label))),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(of: &str) -> Json {
        Json::parse(of.as_bytes()).ok().unwrap()
    }

    fn read_items(items: &str) -> Result<Discovery, String> {
        let (read, _) = read(
            json(&format!(r#"{{"files": [{items}]}}"#)),
            Path::new("/data/system.json"),
            &[("TOKEN", "hunter2")].into_iter().collect(),
        );
        read.map_err(|errors| errors.to_string().replace("/data/system.json: discovery.files", "files"))
    }

    const PVE: &str = r#"{"paths": ["/targets/*.json"], "type": "pve", "interval": "30s",
        "auth": {"tokenId": "pulse@pve!monitor", "secret": {"env": "TOKEN"}}}"#;

    fn entry_of(item: &str, target: &str, labels: &[(&'static str, &str)]) -> String {
        let labels: Vec<_> = labels.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        serde_json::to_string(&read_items(item).unwrap().items[0].entry(target, &labels)).unwrap()
    }

    #[test]
    fn a_target_has_its_address_as_its_name_and_what_all_share() {
        assert_eq!(
            entry_of(PVE, "10.0.0.1:8006", &[]),
            r#"{"type":"pve","name":"10.0.0.1:8006","url":"10.0.0.1:8006","interval":"30s","auth":{"tokenId":"pulse@pve!monitor","secret":{"env":"TOKEN"}}}"#
        );
        let tcp = r#"{"paths": ["x.json"], "type": "tcp"}"#;
        assert_eq!(entry_of(tcp, "[::1]:80", &[]), r#"{"type":"tcp","name":"[::1]:80","host":"[::1]","port":80}"#);
        let http = r#"{"paths": ["x.json"], "type": "http"}"#;
        assert!(entry_of(http, "https://a.example/x?token=1", &[]).contains(r#""name":"https://a.example/x","#));
    }

    #[test]
    fn labels_beat_what_all_share_and_another_type_shares_little() {
        let labels = [
            ("__pulse_name", "rack"),
            ("__pulse_interval", "5s"),
            ("__pulse_enabled", "false"),
            ("__pulse_members", "b, c"),
            ("__pulse_fingerprint", "AB"),
        ];
        let entry = entry_of(PVE, "a", &labels);
        let set = r#""interval":"5s","enabled":false,"members":["b","c"],"tls":{"fingerprint":"AB"}}"#;
        assert!(
            entry.starts_with(r#"{"type":"pve","name":"rack","url":"a","auth":{"#) && entry.ends_with(set),
            "{entry}"
        );
        assert_eq!(
            entry_of(PVE, "a:1", &[("__pulse_type", "tcp")]),
            r#"{"type":"tcp","name":"a:1","host":"a","port":1,"interval":"30s"}"#
        );
    }

    #[test]
    fn what_is_wrong_with_what_all_share_is_told_without_a_target() {
        for (item, expected) in [
            (r#"{"type": "tcp"}"#, "files[0].paths: is required"),
            (r#"{"paths": [], "type": "tcp"}"#, "files[0].paths: must not be empty"),
            (r#"{"paths": ["a.txt"], "type": "tcp"}"#, "files[0].paths[0]: must end in .json, .yml or .yaml"),
            (
                r#"{"paths": ["/*/a.json"], "type": "tcp"}"#,
                "files[0].paths[0]: may hold one * at the most, in the name of the file",
            ),
            (
                r#"{"paths": ["./*.json"], "type": "tcp"}"#,
                "files[0].paths[0]: would take in the other files of the data folder; give the targets a folder of their own",
            ),
            (r#"{"paths": ["a.json"]}"#, "files[0].type: is required"),
            (r#"{"paths": ["a.json"], "type": "pve"}"#, "files[0].auth: is required"),
            (
                r#"{"paths": ["a.json"], "type": "tcp", "port": 1}"#,
                "files[0].port: is what a target tells; remove it here",
            ),
            (
                r#"{"paths": ["a.json"], "type": "tcp", "intervall": 1}"#,
                "files[0].intervall: unknown setting; did you mean interval?",
            ),
            (
                &PVE.replace(r#"{"env": "TOKEN"}"#, "\"hunter2\""),
                "files[0].auth.secret: must be {\"file\": …} or {\"env\": …}; secrets do not stand in system.json",
            ),
        ] {
            assert_eq!(read_items(item).unwrap_err(), expected);
        }
    }

    #[test]
    fn other_labels_are_passed_over_and_misspelt_ones_are_not() {
        let mut errors = JsonErrors::new(Source::Request);
        let labels = r#"[{"targets": ["a"], "labels": {"__meta_dc": "x", "job": "y", "__pulse_timeout": "1s"}}]"#;
        let groups = read_groups(json(labels), &mut errors);
        assert_eq!(groups[0].1.labels, [("__pulse_timeout", "1s".to_owned())]);
        read_groups(json(r#"[{"targets": ["a"], "labels": {"__pulse_nam": "x", "job": 1}, "x": 1}]"#), &mut errors);
        let told = errors.or(()).unwrap_err().to_string();
        for line in [
            "[0].labels.__pulse_nam: unknown setting; did you mean __pulse_name?",
            "[0].labels.job: must be a text, but is a number",
            "[0].x: unknown setting; known here: targets, labels",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
