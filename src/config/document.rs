//! `instances.json` as the text that it is: one entry is changed where it stands, and every other byte is left alone.
//!
//! Where entries begin and end is told by serde_json's raw values, which are slices of the text itself.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Deserialize as DeserializeDerive, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::entry::{ENCRYPTED, SECRET_FIELDS};
use super::error::Problem;
use super::json::{Json, syntax_problem};
use super::keyring::Keyring;
use super::seal::SecretPlace;
use super::snapshot::NO_FLEET;
use crate::engine::{InstanceKey, InstanceType};

const INDENT: &str = "  ";

/// The text of an `instances.json` that was read without errors. It may hold secrets, so it has no `Debug`.
pub(super) struct InventoryText(Zeroizing<String>);

/// Where the list and its entries stand in the text.
struct Layout {
    /// With its brackets.
    list: Range<usize>,
    entries: Vec<Span>,
}

struct Span {
    range: Range<usize>,
    /// `None` if the entry does not say what it is.
    key: Option<InstanceKey>,
}

impl InventoryText {
    /// The text of the file, or of an empty fleet if there is no file.
    pub(super) fn new(content: Option<&[u8]>) -> Result<Self, Problem> {
        let Some(content) = content else { return Ok(Self(Zeroizing::new(NO_FLEET.to_owned()))) };
        let text = std::str::from_utf8(content).map_err(|_| Problem::NotUnicode)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The entry of an instance.
    pub(super) fn entry(&self, key: &InstanceKey) -> Result<Option<Json>, Problem> {
        let layout = self.layout()?;
        let found = layout.position(key).map(|at| Json::parse(&self.as_bytes()[layout.entries[at].range.clone()]));
        found.transpose()
    }

    /// Every entry that says what it is, with its text, in the order of the file.
    pub(super) fn entries(&self) -> Result<Vec<(InstanceKey, &str)>, Problem> {
        let spans = self.layout()?.entries.into_iter();
        Ok(spans.filter_map(|span| Some((span.key?, &self.0[span.range]))).collect())
    }

    /// Adds an entry at the end of the list, written like the ones before it.
    pub(super) fn insert(&mut self, entry: &Json) -> Result<(), Problem> {
        let layout = self.layout()?;
        let style = Style::of(&self.0, &layout);
        let written = style.write(entry);
        match layout.entries.last() {
            Some(last) => {
                let text = format!(",{}{written}", style.gap);
                self.splice(&[(last.range.end..last.range.end, text)]);
            }
            None => {
                let inside = layout.list.start + 1..layout.list.end - 1;
                let text = format!("{}{written}\n{}", style.gap, indentation_at(&self.0, layout.list.start));
                self.splice(&[(inside, text)]);
            }
        }
        Ok(())
    }

    /// Puts another entry in the place of an instance's; whether there is one.
    pub(super) fn replace(&mut self, key: &InstanceKey, entry: &Json) -> Result<bool, Problem> {
        let layout = self.layout()?;
        let Some(at) = layout.position(key) else { return Ok(false) };
        let written = Style::of(&self.0, &layout).write(entry);
        self.splice(&[(layout.entries[at].range.clone(), written)]);
        Ok(true)
    }

    /// Takes an instance's entry out; whether there was one.
    pub(super) fn remove(&mut self, key: &InstanceKey) -> Result<bool, Problem> {
        let layout = self.layout()?;
        let Some(at) = layout.position(key) else { return Ok(false) };
        let range = &layout.entries[at].range;
        let range = match (at.checked_sub(1), layout.entries.get(at + 1)) {
            (_, Some(next)) => range.start..next.range.start,
            (Some(before), None) => layout.entries[before].range.end..range.end,
            (None, None) => layout.list.start + 1..layout.list.end - 1,
        };
        self.splice(&[(range, String::new())]);
        Ok(true)
    }

    /// Encrypts what stands in it as plain text, or was encrypted with a former key; whether there was any such thing.
    pub(super) fn seal(&mut self, keys: &Keyring) -> Result<bool, Problem> {
        let mut sealed = Vec::new();
        for Span { range, key } in self.layout()?.entries {
            let Some(key) = key else { continue };
            for (field, value) in secrets_of(&self.0[range]) {
                let place = SecretPlace { instance: &key, field };
                let Some(secret) = to_seal(value.get(), place, keys) else { continue };
                let text = keys.seal(place, &secret).map_err(|_| Problem::NoRandomness)?;
                sealed.push((offset(&self.0, value.get()), format!("{{\"{ENCRYPTED}\": \"{text}\"}}")));
            }
        }
        // `secret` and `password` of one entry may stand in either order.
        sealed.sort_unstable_by_key(|(range, _)| range.start);
        self.splice(&sealed);
        Ok(!sealed.is_empty())
    }

    fn layout(&self) -> Result<Layout, Problem> {
        let text = self.0.strip_prefix('\u{feff}').unwrap_or(&self.0);
        let document: Members<'_> = serde_json::from_str(text).map_err(|error| syntax_problem(&error))?;
        let list = document.get("instances").ok_or(Problem::Missing)?;
        let entries: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|error| syntax_problem(&error))?;
        let span = |entry: &RawValue| Span { range: offset(&self.0, entry.get()), key: key_of(entry.get()) };
        Ok(Layout { list: offset(&self.0, list.get()), entries: entries.into_iter().map(span).collect() })
    }

