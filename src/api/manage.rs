//! What operators do by hand: resetting breakers, retrying and removing dead letters, polling now, pausing.
//!
//! Each call goes through the audit log and the engine's command input; the next health answer shows its effect.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::body::{Body, GivenReason, NeededReason, Reason};
use super::problem::Problem;
use super::schema::{DeadLetterReasonName, KeyText, TypeName};
use super::{Api, BreakerStateName};
use crate::config::parse_span;
use crate::engine::{
    Command, CommandError, DeadLetterReason, InstanceHealth, InstanceKey, InstanceType, KeyError, Reply, Retry,
    RetryFilter, RetryResult, Timestamp,
};
use crate::runtime::Calendar;
use crate::security::audit::{Attempt, Conclusion};
use crate::security::{Caller, Principal};

/// How many keys of a retry of many the audit log names.
const KEYS_LOGGED: usize = 1_000;
/// How many dead letters can be chosen by their keys.
const MAX_CHOSEN: usize = 1_000;

/// A breaker was reset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerResetAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// `type::name`.
    pub key: String,
    /// Its state before.
    pub previous_state: BreakerStateName,
    /// Its state now: `closed`.
    pub new_state: BreakerStateName,
    /// Who reset it, as in `user:alice`.
    pub reset_by: String,
    /// When. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub reset_at: jiff::Timestamp,
}

/// A dead letter is rechecked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// `type::name`.
    pub key: String,
    /// Rechecks that failed so far.
    pub previous_retry_count: u32,
    /// When it is polled. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub scheduled_for: jiff::Timestamp,
}

/// Many dead letters are rechecked, spread out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriesAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// How many are rechecked, or would be.
    pub tasks_retried: usize,
    /// Which, in order.
    pub keys: Vec<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// What becomes of each dead letter that the filters let through, in the order of their keys.
    pub results: Vec<RetryRow>,
}

/// What becomes of one dead letter.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryRow {
    /// `type::name`.
    pub key: String,
    /// What becomes of it.
    pub result: RetryResultName,
    /// When it is polled. RFC 3339, UTC.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scheduled_for: Option<jiff::Timestamp>,
}

/// What becomes of a dead letter, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryResultName {
    /// It is rechecked at `scheduledFor`.
    Scheduled,
    /// It is being rechecked already.
    UnderWay,
    /// It would be rechecked; nothing was changed.
    WouldRetry,
}

/// A dead letter was removed; its instance is no longer polled until it is added or enabled again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovalAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// `type::name`.
    pub key: String,
    /// Why it was dead-lettered: `max_retry_attempts` or `permanent_failure`.
    #[schema(value_type = String)]
    pub reason: DeadLetterReason,
}

/// An instance is polled at once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// `type::name`.
    pub key: String,
    /// When it is polled. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub scheduled_for: jiff::Timestamp,
}

/// An instance is paused, or polled again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseAnswer {
    /// `true`; a refusal is a problem document.
    pub success: bool,
    /// `type::name`.
    pub key: String,
    /// Whether it is paused now.
    pub paused: bool,
    /// Whether that is a change.
    pub changed: bool,
}

/// Which dead letters to retry.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RetryQuery {
    /// Only instances of this type.
    #[serde(rename = "type")]
    #[param(rename = "type", inline, value_type = Option<TypeName>)]
    kind: Option<InstanceType>,
    /// Only those that are dead-lettered for this reason: `max_retry_attempts` or `permanent_failure`.
    #[param(inline, value_type = Option<DeadLetterReasonName>)]
    reason: Option<DeadLetterReason>,
    /// Only those whose row of failures began longer ago than this, such as `10m`.
    #[param(pattern = r"^\d{1,6}(ms|s|m|h)$")]
    older_than: Option<String>,
    /// Only tell which they are.
    #[serde(default)]
    dry_run: bool,
}

/// Why many dead letters are retried, and which.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryRequest {
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
    /// Only instances with these keys, at most 1000; those that are no longer dead-lettered are passed over.
    #[serde(default)]
    #[schema(inline, max_items = 1000, value_type = Option<Vec<KeyText>>)]
    keys: Option<Vec<String>>,
}

type Key = Result<Path<String>, PathRejection>;

