//! `GET /api/monitoring/overview`: the fleet at a glance, a short row for each instance, as the web page shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::problem::Problem;
use super::schema::KeyText;
use crate::engine::{BreakerState, InstanceHealth, InstanceKey, Place};
use crate::fleet::{Member, Members};
use crate::runtime::{Calendar, DriverGone};
use crate::targets::Reading;

const LARGEST_PAGE: usize = 1_000;

/// Which instances to show.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OverviewQuery {
    /// Only instances whose key comes after this one: the `next` of the page before.
    #[param(inline, value_type = Option<KeyText>)]
    after: Option<String>,
    /// How many instances at the most, up to 1000, which is also how many if not given; 0 for the figures alone.
    #[param(minimum = 0, maximum = 1000)]
    limit: Option<usize>,
}

/// The fleet at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    #[serde(flatten)]
    figures: Figures,
    /// The instances of this page, sorted by key.
    instances: Vec<OverviewRow>,
    /// What to give as `after` for the next page; `null` on the last.
    #[schema(value_type = Option<String>)]
    next: Option<InstanceKey>,
}

/// The fleet in figures.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// When they were read. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: jiff::Timestamp,
    /// Whether intervals adapt.
    pub enabled: bool,
    /// Polls that ended a second, over the last ten seconds.
    pub polls_per_second: f64,
    /// Mean time between due and start of a poll, in milliseconds.
    pub lag_millis: u64,
    /// Share of the slots in use, 0 to 1.
    pub slots_used: f64,
    /// By how much every interval is stretched for load, 1 and up.
    pub stretch: f64,
}

/// One instance at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverviewRow {
    /// `type::name`.
    #[schema(value_type = String)]
    pub key: InstanceKey,
    /// What operators call it.
    #[schema(value_type = String)]
    pub name: Arc<str>,
    /// What follows from all of the below, at the moment of the reading.
    pub state: FleetState,
    /// When a poll last succeeded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<jiff::Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last poll failed, if it has not succeeded since.
    #[schema(value_type = Option<String>)]
    pub message: Option<Arc<str>>,
    /// `closed`, `open` or `half_open`; `closed` for a type without a breaker.
    #[schema(value_type = String)]
    pub breaker: BreakerState,
    /// Whether it is dead-lettered.
    pub dead_lettered: bool,
    /// Whether it is not polled.
    pub paused: bool,
    /// Whether an availability check found it up; true for the other types.
    pub up: bool,
}

/// The state of an instance in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetState {
    /// In the dead-letter queue.
    DeadLettered,
    /// Its breaker is open or half-open.
    Open,
    /// Its last poll failed.
    Failing,
    /// An availability check that found its target down.
    Down,
    /// Its last success is older than its plan allows.
    Late,
    /// Not polled yet.
    Waiting,
    /// Not polled at all.
    Paused,
    /// Read in time.
    Fresh,
}

impl FleetState {
    /// Every state, trouble first.
    pub const ALL: [Self; 8] = [
        Self::DeadLettered,
        Self::Open,
        Self::Failing,
        Self::Down,
        Self::Late,
        Self::Waiting,
        Self::Paused,
        Self::Fresh,
    ];

    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLettered => "dead_lettered",
            Self::Open => "open",
            Self::Failing => "failing",
            Self::Down => "down",
            Self::Late => "late",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Fresh => "fresh",
        }
    }
}

/// Shows the fleet at a glance, a page at a time.
#[utoipa::path(
    get,
    path = "/api/monitoring/overview",
    tag = "monitoring",
    params(OverviewQuery),
    responses(
        (status = 200, description = "The fleet at a glance", body = Overview),
        (status = 400, description = "A parameter is wrong", body = Problem),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    query: Result<Query<OverviewQuery>, QueryRejection>,
) -> Result<Json<Overview>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(LARGEST_PAGE);
    if limit > LARGEST_PAGE {
        return Err(Problem::malformed(format!("`limit` is {limit}; it must be 0 to {LARGEST_PAGE}")));
    }
    let after = query.after.as_deref().map(str::parse).transpose();
    let mut after = after.map_err(|error| Problem::malformed(format!("`after`: {error}")))?;
    let figures = figures(&api).await?;
    let view = View::of(&api);
    let (mut instances, mut next) = (Vec::new(), None);
    while instances.len() < limit {
        let page =
            api.handle.page(after.take(), |_, views| views.map(|view| view.health()).collect::<Vec<_>>()).await?;
        instances.extend(page.found.iter().filter_map(|row| view.row(row)));
        next.clone_from(&page.next);
        match page.next {
            Some(key) => after = Some(key),
            None => break,
        }
    }
    if instances.len() > limit {
        instances.truncate(limit);
        next = instances.last().map(|last| last.key.clone());
    }
    Ok(Json(Overview { figures, instances, next }))
}

