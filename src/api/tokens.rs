//! `/api/security/tokens`: the tokens that open the API.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Body, Reason};
use super::problem::Problem;
use crate::security::{NewToken, Principal, Role, TokenError, TokenRecord, TokenRefused};

/// Every token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// In the order of their names.
    pub tokens: Vec<TokenRecord>,
}

/// A token to make.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for; no two have the same name.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// From when on it opens nothing, RFC 3339; never if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: Option<Reason>,
}

/// A new token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenIssued {
    /// The token itself. It is shown this once.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub record: TokenRecord,
}

/// Lists the tokens; never their secrets.
#[utoipa::path(
    get,
    path = "/api/security/tokens",
    tag = "security",
    responses((status = 200, description = "Every token", body = TokenList))
)]
pub(super) async fn list(State(api): State<Api>) -> Json<TokenList> {
    Json(TokenList { tokens: api.tokens.list() })
}

/// Makes a token and shows it, once.
#[utoipa::path(
    post,
    path = "/api/security/tokens",
    tag = "security",
    request_body = TokenRequest,
    responses(
        (status = 201, description = "The token, shown this once", body = TokenIssued),
        (status = 409, description = "The name is taken (`name_taken`), or there are too many (`too_many`)", body = Problem),
        (status = 422, description = "The name is unfit or the end is past (`refused`)", body = Problem),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    principal: Principal,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenIssued>), Problem> {
    let TokenRequest { name, role, expires_at, reason } = request;
    let new = NewToken { name, role, expires_at };
    let issued = api.tokens.create(new, principal.caller, reason.map(Reason::into_inner)).await?;
    let answer = TokenIssued { token: issued.token.expose().to_owned(), record: issued.record };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Revokes a token; it opens nothing from then on.
#[utoipa::path(
    delete,
    path = "/api/security/tokens/{name}",
    tag = "security",
    params(("name" = String, Path, description = "The token's name")),
    responses(
        (status = 200, description = "What it was", body = TokenRecord),
        (status = 404, description = "There is none of this name", body = Problem),
    )
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    Body(given): Body<Option<super::body::GivenReason>>,
) -> Result<Json<TokenRecord>, Problem> {
    let Path(name) = name.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let reason = given.and_then(super::body::GivenReason::into_inner);
    Ok(Json(api.tokens.revoke(&name, principal.caller, reason).await?))
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(refused) => match refused {
                TokenRefused::Unknown(_) => Self::not_found(refused.to_string()),
                TokenRefused::NameTaken(_) => Self::conflict("name_taken", "The name is taken", refused),
                TokenRefused::TooMany => Self::conflict("too_many", "There are too many", refused),
                TokenRefused::BadName | TokenRefused::Expired => Self::refused(refused),
            },
            TokenError::Audit(error) => error.into(),
            TokenError::NoRandomness(error) => {
                tracing::error!(%error, "a token could not be made");
                Self::internal()
            }
        }
    }
}
