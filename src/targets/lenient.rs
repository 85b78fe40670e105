//! Numbers, flags and texts as Proxmox sends them: `1`, `"1"`, `1.0`, `true`, `null`, or not at all.
//!
//! What cannot be understood is `None`; only what a poll is about is worth failing for.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The longest text that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// A whole number that is not negative.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(ScalarVisitor).map(|scalar| match scalar {
        Scalar::Whole(number) => u64::try_from(number).ok(),
        // The cast saturates; a negative number or NaN is refused first.
        Scalar::Float(number) => (number >= 0.0).then_some(number as u64),
        Scalar::Text(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|n| *n >= 0.0).map(|n| n as u64))
        }
        Scalar::Flag(flag) => Some(u64::from(flag)),
        Scalar::Nothing => None,
    })
}

/// A whole number that may be negative.
pub(super) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(ScalarVisitor).map(|scalar| match scalar {
        Scalar::Whole(number) => i64::try_from(number).ok(),
        Scalar::Float(number) => number.is_finite().then_some(number as i64),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Flag(_) | Scalar::Nothing => None,
    })
}

/// A finite number.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = deserializer.deserialize_any(ScalarVisitor).map(|scalar| match scalar {
        Scalar::Whole(number) => Some(number as f64),
        Scalar::Float(number) => Some(number),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Flag(_) | Scalar::Nothing => None,
    })?;
    Ok(number.filter(|number| number.is_finite()))
}

/// A yes or no; a number is *yes* unless it is zero.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    deserializer.deserialize_any(ScalarVisitor).map(|scalar| match scalar {
        Scalar::Flag(flag) => Some(flag),
        Scalar::Whole(number) => Some(number != 0),
        Scalar::Float(number) => Some(number != 0.0),
        Scalar::Text(text) => match text.trim() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" | "" => Some(false),
            _ => None,
        },
        Scalar::Nothing => None,
    })
}

/// A text, or a number as text; cut at a kilobyte, empty is `None`.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = deserializer.deserialize_any(ScalarVisitor).map(|scalar| match scalar {
        Scalar::Text(text) => Some(text),
        Scalar::Whole(number) => Some(number.to_string()),
        Scalar::Float(number) => Some(number.to_string()),
        Scalar::Flag(_) | Scalar::Nothing => None,
    })?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// The first `LIMIT` entries of a list; the rest is skipped without being kept.
#[derive(Debug)]
pub(super) struct Bounded<T, const LIMIT: usize> {
    pub(super) entries: Vec<T>,
    /// Whether entries were skipped.
    pub(super) truncated: bool,
}

impl<T, const LIMIT: usize> Default for Bounded<T, LIMIT> {
    fn default() -> Self {
        Self { entries: Vec::new(), truncated: false }
    }
}

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for Bounded<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const LIMIT: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for ListVisitor<T, LIMIT> {
            type Value = Bounded<T, LIMIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut bounded = Bounded::default();
                while bounded.entries.len() < LIMIT {
                    match list.next_element()? {
                        Some(entry) => bounded.entries.push(entry),
                        None => return Ok(bounded),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    bounded.truncated = true;
                }
                Ok(bounded)
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

enum Scalar {
    Whole(i128),
    Float(f64),
    Text(String),
    Flag(bool),
    Nothing,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a flag or nothing")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::Bounded;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        #[serde(deserialize_with = "super::count")]
        count: Option<u64>,
        #[serde(deserialize_with = "super::integer")]
        integer: Option<i64>,
        #[serde(deserialize_with = "super::number")]
        number: Option<f64>,
        #[serde(deserialize_with = "super::flag")]
        flag: Option<bool>,
        #[serde(deserialize_with = "super::text")]
        text: Option<String>,
    }

    fn read(value: serde_json::Value) -> Sample {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn numbers_may_come_as_texts_and_texts_as_numbers() {
        let understood =
            Sample { count: Some(17), integer: Some(-1), number: Some(0.5), flag: Some(true), text: Some("12".into()) };
        assert_eq!(
            read(json!({"count": "17", "integer": "-1", "number": "0.5", "flag": "1", "text": 12, "new": {}})),
            understood
        );
        assert_eq!(read(json!({"count": 17.0, "integer": -1, "number": 0.5, "flag": 1, "text": "12"})), understood);
    }

    #[test]
    fn a_number_beyond_nine_petabytes_keeps_its_last_byte() {
        assert_eq!(read(json!({"count": "9007199254740993"})).count, Some(9_007_199_254_740_993));
        assert_eq!(read(json!({"count": u64::MAX})).count, Some(u64::MAX));
    }

    #[test]
    fn what_is_missing_null_or_senseless_is_none_and_no_error() {
        assert_eq!(read(json!({})), Sample::default());
        let nulls = json!({"count": null, "integer": null, "number": null, "flag": null, "text": null});
        assert_eq!(read(nulls), Sample::default());
        let senseless = json!({"count": -3, "integer": [1], "number": "NaN", "flag": "maybe", "text": {"a": 1}});
        assert_eq!(read(senseless), Sample::default());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = read(json!({"text": "é".repeat(1_000)})).text.unwrap();
        assert_eq!(long.len(), 1_024);
    }

    #[test]
    fn a_list_keeps_its_first_entries_and_says_that_there_were_more() {
        let list: Bounded<u8, 3> = serde_json::from_str("[1,2,3]").unwrap();
        assert_eq!((list.entries, list.truncated), (vec![1, 2, 3], false));
        let list: Bounded<u8, 3> = serde_json::from_str(r#"[1,2,3,"anything"]"#).unwrap();
        assert_eq!((list.entries, list.truncated), (vec![1, 2, 3], true));
    }
}
