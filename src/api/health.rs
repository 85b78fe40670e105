//! `GET /api/monitoring/scheduler/health`: the state of the scheduler as operators and their tools read it.
//!
//! Names and shape are a contract; what does not exist is `null`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::engine::{DeadLetterReason, ErrorRecord, InstanceHealth, InstanceType, Place, SchedulerHealth, Timestamp};
use crate::fleet::Member;

/// How many dead letters are listed; `count` tells how many there are.
const DEAD_LETTERS_LISTED: usize = 25;

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
    pub instance: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it is rechecked; `null` while the recheck is under way.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_run: Option<jiff::Timestamp>,
    /// Why it last failed.
    pub last_error: Option<String>,
    /// Failures in a row.
    pub failures: u32,
}

/// A breaker that is not closed or has counted failures.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerRow {
    /// The instance's name.
    pub instance: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
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
    pub instance: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
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
    pub key: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What operators call it.
    pub display_name: String,
    /// Its name.
    pub instance: String,
    /// Where it is, free of secrets.
    pub connection: String,
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
    pub message: String,
    /// The kind of failure: `timeout`, `refused`, `unauthorized`, …
    pub category: String,
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
pub(super) async fn scheduler_health(State(api): State<Api>) -> Result<Json<HealthAnswer>, Problem> {
    let health = api.handle.health().await?;
    Ok(Json(answer(&api, &health)))
}

fn answer(api: &Api, health: &SchedulerHealth) -> HealthAnswer {
    let calendar = api.clock.calendar();
    let wall = |at: Timestamp| calendar.at(at);
    let members = api.fleet.members();
    let dead: Vec<&InstanceHealth> = health.instances.iter().filter(|it| it.dead_letter.is_some()).collect();
    let mut per_type = BTreeMap::new();
    for instance in health.instances.iter().filter(|it| it.place != Place::Paused) {
        let kind = instance.key.kind();
        per_type.entry(kind.to_string()).or_insert(health.queue.per_type[kind]);
    }
    // With adaptive polling off, the lists about it are empty by contract.
    let shown = if health.adaptive { &health.instances[..] } else { &[] };
    HealthAnswer {
        updated_at: wall(health.at),
        enabled: health.adaptive,
        queue: Queue { depth: health.queue.depth, due_within_seconds: health.queue.due_soon, per_type },
        dead_letter: DeadLetters {
            count: dead.len(),
            tasks: dead.into_iter().take(DEAD_LETTERS_LISTED).map(|it| dead_letter_task(it, wall)).collect(),
        },
        breakers: shown.iter().filter_map(|it| breaker_row(it, wall)).collect(),
        staleness: shown.iter().map(|it| staleness_row(it, wall)).collect(),
        instances: shown
            .iter()
            .filter_map(|it| members.get(&it.key).map(|member| instance_row(it, member, wall)))
            .collect(),
    }
}

fn kind_of(instance: &InstanceHealth) -> String {
    InstanceType::as_str(instance.key.kind()).to_owned()
}

fn name_of(instance: &InstanceHealth) -> String {
    instance.key.name().to_owned()
}

fn message_of(error: &ErrorRecord) -> String {
    error.message.to_string()
}

fn dead_letter_task(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp) -> DeadLetterTask {
    DeadLetterTask {
        instance: name_of(instance),
        kind: kind_of(instance),
        next_run: instance.dead_letter.and_then(|entry| entry.next_retry).map(wall),
        last_error: instance.last_error.as_ref().map(message_of),
        failures: instance.consecutive_failures,
    }
}

fn breaker_row(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp) -> Option<BreakerRow> {
    let breaker = instance.breaker?;
    let state = BreakerStateName::from(breaker.state);
    (state != BreakerStateName::Closed || breaker.failures > 0).then(|| BreakerRow {
        instance: name_of(instance),
        kind: kind_of(instance),
        state,
        failures: breaker.failures,
        retry_at: breaker.retry_at.map(wall),
    })
}

fn staleness_row(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp) -> StalenessRow {
    StalenessRow {
        instance: name_of(instance),
        kind: kind_of(instance),
        score: instance.staleness.get(),
        last_success: instance.last_success.map(&wall),
        last_error: instance.last_error.as_ref().map(|error| wall(error.at)),
    }
}

fn instance_row(
    instance: &InstanceHealth,
    member: &Member,
    wall: impl Fn(Timestamp) -> jiff::Timestamp + Copy,
) -> InstanceRow {
    InstanceRow {
        key: instance.key.to_string(),
        kind: kind_of(instance),
        display_name: member.display_name().to_owned(),
        instance: name_of(instance),
        connection: member.connection(),
        poll_status: poll_status(instance, wall),
        breaker: breaker(instance, wall),
        dead_letter: dead_letter(instance, wall),
    }
}

fn poll_status(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp + Copy) -> PollStatus {
    PollStatus {
        last_success: instance.last_success.map(wall),
        last_error: instance.last_error.as_ref().map(|error| PollError {
            at: wall(error.at),
            message: message_of(error),
            category: error.kind.as_str().to_owned(),
        }),
        consecutive_failures: instance.consecutive_failures,
        first_failure_at: instance.first_failure.map(wall),
    }
}

fn breaker(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp + Copy) -> Breaker {
    match instance.breaker {
        Some(breaker) => Breaker {
            state: breaker.state.into(),
            since: Some(wall(breaker.since)),
            last_transition: breaker.last_transition.map(wall),
            retry_at: breaker.retry_at.map(wall),
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

fn dead_letter(instance: &InstanceHealth, wall: impl Fn(Timestamp) -> jiff::Timestamp + Copy) -> DeadLetter {
    let Some(entry) = instance.dead_letter else { return DeadLetter::default() };
    DeadLetter {
        present: true,
        reason: Some(entry.reason),
        first_attempt: Some(wall(entry.first_attempt)),
        last_attempt: Some(wall(entry.last_attempt)),
        retry_count: Some(entry.retry_count),
        next_retry: entry.next_retry.map(wall),
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
