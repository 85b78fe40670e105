//! `GET /api/monitoring/troubles`: the instances that fail, a page at a time, whether intervals adapt or not.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::health::{InstanceRow, instance_row};
use super::problem::Problem;
use super::schema::KeyText;
use crate::engine::{InstanceKey, InstanceView};

const LARGEST_PAGE: usize = 1_000;

/// Which instances to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TroublesQuery {
    /// Only instances whose key comes after this one: the `next` of the page before.
    #[param(inline, value_type = Option<KeyText>)]
    after: Option<String>,
}

/// Instances that fail, sorted by key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Troubles {
    /// When they were read. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    updated_at: jiff::Timestamp,
    /// Some 1000 of them at the most.
    instances: Vec<InstanceRow>,
    /// What to give as `after` for the next page; `null` on the last.
    #[schema(value_type = Option<String>)]
    next: Option<InstanceKey>,
}

/// Shows the instances that are dead-lettered, or have failed since their last success.
#[utoipa::path(
    get,
    path = "/api/monitoring/troubles",
    tag = "monitoring",
    params(TroublesQuery),
    responses(
        (status = 200, description = "The instances that fail", body = Troubles),
        (status = 400, description = "A parameter is wrong", body = Problem),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    query: Result<Query<TroublesQuery>, QueryRejection>,
) -> Result<Json<Troubles>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let after = query.after.as_deref().map(str::parse).transpose();
    let mut after = after.map_err(|error| Problem::malformed(format!("`after`: {error}")))?;
    let (members, calendar) = (api.fleet.members(), api.clock.calendar());
    let mut instances = Vec::new();
    let next = loop {
        let look = |_, views: &mut dyn Iterator<Item = InstanceView<'_>>| -> Vec<_> {
            views.filter(is_troubled).map(|view| view.health()).collect()
        };
        let page = api.handle.page(after.take(), look).await?;
        let known = page.found.iter().filter_map(|row| Some((row, members.get(&row.key)?)));
        instances.extend(known.map(|(row, member)| instance_row(row, member, calendar)));
        match page.next {
            // The page that crosses the limit is kept whole; it has a few hundred at the most.
            Some(next) if instances.len() >= LARGEST_PAGE => break Some(next),
            Some(next) => after = Some(next),
            None => break None,
        }
    };
    Ok(Json(Troubles { updated_at: api.clock.wall(), instances, next }))
}

fn is_troubled(instance: &InstanceView<'_>) -> bool {
    instance.dead_letter().is_some() || instance.failures() > 0
}
