//! Bodies of requests: JSON, bounded in size and time, and with the reason that an operator gives.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http_body_util::LengthLimitError;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;
/// How long a caller may take to send a body: less than a call may take, so that the caller is told whose fault it is.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest name of an unknown field that is repeated to the caller.
const LONGEST_FIELD: usize = 40;

/// A JSON body. One that is empty stands for `null`, so `Body<Option<T>>` is a body that need not be there.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = received(Bytes::from_request(request, state), super::MAX_BODY).await?;
        let text = if bytes.iter().all(u8::is_ascii_whitespace) { &b"null"[..] } else { &bytes[..] };
        // What is written as an object could be given as a list of its fields too, which nobody means.
        if text.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::malformed(
                "the body is not what this call takes: it is a list, and has to be an object",
            ));
        }
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(|error| {
            Problem::malformed(format!("the body is not what this call takes: {}", without_value(&error.to_string())))
        })
    }
}

/// A body of at most `limit` bytes once all of it has come, or why it has not.
pub(super) async fn received<T, E: Error + 'static>(
    reading: impl Future<Output = Result<T, E>>,
    limit: usize,
) -> Result<T, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Err(_) => Err(Problem::too_slow(BODY_TIMEOUT)),
        Ok(Err(error)) if is_too_long(&error) => Err(Problem::too_large(limit)),
        Ok(Err(_)) => Err(Problem::malformed("the body broke off, or is not as long as its headers say")),
        Ok(Ok(body)) => Ok(body),
    }
}

/// What is wrong with a body, without the text that was found in the wrong place: that may be a secret.
fn without_value(error: &str) -> String {
    for before in ["invalid type: string", "invalid value: string", "unknown variant"] {
        if let Some(rest) = error.strip_prefix(before)
            && let Some(at) = rest.rfind(", expected ")
        {
            return format!("{before}{}", &rest[at..]);
        }
    }
    if let Some(rest) = error.strip_prefix("unknown field `")
        && let Some((name, expected)) = rest.rsplit_once("`, expected ")
        && !is_plain_name(name)
    {
        return format!("unknown field, expected {expected}");
    }
    error.to_owned()
}

/// Whether somebody may have meant it as the name of a field, and not as what belongs into one.
fn is_plain_name(text: &str) -> bool {
    text.len() <= LONGEST_FIELD && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    // axum boxes it once more.
    let is_it = error.is::<LengthLimitError>() || error.is::<Box<LengthLimitError>>();
    is_it || error.source().is_some_and(is_too_long)
}

/// Why an operator does something: 1 to 500 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(
    as = AuditReason,
    min_length = 1,
    max_length = 500,
    pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
)]
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
    use axum::body::Body as RawBody;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use futures::{StreamExt, stream};

    use super::*;

    async fn status_of(body: RawBody) -> StatusCode {
        let read = Body::<Option<u8>>::from_request(Request::new(body), &()).await;
        read.map_or_else(|problem| problem.into_response().status(), |_| StatusCode::OK)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_send_the_whole_body_is_told_that_it_is_their_fault() {
        let first = || stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b" "))]);
        let stalled = RawBody::from_stream(first().chain(stream::pending()));
        assert_eq!(status_of(stalled).await, StatusCode::REQUEST_TIMEOUT);
        let broken = RawBody::from_stream(first().chain(stream::iter([Err(std::io::Error::other("cut"))])));
        assert_eq!(status_of(broken).await, StatusCode::BAD_REQUEST);
        let whole = RawBody::from_stream(first());
        assert_eq!(status_of(whole).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_list_does_not_stand_for_an_object() {
        let read = Body::<NeededReason>::from_request(Request::new(RawBody::from(r#" ["disk replaced"]"#)), &()).await;
        assert_eq!(read.unwrap_err().into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_text_in_the_wrong_place_is_not_repeated() {
        let told = |text: &str| without_value(&serde_json::from_str::<GivenReason>(text).unwrap_err().to_string());
        let text = told(r#""hunter2, expected hunter3""#);
        assert_eq!(text, "invalid type: string, expected struct GivenReason at line 1 column 27");
        assert!(told(r#"{"reasn": "x"}"#).starts_with("unknown field `reasn`, expected `reason`"));
        let mangled = told(r#"{"reason(four-words-in-a-row": "x"}"#);
        assert!(mangled.starts_with("unknown field, expected `reason`"), "{mangled}");
        let role = serde_json::from_str::<crate::security::Role>(r#""hunter2""#).unwrap_err().to_string();
        assert!(without_value(&role).starts_with("unknown variant, expected one of `viewer`"), "{role}");
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_told_so() {
        // Without the router's own limit there is axum's, of two megabytes.
        assert_eq!(status_of(RawBody::from(vec![b' '; 3_000_000])).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

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