/// Closes a breaker, forgets the failures in a row, and has the instance polled soon.
#[utoipa::path(
    post,
    path = "/api/monitoring/breakers/{key}/reset",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body = NeededReason,
    responses(
        (status = 200, description = "The breaker is closed", body = BreakerResetAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
        (status = 409, description = "The type has no breaker (`no_breaker`)", body = Problem),
    )
)]
pub(super) async fn reset_breaker(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(NeededReason { reason }): Body<NeededReason>,
) -> Result<Json<BreakerResetAnswer>, Problem> {
    let order = Order::new(principal, "breaker.reset", key, Some(reason.into_inner()))?;
    let (by, key) = (order.by.actor.to_string(), order.key.to_string());
    let done = order.carry_out(&api, |key| Command::ResetBreaker { key }).await?;
    let Reply::BreakerReset { previous } = done.reply else { return Err(Problem::internal()) };
    let new_state = done.after.and_then(|it| it.breaker).map_or(BreakerStateName::Unknown, |it| it.state.into());
    let (previous_state, reset_at) = (previous.into(), api.clock.wall());
    Ok(Json(BreakerResetAnswer { success: true, key, previous_state, new_state, reset_by: by, reset_at }))
}

/// Rechecks a dead letter now.
#[utoipa::path(
    post,
    path = "/api/monitoring/dlq/{key}/retry",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body(content = Option<GivenReason>, description = "The reason, which need not be given"),
    responses(
        (status = 200, description = "The recheck is planned", body = RetryAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
        (status = 409, description = "It is not in the dead-letter queue (`not_dead_lettered`), or being rechecked \
                                      (`poll_in_flight`)", body = Problem),
    )
)]
pub(super) async fn retry_dead_letter(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<RetryAnswer>, Problem> {
    let order = Order::new(principal, "dlq.retry", key, given.and_then(GivenReason::into_inner))?;
    let key = order.key.to_string();
    let done = order.carry_out(&api, |key| Command::RetryDeadLetter { key }).await?;
    let Reply::RetryScheduled { previous_retry_count, scheduled_for } = done.reply else {
        return Err(Problem::internal());
    };
    Ok(Json(RetryAnswer { success: true, key, previous_retry_count, scheduled_for: api.clock.wall_at(scheduled_for) }))
}

/// Rechecks many dead letters, spread out: never all at once.
#[utoipa::path(
    post,
    path = "/api/monitoring/dlq/retry",
    tag = "management",
    params(RetryQuery),
    request_body(content = Option<RetryRequest>, description = "The reason and the keys, which need not be given"),
    responses((status = 200, description = "The rechecks are planned", body = RetriesAnswer))
)]
pub(super) async fn retry_dead_letters(
    State(api): State<Api>,
    principal: Principal,
    query: Result<Query<RetryQuery>, QueryRejection>,
    Body(given): Body<Option<RetryRequest>>,
) -> Result<Json<RetriesAnswer>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let older_than = query.older_than.as_deref().map(parse_span).transpose();
    let older_than = older_than.map_err(|error| Problem::malformed(format!("`olderThan` {error}")))?;
    let RetryRequest { reason, keys } = given.unwrap_or_default();
    let keys = keys.map(chosen).transpose()?;
    let filter = RetryFilter { keys, kind: query.kind, reason: query.reason, older_than };
    let dry_run = query.dry_run;
    let attempt = Attempt::new(principal.caller, "dlq.retry_many").because(reason.map(Reason::into_inner));
    let handle = api.handle.clone();
    let effect = async move {
        let refused = |problem: Problem, why: &dyn std::fmt::Display| (Err(problem), Conclusion::failed(why));
        match handle.command(Command::RetryDeadLetters { filter: filter.clone(), dry_run }).await {
            Ok(Ok(Reply::RetriesScheduled { retries })) => {
                let conclusion = Conclusion::done(None, Some(retries_for_the_log(&filter, dry_run, &retries)));
                (Ok(retries), conclusion)
            }
            Ok(Ok(other)) => refused(Problem::internal(), &format!("the engine answered {other:?}")),
            Ok(Err(error)) => refused(error.into(), &error),
            Err(gone) => refused(gone.into(), &gone),
        }
    };
    let retries = api.audit.carry_out(attempt, effect).await??;
    Ok(Json(retries_answer(dry_run, retries, api.clock.calendar())))
}

