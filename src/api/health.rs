//! `GET /api/monitoring/scheduler/health`: the state of the scheduler as operators and their tools read it.
//!
//! Names and shape are a contract; what does not exist is `null`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Api, health_stream};
use crate::engine::{
    DeadLetterHealth, DeadLetterReason, FailureKind, InstanceHealth, InstanceKey, InstanceType, InstanceView,
};
use crate::fleet::Member;
use crate::runtime::Calendar;

/// How many dead letters are listed; `count` tells how many there are.
pub(super) const DEAD_LETTERS_LISTED: usize = 25;

/// The state of the scheduler.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthAnswer {
    /// When it was read. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: jiff::Timestamp,
    /// Whether intervals adapt.
    pub enabled: bool,
    /// The live queue.
    pub queue: Queue,
    /// The dead-letter queue.
    pub dead_letter: DeadLetters,
    /// Breakers that are not closed or have counted failures.
    pub breakers: Vec<BreakerRow>,
    /// How stale each instance is.
    pub staleness: Vec<StalenessRow>,
    /// Every instance, sorted by key.
    pub instances: Vec<InstanceRow>,
}

/// The live queue.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Instances that wait for their poll.
    pub depth: u32,
    /// How many of them are due within 12 seconds.
    pub due_within_seconds: u32,
    /// How many there are of each type that the fleet has.
    pub per_type: BTreeMap<String, u32>,
}

/// The dead-letter queue.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    /// How many instances are in it.
    pub count: usize,
    /// The first 25 of them, sorted by key.
    pub tasks: Vec<DeadLetterTask>,
}

/// One entry of the dead-letter queue.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterTask {
    /// The instance's name.
    #[schema(value_type = String)]
    pub instance: Arc<str>,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: InstanceType,
    /// When it is rechecked; `null` while the recheck is under way.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_run: Option<jiff::Timestamp>,
    /// Why it last failed.
    #[schema(value_type = Option<String>)]
    pub last_error: Option<Arc<str>>,
    /// Failures in a row.
    pub failures: u32,
}

/// A breaker that is not closed or has counted failures.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerRow {
    /// The instance's name.
    #[schema(value_type = String)]
    pub instance: Arc<str>,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: InstanceType,
    /// `closed`, `open` or `half_open`.
    pub state: BreakerStateName,
    /// Failures in a row.
    pub failures: u32,
    /// When an open breaker is probed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<jiff::Timestamp>,
}

/// How stale one instance is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StalenessRow {
    /// The instance's name.
    #[schema(value_type = String)]
    pub instance: Arc<str>,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: InstanceType,
    /// 0 is just seen; 1 is never, or older than the maximum interval.
    pub score: f64,
    /// When a poll last succeeded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<jiff::Timestamp>,
    /// When it last failed, if it has not succeeded since.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_error: Option<jiff::Timestamp>,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRow {
    /// `type::name`.
    #[schema(value_type = String)]
    pub key: InstanceKey,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: InstanceType,
    /// What operators call it.
    #[schema(value_type = String)]
    pub display_name: Arc<str>,
    /// Its name.
    #[schema(value_type = String)]
    pub instance: Arc<str>,
    /// Where it is, free of secrets.
    #[schema(value_type = String)]
    pub connection: Arc<str>,
    /// How its polls went.
    pub poll_status: PollStatus,
    /// Its breaker.
    pub breaker: Breaker,
    /// Its entry in the dead-letter queue.
    pub dead_letter: DeadLetter,
}

/// How the polls of one instance went.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollStatus {
    /// When a poll last succeeded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<jiff::Timestamp>,
    /// Why the last poll failed, if it has not succeeded since.
    pub last_error: Option<PollError>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// The first of the failures in a row.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_failure_at: Option<jiff::Timestamp>,
}

/// Why a poll failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollError {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// What happened and what to do, free of secrets.
    #[schema(value_type = String)]
    pub message: Arc<str>,
    /// The kind of failure: `timeout`, `refused`, `unauthorized`, …
    #[schema(value_type = String)]
    pub category: FailureKind,
}

/// The state of a breaker, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerStateName {
    /// Polls pass.
    Closed,
    /// No poll passes before `retryAt`.
    Open,
    /// One probe is under way.
    HalfOpen,
    /// The type has no breaker.
    Unknown,
}

/// The breaker of one instance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Whether polls may pass.
    pub state: BreakerStateName,
    /// Since when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<jiff::Timestamp>,
    /// When it last changed its state.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_transition: Option<jiff::Timestamp>,
    /// When an open breaker is probed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<jiff::Timestamp>,
    /// Failures in a row.
    pub failure_count: u32,
}

/// The entry of one instance in the dead-letter queue. All `null` but `present` where there is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Whether there is an entry.
    pub present: bool,
    /// `max_retry_attempts` or `permanent_failure`.
    #[schema(value_type = Option<String>)]
    pub reason: Option<DeadLetterReason>,
    /// The first of the failures that led here.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_attempt: Option<jiff::Timestamp>,
    /// The last failure.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_attempt: Option<jiff::Timestamp>,
    /// Rechecks that failed.
    pub retry_count: Option<u32>,
    /// When it is rechecked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_retry: Option<jiff::Timestamp>,
}

