//! `GET /api/audit` and `POST /api/audit/verify`: what was done, by whom, what came of it, and whether the log of it is
//! as it was written.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::problem::Problem;
use crate::security::audit::{AuditEntry, AuditFilter, AuditLog, AuditPage, Outcome, Proven};
use crate::store::StoreError;

const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;

/// Which entries to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only what was done by this actor, as in `user:alice`.
    actor: Option<String>,
    /// Only this action, as in `breaker.reset`; `breaker.` stands for all that begin so.
    action: Option<String>,
    /// Only what was done to this instance, token or user.
    key: Option<String>,
    /// Only what came to this outcome.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Only entries of this time or later. RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<jiff::Timestamp>,
    /// Only entries before this time. RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<jiff::Timestamp>,
    /// Only entries before this one: the `next` of the page before.
    before: Option<i64>,
    /// How many at the most, 1 to 1000; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `jsonl` for everything that fits, the oldest first, as JSON lines; intents are listed beside their outcomes then.
    #[param(inline)]
    format: Option<Format>,
}

/// In which form to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A page of JSON.
    Json,
    /// All of it, an entry a line.
    Jsonl,
}

/// A page of the audit log, the newest entry first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditAnswer {
    /// The entries of this page.
    pub entries: Vec<AuditEntry>,
    /// What to give as `before` for the next page; `null` on the last.
    pub next: Option<i64>,
}

/// Whether the audit log is as it was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerifyAnswer {
    /// Whether every entry is.
    valid: bool,
    /// What was proven; `null` if something is wrong.
    #[schema(value_type = Option<Object>)]
    proven: Option<Proven>,
    /// The first entry that is not as it was written, if it is one of them.
    entry: Option<i64>,
    /// What is wrong, in words; `null` if nothing is.
    fault: Option<String>,
}

/// Proves that every entry is as it was written, or tells the first that is not.
#[utoipa::path(
    post,
    path = "/api/audit/verify",
    tag = "security",
    responses((status = 200, description = "Whether the log is as it was written", body = VerifyAnswer))
)]
pub(super) async fn verify(State(api): State<Api>) -> Result<Json<VerifyAnswer>, Problem> {
    Ok(Json(match api.audit.verify().await? {
        Ok(proven) => VerifyAnswer { valid: true, proven: Some(proven), entry: None, fault: None },
        Err(fault) => {
            tracing::error!(%fault, "the audit log is not as it was written");
            VerifyAnswer { valid: false, proven: None, entry: fault.entry(), fault: Some(fault.to_string()) }
        }
    }))
}

/// Lists what was done. An intent is listed until it has its outcome.
#[utoipa::path(
    get,
    path = "/api/audit",
    tag = "security",
    params(AuditQuery),
    responses(
        (status = 200, description = "What was done", content(
            (AuditAnswer = "application/json"),
            (String = "application/jsonl"),
        )),
        (status = 400, description = "A parameter is wrong", body = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::malformed(format!("`limit` is {limit}; it must be 1 to {LARGEST_PAGE}")));
    }
    let export = query.format == Some(Format::Jsonl);
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        key: query.key,
        outcome: query.outcome.map(|outcome| outcome.as_str().to_owned()),
        since: query.since,
        until: query.until,
        intents: export,
    };
    if export {
        return Ok(([(header::CONTENT_TYPE, "application/jsonl")], lines(api.audit, filter)).into_response());
    }
    // One more tells whether there is a next page.
    let page = AuditPage::Before(query.before.unwrap_or(i64::MAX));
    let mut entries = api.audit.list(filter, page, limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|last| last.seq);
    Ok(Json(AuditAnswer { entries, next }).into_response())
}

/// The entries as JSON lines, read a page at a time as the caller takes them.
fn lines(audit: AuditLog, filter: AuditFilter) -> Body {
    let pages = stream::try_unfold(Some(0), move |after| {
        let (audit, filter) = (audit.clone(), filter.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let entries = audit.list(filter, AuditPage::After(after), LARGEST_PAGE).await?;
            let next = entries.last().map(|last| last.seq);
            let text = entries.iter().try_fold(String::new(), |mut text, entry| {
                text.push_str(&serde_json::to_string(entry)?);
                text.push('\n');
                Ok::<_, serde_json::Error>(text)
            });
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some((text?, next)))
        }
    });
    Body::from_stream(pages)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Statement(_) | StoreError::Interrupted => {
                tracing::error!(%error, "the database failed");
                Self::internal()
            }
            _ => {
                tracing::error!(%error, "the database cannot be used");
                Self::storage(error)
            }
        }
    }
}
