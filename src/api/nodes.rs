//! `/api/config/nodes`: the instances as they are configured. Their secrets are set or kept, and never shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Body, GivenReason, Reason};
use super::change::{api_author, carry_out};
use super::problem::Problem;
use super::schema::{KeyText, TypeName};
use crate::config::{Difference, GivenEntry, InstanceSource, InventoryEdit, ShownEntry, StoredEntry};
use crate::configure::{ChangeError, Changed};
use crate::engine::{InstanceKey, KeyError, Millis};
use crate::security::audit::{Attempt, Conclusion};
use crate::security::{Principal, Role};
use crate::targets::{CallSaid, Reading};

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// Which instances to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only instances whose key comes after this one: the `next` of the page before.
    #[param(inline, value_type = Option<KeyText>)]
    after: Option<String>,
    /// How many at the most, 1 to 1000; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Instances as they are configured, sorted by key.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeList {
    /// The instances of this page.
    nodes: Vec<Node>,
    /// What to give as `after` for the next page; `null` on the last.
    next: Option<String>,
}

/// One instance as it is configured.
#[derive(Serialize, ToSchema)]
pub(super) struct Node {
    /// `type::name`.
    key: String,
    /// Another one after every change of the instance. Given back as `If-Match`, it keeps an edit from writing over
    /// one that was made meanwhile.
    tag: String,
    /// The file that it stands in, from the data folder.
    #[schema(value_type = String)]
    source: InstanceSource,
    /// Whether calls may change and remove it: what stands in another file than `instances.json` is kept by another
    /// tool, and edited there.
    editable: bool,
    /// Its entry, with `{"set": true}` for every secret.
    #[schema(value_type = NodeEntry)]
    instance: ShownEntry,
}

/// An entry of `instances.json`; which fields there are depends on the type. See docs/instances.md.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is here for the OpenAPI document; the configuration reads entries by its own rules")]
pub(super) struct NodeEntry {
    r#type: TypeName,
    /// With the type, the key of the instance.
    name: String,
    /// What people see.
    display_name: Option<String>,
    /// Whether it is polled at all.
    enabled: Option<bool>,
    /// A fixed interval, such as `30s`.
    interval: Option<serde_json::Value>,
    /// When a poll is given up, such as `5s`.
    timeout: Option<serde_json::Value>,
    /// Where it is: pve, pbs, pmg and http.
    url: Option<String>,
    /// Further members of the cluster: pve, pbs and pmg.
    members: Option<Vec<String>>,
    /// How to sign in: `tokenId` with `secret`, or `user` with `password`. A secret is a text, or `{"set": true}` to
    /// keep what is stored.
    #[schema(value_type = Option<Object>)]
    auth: Option<serde_json::Value>,
    /// Whose certificate is believed: `fingerprint`.
    #[schema(value_type = Option<Object>)]
    tls: Option<serde_json::Value>,
    /// How it is asked: http.
    method: Option<String>,
    /// What status means *up*: http.
    expected_status: Option<serde_json::Value>,
    /// What the body must hold: http.
    body_contains: Option<String>,
    /// Where it is: tcp.
    host: Option<String>,
    /// Which port: tcp.
    port: Option<u16>,
}

/// An instance to add, or to put in the place of one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeRequest {
    /// Its entry of `instances.json`.
    #[schema(value_type = NodeEntry)]
    instance: GivenEntry,
    /// Why, for the history and the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// What an edit came to.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeChanged {
    /// `type::name`.
    key: String,
    /// The version of the configuration that it made; `null` if nothing changed that matters.
    version: Option<i64>,
    /// What it changed.
    difference: Difference,
}

/// An instance to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestRequest {
    /// An instance of the fleet, as it is.
    #[serde(default)]
    #[schema(inline, value_type = Option<KeyText>)]
    key: Option<String>,
    /// An entry as it would be; a kept secret is sent only to where the stored instance is.
    #[serde(default)]
    #[schema(value_type = Option<NodeEntry>)]
    instance: Option<GivenEntry>,
}

