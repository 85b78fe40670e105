//! Errors as the API tells them: RFC 9457 problem documents with a stable code.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::config::ConfigErrors;
use crate::engine::Millis;
use crate::runtime::DriverGone;
use crate::security::audit::AuditError;
use crate::security::{Role, Standing};

/// The media type of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a call was not carried out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:pulse:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: ProblemType,
    /// The kind of problem in words; the same for every one of its kind.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time, and what to do.
    detail: String,
    /// A name for programs; it never changes.
    code: &'static str,
    /// Each single reason, where there may be several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Reason>,
    /// In how many seconds to try again, which goes into a header.
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Where the caller stands, if it is a limit that refused the call.
    #[serde(skip)]
    standing: Option<Box<Standing>>,
    /// Whether the call was refused before it was understood, and so before it could be audited.
    #[serde(skip)]
    unread: bool,
}

/// The URI of a kind of problem, by its code.
#[derive(Clone, Copy, Debug)]
struct ProblemType(&'static str);

impl Serialize for ProblemType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("urn:pulse:problem:{}", self.0))
    }
}

/// Marks the answer to a call that was refused before it was understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread(pub(super) &'static str);

/// One of several reasons why a call was not carried out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Reason {
    /// Which part of the request, or which file.
    at: String,
    /// What is wrong with it, and what to do.
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let kind = ProblemType(code);
        let (status, detail) = (status.as_u16(), detail.into());
        Self { kind, title, status, detail, code, errors: Vec::new(), standing: None, retry_after: None, unread: false }
    }

    /// The same, refused before it was understood.
    pub(super) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// What happened and what to do.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The name for programs.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    /// 400: the request could not be read.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_request", "The request could not be read", detail).unread()
    }

    /// 401: who are you?
    pub(super) fn unauthorized() -> Self {
        let detail = "sign in with POST /api/login, or send a token as `Authorization: Bearer …` or `X-API-Token: …`; \
                      `pulse token create` makes one on the daemon's machine";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Valid credentials are needed", detail)
    }

    /// 403: not you.
    pub(super) fn forbidden(needed: Role, role: Role) -> Self {
        let detail = format!("the call needs the role {needed}, and yours is {role}; ask an admin to make it");
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Your role does not allow this", detail)
    }

    /// 401: not with this password.
    pub(super) fn wrong_password(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "wrong_password", "The credentials are wrong", detail.to_string())
    }

    /// 403: not with this setup token.
    pub(super) fn wrong_setup_token(detail: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "setup_token_wrong", "The setup token is not valid", detail.to_string())
    }

    /// 403: it may be another site's page that has the browser send this.
    pub(super) fn wrong_csrf_token() -> Self {
        let detail = "a call that changes something by a session needs the session's `csrfToken`, which \
                      GET /api/security/me tells, as `X-CSRF-Token: …`";
        Self::new(StatusCode::FORBIDDEN, "csrf_token_wrong", "The CSRF token is missing or wrong", detail)
    }

    /// 403: not from there.
    pub(super) fn local_only() -> Self {
        let detail = "run `pulse config` on the daemon's machine, as the daemon's user";
        Self::new(StatusCode::FORBIDDEN, "local_only", "The call is answered over the unix socket alone", detail)
    }

    /// 429: not so many at once.
    pub(super) fn too_many_tests() -> Self {
        let detail = "wait until one of them has ended";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tests", "Too many connections are being tested", detail)
    }

    /// 404: no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is no such thing", detail)
    }

    /// 404: no such instance.
    pub(super) fn unknown_instance() -> Self {
        let detail = "no instance has this key; a key is `type::name`, and /api/state lists all of them";
        Self::new(StatusCode::NOT_FOUND, "unknown_instance", "There is no such instance", detail)
    }

    /// 405: not in this way.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "the path exists, but not with this method; see /api/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed", detail)
    }

    /// 409: not as things are.
    pub(super) fn conflict(code: &'static str, title: &'static str, detail: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, code, title, detail.to_string())
    }

    /// 409: only a user who has signed in can do this.
    pub(super) fn no_session() -> Self {
        let detail = "tokens and the unix socket have no session; sign in with POST /api/login";
        Self::conflict("no_session", "The call needs a session", detail)
    }

    /// 412: not what you saw.
    pub(super) fn changed_meanwhile(detail: impl ToString) -> Self {
        let title = "It was changed meanwhile";
        Self::new(StatusCode::PRECONDITION_FAILED, "changed_meanwhile", title, detail.to_string())
    }

    /// 408: the body did not come in time.
    pub(super) fn too_slow(limit: Duration) -> Self {
        let detail = format!("the body has to be here within {} seconds", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "The body did not come in time", detail).unread()
    }

    /// 413: too much.
    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("a request may have a body of {limit} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", detail).unread()
    }

    /// 415: not in this form.
    pub(super) fn not_json() -> Self {
        let (title, detail) = ("The body has to be JSON", "send it with `Content-Type: application/json`");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail)
    }

    /// 422: understood, and not to be had.
    pub(super) fn refused(detail: impl ToString) -> Self {
        let title = "The request was refused; nothing was changed";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", title, detail.to_string())
    }

    /// 422: understood, and refused whole, with all reasons.
    pub(super) fn refused_settings(errors: &ConfigErrors) -> Self {
        Self::refused_whole("settings_refused", "The settings were refused; nothing was changed", errors)
    }

    /// 422: understood, and refused whole, with all reasons.
    pub(super) fn refused_inventory(errors: &ConfigErrors) -> Self {
        Self::refused_whole("inventory_refused", "The instances were refused; nothing was changed", errors)
    }

    fn refused_whole(code: &'static str, title: &'static str, errors: &ConfigErrors) -> Self {
        let detail = "see `errors` for each reason";
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, title, detail);
        problem.errors = errors
            .iter()
            .map(|error| Reason { at: error.place.to_string(), detail: error.problem.to_string() })
            .collect();
        problem
    }

    /// 429: too many failures.
    pub(super) fn locked(wait: Millis) -> Self {
        let seconds = u32::try_from(wait.get().div_ceil(1_000)).unwrap_or(u32::MAX);
        let detail = format!("wait {seconds} seconds; each further failure makes it longer, up to some minutes");
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "locked", "There were too many failures", detail);
        Self { retry_after: Some(seconds), ..problem }
    }

    /// 429: not so often.
    pub(super) fn too_many_calls(standing: Standing) -> Self {
        let Standing { limit, retry_after, .. } = standing;
        let detail =
            format!("{limit} of these calls may be made a minute; the next one in {} s", whole_seconds(retry_after));
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", "There were too many calls", detail);
        problem.standing = Some(Box::new(standing));
        problem
    }

    /// 500: a fault of ours, told without its insides.
    pub(super) fn internal() -> Self {
        let detail = "the daemon's log tells more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The daemon failed", detail)
    }

    /// 503: not now.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The daemon cannot answer now", detail)
    }
}

