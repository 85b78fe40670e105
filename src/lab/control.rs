//! The lab's control port: another process reads what hosts there are and makes them fail.
//!
//! `GET /hosts`, `GET /instances`, `GET /hosts/{name}/stats`, `PUT /hosts/{name}/behaviour` with a
//! [`Behaviour`], `PUT /hosts/{name}/fault` with a [`Fault`], `DELETE /hosts/{name}/fault`. The last three take
//! `?member=0` to mean one member of a cluster.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header::AUTHORIZATION};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::pause;
use super::fault::{Behaviour, Fault};
use super::{Fleet, LabError};

/// The largest request body.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// The most connections that are open at a time; further ones wait.
const MAX_CONNECTIONS: usize = 32;
/// After a failed `accept`, usually for want of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// Which member of a cluster is meant; all of them without a number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    member: Option<usize>,
}

/// The routes, guarded by `token` if there is one.
pub(super) fn router(fleet: Arc<Fleet>, token: Option<String>) -> Router {
    let guard = middleware::from_fn(move |request: Request, next: Next| {
        let let_in = token.as_ref().is_none_or(|token| {
            request
                .headers()
                .get(AUTHORIZATION)
                .is_some_and(|value| value.as_bytes() == format!("Bearer {token}").as_bytes())
        });
        async move {
            if let_in {
                next.run(request).await
            } else {
                problem(StatusCode::UNAUTHORIZED, "a bearer token is required")
            }
        }
    });
    Router::new()
        .route("/hosts", get(hosts))
        .route("/instances", get(instances))
        .route("/hosts/{name}/stats", get(stats))
        .route("/hosts/{name}/behaviour", put(set_behaviour))
        .route("/hosts/{name}/fault", put(set_fault).delete(clear_fault))
        .layer(guard)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(fleet)
}

/// Serves `router` until `stop` is cancelled.
pub(super) async fn serve(listener: TcpListener, router: Router, tasks: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serving = async {
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                pause(PAUSE_AFTER_ERROR).await;
                continue;
            };
            let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
            tasks.spawn(async move {
                let _place = place;
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A caller that leaves in the middle is its own affair.
                let _ = stop.run_until_cancelled(connection).await;
            });
        }
    };
    stop.run_until_cancelled(serving).await;
}

async fn hosts(State(fleet): State<Arc<Fleet>>) -> Json<Value> {
    let hosts = fleet.hosts.values().map(|host| {
        let behaviours: Vec<Behaviour> = host.members.iter().map(super::host::Member::behaviour).collect();
        json!({
            "name": host.plan.name,
            "type": host.plan.system.kind(),
            "members": host.members.iter().map(|member| member.address.to_string()).collect::<Vec<_>>(),
            "behaviours": behaviours,
        })
    });
    Json(json!({ "hosts": hosts.collect::<Vec<_>>() }))
}

async fn instances(State(fleet): State<Arc<Fleet>>) -> Json<Value> {
    Json(fleet.instances_json(None))
}

async fn stats(State(fleet): State<Arc<Fleet>>, Path(name): Path<String>) -> Result<Response, LabError> {
    Ok(Json(fleet.host(&name)?.counters.stats()).into_response())
}

async fn set_behaviour(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
    Json(behaviour): Json<Behaviour>,
) -> Result<StatusCode, LabError> {
    fleet.behave(&name, which.member, behaviour).await.map(|()| StatusCode::NO_CONTENT)
}

async fn set_fault(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
    Json(fault): Json<Fault>,
) -> Result<StatusCode, LabError> {
    fleet.behave(&name, which.member, fault.into()).await.map(|()| StatusCode::NO_CONTENT)
}

async fn clear_fault(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<StatusCode, LabError> {
    fleet.behave(&name, which.member, Behaviour::Healthy).await.map(|()| StatusCode::NO_CONTENT)
}

impl IntoResponse for LabError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UnknownHost(_) | Self::UnknownMember { .. } => StatusCode::NOT_FOUND,
            Self::InvalidHost { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        problem(status, &self.to_string())
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({"status": status.as_u16(), "detail": detail}))).into_response()
}