    /// Puts texts in the place of parts, which come in order.
    fn splice(&mut self, parts: &[(Range<usize>, String)]) {
        // A new text rather than one that grows, which would leave copies of its secrets behind.
        let added: usize = parts.iter().map(|(_, with)| with.len()).sum();
        let mut text = String::with_capacity(self.0.len() + added);
        let mut copied = 0;
        for (range, with) in parts {
            text.push_str(&self.0[copied..range.start]);
            text.push_str(with);
            copied = range.end;
        }
        text.push_str(&self.0[copied..]);
        self.0 = Zeroizing::new(text);
    }
}

impl Layout {
    fn position(&self, key: &InstanceKey) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key.as_ref() == Some(key))
    }
}

/// Where a slice of a text stands in it.
fn offset(text: &str, slice: &str) -> Range<usize> {
    let start = slice.as_ptr().addr() - text.as_ptr().addr();
    start..start + slice.len()
}

fn key_of(entry: &str) -> Option<InstanceKey> {
    #[derive(DeserializeDerive)]
    struct Identity {
        #[serde(rename = "type")]
        kind: InstanceType,
        name: String,
    }
    let Identity { kind, name } = serde_json::from_str(entry).ok()?;
    InstanceKey::new(kind, &name).ok()
}

/// The secrets of an entry by the name of their field.
fn secrets_of(entry: &str) -> Vec<(&'static str, &RawValue)> {
    let auth = serde_json::from_str::<Members<'_>>(entry).ok().and_then(|entry| entry.get("auth"));
    let auth = auth.and_then(|auth| serde_json::from_str::<Members<'_>>(auth.get()).ok());
    let Some(auth) = auth else { return Vec::new() };
    SECRET_FIELDS.into_iter().filter_map(|field| Some((field, auth.get(field)?))).collect()
}

/// The plain text of a secret that does not stand there as it should.
fn to_seal(value: &str, place: SecretPlace<'_>, keys: &Keyring) -> Option<Zeroizing<String>> {
    if value.starts_with('"') {
        return serde_json::from_str(value).ok().map(Zeroizing::new);
    }
    let members = serde_json::from_str::<Members<'_>>(value).ok();
    let sealed = members.and_then(|members| serde_json::from_str::<String>(members.get(ENCRYPTED)?.get()).ok());
    match sealed {
        // What no key opens stays as it is.
        Some(sealed) if keys.is_outdated(&sealed) => {
            keys.open(place, &sealed).ok().map(|secret| Zeroizing::new(secret.expose().to_owned()))
        }
        _ => None,
    }
}

/// How the entries of a list are written.
struct Style {
    /// What stands before an entry.
    gap: String,
    /// The indentation of an entry and of what is in it; `None` if they stand on one line.
    indent: Option<(String, String)>,
}

impl Style {
    fn of(text: &str, layout: &Layout) -> Self {
        let Some(first) = layout.entries.first() else {
            let base = format!("{}{INDENT}", indentation_at(text, layout.list.start));
            return Self { gap: format!("\n{base}"), indent: Some((base, INDENT.to_owned())) };
        };
        let gap = &text[layout.list.start + 1..first.range.start];
        let Some((_, base)) = gap.rsplit_once('\n') else {
            let gap = if layout.entries.len() > 1 || gap.is_empty() { " " } else { gap };
            return Self { gap: gap.to_owned(), indent: None };
        };
        let inside = text[first.range.clone()].split('\n').nth(1).unwrap_or_default();
        let inside = &inside[..inside.len() - inside.trim_start_matches([' ', '\t']).len()];
        let unit = inside.strip_prefix(base).filter(|unit| !unit.is_empty()).unwrap_or(INDENT);
        Self { gap: format!("\n{base}"), indent: Some((base.to_owned(), unit.to_owned())) }
    }

    fn write(&self, entry: &Json) -> String {
        let always = "a tree of texts and numbers is always JSON";
        let Some((base, unit)) = &self.indent else { return serde_json::to_string(entry).expect(always) };
        let mut written = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(unit.as_bytes());
        entry.serialize(&mut serde_json::Serializer::with_formatter(&mut written, formatter)).expect(always);
        // A line break within a text is written as an escape.
        String::from_utf8(written).expect("JSON is UTF-8").replace('\n', &format!("\n{base}"))
    }
}

/// The white space that the line around `at` begins with.
fn indentation_at(text: &str, at: usize) -> &str {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let rest = &text[line..at];
    &rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()]
}

