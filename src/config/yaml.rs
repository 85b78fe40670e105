//! YAML as it is written for Prometheus, read into the same tree as JSON, and bounded however its aliases refer.
//!
//! Scalars are texts, as targets and labels are for Prometheus: `true` and `5` need no quotes there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::error::Problem;
use super::json::Json;

/// How deep values may stand in one another; as in JSON.
const MAX_DEPTH: usize = 128;
/// How many values aliases and anchors may copy,
const MAX_COPIED_VALUES: usize = 1_000_000;
/// and how many bytes of text.
const MAX_COPIED_BYTES: usize = 64 * 1024 * 1024;

/// Reads the one document of a file.
pub(super) fn parse(content: &[u8]) -> Result<Json, Problem> {
    let text = std::str::from_utf8(content).map_err(|_| Problem::NotUnicode)?;
    let mut parser = Parser::new_from_str(text.trim_start_matches('\u{feff}'));
    let mut tree = Tree::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        match event {
            Event::StreamEnd => break,
            event => tree.take(event, &span.start)?,
        }
    }
    let reason = "the file is empty; a list without targets is []";
    tree.root.ok_or_else(|| Problem::Syntax { line: 1, column: 1, reason: reason.to_owned() })
}

fn syntax(error: &ScanError) -> Problem {
    // It may name a character of the file.
    let reason: String = error.info().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    at(error.marker(), &reason)
}

fn at(mark: &Marker, reason: &str) -> Problem {
    Problem::Syntax { line: mark.line(), column: mark.col() + 1, reason: reason.to_owned() }
}

/// What was read so far.
#[derive(Default)]
struct Tree {
    root: Option<Json>,
    /// The lists and mappings that have begun, from the outermost on.
    open: Vec<Open>,
    anchors: BTreeMap<usize, Json>,
    copied_values: usize,
    copied_bytes: usize,
}

/// A list or mapping that has begun.
struct Open {
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Json>),
    Mapping(Mapping),
}

#[derive(Default)]
struct Mapping {
    entries: Vec<(String, Json)>,
    /// The key whose value comes next.
    key: Option<Key>,
    /// What `<<` takes in: it yields to the entries that stand there.
    merged: Vec<Json>,
}

enum Key {
    Named(String),
    Merge,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, mark: &Marker) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(at(mark, "another document begins; one file holds one list"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                judge_tag(tag.as_ref(), mark)?;
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let is_merge = is_plain && text == "<<";
                let value = if is_null { Json::Null } else { Json::Text(text.into_owned()) };
                self.anchor(anchor, &value, mark)?;
                self.add(value, is_merge, mark)
            }
            Event::Alias(anchor) => {
                let value =
                    self.anchors.get(&anchor).ok_or_else(|| at(mark, "an alias stands in what it refers to"))?;
                let (values, bytes) = size(value);
                let value = value.clone();
                self.spend(values, bytes, mark)?;
                self.add(value, false, mark)
            }
            Event::SequenceStart(anchor, tag) => self.begin(anchor, Inside::List(Vec::new()), tag.as_ref(), mark),
            Event::MappingStart(anchor, tag) => {
                self.begin(anchor, Inside::Mapping(Mapping::default()), tag.as_ref(), mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(mark),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(
        &mut self,
        anchor: usize,
        inside: Inside,
        tag: Option<&Cow<'_, Tag>>,
        mark: &Marker,
    ) -> Result<(), Problem> {
        judge_tag(tag, mark)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(at(mark, "values stand too deep in one another"));
        }
        self.open.push(Open { anchor, inside });
        Ok(())
    }

    fn end(&mut self, mark: &Marker) -> Result<(), Problem> {
        let Some(Open { anchor, inside }) = self.open.pop() else { return Ok(()) };
        let value = match inside {
            Inside::List(items) => Json::Array(items),
            Inside::Mapping(mapping) => mapping.finish(mark)?,
        };
        self.anchor(anchor, &value, mark)?;
        self.add(value, false, mark)
    }

    fn add(&mut self, value: Json, is_merge: bool, mark: &Marker) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open { inside: Inside::List(items), .. }) => items.push(value),
            Some(Open { inside: Inside::Mapping(mapping), .. }) => match (mapping.key.take(), value) {
                (Some(Key::Named(key)), value) => mapping.entries.push((key, value)),
                (Some(Key::Merge), value) => mapping.merged.push(value),
                (None, _) if is_merge => mapping.key = Some(Key::Merge),
                (None, Json::Text(key)) => mapping.key = Some(Key::Named(key)),
                (None, Json::Null) => mapping.key = Some(Key::Named(String::new())),
                (None, _) => return Err(at(mark, "a key must be a text")),
            },
        }
        Ok(())
    }

    /// Keeps what an anchor names.
    fn anchor(&mut self, anchor: usize, value: &Json, mark: &Marker) -> Result<(), Problem> {
        // 0 is no anchor.
        if anchor > 0 {
            let (values, bytes) = size(value);
            self.spend(values, bytes, mark)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(())
    }

    fn spend(&mut self, values: usize, bytes: usize, mark: &Marker) -> Result<(), Problem> {
        self.copied_values += values;
        self.copied_bytes += bytes;
        if self.copied_values > MAX_COPIED_VALUES || self.copied_bytes > MAX_COPIED_BYTES {
            return Err(at(mark, "anchors and aliases copy too much; write it out, or split the file"));
        }
        Ok(())
    }
}