impl Problem {
    /// 503: the disk does not take what has to be written down first. Nothing was changed.
    pub(super) fn storage(detail: impl ToString) -> Self {
        let title = "The call could not be written down, so it was not carried out";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", title, detail.to_string())
    }
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Store(error) => error.into(),
            AuditError::TooSlow | AuditError::HeadBroken | AuditError::Key(_) => {
                tracing::error!(%error, "the audit log cannot be written");
                Self::storage(error)
            }
            AuditError::BrokeOff => Self::internal(),
        }
    }
}

impl From<DriverGone> for Problem {
    fn from(_: DriverGone) -> Self {
        Self::unavailable("the scheduler has stopped; the daemon is shutting down")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pulse\""));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(standing) = self.standing {
            response.headers_mut().extend(limit_headers(*standing));
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(standing.retry_after).into());
        }
        if self.unread {
            response.extensions_mut().insert(Unread(self.code));
        }
        response
    }
}

/// What tells a caller where it stands.
pub(super) fn limit_headers(standing: Standing) -> [(HeaderName, HeaderValue); 3] {
    let Standing { limit, remaining, reset, .. } = standing;
    [
        (HeaderName::from_static("ratelimit-limit"), limit.into()),
        (HeaderName::from_static("ratelimit-remaining"), remaining.into()),
        (HeaderName::from_static("ratelimit-reset"), whole_seconds(reset).into()),
    ]
}

/// Rounded up: whoever waits that long has waited long enough.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
