//! JSON as people write it: keys in their order, repeated keys seen, every value with a path to point at.
//!
//! Objects are read by taking fields out of them; what is left over is unknown and reported with a suggestion.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

use super::error::{JsonErrors, Problem};

/// A JSON value that keeps the order of its keys. It may hold secrets, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|error| syntax_problem(&error))
    }

    /// The value of a field; `None` if there is none, or this is no object.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(entry, _)| entry == name).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter_mut().find(|(entry, _)| entry == name).map(|(_, value)| value)
    }

    /// What kind of value it is, for an error.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    pub(super) fn wrong_type(&self, expected: &'static str) -> Problem {
        Problem::WrongType { expected, found: self.kind() }
    }

    pub(super) fn into_text(self) -> Result<String, Problem> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.wrong_type("a text")),
        }
    }

    pub(super) const fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn into_array(self) -> Result<Vec<Self>, Problem> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.wrong_type("a list")),
        }
    }

    /// A list that is no longer than it may be.
    pub(super) fn into_array_of(self, most: usize) -> Result<Vec<Self>, Problem> {
        let items = self.into_array()?;
        if items.len() > most { Err(Problem::TooMany(most)) } else { Ok(items) }
    }

    pub(super) fn into_bool(self) -> Result<bool, Problem> {
        match self {
            Self::Bool(value) => Ok(value),
            other => Err(other.wrong_type("true or false")),
        }
    }

    pub(super) fn into_object(self) -> Result<Vec<(String, Self)>, Problem> {
        match self {
            Self::Object(entries) => Ok(entries),
            other => Err(other.wrong_type("an object")),
        }
    }
}

/// A text that is not JSON, and where.
pub(super) fn syntax_problem(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let reason = error.to_string();
    let position = format!(" at line {line} column {column}");
    Problem::Syntax { line, column, reason: reason.strip_suffix(&position).unwrap_or(&reason).to_owned() }
}

/// The names that an object holds more than once.
pub(super) fn repeated_names(entries: &[(String, Json)]) -> Vec<String> {
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let mut repeated: Vec<String> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned()).collect();
    repeated.dedup();
    repeated
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// The way to a value: `instances[3].auth.secret`.
#[derive(Clone, Copy)]
pub(super) enum JsonPath<'a> {
    Root,
    Field(&'a JsonPath<'a>, &'a str),
    Item(&'a JsonPath<'a>, usize),
}

impl<'a> JsonPath<'a> {
    pub(super) const fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    pub(super) const fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Field(parent, name) => {
                if !matches!(parent, Self::Root) {
                    write!(f, "{parent}.")?;
                }
                f.write_str(&printable(name))
            }
        }
    }
}

/// A name from a file, fit for one line of a log: short and without control characters.
pub(super) fn printable(name: &str) -> String {
    const LONGEST: usize = 60;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// The fields of one object that have not been read yet.
pub(super) struct Fields<'p> {
    pub(super) path: &'p JsonPath<'p>,
    entries: Vec<(String, Json)>,
    known: Vec<&'static str>,
}

impl<'p> Fields<'p> {
    /// Opens an object; reports what is none, and names that stand in it more than once.
    pub(super) fn open(json: Json, path: &'p JsonPath<'p>, errors: &mut JsonErrors<'_>) -> Option<Self> {
        let entries = errors.keep(path, json.into_object())?;
        for name in repeated_names(&entries) {
            errors.add(&path.field(&name), Problem::Repeated);
        }
        Some(Self { path, entries, known: Vec::new() })
    }

    /// Takes a field out; `null` counts as absent.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Json> {
        self.known.push(name);
        let mut found = None;
        self.entries.retain_mut(|(entry, value)| {
            let here = entry == name;
            if here {
                found = Some(std::mem::replace(value, Json::Null));
            }
            !here
        });
        found.filter(|value| !matches!(value, Json::Null))
    }

    /// Takes a field out and reads it; reports what cannot be read. `None` if absent or unreadable.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        errors: &mut JsonErrors<'_>,
        read: impl FnOnce(Json) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.take(name)?;
        errors.keep(&self.path.field(name), read(value))
    }

    /// Like [`Self::read`], and reports a field that is absent.
    pub(super) fn require<T>(
        &mut self,
        name: &'static str,
        errors: &mut JsonErrors<'_>,
        read: impl FnOnce(Json) -> Result<T, Problem>,
    ) -> Option<T> {
        let result = self.take(name).ok_or(Problem::Missing).and_then(read);
        errors.keep(&self.path.field(name), result)
    }

    /// What nobody took.
    pub(super) fn into_rest(self) -> Vec<(String, Json)> {
        self.entries
    }

    /// Reports what nobody took.
    pub(super) fn finish(self, errors: &mut JsonErrors<'_>) {
        for (name, _) in &self.entries {
            errors.add(&self.path.field(name), unknown(name, &self.known));
        }
    }
}

/// The error of a name that is none of `known`.
pub(super) fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    let wanted: String = plain(name).chars().take(100).collect();
    let suggestion = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&wanted, &plain(known)), *known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5)
        .map(|(_, known)| known.to_owned());
    Problem::Unknown { suggestion, known: known.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_syntax_is_told_with_line_and_column() {
        let problem = Json::parse(b"{\n  \"a\": 1,\n  \"b\" 2\n}").err().unwrap();
        assert_eq!(problem, Problem::Syntax { line: 3, column: 7, reason: "expected `:`".into() });
    }

    #[test]
    fn a_byte_order_mark_is_no_error() {
        assert!(Json::parse(b"\xef\xbb\xbf{}").is_ok());
    }

    #[test]
    fn nesting_is_bounded() {
        let problem = Json::parse("[".repeat(100_000).as_bytes()).err().unwrap();
        assert!(problem.to_string().contains("recursion limit"), "{problem}");
    }

    #[test]
    fn writing_keeps_the_order_of_keys() {
        let text = r#"{"z":1,"a":[true,null,"x"],"m":{"y":0.75,"b":-2}}"#;
        assert_eq!(serde_json::to_string(&Json::parse(text.as_bytes()).ok().unwrap()).unwrap(), text);
    }

    #[test]
    fn a_misspelt_name_is_met_with_the_nearest_known_one() {
        let suggested = |name| match unknown(name, &["interval", "timeout", "expectedStatus"]) {
            Problem::Unknown { suggestion, .. } => suggestion,
            _ => None,
        };
        assert_eq!(suggested("intervall").as_deref(), Some("interval"));
        assert_eq!(suggested("expected_status").as_deref(), Some("expectedStatus"));
        assert_eq!(suggested("Timeuot").as_deref(), Some("timeout"));
        assert_eq!(suggested("colour"), None);
    }
}