/// The members of an object, in their order, as slices of the text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &RawValue>()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(of: &str) -> InventoryText {
        InventoryText::new(Some(of.as_bytes())).ok().unwrap()
    }

    fn entry(of: &str) -> Json {
        Json::parse(of.as_bytes()).ok().unwrap()
    }

    fn key(name: &str) -> InstanceKey {
        name.parse().unwrap()
    }

    const BY_HAND: &str = r#"{
    "instances": [
        {"type": "tcp",   "name": "a", "host": "a", "port": 1},

        {
            "type": "tcp", "name": "b",
            "host": "b", "port": 2
        }
    ]
}
"#;

    #[test]
    fn an_entry_is_added_behind_the_last_and_written_like_the_first() {
        let mut inventory = text(BY_HAND);
        inventory.insert(&entry(r#"{"type":"tcp","name":"c","host":"c"}"#)).unwrap();
        let expected = BY_HAND.replace(
            "\"port\": 2\n        }\n",
            "\"port\": 2\n        },\n        {\n          \"type\": \"tcp\",\n          \"name\": \"c\",\n          \"host\": \"c\"\n        }\n",
        );
        assert_eq!(inventory.0.as_str(), expected);
    }

    #[test]
    fn an_entry_is_replaced_or_removed_where_it_stands() {
        let mut inventory = text(BY_HAND);
        assert!(inventory.replace(&key("tcp::a"), &entry(r#"{"type":"tcp","name":"a"}"#)).unwrap());
        let replaced = "{\n          \"type\": \"tcp\",\n          \"name\": \"a\"\n        }";
        let before = r#"{"type": "tcp",   "name": "a", "host": "a", "port": 1}"#;
        assert_eq!(inventory.0.as_str(), BY_HAND.replace(before, replaced));
        assert!(inventory.remove(&key("tcp::b")).unwrap());
        assert!(!inventory.remove(&key("tcp::b")).unwrap());
        assert!(!inventory.replace(&key("pve::a"), &Json::Null).unwrap());
        assert_eq!(inventory.0.as_str(), format!("{{\n    \"instances\": [\n        {replaced}\n    ]\n}}\n"));
        assert!(inventory.remove(&key("tcp::a")).unwrap());
        assert_eq!(inventory.0.as_str(), "{\n    \"instances\": []\n}\n");
    }

    #[test]
    fn the_first_entry_of_a_fleet_without_a_file_is_written_for_people() {
        let mut inventory = InventoryText::new(None).ok().unwrap();
        inventory.insert(&entry(r#"{"type":"tcp"}"#)).unwrap();
        assert_eq!(inventory.0.as_str(), "{\n  \"instances\": [\n    {\n      \"type\": \"tcp\"\n    }\n  ]\n}\n");
    }

    #[test]
    fn a_list_on_one_line_stays_on_one_line() {
        let mut inventory = text(r#"{"instances":[{"type":"tcp","name":"a"}]}"#);
        inventory.insert(&entry(r#"{"type":"tcp","name":"b"}"#)).unwrap();
        assert_eq!(inventory.0.as_str(), r#"{"instances":[{"type":"tcp","name":"a"}, {"type":"tcp","name":"b"}]}"#);
    }

    #[test]
    fn plain_secrets_are_sealed_where_they_stand_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::read_or_make(folder.path()).unwrap();
        let by_hand = "\u{feff}{ \"instances\": [ {\"type\":\"pve\", \"name\":\"a\",\n\"auth\": { \"secret\" : \"hunter\\u0032\", \"tokenId\": \"hunter2\" } },\
            {\"type\":\"pmg\",\"name\":\"b\",\"auth\":{\"password\":{\"file\":\"x\"}}} ] }";
        let mut inventory = text(by_hand);
        assert!(inventory.seal(&keys).unwrap());
        let sealed = inventory.entry(&key("pve::a")).unwrap().unwrap();
        let sealed = serde_json::to_value(sealed).unwrap()["auth"]["secret"]["encrypted"].as_str().unwrap().to_owned();
        let place = SecretPlace { instance: &key("pve::a"), field: "secret" };
        assert_eq!(keys.open(place, &sealed).unwrap().expose(), "hunter2");
        let expected = by_hand.replace("\"hunter\\u0032\"", &format!("{{\"encrypted\": \"{sealed}\"}}"));
        assert_eq!(inventory.0.as_str(), expected);
        assert!(!inventory.seal(&keys).unwrap(), "once is enough");
    }

    fn white() -> impl Strategy<Value = String> {
        "[ \t\n\r]{0,3}"
    }

    /// A fleet of `tcp` instances with these names, with white space wherever JSON allows it.
    fn fleet() -> impl Strategy<Value = (Vec<String>, String)> {
        let entries = proptest::collection::btree_map("[a-z]{1,3}", (white(), white(), white()), 0..6);
        (entries, white(), white()).prop_map(|(entries, before, after)| {
            let written: Vec<String> = entries
                .iter()
                .map(|(name, (a, b, c))| {
                    format!("{a}{{{b}\"type\":{c}\"tcp\",\"name\":\"{name}\", \"x\": \"}},{{[\\\"\"}}{b}")
                })
                .collect();
            let text =
                format!("{before}{{\"a\":[{{}}],{after}\"instances\":{before}[{}{after}]{after}}}", written.join(","));
            (entries.into_keys().collect(), text)
        })
    }

    proptest! {
        #[test]
        fn an_edit_leaves_every_other_entry_byte_for_byte(
            (names, written) in fleet(), at in any::<prop::sample::Index>(), new in "[A-Z]{1,3}"
        ) {
            let before = text(&written);
            let names: Vec<InstanceKey> = names.iter().map(|name| key(&format!("tcp::{name}"))).collect();
            prop_assert_eq!(before.entries().unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), names.clone());
            let new_key = key(&format!("tcp::{new}"));
            let new = entry(&format!(r#"{{"type":"tcp","name":"{new}"}}"#));

            let mut added = text(&written);
            added.insert(&new).unwrap();
            let (last, others) = { let mut all = added.entries().unwrap(); (all.pop().unwrap(), all) };
            prop_assert_eq!(&others, &before.entries().unwrap());
            prop_assert_eq!(last.0, new_key.clone());
            prop_assert!(Json::parse(added.as_bytes()).is_ok());

            prop_assume!(!names.is_empty());
            let at = at.index(names.len());
            let others = |text: &InventoryText| -> Vec<String> {
                let kept = |key: &InstanceKey| *key != names[at] && *key != new_key;
                text.entries().unwrap().into_iter().filter(|(key, _)| kept(key)).map(|(_, text)| text.to_owned()).collect()
            };
            let mut replaced = text(&written);
            prop_assert!(replaced.replace(&names[at], &new).unwrap());
            prop_assert_eq!(others(&replaced), others(&before));
            prop_assert!(replaced.entry(&new_key).unwrap().is_some());
            let mut removed = text(&written);
            prop_assert!(removed.remove(&names[at]).unwrap());
            prop_assert_eq!(others(&removed), others(&before));
            prop_assert_eq!(removed.entries().unwrap().len(), names.len() - 1);
        }

        #[test]
        fn no_text_makes_it_panic(written in "\\PC{0,80}|[\\[\\]{}:,\" a-z]{0,60}|\\{\"instances\":[\\[\\]{}:,\" a-z]{0,60}") {
            let mut inventory = text(&written);
            let _ = inventory.insert(&Json::Null);
            let _ = inventory.remove(&key("tcp::a"));
        }
    }
}
