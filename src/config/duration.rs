//! Durations as operators write them: `10s`, `5m`, `750ms`, `1h`, `1m30s`; in a file also a number of seconds.

use jiff::SignedDuration;
use jiff::fmt::friendly::SpanParser;
use thiserror::Error;

use super::error::Problem;
use super::json::{Json, printable};
use crate::engine::Millis;

const PARSER: SpanParser = SpanParser::new();

/// Reads `10s`, `5m`, `750ms`, `1h` or `1m30s`.
///
/// ```
/// use pulse::config::parse_span;
/// use pulse::engine::Millis;
/// assert_eq!(parse_span("1m30s")?, Millis::from_secs(90));
/// assert!(parse_span("10").is_err());
/// # Ok::<(), pulse::config::SpanError>(())
/// ```
///
/// # Errors
/// The text is not a duration, is negative, or is finer than a millisecond.
pub fn parse_span(text: &str) -> Result<Millis, SpanError> {
    let text = text.trim();
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(SpanError::NoUnit(printable(text)));
    }
    let duration = PARSER.parse_duration(text).map_err(|_| SpanError::NotADuration(printable(text)))?;
    whole_millis(duration).ok_or_else(|| SpanError::NotWholeMillis(printable(text)))
}

/// Reads a duration out of a file: a text as for [`parse_span`], or a number of seconds.
pub(super) fn span_from_json(json: Json) -> Result<Millis, Problem> {
    match json {
        Json::Text(text) => Ok(parse_span(&text)?),
        Json::Number(seconds) => {
            let written = seconds.to_string();
            let duration = seconds.as_f64().and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
            // A fraction such as 0.3 is not exact in binary; the nearest microsecond is what was meant.
            let duration = duration.map(|duration| duration.round(jiff::Unit::Microsecond).unwrap_or(duration));
            Ok(duration.and_then(whole_millis).ok_or(SpanError::NotWholeMillis(written))?)
        }
        other => Err(other.wrong_type("a duration such as \"10s\", or a number of seconds")),
    }
}

fn whole_millis(duration: SignedDuration) -> Option<Millis> {
    let whole = duration.subsec_nanos() % 1_000_000 == 0;
    whole.then(|| u64::try_from(duration.as_millis()).ok()).flatten().map(Millis::new)
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpanError {
    /// The unit is missing.
    #[error("{0} has no unit; write {0}s for seconds")]
    NoUnit(String),
    /// It is something else.
    #[error("{0:?} is not a duration; write it as in 750ms, 10s, 5m or 1m30s")]
    NotADuration(String),
    /// It is negative, or finer than the schedule can keep.
    #[error("{0} is not a duration of whole milliseconds, zero or more")]
    NotWholeMillis(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_documented_form() {
        for (text, millis) in
            [("10s", 10_000), ("5m", 300_000), ("750ms", 750), ("1h", 3_600_000), ("1m30s", 90_000), (" 2s ", 2_000)]
        {
            assert_eq!(parse_span(text), Ok(Millis::new(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for millis in [0, 1, 750, 1_000, 90_000, 300_000, 86_400_000, 86_400_001] {
            let span = Millis::new(millis);
            assert_eq!(parse_span(&span.to_string()), Ok(span));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert_eq!(parse_span("10"), Err(SpanError::NoUnit("10".into())));
        for text in ["", "ten seconds", "10 parsecs", "1mo", "3d", "99999999999999999999h"] {
            assert!(matches!(parse_span(text), Err(SpanError::NotADuration(_))), "{text}: {:?}", parse_span(text));
        }
        for text in ["-5s", "100us", "1.5ms"] {
            assert!(matches!(parse_span(text), Err(SpanError::NotWholeMillis(_))), "{text}: {:?}", parse_span(text));
        }
    }

    #[test]
    fn a_number_in_a_file_is_seconds() {
        let read = |text: &str| span_from_json(Json::parse(text.as_bytes()).ok().unwrap());
        assert_eq!(read("0.75"), Ok(Millis::new(750)));
        assert_eq!(read("0.3"), Ok(Millis::new(300)));
        assert_eq!(read("10"), Ok(Millis::from_secs(10)));
        assert_eq!(read("1.1"), Ok(Millis::new(1_100)));
        for refused in ["-1", "0.0001", "1e300", "true", "[]", "null"] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }
}
