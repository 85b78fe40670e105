//! What all pages share: who is signed in, where one is, and how a page becomes an answer.

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets;
use crate::security::{Actor, Principal, Role, Session};

/// Somebody who may see pages of the fleet. Whoever is not signed in is sent to do so, and back after that.
pub(super) struct SignedIn {
    name: String,
    role: Role,
    csrf: String,
}

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Ok(principal) = Principal::from_request_parts(parts, state).await else {
            let next = utf8_percent_encode(parts.uri.path(), NON_ALPHANUMERIC);
            return Err(Redirect::to(&format!("/login?next={next}")).into_response());
        };
        let name = match principal.caller.actor {
            Actor::User(name) | Actor::Token(name) | Actor::Local(name) => name,
            nobody @ (Actor::System | Actor::Anonymous) => nobody.to_string(),
        };
        // Whoever comes by a token or by the socket has none, and needs none.
        let csrf = parts.extensions.get::<Session>().map(|session| session.csrf_token().to_owned());
        Ok(Self { name, role: principal.role, csrf: csrf.unwrap_or_default() })
    }
}

impl SignedIn {
    /// The frame around the page `at`.
    pub(super) fn frame(self, at: &'static str) -> Frame {
        let me = Me { name: self.name, role: self.role.as_str(), csrf: self.csrf };
        Frame { me: Some(me), at, assets: assets::folder() }
    }
}

/// The frame around a page.
pub(super) struct Frame {
    /// Who is signed in.
    pub(super) me: Option<Me>,
    /// Which entry of the navigation is this page.
    pub(super) at: &'static str,
    /// Where scripts and styles are.
    pub(super) assets: String,
}

/// Whoever is signed in, as the page's scripts need to know them.
pub(super) struct Me {
    pub(super) name: String,
    pub(super) role: &'static str,
    /// What a write has to show.
    pub(super) csrf: String,
}

impl Frame {
    pub(super) fn of_stranger() -> Self {
        Self { me: None, at: "", assets: assets::folder() }
    }
}

/// A page as an answer.
pub(super) fn show(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
