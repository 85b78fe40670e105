//! `/api/config/nodes/{key}/cluster`: the nodes of an instance's cluster, and adding those that are not in the fleet.
//!
//! A node is added with the credentials of the instance that it was found by, which nobody sees on the way. Where that
//! instance pins a certificate, the caller has to give the node's fingerprint back: it is never pinned unseen.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, Reason};
use super::change::api_author;
use super::nodes::read_key;
use super::problem::Problem;
use crate::config::{Difference, GivenEntry, InventoryEdit};
use crate::configure::{Author, Changed};
use crate::engine::{Failure, FailureKind, InstanceKey};
use crate::fleet::{ClusterNode, ClusterNodes, Offer, PinSource, Standing};
use crate::security::Principal;
use crate::security::audit::{Attempt, Conclusion};
use crate::targets::{DiscoveryError, fingerprint_text};

/// The most nodes that are added at once.
const MOST_NODES: usize = 64;

/// The nodes of a cluster.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAnswer {
    /// The instance that was asked.
    pub key: String,
    /// The name of its cluster.
    pub cluster: String,
    /// The nodes by name.
    pub nodes: Vec<ClusterNodeShown>,
}

/// One node of a cluster.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNodeShown {
    /// Its name.
    pub name: String,
    /// Where the cluster reaches it.
    pub address: Option<String>,
    /// Whether the cluster sees it.
    pub online: bool,
    /// The instance by which it is in the fleet already.
    pub configured: Option<String>,
    /// What it would be as an instance; credentials and authority are those of the instance that was asked.
    pub offer: Option<NodeOffer>,
    /// Why it cannot be added.
    pub problem: Option<String>,
}

/// A node as it would be in the fleet.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOffer {
    /// `pve::name`.
    pub key: String,
    /// Its address.
    pub url: String,
    /// The SHA-256 fingerprint that would be pinned, where that of the instance that was asked is pinned too. Adding the
    /// node needs it given back.
    pub fingerprint: Option<String>,
    /// Who told it: `cluster`, over a trusted connection to a member, or `firstContact`, the node itself, which anybody
    /// in between could be. Compare that one with the node's own.
    pub fingerprint_source: Option<FingerprintSource>,
}

/// Who told a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FingerprintSource {
    /// A member of the cluster.
    Cluster,
    /// The node itself.
    FirstContact,
}

/// The nodes to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterRequest {
    /// 1 to 64 nodes; all are added, or none.
    #[schema(min_items = 1, max_items = 64)]
    nodes: Vec<ChosenNode>,
    /// Why, for the history and the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// A node to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChosenNode {
    /// Its name, as the cluster tells it.
    name: String,
    /// The fingerprint that was shown, if one was: giving it back confirms it.
    #[serde(default)]
    fingerprint: Option<String>,
}

/// What adding nodes came to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterAdded {
    /// The instances that were added.
    pub keys: Vec<String>,
    /// The version of the configuration that it made.
    pub version: Option<i64>,
    /// What it changed.
    pub difference: Difference,
}

/// Asks an instance for the nodes of its cluster, with its own credentials. Nothing is changed.
#[utoipa::path(
    get,
    path = "/api/config/nodes/{key}/cluster",
    tag = "configuration",
    params(("key" = String, Path, description = "`pve::name`")),
    responses(
        (status = 200, description = "The nodes, sorted by name", body = ClusterAnswer),
        (status = 404, description = "There is no instance with this key", body = Problem),
        (status = 409, description = "It is no Proxmox VE (`not_pve`) or in no cluster (`no_cluster`), no member can be asked (`host_unreachable`), or the member refuses (`host_refused`)", body = Problem),
        (status = 429, description = "Too many are being tried at once (`too_many_tests`)", body = Problem),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<ClusterAnswer>, Problem> {
    let key = read_key(key)?;
    let ClusterNodes { name, nodes } = discover(&api, &key).await?;
    let nodes = nodes.into_iter().map(ClusterNodeShown::from).collect();
    Ok(Json(ClusterAnswer { key: key.to_string(), cluster: name, nodes }))
}

/// Adds nodes of an instance's cluster, with the credentials of the instance. They are polled from then on.
#[utoipa::path(
    post,
    path = "/api/config/nodes/{key}/cluster",
    tag = "configuration",
    params(("key" = String, Path, description = "`pve::name`")),
    request_body = ClusterRequest,
    responses(
        (status = 201, description = "They are polled from now on", body = ClusterAdded),
        (status = 404, description = "There is no instance with this key", body = Problem),
        (status = 409, description = "A node cannot be added (`not_offered`), or its fingerprint is not the one given (`fingerprint_not_confirmed`); `not_pve`, `no_cluster`, `host_unreachable`, `host_refused`, `file_broken`", body = Problem),
        (status = 422, description = "Refused whole, with all reasons (`inventory_refused`)", body = Problem),
        (status = 429, description = "Too many are being tried at once (`too_many_tests`)", body = Problem),
    )
)]
pub(super) async fn add(
    State(api): State<Api>,
    principal: Principal,
    key: Result<Path<String>, PathRejection>,
    Body(request): Body<ClusterRequest>,
) -> Result<(StatusCode, Json<ClusterAdded>), Problem> {
    let key = read_key(key)?;
    let ClusterRequest { nodes, reason } = request;
    if !(1..=MOST_NODES).contains(&nodes.len()) {
        return Err(Problem::refused(format!("`nodes` holds {}; give 1 to {MOST_NODES}", nodes.len())).unread());
    }
    let author = api_author(&principal, reason);
    let mut attempt = Attempt::new(principal.caller, "node.add_cluster").because(author.reason.clone());
    attempt.key = Some(key.to_string());
    let work = {
        let api = api.clone();
        async move {
            match add_chosen(&api, key, nodes, author).await {
                Ok((keys, changed)) => {
                    let conclusion = changed.conclusion();
                    let Changed { version, difference } = changed;
                    (Ok(ClusterAdded { keys, version, difference }), conclusion)
                }
                Err(problem) => {
                    let conclusion = Conclusion::refused(problem.detail());
                    (Err(problem), conclusion)
                }
            }
        }
    };
    let added = api.audit.carry_out(attempt, work).await??;
    Ok((StatusCode::CREATED, Json(added)))
}