/// The instances that were chosen by their keys. A text that no instance can be named by is a mistake of the caller.
fn chosen(keys: Vec<String>) -> Result<BTreeSet<InstanceKey>, Problem> {
    if keys.len() > MAX_CHOSEN {
        return Err(Problem::malformed(format!("`keys` has {} keys; it may have {MAX_CHOSEN}", keys.len())));
    }
    let parse =
        |text: String| text.parse().map_err(|error: KeyError| Problem::malformed(format!("`keys`: {text:?}: {error}")));
    keys.into_iter().map(parse).collect()
}

fn retries_for_the_log(filter: &RetryFilter, dry_run: bool, retries: &[Retry]) -> Value {
    let chosen = filter.keys.as_ref().map(BTreeSet::len);
    let keys: Vec<String> = retries.iter().take(KEYS_LOGGED).map(|retry| retry.key.to_string()).collect();
    let older_than = filter.older_than.map(|span| span.to_string());
    let filter = json!({"type": filter.kind, "reason": filter.reason, "olderThan": older_than, "chosen": chosen});
    json!({"dryRun": dry_run, "filter": filter, "count": retries.len(), "keys": keys})
}

fn retries_answer(dry_run: bool, retries: Vec<Retry>, calendar: Calendar) -> RetriesAnswer {
    let row = |Retry { key, result }| {
        let (result, scheduled_for) = match result {
            RetryResult::ScheduledFor(at) => (RetryResultName::Scheduled, Some(calendar.at(at))),
            RetryResult::UnderWay => (RetryResultName::UnderWay, None),
            RetryResult::WouldRetry => (RetryResultName::WouldRetry, None),
        };
        RetryRow { key: key.to_string(), result, scheduled_for }
    };
    let results: Vec<RetryRow> = retries.into_iter().map(row).collect();
    let retried = results.iter().filter(|row| row.result != RetryResultName::UnderWay);
    let keys: Vec<String> = retried.map(|row| row.key.clone()).collect();
    RetriesAnswer { success: true, tasks_retried: keys.len(), keys, dry_run, results }
}

