//! Bodies of requests: JSON, bounded, and with the reason that an operator gives.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// A JSON body. One that is empty stands for `null`, so `Body<Option<T>>` is a body that need not be there.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|_| Problem::too_large(super::MAX_BODY))?;
        let text = if bytes.iter().all(u8::is_ascii_whitespace) { &b"null"[..] } else { &bytes[..] };
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(|error| Problem::malformed(format!("the body is not what this call takes: {error}")))
    }
}

/// Why an operator does something: 1 to 500 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = AuditReason, min_length = 1, max_length = 500)]
pub struct Reason(String);

impl Reason {
    /// The text.
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().count() <= MAX_REASON_CHARS && !text.chars().any(char::is_control);
        let wrong = || format!("a reason has 1 to {MAX_REASON_CHARS} characters, on one line");
        if fits { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A body that gives the reason, if there is one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenReason {
    /// Why, for the audit log.
    #[serde(default)]
    pub(super) reason: Option<Reason>,
}

impl GivenReason {
    pub(super) fn into_inner(self) -> Option<String> {
        self.reason.map(Reason::into_inner)
    }
}

/// A body that has to give the reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NeededReason {
    /// Why, for the audit log.
    pub(super) reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        let read = |text: &str| serde_json::from_value::<Reason>(text.into()).map(Reason::into_inner).ok();
        assert_eq!(read(" disk replaced ").as_deref(), Some("disk replaced"));
        assert_eq!(read(&"ü".repeat(500)).map(|text| text.chars().count()), Some(500));
        for text in ["", "  ", "a\nb", "a\u{0}b", &"x".repeat(501)] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
