//! Who calls, and whether they may: first everybody is identified, then each route asks for its role.

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::cookie;
use super::headers::Encrypted;
use super::peer::Peer;
use super::problem::Problem;
use super::routes::{Access, Route};
use crate::security::audit::{Attempt, Conclusion};
use crate::security::{Actor, Caller, Credential, Principal, Role, Session};

const X_API_TOKEN: &str = "x-api-token";
const X_CSRF_TOKEN: &str = "x-csrf-token";

/// What is known of whoever sent a request.
#[derive(Clone, Debug)]
struct Identified {
    caller: Caller,
    principal: Option<Principal>,
}

/// Puts what is known of the caller into the request, for all that comes after. Refuses nobody yet.
pub(super) async fn identify(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>() else {
        tracing::error!("a request came by a door that does not say who is there");
        return Problem::internal().into_response();
    };
    let encrypted = request.extensions().get::<Encrypted>();
    let (principal, session) = principal_of(&api, peer, request.headers(), encrypted);
    let caller = match &principal {
        Some(principal) => principal.caller.clone(),
        None => Caller::anonymous(peer.address()),
    };
    request.extensions_mut().insert(Identified { caller, principal });
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    next.run(request).await
}

/// By a token if one is sent, right or wrong; else by a session's cookie.
fn principal_of(
    api: &Api,
    peer: &Peer,
    headers: &HeaderMap,
    encrypted: Option<&Encrypted>,
) -> (Option<Principal>, Option<Session>) {
    let address = peer.address();
    if let Peer::Local { account } = peer {
        let caller = Caller { actor: Actor::Local(account.to_string()), address };
        return (Some(Principal { caller, role: Role::Admin, credential: Credential::Socket }), None);
    }
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(X_API_TOKEN) {
        let principal = token_of(headers).and_then(|token| api.tokens.find(token)).map(|token| {
            let caller = Caller { actor: Actor::Token(token.name), address };
            Principal { caller, role: token.role, credential: Credential::Token(token.id) }
        });
        return (principal, None);
    }
    let session = cookie::read(headers, encrypted).and_then(|cookie| api.accounts.find_session(cookie));
    let principal = session.as_ref().map(|session| {
        let caller = Caller { actor: Actor::User(session.user.to_string()), address };
        Principal { caller, role: session.role, credential: Credential::Session(session.id) }
    });
    (principal, session)
}

/// Whether a page of ours has sent this, as far as that matters: tokens are not sent along by browsers unasked, and
/// reads change nothing.
fn is_from_our_page(request: &Request) -> bool {
    match request.extensions().get::<Session>() {
        Some(session) if !request.method().is_safe() => {
            let token = request.headers().get(X_CSRF_TOKEN).and_then(|token| token.to_str().ok());
            token.is_some_and(|token| session.is_csrf_token(token))
        }
        _ => true,
    }
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| headers.get(X_API_TOKEN).and_then(|value| value.to_str().ok()))
}

/// What [`authorise`] needs to know.
#[derive(Clone)]
pub(super) struct Gatekeeper {
    pub(super) api: Api,
    pub(super) route: &'static Route,
}

/// Lets a request through to its handler if the route's entry in the table says so. A refusal of a call that would be
/// audited is audited too.
pub(super) async fn authorise(
    State(Gatekeeper { api, route }): State<Gatekeeper>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Access::Role(needed) = route.access else { return Ok(next.run(request).await) };
    let Some(Identified { caller, principal }) = request.extensions().get::<Identified>() else {
        return Err(Problem::internal());
    };
    let refused = match principal {
        Some(_) if !is_from_our_page(&request) => Problem::wrong_csrf_token(),
        Some(principal) if principal.role.covers(needed) => return Ok(next.run(request).await),
        Some(principal) => Problem::forbidden(needed, principal.role),
        None => Problem::unauthorized(),
    };
    if let Some(action) = route.action {
        let mut attempt = Attempt::new(caller.clone(), action);
        attempt.key = parameters.iter().next().map(|(_, value)| value.chars().take(300).collect());
        api.audit.record(attempt, Conclusion::refused(refused.code())).await?;
    }
    Err(refused)
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let identified = parts.extensions.get::<Identified>();
        identified.and_then(|it| it.principal.clone()).ok_or_else(Problem::unauthorized)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let identified = parts.extensions.get::<Identified>();
        identified.map(|it| it.caller.clone()).ok_or_else(Problem::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_bearer_or_in_its_own_header() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        assert_eq!(token_of(&headers("authorization", "Bearer abc")), Some("abc"));
        assert_eq!(token_of(&headers("authorization", "bearer abc")), Some("abc"));
        assert_eq!(token_of(&headers("x-api-token", "abc")), Some("abc"));
        assert_eq!(token_of(&headers("authorization", "Basic abc")), None);
        assert_eq!(token_of(&HeaderMap::new()), None);
    }
}