/// Removes a dead letter; its instance is no longer polled until it is added or enabled again.
#[utoipa::path(
    delete,
    path = "/api/monitoring/dlq/{key}",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body(content = Option<GivenReason>, description = "The reason, which need not be given"),
    responses(
        (status = 200, description = "The dead letter is gone and its instance paused", body = RemovalAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
        (status = 409, description = "It is not in the dead-letter queue (`not_dead_lettered`)", body = Problem),
    )
)]
pub(super) async fn remove_dead_letter(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<RemovalAnswer>, Problem> {
    let order = Order::new(principal, "dlq.remove", key, given.and_then(GivenReason::into_inner))?;
    let key = order.key.to_string();
    let done = order.carry_out(&api, |key| Command::RemoveDeadLetter { key }).await?;
    let Reply::DeadLetterRemoved { reason } = done.reply else { return Err(Problem::internal()) };
    Ok(Json(RemovalAnswer { success: true, key, reason }))
}

/// Polls a live instance now.
#[utoipa::path(
    post,
    path = "/api/monitoring/instances/{key}/poll",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body(content = Option<GivenReason>, description = "The reason, which need not be given"),
    responses(
        (status = 200, description = "The poll is planned", body = PollAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
        (status = 409, description = "It is dead-lettered (`dead_lettered`), paused (`paused`), being polled \
                                      (`poll_in_flight`), or its breaker is open (`breaker_open`)", body = Problem),
    )
)]
pub(super) async fn poll_now(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<PollAnswer>, Problem> {
    let order = Order::new(principal, "instance.poll", key, given.and_then(GivenReason::into_inner))?;
    let key = order.key.to_string();
    let done = order.carry_out(&api, |key| Command::PollNow { key }).await?;
    let Reply::PollScheduled { scheduled_for } = done.reply else { return Err(Problem::internal()) };
    Ok(Json(PollAnswer { success: true, key, scheduled_for: api.clock.wall_at(scheduled_for) }))
}

/// Pauses an instance: it is not polled until it is resumed, edited or the daemon restarts.
#[utoipa::path(
    post,
    path = "/api/monitoring/instances/{key}/pause",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body(content = Option<GivenReason>, description = "The reason, which need not be given"),
    responses(
        (status = 200, description = "It is paused", body = PauseAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
    )
)]
pub(super) async fn pause(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<PauseAnswer>, Problem> {
    let order = Order::new(principal, "instance.pause", key, given.and_then(GivenReason::into_inner))?;
    set_enabled(&api, order, false).await
}

/// Polls an instance again.
#[utoipa::path(
    post,
    path = "/api/monitoring/instances/{key}/resume",
    tag = "management",
    params(("key" = String, Path, description = "`type::name`, percent-encoded or not")),
    request_body(content = Option<GivenReason>, description = "The reason, which need not be given"),
    responses(
        (status = 200, description = "It is polled again", body = PauseAnswer),
        (status = 404, description = "No instance has this key (`unknown_instance`)", body = Problem),
    )
)]
pub(super) async fn resume(
    State(api): State<Api>,
    principal: Principal,
    key: Key,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<PauseAnswer>, Problem> {
    let order = Order::new(principal, "instance.resume", key, given.and_then(GivenReason::into_inner))?;
    set_enabled(&api, order, true).await
}

async fn set_enabled(api: &Api, order: Order, enabled: bool) -> Result<Json<PauseAnswer>, Problem> {
    let key = order.key.to_string();
    let done = order.carry_out(api, |key| Command::SetEnabled { key, enabled }).await?;
    let Reply::EnabledSet { changed } = done.reply else { return Err(Problem::internal()) };
    Ok(Json(PauseAnswer { success: true, key, paused: !enabled, changed }))
}

/// What somebody wants done to one instance.
struct Order {
    by: Caller,
    action: &'static str,
    key: InstanceKey,
    reason: Option<String>,
}

/// What was done to it.
struct Done {
    reply: Reply,
    after: Option<InstanceHealth>,
}

impl Order {
    fn new(principal: Principal, action: &'static str, key: Key, reason: Option<String>) -> Result<Self, Problem> {
        let Path(text) = key.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        // A text that no instance can be named by names none.
        let key = text.parse().map_err(|_| Problem::from(CommandError::UnknownInstance).unread())?;
        Ok(Self { by: principal.caller, action, key, reason })
    }

    /// Has the engine carry it out, between its intent and its outcome in the audit log.
    async fn carry_out(self, api: &Api, command: impl FnOnce(InstanceKey) -> Command) -> Result<Done, Problem> {
        let Self { by, action, key, reason } = self;
        let attempt = Attempt::new(by, action).on(key.to_string()).because(reason);
        let (handle, calendar, command) = (api.handle.clone(), api.clock.calendar(), command(key.clone()));
        let effect = async move {
            match handle.command_observed(key, command).await {
                Err(gone) => (Err(Problem::from(gone)), Conclusion::failed(gone)),
                Ok(observed) => match observed.result {
                    Err(error) => (Err(error.into()), Conclusion::refused(error)),
                    Ok(reply) => {
                        let state = |it: &InstanceHealth| state(it, calendar);
                        let conclusion =
                            Conclusion::done(observed.before.as_ref().map(state), observed.after.as_ref().map(state));
                        (Ok(Done { reply, after: observed.after }), conclusion)
                    }
                },
            }
        };
        api.audit.carry_out(attempt, effect).await?
    }
}

/// What the audit log keeps of an instance's state.
fn state(instance: &InstanceHealth, calendar: Calendar) -> Value {
    let wall = |at: Option<Timestamp>| at.map(|at| calendar.at(at));
    let mut state = BTreeMap::from([
        ("place", json!(instance.place)),
        ("due", json!(wall(instance.due))),
        ("consecutiveFailures", json!(instance.consecutive_failures)),
    ]);
    if let Some(breaker) = instance.breaker {
        state.insert("breaker", json!({"state": breaker.state, "retryAt": wall(breaker.retry_at)}));
    }
    if let Some(entry) = instance.dead_letter {
        state.insert("deadLetter", json!({"reason": entry.reason, "retryCount": entry.retry_count}));
    }
    json!(state)
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let (code, title) = match error {
            CommandError::UnknownInstance => return Self::unknown_instance(),
            CommandError::NotDeadLettered => ("not_dead_lettered", "The instance is not in the dead-letter queue"),
            CommandError::DeadLettered => ("dead_lettered", "The instance is in the dead-letter queue"),
            CommandError::BreakerOpen => ("breaker_open", "The circuit breaker is open"),
            CommandError::Paused => ("paused", "The instance is paused"),
            CommandError::PollInFlight => ("poll_in_flight", "A poll is under way already"),
            CommandError::NoBreaker => ("no_breaker", "The instance has no circuit breaker"),
        };
        Self::conflict(code, title, error)
    }
}