/// What came of trying an instance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TestAnswer {
    /// Whether a poll would succeed, and an endpoint is up.
    success: bool,
    /// `type::name`.
    key: String,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// Each call that was made, in order.
    calls: Vec<CallMade>,
    /// What a poll would have read.
    #[schema(value_type = Option<Object>)]
    reading: Option<Arc<Reading>>,
    /// Why it did not succeed.
    error: Option<TestError>,
    /// The SHA-256 fingerprint of the certificate that was seen and is not trusted. Compare it with the host's own
    /// before you pin it as `tls.fingerprint`.
    untrusted_fingerprint: Option<String>,
}

/// One call, and what came of it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallMade {
    /// What was asked.
    call: String,
    /// The status of the answer, if one came.
    status: Option<u16>,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// What went wrong on the way.
    problem: Option<String>,
}

/// Why an instance that was tried did not succeed.
#[derive(Serialize, ToSchema)]
struct TestError {
    /// The kind of failure: `timeout`, `refused`, `unauthorized`, …
    category: String,
    /// What happened and what to do.
    message: String,
}

/// Shows the instances as they are configured.
#[utoipa::path(
    get,
    path = "/api/config/nodes",
    tag = "configuration",
    params(Page),
    responses(
        (status = 200, description = "The instances, sorted by key", body = NodeList),
        (status = 400, description = "A parameter is wrong", body = Problem),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`)", body = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<NodeList>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::malformed(format!("`limit` is {limit}; it must be 1 to {LARGEST_PAGE}")));
    }
    let after = page.after.as_deref().map(str::parse::<InstanceKey>).transpose();
    let after = after.map_err(|error| Problem::malformed(format!("`after`: {error}")))?;
    let mut stored = api.configurator.stored_entries().await?;
    stored.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut rest = stored.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).peekable();
    let nodes: Vec<Node> = rest.by_ref().take(limit).map(|(key, entry)| show(&key, entry, &principal)).collect();
    let next = rest.peek().and_then(|_| nodes.last().map(|last| last.key.clone()));
    Ok(Json(NodeList { nodes, next }))
}

/// Shows one instance as it is configured.
#[utoipa::path(
    get,
    path = "/api/config/nodes/{key}",
    tag = "configuration",
    params(("key" = String, Path, description = "`type::name`")),
    responses(
        (status = 200, description = "The instance; its tag is in the header `ETag` too", body = Node),
        (status = 404, description = "There is none with this key", body = Problem),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`)", body = Problem),
    )
)]
pub(super) async fn one(
    State(api): State<Api>,
    principal: Principal,
    key: Result<Path<String>, PathRejection>,
) -> Result<([(header::HeaderName, String); 1], Json<Node>), Problem> {
    let key = read_key(key)?;
    let found = api.configurator.stored_entries().await?.into_iter().find(|(stored, _)| *stored == key);
    let (key, entry) = found.ok_or_else(|| unknown(&key))?;
    let tag = format!("\"{}\"", entry.tag);
    Ok(([(header::ETAG, tag)], Json(show(&key, entry, &principal))))
}

/// Adds an instance. It is polled from then on.
#[utoipa::path(
    post,
    path = "/api/config/nodes",
    tag = "configuration",
    request_body = NodeRequest,
    responses(
        (status = 201, description = "It is polled from now on", body = NodeChanged),
        (status = 409, description = "There is one already (`already_exists`), also of another tool (`provided_by_file`), or `instances.json` is broken (`file_broken`)", body = Problem),
        (status = 422, description = "Refused whole, with all reasons (`inventory_refused`)", body = Problem),
    )
)]
pub(super) async fn add(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<NodeRequest>,
) -> Result<(StatusCode, Json<NodeChanged>), Problem> {
    let NodeRequest { instance, reason } = request;
    let key = instance.key().map(|key| key.to_string()).unwrap_or_default();
    let edit = InventoryEdit::Add(instance);
    let changed = edit_instance(&api, principal, "node.add", &key, edit, None, reason).await?;
    Ok((StatusCode::CREATED, Json(changed)))
}

