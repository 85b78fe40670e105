//! `/api/security/users`: who may sign in, and what they may do.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, GivenReason, Reason};
use super::problem::Problem;
use crate::security::{AccountError, AccountRefused, HashError, NewUser, Principal, Role, UserRecord};
use crate::targets::Secret;

/// Every user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserList {
    /// In the order of their names.
    pub users: Vec<UserRecord>,
}

/// A user to add.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UserRequest {
    /// Their name: 1 to 64 letters from a to z, digits and . _ - @; capitals are made small.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
    name: String,
    /// What they may do.
    role: Role,
    /// Their password: 15 characters or more.
    #[schema(min_length = 15, max_length = 256)]
    password: String,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// Another role for a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RoleRequest {
    /// What they may do from now on.
    role: Role,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

/// Another password for a user.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PasswordRequest {
    /// Their password from now on: 15 characters or more.
    #[schema(min_length = 15, max_length = 256)]
    password: String,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<Reason>,
}

type Name = Result<Path<String>, PathRejection>;

/// Lists the users.
#[utoipa::path(
    get,
    path = "/api/security/users",
    tag = "security",
    responses((status = 200, description = "Every user", body = UserList))
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<UserList>, Problem> {
    Ok(Json(UserList { users: api.accounts.list().await? }))
}

/// Adds a user.
#[utoipa::path(
    post,
    path = "/api/security/users",
    tag = "security",
    request_body = UserRequest,
    responses(
        (status = 201, description = "The user", body = UserRecord),
        (status = 409, description = "The name is taken (`name_taken`), or there are too many (`too_many`)", body = Problem),
        (status = 422, description = "The name or the password is unfit (`refused`)", body = Problem),
    )
)]
pub(super) async fn add(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<UserRequest>,
) -> Result<(StatusCode, Json<UserRecord>), Problem> {
    let UserRequest { name, role, password, reason } = request;
    let new = NewUser { name, role, password: Secret::new(password) };
    let user = api.accounts.add(new, principal.caller, reason.map(Reason::into_inner)).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

/// Gives a user another role; their sessions end.
#[utoipa::path(
    put,
    path = "/api/security/users/{name}/role",
    tag = "security",
    params(("name" = String, Path, description = "The user's name")),
    request_body = RoleRequest,
    responses(
        (status = 200, description = "The user", body = UserRecord),
        (status = 404, description = "There is none of this name", body = Problem),
        (status = 409, description = "It is the last admin (`last_admin`)", body = Problem),
    )
)]
pub(super) async fn set_role(
    State(api): State<Api>,
    principal: Principal,
    name: Name,
    Body(request): Body<RoleRequest>,
) -> Result<Json<UserRecord>, Problem> {
    let RoleRequest { role, reason } = request;
    let reason = reason.map(Reason::into_inner);
    Ok(Json(api.accounts.set_role(&given(name)?, role, principal.caller, reason).await?))
}

/// Sets the password of a user; their sessions end.
#[utoipa::path(
    put,
    path = "/api/security/users/{name}/password",
    tag = "security",
    params(("name" = String, Path, description = "The user's name")),
    request_body = PasswordRequest,
    responses(
        (status = 200, description = "The user", body = UserRecord),
        (status = 404, description = "There is none of this name", body = Problem),
        (status = 422, description = "The password is unfit (`refused`)", body = Problem),
    )
)]
pub(super) async fn set_password(
    State(api): State<Api>,
    principal: Principal,
    name: Name,
    Body(request): Body<PasswordRequest>,
) -> Result<Json<UserRecord>, Problem> {
    let (password, reason) = (Secret::new(request.password), request.reason.map(Reason::into_inner));
    Ok(Json(api.accounts.set_password(&given(name)?, password, principal.caller, reason).await?))
}

/// Removes a user; their sessions end.
#[utoipa::path(
    delete,
    path = "/api/security/users/{name}",
    tag = "security",
    params(("name" = String, Path, description = "The user's name")),
    request_body = Option<GivenReason>,
    responses(
        (status = 200, description = "Who it was", body = UserRecord),
        (status = 404, description = "There is none of this name", body = Problem),
        (status = 409, description = "It is the last admin (`last_admin`)", body = Problem),
    )
)]
pub(super) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    name: Name,
    Body(reason): Body<Option<GivenReason>>,
) -> Result<Json<UserRecord>, Problem> {
    let reason = reason.and_then(GivenReason::into_inner);
    Ok(Json(api.accounts.remove(&given(name)?, principal.caller, reason).await?))
}

fn given(name: Name) -> Result<String, Problem> {
    name.map(|Path(name)| name).map_err(|rejection| Problem::malformed(rejection.body_text()))
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refused) => refused.into(),
            AccountError::Locked { wait } => Self::locked(wait),
            AccountError::Audit(error) => error.into(),
            AccountError::Hash(HashError::Overloaded) => Self::unavailable(HashError::Overloaded.to_string()),
            AccountError::Hash(error) => broken(&error),
            AccountError::NoRandomness(error) => broken(&error),
        }
    }
}

impl From<AccountRefused> for Problem {
    fn from(refused: AccountRefused) -> Self {
        use AccountRefused as Refused;
        match refused {
            Refused::WrongPassword => Self::wrong_password(refused),
            Refused::WrongSetupToken => Self::wrong_setup_token(refused),
            Refused::UnknownUser | Refused::UnknownSession => Self::not_found(refused.to_string()),
            Refused::NameTaken(_) => Self::conflict("name_taken", "The name is taken", refused),
            Refused::LastAdmin(_) => Self::conflict("last_admin", "An admin has to be left", refused),
            Refused::TooMany => Self::conflict("too_many", "There are too many", refused),
            Refused::BadName | Refused::BadPassword(_) => Self::refused(refused),
        }
    }
}

fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a password or session could not be made");
    Problem::internal()
}
