//! Setting up, signing in and out, and what somebody may know and change of themselves.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, GivenReason};
use super::cookie;
use super::headers::Encrypted;
use super::problem::Problem;
use crate::security::{
    Actor, Caller, Principal, Role, Session, SessionId, SessionRecord, SignIn, SignedIn, UserRecord,
};
use crate::targets::Secret;

/// What makes the first admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetupRequest {
    /// The setup token that the daemon printed when it started.
    token: String,
    /// The name of the first admin.
    name: String,
    /// Their password: 15 characters or more.
    password: String,
}

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    /// The user's name.
    name: String,
    /// Their password.
    password: String,
}

/// A change of one's own password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PasswordChange {
    /// The one until now.
    current_password: String,
    /// The one from now on: 15 characters or more.
    new_password: String,
}

/// By what kind of credential somebody was recognised.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CredentialKind)]
enum Kind {
    /// A user with a session.
    User,
    /// The holder of an API token.
    Token,
    /// An account of the daemon's machine, over its unix socket.
    Local,
}

/// Who somebody is to the daemon.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Me {
    /// The name of the user, token or account.
    name: String,
    /// By what they were recognised.
    kind: Kind,
    /// What they may do.
    role: Role,
    /// The session; `null` where there is none.
    session: Option<MySession>,
}

/// The session of whoever asks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MySession {
    /// Which one.
    id: SessionId,
    /// When it ends if it is not used again. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    idle_until: jiff::Timestamp,
    /// When it ends in any case.
    #[schema(value_type = String, format = DateTime)]
    expires_at: jiff::Timestamp,
    /// What has to come as `X-CSRF-Token` with every call that changes something.
    csrf_token: String,
}

/// Sessions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionList {
    /// The one used last comes first.
    sessions: Vec<SessionRecord>,
}

/// The session of a call that needs one.
pub(super) struct OwnSession(Session);

impl<S: Sync> FromRequestParts<S> for OwnSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Session>().cloned().map(Self).ok_or_else(Problem::no_session)
    }
}

/// A page of another site can send a form, but not JSON, without asking first; and asking is answered with no.
pub(super) struct JsonAlone;

impl<S: Sync> FromRequestParts<S> for JsonAlone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") { Ok(Self) } else { Err(Problem::not_json()) }
    }
}

/// Makes the first admin of a daemon that has no user.
#[utoipa::path(
    post,
    path = "/api/setup",
    tag = "security",
    security(()),
    request_body = SetupRequest,
    responses(
        (status = 201, description = "The first admin", body = UserRecord),
        (status = 403, description = "The token is wrong, used or too old (`setup_token_wrong`)", body = Problem),
        (status = 415, description = "The body is not sent as JSON (`unsupported_media_type`)", body = Problem),
        (status = 422, description = "The name or the password is unfit (`refused`)", body = Problem),
        (status = 429, description = "Too many failures (`locked`)", body = Problem),
    )
)]
pub(super) async fn set_up(
    State(api): State<Api>,
    caller: Caller,
    _: JsonAlone,
    Body(request): Body<SetupRequest>,
) -> Result<(StatusCode, Json<UserRecord>), Problem> {
    let SetupRequest { token, name, password } = request;
    let user = api.accounts.set_up(&Secret::new(token), name, Secret::new(password), caller).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

/// Signs a user in: the answer sets the session's cookie.
#[utoipa::path(
    post,
    path = "/api/login",
    tag = "security",
    security(()),
    request_body = LoginRequest,
    responses(
        (status = 200, description = "The user, and the session that the cookie opens", body = Me),
        (status = 401, description = "The name or the password is wrong (`wrong_password`)", body = Problem),
        (status = 415, description = "The body is not sent as JSON (`unsupported_media_type`)", body = Problem),
        (status = 429, description = "Too many failures (`locked`)", body = Problem),
    )
)]
pub(super) async fn login(
    State(api): State<Api>,
    caller: Caller,
    encrypted: Option<Extension<Encrypted>>,
    headers: HeaderMap,
    _: JsonAlone,
    Body(request): Body<LoginRequest>,
) -> Result<Response, Problem> {
    let LoginRequest { name, password } = request;
    let (password, address) = (Secret::new(password), caller.address);
    let signed_in = api.accounts.sign_in(SignIn { name, password, address, agent: agent(&headers) }).await?;
    Ok(welcome(&api, &signed_in, encrypted.as_deref()))
}

/// Ends the session of the caller.
#[utoipa::path(
    post,
    path = "/api/logout",
    tag = "security",
    responses(
        (status = 204, description = "The session has ended"),
        (status = 409, description = "The caller has no session (`no_session`)", body = Problem),
    )
)]
pub(super) async fn logout(
    State(api): State<Api>,
    principal: Principal,
    OwnSession(session): OwnSession,
    encrypted: Option<Extension<Encrypted>>,
) -> Result<Response, Problem> {
    api.accounts.sign_out(session.id, principal.caller).await?;
    let forget = cookie::forget(encrypted.as_deref()).map(|cookie| (header::SET_COOKIE, cookie));
    Ok((StatusCode::NO_CONTENT, AppendHeaders(forget)).into_response())
}