/// Puts another entry in the place of an instance's. Breaker and schedule stay, unless it is polled differently.
#[utoipa::path(
    put,
    path = "/api/config/nodes/{key}",
    tag = "configuration",
    params(
        ("key" = String, Path, description = "`type::name`"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[!#-~]*")$"#, description = "The tag of the entry that the edit was made from"),
    ),
    request_body = NodeRequest,
    responses(
        (status = 200, description = "In force from now on", body = NodeChanged),
        (status = 404, description = "There is none with this key", body = Problem),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`), or another tool keeps the instance (`provided_by_file`)", body = Problem),
        (status = 412, description = "It was changed meanwhile (`changed_meanwhile`)", body = Problem),
        (status = 422, description = "Refused whole, with all reasons (`inventory_refused`)", body = Problem),
    )
)]
pub(super) async fn replace(
    State(api): State<Api>,
    principal: Principal,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    Body(request): Body<NodeRequest>,
) -> Result<Json<NodeChanged>, Problem> {
    let (key, tag) = (read_key(key)?, if_match(&headers)?);
    let NodeRequest { instance, reason } = request;
    let edit = InventoryEdit::Replace(key.clone(), instance);
    Ok(Json(edit_instance(&api, principal, "node.replace", &key.to_string(), edit, tag, reason).await?))
}

/// Removes an instance. It is polled no more, and its metrics go.
#[utoipa::path(
    delete,
    path = "/api/config/nodes/{key}",
    tag = "configuration",
    params(
        ("key" = String, Path, description = "`type::name`"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|"[!#-~]*")$"#, description = "The tag of the entry that was seen"),
    ),
    request_body = Option<GivenReason>,
    responses(
        (status = 200, description = "It is polled no more", body = NodeChanged),
        (status = 404, description = "There is none with this key", body = Problem),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`), or another tool keeps the instance (`provided_by_file`)", body = Problem),
        (status = 412, description = "It was changed meanwhile (`changed_meanwhile`)", body = Problem),
    )
)]
pub(super) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<NodeChanged>, Problem> {
    let (key, tag) = (read_key(key)?, if_match(&headers)?);
    let reason = given.and_then(|given| given.reason);
    let edit = InventoryEdit::Remove(key.clone());
    Ok(Json(edit_instance(&api, principal, "node.remove", &key.to_string(), edit, tag, reason).await?))
}

/// Polls an instance once, in the fleet or not, and tells what each call said. Nothing is changed.
#[utoipa::path(
    post,
    path = "/api/config/nodes/test-connection",
    tag = "configuration",
    request_body(content = TestRequest, description = "Either `key` or `instance`"),
    responses(
        (status = 200, description = "What came of it, success or not", body = TestAnswer),
        (status = 404, description = "There is no instance with this key", body = Problem),
        (status = 409, description = "`instances.json` is broken as it stands (`file_broken`)", body = Problem),
        (status = 422, description = "Refused whole, with all reasons (`inventory_refused`)", body = Problem),
        (status = 429, description = "Too many are being tried at once (`too_many_tests`)", body = Problem),
    )
)]
pub(super) async fn test_connection(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<TestRequest>,
) -> Result<Json<TestAnswer>, Problem> {
    let key = match (&request.key, &request.instance) {
        (Some(key), None) => {
            Some(key.parse().map_err(|error: KeyError| Problem::malformed(format!("`key`: {error}")))?)
        }
        (None, Some(instance)) => instance.key(),
        _ => return Err(Problem::refused("give either `key` or `instance`").unread()),
    };
    let mut attempt = Attempt::new(principal.caller, "node.test");
    attempt.key = key.as_ref().map(InstanceKey::to_string);
    let test = test(api.clone(), key, request.instance);
    Ok(Json(api.audit.carry_out(attempt, test).await??))
}

