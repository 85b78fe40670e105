//! The pages whose content their scripts ask for: frames with headings and places to fill.

use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::frame::{Frame, SignedIn, show};
use crate::api::{Api, Problem};
use crate::engine::InstanceKey;
use crate::security::Principal;

macro_rules! plain_page {
    ($(#[$doc:meta])* $handler:ident, $page:ident, $template:literal, $at:literal) => {
        #[derive(Template)]
        #[template(path = $template)]
        struct $page {
            frame: Frame,
        }

        $(#[$doc])*
        pub(super) async fn $handler(visitor: SignedIn) -> Response {
            show(&$page { frame: visitor.frame($at) })
        }
    };
}

plain_page!(
    /// Adds, edits and removes instances.
    instances, InstancesPage, "instances.html", "instances"
);
plain_page!(
    /// The switch, intervals, breakers and the dead-letter queue.
    monitoring, MonitoringPage, "monitoring.html", "monitoring"
);
plain_page!(
    /// Users, sessions, tokens and the audit log.
    security, SecurityPage, "security.html", "security"
);

#[derive(Template)]
#[template(path = "updates.html")]
struct UpdatesPage {
    frame: Frame,
    version: &'static str,
}

/// The running version, and the history of the configuration.
pub(super) async fn updates(visitor: SignedIn) -> Response {
    show(&UpdatesPage { frame: visitor.frame("updates"), version: env!("CARGO_PKG_VERSION") })
}

#[derive(Template)]
#[template(path = "instance.html")]
struct InstancePage {
    frame: Frame,
    key: String,
    name: String,
}

/// One instance.
pub(super) async fn instance(
    visitor: SignedIn,
    State(api): State<Api>,
    key: Result<Path<String>, PathRejection>,
) -> Response {
    let frame = visitor.frame("overview");
    let members = api.fleet.members();
    let key = key.ok().and_then(|Path(key)| key.parse::<InstanceKey>().ok());
    match key.as_ref().and_then(|key| members.get_key_value(key)) {
        Some((key, member)) => {
            show(&InstancePage { frame, name: member.display_name().to_string(), key: key.to_string() })
        }
        None => {
            let detail = "It was removed, or the address is mistyped. The overview lists every instance.";
            let page = MessagePage { frame, title: "There is no such instance", detail };
            (StatusCode::NOT_FOUND, show(&page)).into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    frame: Frame,
    title: &'static str,
    detail: &'static str,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
}

/// The way in.
pub(super) async fn login(known: Result<Principal, Problem>, State(api): State<Api>) -> Response {
    match known {
        Ok(_) => Redirect::to("/").into_response(),
        Err(_) if is_without_users(&api).await => Redirect::to("/setup").into_response(),
        Err(_) => show(&LoginPage { frame: Frame::of_stranger() }),
    }
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    frame: Frame,
}

/// The very first way in.
pub(super) async fn setup(State(api): State<Api>) -> Response {
    match is_without_users(&api).await {
        true => show(&SetupPage { frame: Frame::of_stranger() }),
        false => Redirect::to("/login").into_response(),
    }
}

/// A database that cannot be read is told of where somebody tries to sign in.
async fn is_without_users(api: &Api) -> bool {
    api.accounts.is_empty().await.unwrap_or(false)
}
