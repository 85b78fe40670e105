//! `GET /api/state`: the last reading of each instance, a page at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::problem::Problem;
use super::schema::{KeyText, TypeName};
use crate::engine::{InstanceKey, InstanceType};
use crate::fleet::Member;
use crate::runtime::Calendar;
use crate::targets::Reading;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// Which instances to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only the instance with this key.
    #[param(inline, value_type = Option<KeyText>)]
    key: Option<String>,
    /// Only instances of this type.
    #[serde(rename = "type")]
    #[param(rename = "type", inline, value_type = Option<TypeName>)]
    kind: Option<InstanceType>,
    /// Only instances whose key comes after this one: the `next` of the page before.
    #[param(inline, value_type = Option<KeyText>)]
    after: Option<String>,
    /// How many at the most, 1 to 1000; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The last readings, sorted by key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateAnswer {
    /// When it was read. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    updated_at: jiff::Timestamp,
    /// The instances of this page.
    instances: Vec<InstanceState>,
    /// What to give as `after` for the next page; `null` on the last.
    next: Option<String>,
}

/// The last reading of one instance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InstanceState {
    /// `type::name`.
    key: String,
    /// Its type.
    #[serde(rename = "type")]
    kind: String,
    /// What operators call it.
    #[schema(value_type = String)]
    display_name: Arc<str>,
    /// When the reading was made. It stays while polls fail.
    #[schema(value_type = Option<String>, format = DateTime)]
    read_at: Option<jiff::Timestamp>,
    /// What was read: nodes, guests, storage, datastores, mail figures, or whether the endpoint is up.
    #[schema(value_type = Option<Object>)]
    reading: Option<Arc<Reading>>,
}

/// Shows the last readings.
#[utoipa::path(
    get,
    path = "/api/state",
    tag = "monitoring",
    params(Page),
    responses(
        (status = 200, description = "The last readings, sorted by key", body = StateAnswer),
        (status = 400, description = "A parameter is wrong", body = Problem),
        (status = 401, description = "Valid credentials are needed", body = Problem),
    )
)]
pub(super) async fn last_readings(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<StateAnswer>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::malformed(format!("`limit` is {limit}; it must be 1 to {LARGEST_PAGE}")));
    }
    let key = |text: &Option<String>, name: &str| -> Result<Option<InstanceKey>, Problem> {
        let parsed = text.as_deref().map(str::parse).transpose();
        parsed.map_err(|error: crate::engine::KeyError| Problem::malformed(format!("`{name}`: {error}")))
    };
    let (only, after) = (key(&page.key, "key")?, key(&page.after, "after")?);
    let calendar = api.clock.calendar();
    let members = api.fleet.members();
    let wanted = |key: &InstanceKey| {
        only.as_ref().is_none_or(|only| only == key) && page.kind.is_none_or(|kind| kind == key.kind())
    };
    let after = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let mut rest = members.range((after, std::ops::Bound::Unbounded)).filter(|(key, _)| wanted(key));
    let instances: Vec<InstanceState> =
        rest.by_ref().take(limit).map(|(key, member)| show(key, member, calendar)).collect();
    let next = rest.next().and_then(|_| instances.last().map(|last| last.key.clone()));
    Ok(Json(StateAnswer { updated_at: api.clock.wall(), instances, next }))
}

fn show(key: &InstanceKey, member: &Member, calendar: Calendar) -> InstanceState {
    let last = member.last_reading();
    InstanceState {
        key: key.to_string(),
        kind: key.kind().to_string(),
        display_name: member.display_name(),
        read_at: last.as_ref().map(|last| calendar.at(last.at)),
        reading: last.map(|last| Arc::clone(&last.reading)),
    }
}