/// Tells who the caller is.
#[utoipa::path(
    get,
    path = "/api/security/me",
    tag = "security",
    responses((status = 200, description = "Who the caller is, and what they may do", body = Me))
)]
pub(super) async fn me(principal: Principal, session: Option<Extension<Session>>) -> Json<Me> {
    let (name, kind) = match principal.caller.actor {
        Actor::User(name) => (name, Kind::User),
        Actor::Token(name) => (name, Kind::Token),
        Actor::Local(name) => (name, Kind::Local),
        nobody @ (Actor::System | Actor::Anonymous) => (nobody.to_string(), Kind::Local),
    };
    Json(Me { name, kind, role: principal.role, session: session.map(|Extension(session)| MySession::from(&session)) })
}

/// Changes the password of the caller. Every session of theirs ends; the answer sets the cookie of a new one.
#[utoipa::path(
    post,
    path = "/api/security/me/password",
    tag = "security",
    request_body = PasswordChange,
    responses(
        (status = 200, description = "The user, and the new session", body = Me),
        (status = 401, description = "The current password is wrong (`wrong_password`)", body = Problem),
        (status = 409, description = "The caller has no session (`no_session`)", body = Problem),
        (status = 422, description = "The new password is unfit (`refused`)", body = Problem),
        (status = 429, description = "Too many failures (`locked`)", body = Problem),
    )
)]
pub(super) async fn change_password(
    State(api): State<Api>,
    principal: Principal,
    OwnSession(session): OwnSession,
    encrypted: Option<Extension<Encrypted>>,
    headers: HeaderMap,
    Body(request): Body<PasswordChange>,
) -> Result<Response, Problem> {
    let (old, new) = (Secret::new(request.current_password), Secret::new(request.new_password));
    let changed = api.accounts.change_own_password(&session, old, new, principal.caller, agent(&headers)).await?;
    Ok(welcome(&api, &changed, encrypted.as_deref()))
}

/// Lists the sessions of the caller.
#[utoipa::path(
    get,
    path = "/api/security/me/sessions",
    tag = "security",
    responses(
        (status = 200, description = "The sessions of the caller", body = SessionList),
        (status = 409, description = "The caller is no user with a session (`no_session`)", body = Problem),
    )
)]
pub(super) async fn own_sessions(State(api): State<Api>, OwnSession(session): OwnSession) -> Json<SessionList> {
    Json(SessionList { sessions: api.accounts.list_sessions(Some(&session.user)) })
}

/// Ends a session of the caller.
#[utoipa::path(
    delete,
    path = "/api/security/me/sessions/{id}",
    tag = "security",
    params(("id" = i64, Path, description = "The session")),
    responses(
        (status = 200, description = "The session that has ended", body = SessionRecord),
        (status = 404, description = "The caller has no such session", body = Problem),
        (status = 409, description = "The caller is no user with a session (`no_session`)", body = Problem),
    )
)]
pub(super) async fn end_own_session(
    State(api): State<Api>,
    principal: Principal,
    OwnSession(session): OwnSession,
    id: Result<Path<SessionId>, PathRejection>,
) -> Result<Json<SessionRecord>, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let ended = api.accounts.end_session(id, Some(&session.user), principal.caller, END, None).await?;
    Ok(Json(ended))
}

/// Lists every session.
#[utoipa::path(
    get,
    path = "/api/security/sessions",
    tag = "security",
    responses((status = 200, description = "Every session", body = SessionList))
)]
pub(super) async fn all_sessions(State(api): State<Api>) -> Json<SessionList> {
    Json(SessionList { sessions: api.accounts.list_sessions(None) })
}

/// Ends a session of anybody.
#[utoipa::path(
    delete,
    path = "/api/security/sessions/{id}",
    tag = "security",
    params(("id" = i64, Path, description = "The session")),
    request_body = Option<GivenReason>,
    responses(
        (status = 200, description = "The session that has ended", body = SessionRecord),
        (status = 404, description = "There is no such session", body = Problem),
    )
)]
pub(super) async fn end_session(
    State(api): State<Api>,
    principal: Principal,
    id: Result<Path<SessionId>, PathRejection>,
    Body(given): Body<Option<GivenReason>>,
) -> Result<Json<SessionRecord>, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let reason = given.and_then(GivenReason::into_inner);
    Ok(Json(api.accounts.end_session(id, None, principal.caller, END, reason).await?))
}

/// The action by which the end of a session is audited.
const END: &str = "session.end";

impl From<&Session> for MySession {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id,
            idle_until: session.idle_until,
            expires_at: session.expires_at,
            csrf_token: session.csrf_token().to_owned(),
        }
    }
}

fn welcome(api: &Api, SignedIn { cookie, session }: &SignedIn, encrypted: Option<&Encrypted>) -> Response {
    let left = session.expires_at.duration_since(api.clock.wall()).as_secs();
    let keep = cookie::keep(cookie, u64::try_from(left).unwrap_or(0), encrypted);
    let session_of = MySession::from(session);
    let me = Me { name: session.user.to_string(), kind: Kind::User, role: session.role, session: Some(session_of) };
    (AppendHeaders(keep.map(|cookie| (header::SET_COOKIE, cookie))), Json(me)).into_response()
}

fn agent(headers: &HeaderMap) -> Option<String> {
    headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).map(str::to_owned)
}
