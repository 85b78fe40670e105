//! Who calls, and whether they may: first everybody is identified, then each route asks for its role.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Api;
use super::cookie;
use super::headers::Encrypted;
use super::peer::Peer;
use super::problem::{Problem, Unread, limit_headers};
use super::routes::{Access, Kind, Route};
use crate::security::audit::{Attempt, Conclusion};
use crate::security::{
    Actor, Caller, CallerId, Credential, Principal, RefusalReason, Role, Session, Standing, TrustedProxies,
};

const X_API_TOKEN: &str = "x-api-token";
const X_CSRF_TOKEN: &str = "x-csrf-token";
/// How many characters of a key in a path the audit log keeps of a call that was refused.
const MAX_LOGGED_KEY: usize = 300;

/// What is known of whoever sent a request.
#[derive(Clone, Debug)]
struct Identified {
    caller: Caller,
    principal: Option<Principal>,
    /// Whether there was a token, which opens nothing.
    wrong_token: bool,
}

/// In the extensions of answers whose refusal is told already.
#[derive(Clone, Copy)]
struct Told;

impl Identified {
    /// Whose management calls are counted together.
    fn counted_as(&self) -> Option<CallerId> {
        match (&self.principal, &self.caller) {
            (Some(Principal { credential: Credential::Token(id), .. }), _) => Some(CallerId::Token(*id)),
            (_, Caller { actor: Actor::User(name), .. }) => Some(CallerId::User(name.clone())),
            (_, Caller { actor: Actor::Local(account), .. }) => Some(CallerId::Local(account.clone())),
            (_, Caller { address, .. }) => address.map(CallerId::of_address),
        }
    }
}

/// A call that came over TLS to a trusted proxy is as good as one that came over TLS to this daemon.
pub(super) async fn hear_of_encryption(
    State(proxies): State<Arc<TrustedProxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(Peer::address);
    let headers = request.headers();
    if peer.is_some_and(|peer| proxies.is_encrypted(peer, |name| lines(headers, name))) {
        request.extensions_mut().insert(Encrypted);
    }
    next.run(request).await
}

fn lines<'a>(headers: &'a HeaderMap, name: &'static str) -> impl DoubleEndedIterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// Puts what is known of the caller into the request, for all that comes after. Refuses only addresses that call too
/// often; the unix socket has none.
pub(super) async fn identify(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        tracing::error!("a request came by a door that does not say who is there");
        return Err(Problem::internal());
    };
    let headers = request.headers();
    let proxies = &api.proxies;
    let address = peer.address().map(|peer| proxies.client(peer, lines(headers, proxies.header.name())));
    let standing = address.map(|address| api.limits.call(&CallerId::of_address(address)));
    if let Some(over) = standing.filter(|standing| !standing.is_within()) {
        return Err(Problem::too_many_calls(over));
    }
    let encrypted = request.extensions().get::<Encrypted>();
    let (principal, session) = principal_of(&api, &peer, address, headers, encrypted);
    let caller = match &principal {
        Some(principal) => principal.caller.clone(),
        None => Caller::anonymous(address),
    };
    let wrong_token = principal.is_none() && has_token(headers);
    request.extensions_mut().insert(Identified { caller, principal, wrong_token });
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    let mut response = next.run(request).await;
    if wrong_token && response.extensions().get::<Told>().is_none() {
        api.accounts.refusals().note_token(Caller::anonymous(address)).await?;
    }
    if let Some(standing) = standing {
        tell_standing(&mut response, standing);
    }
    Ok(response)
}

fn has_token(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(X_API_TOKEN)
}

/// The `RateLimit-*` headers, unless a closer limit has told its own.
fn tell_standing(response: &mut Response, standing: Standing) {
    for (name, value) in limit_headers(standing) {
        response.headers_mut().entry(name).or_insert(value);
    }
}

/// By a token if one is sent, right or wrong; else by a session's cookie.
fn principal_of(
    api: &Api,
    peer: &Peer,
    address: Option<IpAddr>,
    headers: &HeaderMap,
    encrypted: Option<&Encrypted>,
) -> (Option<Principal>, Option<Session>) {
    if let Peer::Local { account } = peer {
        let caller = Caller { actor: Actor::Local(account.to_string()), address };
        return (Some(Principal { caller, role: Role::Admin, credential: Credential::Socket }), None);
    }
    if has_token(headers) {
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

/// Whether somebody who was let in may still be, for answers that take their time.
pub(super) fn still_welcome(api: &Api, principal: &Principal) -> bool {
    match principal.credential {
        Credential::Socket => true,
        Credential::Token(id) => api.tokens.is_valid(id),
        Credential::Session(id) => api.accounts.is_session_valid(id),
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

/// Lets a request through to its handler if the route's entry in the table says so. What is refused of a call that would
/// be audited is audited too.
pub(super) async fn authorise(
    State(Gatekeeper { api, route }): State<Gatekeeper>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Access::Role(needed) = route.access else { return Ok(next.run(request).await) };
    let Some(identified) = request.extensions().get::<Identified>().cloned() else {
        return Err(Problem::internal());
    };
    let refusal = match &identified.principal {
        Some(_) if !is_from_our_page(&request) => Some(Problem::wrong_csrf_token()),
        Some(principal) if principal.role.covers(needed) => None,
        Some(principal) => Some(Problem::forbidden(needed, principal.role)),
        None => Some(Problem::unauthorized()),
    };
    let Some(action) = route.kind.action() else {
        return match refusal {
            None => Ok(next.run(request).await),
            Some(refusal) => Err(refusal),
        };
    };
    let mut attempt = Attempt::new(identified.caller.clone(), action);
    attempt.key = parameters.iter().next().map(|(_, value)| value.chars().take(MAX_LOGGED_KEY).collect());
    // Refused changes count as management calls too: each of them is written to the log.
    let counted = matches!(route.kind, Kind::Management(_)) || refusal.is_some();
    let standing = identified.counted_as().filter(|_| counted).map(|caller| (api.limits.management(&caller), caller));
    if let Some((over, caller)) = standing.as_ref().filter(|(standing, _)| !standing.is_within()) {
        if api.limits.is_news(caller) {
            tell_refusal(&api, &identified, attempt, "too_many_calls").await?;
            return Ok(told(Problem::too_many_calls(*over)));
        }
        return Err(Problem::too_many_calls(*over));
    }
    if let Some(refusal) = refusal {
        tell_refusal(&api, &identified, attempt, refusal.code()).await?;
        return Ok(told(refusal));
    }
    let mut response = next.run(request).await;
    if let Some(Unread(code)) = response.extensions().get::<Unread>() {
        api.audit.record(attempt, Conclusion::refused(code)).await?;
    }
    if let Some((standing, _)) = standing {
        tell_standing(&mut response, standing);
    }
    Ok(response)
}

/// Writes down that a call was refused; of strangers, of whom there may be any number, not each has an entry.
async fn tell_refusal(api: &Api, who: &Identified, attempt: Attempt, code: &'static str) -> Result<(), Problem> {
    let reason = if who.wrong_token { RefusalReason::WrongToken } else { RefusalReason::NoCredentials };
    match who.principal {
        Some(_) => api.audit.record(attempt, Conclusion::refused(code)).await.map(|_| ())?,
        None => api.accounts.refusals().note(reason, attempt, code).await?,
    }
    Ok(())
}

fn told(refusal: Problem) -> Response {
    let mut response = refusal.into_response();
    response.extensions_mut().insert(Told);
    response
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