/// The whole fleet in figures, and those of its instances that are in the greatest trouble.
#[derive(Clone, Debug)]
pub struct Glance {
    /// The figures.
    pub figures: Figures,
    /// How many instances are in each state that any is in.
    pub counts: BTreeMap<FleetState, usize>,
    /// The greatest trouble first, then by key.
    pub worst: Vec<OverviewRow>,
}

impl Glance {
    /// Looks at every instance and keeps the worst `kept`. Linear in the fleet; polls go on meanwhile.
    ///
    /// # Errors
    /// The daemon is shutting down.
    pub async fn take(api: &Api, kept: usize) -> Result<Self, DriverGone> {
        let mut glance = Self { figures: figures(api).await?, counts: BTreeMap::new(), worst: Vec::new() };
        let view = View::of(api);
        let mut after = None;
        loop {
            let page = api.handle.page(after, |_, views| views.map(|view| view.health()).collect::<Vec<_>>()).await?;
            for row in page.found.iter().filter_map(|row| view.row(row)) {
                *glance.counts.entry(row.state).or_default() += 1;
                glance.worst.push(row);
            }
            // A stable sort: keys stay in order within a state.
            glance.worst.sort_by_key(|row| row.state);
            glance.worst.truncate(kept);
            match page.next {
                Some(key) => after = Some(key),
                None => return Ok(glance),
            }
        }
    }
}

async fn figures(api: &Api) -> Result<Figures, DriverGone> {
    let overview = api.handle.overview().await?;
    Ok(Figures {
        updated_at: api.clock.calendar().at(overview.at),
        enabled: overview.adaptive,
        polls_per_second: api.poll_log.rate(overview.at).await,
        lag_millis: overview.load.lag.get(),
        slots_used: overview.load.slots_used,
        stretch: overview.load.stretch,
    })
}

/// What it takes to show instances.
struct View {
    calendar: Calendar,
    members: Arc<Members>,
}

impl View {
    fn of(api: &Api) -> Self {
        Self { calendar: api.clock.calendar(), members: api.fleet.members() }
    }

    /// `None` for one that comes or goes at this moment.
    fn row(&self, instance: &InstanceHealth) -> Option<OverviewRow> {
        let member = self.members.get(&instance.key)?;
        let breaker = instance.breaker.map_or(BreakerState::Closed, |breaker| breaker.state);
        let up = is_up(member);
        Some(OverviewRow {
            key: instance.key.clone(),
            name: member.display_name(),
            state: state(instance, breaker, up),
            last_success: instance.last_success.map(|at| self.calendar.at(at)),
            failures: instance.consecutive_failures,
            message: instance.last_error.as_ref().map(|error| Arc::clone(&error.message)),
            breaker,
            dead_lettered: instance.dead_letter.is_some(),
            paused: instance.place == Place::Paused,
            up,
        })
    }
}

fn is_up(member: &Member) -> bool {
    member.last_reading().is_none_or(|last| match last.reading.as_ref() {
        Reading::Http(reading) => reading.up,
        Reading::Tcp(reading) => reading.up,
        Reading::Pve(_) | Reading::Pbs(_) | Reading::Pmg(_) => true,
    })
}

fn state(instance: &InstanceHealth, breaker: BreakerState, up: bool) -> FleetState {
    if instance.place == Place::Paused {
        FleetState::Paused
    } else if instance.dead_letter.is_some() {
        FleetState::DeadLettered
    } else if breaker != BreakerState::Closed {
        FleetState::Open
    } else if instance.consecutive_failures > 0 {
        FleetState::Failing
    } else if instance.late {
        FleetState::Late
    } else if instance.last_success.is_none() {
        FleetState::Waiting
    } else if up {
        FleetState::Fresh
    } else {
        FleetState::Down
    }
}