async fn add_chosen(
    api: &Api,
    key: InstanceKey,
    chosen: Vec<ChosenNode>,
    author: Author,
) -> Result<(Vec<String>, Changed), Problem> {
    let cluster = discover(api, &key).await?;
    let mut names = BTreeSet::new();
    let mut offers = Vec::with_capacity(chosen.len());
    for node in &chosen {
        if !names.insert(&node.name) {
            return Err(Problem::refused(format!("the node {:?} is named twice", node.name)));
        }
        offers.push(confirmed(&cluster, node)?);
    }
    let keys = offers.iter().map(|offer| offer.key.to_string()).collect();
    let entries = offers.into_iter().map(entry).collect::<Result<_, _>>()?;
    let edit = InventoryEdit::AddLike(key, entries);
    Ok((keys, api.configurator.edit_instance(edit, None, author).await?))
}

/// What is offered of a node, if its certificate is the one that the caller has seen.
fn confirmed<'a>(cluster: &'a ClusterNodes, chosen: &ChosenNode) -> Result<&'a Offer, Problem> {
    let not_offered = |why: String| Problem::conflict("not_offered", "The node cannot be added", why);
    let name = &chosen.name;
    let node = cluster.nodes.iter().find(|node| node.found.name == *name);
    let offer = match node.map(|node| &node.standing) {
        Some(Standing::Offered(offer)) => offer,
        Some(Standing::Configured(key)) => return Err(not_offered(format!("{name}: it is in the fleet as {key}"))),
        Some(Standing::Impossible(problem)) => return Err(not_offered(format!("{name}: {problem}"))),
        None => return Err(not_offered(format!("the cluster {} has no node {name:?}", cluster.name))),
    };
    let seen = offer.pin.map(|pin| fingerprint_text(&pin.fingerprint));
    if seen.as_deref() == chosen.fingerprint.as_deref() {
        return Ok(offer);
    }
    let detail = match seen {
        Some(seen) => format!(
            "{name} shows the fingerprint {seen}; compare it with the node's own, and give it as `fingerprint` to trust it"
        ),
        None => format!("{name} is believed by its authority; leave `fingerprint` out"),
    };
    Err(Problem::conflict("fingerprint_not_confirmed", "The certificate was not confirmed", detail))
}

/// The entry of an offer, without what it takes over.
fn entry(offer: &Offer) -> Result<GivenEntry, Problem> {
    let mut entry = json!({"type": offer.key.kind(), "name": offer.key.name(), "url": offer.url});
    if let Some(pin) = offer.pin {
        entry["tls"] = json!({"fingerprint": fingerprint_text(&pin.fingerprint)});
    }
    serde_json::from_value(entry).map_err(|_| Problem::internal())
}

async fn discover(api: &Api, key: &InstanceKey) -> Result<ClusterNodes, Problem> {
    let instance = api.configurator.instance(key.clone()).await?;
    let timeout = api.config.system().settings().types[key.kind()].timeout;
    let found = api.fleet.discover(instance, timeout).await.ok_or_else(Problem::too_many_tests)?;
    found.map_err(|error| {
        let detail = error.to_string();
        let (code, title) = match error {
            DiscoveryError::NotPve => ("not_pve", "The instance is no Proxmox VE"),
            DiscoveryError::NoCluster => ("no_cluster", "The host is in no cluster"),
            DiscoveryError::Failed(Failure { kind: FailureKind::Forbidden | FailureKind::Unauthorized, .. }) => {
                ("host_refused", "The host does not let the instance's account do this")
            }
            DiscoveryError::Failed(_) => ("host_unreachable", "The host could not be asked"),
        };
        // No 502: a proxy in front would put a page of its own in its place.
        Problem::conflict(code, title, detail)
    })
}

impl From<ClusterNode> for ClusterNodeShown {
    fn from(node: ClusterNode) -> Self {
        let (mut configured, mut offer, mut problem) = (None, None, None);
        match node.standing {
            Standing::Configured(key) => configured = Some(key.to_string()),
            Standing::Offered(offered) => offer = Some(offered.into()),
            Standing::Impossible(why) => problem = Some(why),
        }
        let address = node.found.address.map(|address| address.to_string());
        Self { name: node.found.name, address, online: node.found.online, configured, offer, problem }
    }
}

impl From<Offer> for NodeOffer {
    fn from(offer: Offer) -> Self {
        Self {
            key: offer.key.to_string(),
            url: offer.url.as_str().trim_end_matches('/').to_owned(),
            fingerprint: offer.pin.map(|pin| fingerprint_text(&pin.fingerprint)),
            fingerprint_source: offer.pin.map(|pin| match pin.source {
                PinSource::Cluster => FingerprintSource::Cluster,
                PinSource::FirstContact => FingerprintSource::FirstContact,
            }),
        }
    }
}
