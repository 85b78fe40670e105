//! `GET /api/monitoring/instances/{key}`: one instance in full, with what happened to it lately.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::health::{BreakerStateName, InstanceRow, instance_row};
use super::problem::Problem;
use crate::engine::{DeadLetterReason, FailureKind, InstanceKey, IntervalReason, Place};
use crate::runtime::Calendar;
use crate::telemetry::{Entry, Happening};

/// One instance in full.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceAnswer {
    /// When it was read. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    updated_at: jiff::Timestamp,
    /// The same as in the scheduler's health.
    instance: InstanceRow,
    /// `queued`, `in_flight`, `dead_lettered` or `paused`.
    #[schema(value_type = String)]
    place: Place,
    /// When it is polled next; `null` while a poll is under way or it is paused.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_poll: Option<jiff::Timestamp>,
    /// The interval planned after the last success, in milliseconds.
    interval_millis: u64,
    /// Whether its last success is older than its plan allows.
    late: bool,
    /// What happened lately, the oldest first.
    history: Vec<HistoryEntry>,
}

/// Something that happened to an instance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HistoryEntry {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: jiff::Timestamp,
    #[serde(flatten)]
    what: HistoryWhat,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "event")]
enum HistoryWhat {
    /// A poll ended.
    Polled {
        /// From order to answer, in milliseconds.
        #[serde(rename = "tookMillis")]
        took_millis: u64,
        /// The kind of failure; `null` for a success.
        #[schema(value_type = Option<String>)]
        category: Option<FailureKind>,
        /// What happened and what to do; `null` for a success.
        #[schema(value_type = Option<String>)]
        message: Option<Arc<str>>,
        /// The time to the next poll that was chosen after it, in milliseconds.
        #[serde(rename = "nextMillis")]
        next_millis: Option<u64>,
        /// Why it was chosen.
        #[schema(value_type = Option<String>)]
        reason: Option<IntervalReason>,
    },
    /// The breaker changed its state.
    BreakerMoved {
        /// After.
        to: BreakerStateName,
    },
    /// It left the live queue.
    DeadLettered {
        /// Why.
        #[schema(value_type = String)]
        reason: DeadLetterReason,
    },
    /// It came back to the live queue.
    Revived,
    /// It is no longer polled.
    Paused,
    /// It is polled again.
    Resumed,
}

/// Shows one instance.
#[utoipa::path(
    get,
    path = "/api/monitoring/instances/{key}",
    tag = "monitoring",
    params(("key" = String, Path, description = "`type::name`")),
    responses(
        (status = 200, description = "The instance, and what happened to it lately", body = InstanceAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<InstanceAnswer>, Problem> {
    let Path(key) = key.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let key: InstanceKey = key.parse().map_err(|_| Problem::unknown_instance())?;
    let health = api.handle.instance(key.clone()).await?.ok_or_else(Problem::unknown_instance)?;
    let members = api.fleet.members();
    let member = members.get(&key).ok_or_else(Problem::unknown_instance)?;
    let calendar = api.clock.calendar();
    let history = api.poll_log.of(key).await;
    Ok(Json(InstanceAnswer {
        updated_at: api.clock.wall(),
        instance: instance_row(&health, member, calendar),
        place: health.place,
        next_poll: health.due.map(|at| calendar.at(at)),
        interval_millis: health.interval.get(),
        late: health.late,
        history: history.into_iter().map(|entry| history_entry(entry, calendar)).collect(),
    }))
}

fn history_entry(entry: Entry, calendar: Calendar) -> HistoryEntry {
    let what = match entry.what {
        Happening::Polled { took, failure, next } => HistoryWhat::Polled {
            took_millis: took.get(),
            category: failure.as_ref().map(|(kind, _)| *kind),
            message: failure.map(|(_, message)| message),
            next_millis: next.map(|(interval, _)| interval.get()),
            reason: next.map(|(_, reason)| reason),
        },
        Happening::BreakerMoved(to) => HistoryWhat::BreakerMoved { to: to.into() },
        Happening::DeadLettered(reason) => HistoryWhat::DeadLettered { reason },
        Happening::Revived => HistoryWhat::Revived,
        Happening::Paused => HistoryWhat::Paused,
        Happening::Resumed => HistoryWhat::Resumed,
    };
    HistoryEntry { at: calendar.at(entry.at), what }
}
