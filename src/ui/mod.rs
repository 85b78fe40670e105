//! The web page: server-rendered frames, and plain ES modules that call the API from there.
//!
//! Everything is embedded in the binary; no page asks another machine for anything.

mod assets;
mod frame;
mod overview;
mod pages;

use axum::Router;
use axum::routing::get;

use crate::api::Api;

/// Every page that needs somebody who is signed in; whoever is not is sent to sign in.
pub const PAGES: [&str; 6] =
    ["/", "/instances/{key}", "/settings/instances", "/settings/monitoring", "/settings/updates", "/settings/security"];

/// What anybody may see: the ways in, and what they are drawn with. None of it tells anything of the fleet.
pub const PUBLIC_PAGES: [&str; 3] = ["/login", "/setup", "/assets/{version}/{*path}"];

/// All pages. They belong behind the same checks as the API's calls.
pub fn pages() -> Router<Api> {
    Router::new()
        .route("/", get(overview::overview))
        .route("/instances/{key}", get(pages::instance))
        .route("/settings/instances", get(pages::instances))
        .route("/settings/monitoring", get(pages::monitoring))
        .route("/settings/updates", get(pages::updates))
        .route("/settings/security", get(pages::security))
        .route("/login", get(pages::login))
        .route("/setup", get(pages::setup))
        .route("/assets/{version}/{*path}", get(assets::serve))
}