impl Mapping {
    fn finish(self, mark: &Marker) -> Result<Json, Problem> {
        let Self { mut entries, merged, .. } = self;
        if merged.is_empty() {
            return Ok(Json::Object(entries));
        }
        let mut known: BTreeSet<String> = entries.iter().map(|(name, _)| name.clone()).collect();
        let lists = merged.into_iter().flat_map(|value| match value {
            Json::Array(items) => items,
            other => vec![other],
        });
        for value in lists {
            let Json::Object(merged) = value else { return Err(at(mark, "<< takes a mapping, or a list of them")) };
            entries.extend(merged.into_iter().filter(|(name, _)| known.insert(name.clone())));
        }
        Ok(Json::Object(entries))
    }
}

/// Tags of the core schema change nothing here; any other asks for something that is not done.
fn judge_tag(tag: Option<&Cow<'_, Tag>>, mark: &Marker) -> Result<(), Problem> {
    let is_known = |tag: &Cow<'_, Tag>| {
        tag.is_yaml_core_schema()
            && ["str", "int", "float", "bool", "null", "seq", "map"].contains(&tag.suffix.as_str())
    };
    if tag.is_none_or(is_known) { Ok(()) } else { Err(at(mark, "a tag of this kind is not read; remove it")) }
}

/// How many values there are, and how many bytes of text.
fn size(value: &Json) -> (usize, usize) {
    let sum = |all: (usize, usize), one: (usize, usize)| (all.0 + one.0, all.1 + one.1);
    match value {
        Json::Text(text) => (1, text.len()),
        Json::Array(items) => items.iter().map(size).fold((1, 0), sum),
        Json::Object(entries) => {
            entries.iter().map(|(name, value)| sum(size(value), (0, name.len()))).fold((1, 0), sum)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        parse(text.as_bytes()).map_or_else(|problem| problem.to_string(), |json| serde_json::to_string(&json).unwrap())
    }

    #[test]
    fn what_the_documentation_of_prometheus_shows_is_read_as_its_json_is() {
        let yaml = "- targets:\n  - localhost:9090\n  - 'db: 1'\n  labels:\n    mysterious: label\n    __meta_empty:\n";
        let json = r#"[{"targets":["localhost:9090","db: 1"],"labels":{"mysterious":"label","__meta_empty":null}}]"#;
        assert_eq!(read(yaml), json);
        assert_eq!(read(json), json, "JSON is YAML");
        assert_eq!(read(&format!("\u{feff}# NetBox\n---\n{yaml}...\n")), json);
    }

    #[test]
    fn scalars_are_texts_whatever_they_look_like() {
        assert_eq!(
            read("[true, 5, 0x1f, !!int 7, \"\", ~, 2026-11-29, '~']"),
            r#"["true","5","0x1f","7","",null,"2026-11-29","~"]"#
        );
        assert_eq!(read("- |-\n  a\n  b\n- >-\n  c\n  d\n"), r#"["a\nb","c d"]"#);
    }

    #[test]
    fn anchors_and_merges_stand_for_what_they_name() {
        let yaml = "- &first\n  labels: &common {job: pve, site: a}\n- labels: {<<: *common, site: b}\n- *first\n- {<<: [*common, {x: y, job: z}]}";
        let first = r#"{"labels":{"job":"pve","site":"a"}}"#;
        let second = r#"{"labels":{"site":"b","job":"pve"}}"#;
        let last = r#"{"job":"pve","site":"a","x":"y"}"#;
        assert_eq!(read(yaml), format!("[{first},{second},{first},{last}]"));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_line_and_column() {
        for (yaml, expected) in [
            ("", "line 1, column 1: the file is empty; a list without targets is []"),
            ("# nothing yet\n", "line 1, column 1: the file is empty; a list without targets is []"),
            ("- a\n---\n- b\n", "line 2, column 1: another document begins; one file holds one list"),
            ("- targets: [a\n  labels: {}\n", "line 2, column "),
            ("- a: b: c\n", "line 1, column 7: mapping values are not allowed in this context"),
            ("- a\n- *b\n", "line 2, column 3: while parsing node, found unknown anchor"),
            ("- &a [*a]\n", "line 1, column 7: an alias stands in what it refers to"),
            ("- !!binary aGk=\n", "line 1, column 3: a tag of this kind is not read; remove it"),
            ("- !vault x\n", "line 1, column 3: a tag of this kind is not read; remove it"),
            ("- {[a]: b}\n", "a key must be a text"),
            ("- {<<: a}\n", "<< takes a mapping, or a list of them"),
            ("- @\u{7}\n", "line 1, column 3: unexpected character: `@'"),
        ] {
            let told = read(yaml);
            assert!(told.contains(expected) && !told.contains(char::is_control), "{yaml:?}: {told}");
        }
        assert_eq!(parse(b"- \xff\n").err(), Some(Problem::NotUnicode));
    }

    #[test]
    fn neither_depth_nor_aliases_go_beyond_their_bounds() {
        for deep in ["[".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
            let told = read(&deep);
            assert!(told.contains("too deep") || told.contains("recursion limit"), "{told}");
        }
        let mut laughs = "- &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
        for level in 1..30 {
            let below = format!("*l{}, ", level - 1).repeat(10);
            laughs += &format!("- &l{level} [{below}]\n");
        }
        assert!(read(&laughs).starts_with("line 6, column "), "{}", read(&laughs));
        assert!(read(&laughs).ends_with("anchors and aliases copy too much; write it out, or split the file"));
    }
}