async fn test(
    api: Api,
    key: Option<InstanceKey>,
    given: Option<GivenEntry>,
) -> (Result<TestAnswer, Problem>, Conclusion) {
    let instance = match (given, key) {
        (Some(given), _) => api.configurator.instance_of(given).await,
        (None, Some(key)) => api.configurator.instance(key).await,
        (None, None) => Err(ChangeError::BrokeOff),
    };
    let instance = match instance {
        Ok(instance) => instance,
        Err(error) => {
            let conclusion = error.conclusion();
            return (Err(error.into()), conclusion);
        }
    };
    let key = instance.target.key.clone();
    let timeout = api.config.system().settings().types[key.kind()].timeout;
    let Some(tested) = api.fleet.test(instance, timeout).await else {
        let problem = Problem::too_many_tests();
        return (Err(problem), Conclusion::refused("too many are being tried at once"));
    };
    let conclusion = match &tested.failure {
        None => Conclusion::done(None, None),
        Some(failure) => Conclusion::failed(&failure.message),
    };
    let call = |call: CallSaid| CallMade {
        call: call.call,
        status: call.status,
        took_ms: call.took.get(),
        problem: call.problem,
    };
    let answer = TestAnswer {
        success: tested.success,
        key: key.to_string(),
        took_ms: Millis::get(tested.took),
        calls: tested.calls.into_iter().map(call).collect(),
        reading: tested.reading,
        error: tested.failure.map(|failure| TestError { category: failure.category, message: failure.message }),
        untrusted_fingerprint: tested.untrusted_fingerprint,
    };
    (Ok(answer), conclusion)
}

async fn edit_instance(
    api: &Api,
    principal: Principal,
    action: &'static str,
    key: &str,
    edit: InventoryEdit,
    tag: Option<String>,
    reason: Option<Reason>,
) -> Result<NodeChanged, Problem> {
    let author = api_author(&principal, reason);
    let mut attempt = Attempt::new(principal.caller, action).because(author.reason.clone());
    attempt.key = Some(key.to_owned()).filter(|key| !key.is_empty());
    let configurator = api.configurator.clone();
    let change = async move { configurator.edit_instance(edit, tag, author).await };
    let Changed { version, difference } = carry_out(api, attempt, change).await?;
    Ok(NodeChanged { key: key.to_owned(), version, difference })
}

/// An address may hold a token of its endpoint's, which whoever cannot change it does not need.
fn show(key: &InstanceKey, entry: StoredEntry, principal: &Principal) -> Node {
    let StoredEntry { shown, tag, source } = entry;
    let instance = if principal.role.covers(Role::Admin) { shown } else { shown.without_query() };
    Node { key: key.to_string(), tag, editable: !source.is_provided(), source, instance }
}

pub(super) fn read_key(key: Result<Path<String>, PathRejection>) -> Result<InstanceKey, Problem> {
    let Path(key) = key.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    // What cannot be a key is none of an instance.
    key.parse().map_err(|error: KeyError| Problem::not_found(error.to_string()))
}

fn unknown(key: &InstanceKey) -> Problem {
    Problem::not_found(format!("there is no instance {key}"))
}

/// The tag that the caller last saw; `*` stands for any.
fn if_match(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().ok().map(str::trim);
    match tag {
        Some("*") => Ok(None),
        Some(tag) => {
            let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).filter(|tag| !tag.contains('"'));
            tag.map(|tag| Some(tag.to_owned())).ok_or_else(wrong_tag)
        }
        None => Err(wrong_tag()),
    }
}

fn wrong_tag() -> Problem {
    Problem::malformed("`If-Match` must be one tag in quotes, as `ETag` gave it, or *")
}