/// Answers the call.
#[utoipa::path(
    get,
    path = "/api/monitoring/scheduler/health",
    tag = "monitoring",
    responses(
        (status = 200, description = "The state of the scheduler", body = HealthAnswer),
        (status = 401, description = "Valid credentials are needed", body = Problem),
        (status = 503, description = "The daemon is shutting down", body = Problem),
    )
)]
pub(super) async fn scheduler_health(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(health_stream::answer(&api).await?)
}

/// What the answer begins with; its lists follow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) updated_at: jiff::Timestamp,
    pub(super) enabled: bool,
    pub(super) queue: Queue,
    pub(super) dead_letter: DeadLetters,
}

pub(super) fn dead_letter_task(instance: &InstanceView<'_>, calendar: Calendar) -> DeadLetterTask {
    DeadLetterTask {
        instance: instance.key().shared_name(),
        kind: instance.key().kind(),
        next_run: instance.dead_letter().and_then(|entry| entry.next_retry).map(|at| calendar.at(at)),
        last_error: instance.last_error().map(|error| Arc::clone(&error.message)),
        failures: instance.failures(),
    }
}

pub(super) fn breaker_row(instance: &InstanceView<'_>, calendar: Calendar) -> Option<BreakerRow> {
    let breaker = instance.breaker()?;
    let state = BreakerStateName::from(breaker.state);
    (state != BreakerStateName::Closed || breaker.failures > 0).then(|| BreakerRow {
        instance: instance.key().shared_name(),
        kind: instance.key().kind(),
        state,
        failures: breaker.failures,
        retry_at: breaker.retry_at.map(|at| calendar.at(at)),
    })
}

pub(super) fn staleness_row(instance: &InstanceView<'_>, calendar: Calendar) -> StalenessRow {
    StalenessRow {
        instance: instance.key().shared_name(),
        kind: instance.key().kind(),
        score: instance.staleness().get(),
        last_success: instance.last_success().map(|at| calendar.at(at)),
        last_error: instance.last_error().map(|error| calendar.at(error.at)),
    }
}

pub(super) fn instance_row(instance: &InstanceHealth, member: &Member, calendar: Calendar) -> InstanceRow {
    InstanceRow {
        key: instance.key.clone(),
        kind: instance.key.kind(),
        display_name: member.display_name(),
        instance: instance.key.shared_name(),
        connection: member.connection(),
        poll_status: poll_status(instance, calendar),
        breaker: breaker(instance, calendar),
        dead_letter: instance.dead_letter.map(|entry| dead_letter(entry, calendar)).unwrap_or_default(),
    }
}

/// What changes of an [`InstanceRow`]; [`Member::identity`] comes before it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceRowTail {
    poll_status: PollStatus,
    breaker: Breaker,
    dead_letter: Cow<'static, RawValue>,
}

/// What nearly every row ends with, so that it is written once and not for each.
static NO_DEAD_LETTER: LazyLock<Box<RawValue>> = LazyLock::new(|| raw(&DeadLetter::default()));

fn raw(dead_letter: &DeadLetter) -> Box<RawValue> {
    to_raw_value(dead_letter).expect("plain values become JSON")
}

pub(super) fn instance_row_tail(instance: &InstanceHealth, calendar: Calendar) -> InstanceRowTail {
    InstanceRowTail {
        poll_status: poll_status(instance, calendar),
        breaker: breaker(instance, calendar),
        dead_letter: match instance.dead_letter {
            Some(entry) => Cow::Owned(raw(&dead_letter(entry, calendar))),
            None => Cow::Borrowed(&**NO_DEAD_LETTER),
        },
    }
}

fn poll_status(instance: &InstanceHealth, calendar: Calendar) -> PollStatus {
    PollStatus {
        last_success: instance.last_success.map(|at| calendar.at(at)),
        last_error: instance.last_error.as_ref().map(|error| PollError {
            at: calendar.at(error.at),
            message: Arc::clone(&error.message),
            category: error.kind,
        }),
        consecutive_failures: instance.consecutive_failures,
        first_failure_at: instance.first_failure.map(|at| calendar.at(at)),
    }
}

fn breaker(instance: &InstanceHealth, calendar: Calendar) -> Breaker {
    match instance.breaker {
        Some(breaker) => Breaker {
            state: breaker.state.into(),
            since: Some(calendar.at(breaker.since)),
            last_transition: breaker.last_transition.map(|at| calendar.at(at)),
            retry_at: breaker.retry_at.map(|at| calendar.at(at)),
            failure_count: breaker.failures,
        },
        None => Breaker {
            state: BreakerStateName::Unknown,
            since: None,
            last_transition: None,
            retry_at: None,
            failure_count: instance.consecutive_failures,
        },
    }
}

fn dead_letter(entry: DeadLetterHealth, calendar: Calendar) -> DeadLetter {
    DeadLetter {
        present: true,
        reason: Some(entry.reason),
        first_attempt: Some(calendar.at(entry.first_attempt)),
        last_attempt: Some(calendar.at(entry.last_attempt)),
        retry_count: Some(entry.retry_count),
        next_retry: entry.next_retry.map(|at| calendar.at(at)),
    }
}

impl std::fmt::Display for BreakerStateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Unknown => "unknown",
        })
    }
}

impl From<crate::engine::BreakerState> for BreakerStateName {
    fn from(state: crate::engine::BreakerState) -> Self {
        match state {
            crate::engine::BreakerState::Closed => Self::Closed,
            crate::engine::BreakerState::Open => Self::Open,
            crate::engine::BreakerState::HalfOpen => Self::HalfOpen,
        }
    }
}
