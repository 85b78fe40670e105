//! Who may come in: over TCP whoever shows a token, over the unix socket its owner.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem::Problem;
use crate::security::TokenStore;

/// The way by which a call comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A TCP port: a token is needed.
    Tcp,
    /// The unix socket, which its mode keeps for the daemon's owner.
    Local,
}

/// What is checked before a call reaches its handler.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) door: Door,
    pub(super) tokens: TokenStore,
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, Problem> {
    if guard.door == Door::Tcp {
        let token = token_of(request.headers()).ok_or_else(Problem::unauthorized)?;
        let found = guard.tokens.find(token).map_err(|error| {
            tracing::error!(%error, "tokens cannot be checked");
            Problem::unavailable("tokens cannot be checked; the daemon's log tells why")
        })?;
        found.ok_or_else(Problem::unauthorized)?;
    }
    Ok(next.run(request).await)
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| headers.get("x-api-token").and_then(|value| value.to_str().ok()))
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
