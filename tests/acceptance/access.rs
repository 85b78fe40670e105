//! Who may come in: every call, with each kind of token, by each door; and no answer or log line tells a secret.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

use pulse::lab::{HostPlan, Lab};
use pulse::security::Role;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::support::{Daemon, Folder, HEALTH, SEED, client_builder, lab, run};

/// A call, and who may make it.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As the documentation writes it.
    pub(crate) path: &'static str,
    /// The path that is called.
    at: &'static str,
    body: Option<Value>,
    /// The least role that may make it; everybody may if there is none.
    pub(crate) role: Option<Role>,
    /// What it answers to somebody who may.
    answer: StatusCode,
}

impl Call {
    fn request(&self, daemon: &Daemon) -> RequestBuilder {
        self.request_at(daemon, self.at)
    }

    fn request_at(&self, daemon: &Daemon, path: &str) -> RequestBuilder {
        self.with_body(daemon.anonymous(self.method.clone(), path)).header("X-Forwarded-For", nobody_yet())
    }

    fn with_body(&self, request: RequestBuilder) -> RequestBuilder {
        if let Some(body) = &self.body { request.json(body) } else { request }
    }
}

fn call(method: Method, path: &'static str, role: Role) -> Call {
    Call { method, path, at: path, body: None, role: Some(role), answer: StatusCode::OK }
}

/// An address that nothing came from yet, so that no limit is in the way of a test of something else.
fn nobody_yet() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// A daemon that believes what [`nobody_yet`] says.
async fn daemon_behind_a_proxy(folder: &Folder) -> Daemon {
    Daemon::start_with(folder, &["--trusted-proxy", "127.0.0.1"], &[]).await
}

/// Every call. Refused by default: what is missing here must not be there.
pub(crate) fn calls() -> Vec<Call> {
    use Role::{Admin, Viewer};
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    // A management call on an instance that there is not.
    let nobody = |path: &'static str| Call {
        at: path.replace("{key}", "pve::nobody").leak(),
        answer: StatusCode::NOT_FOUND,
        ..call(Method::POST, path, Admin)
    };
    let mut calls = vec![
        call(get.clone(), HEALTH, Viewer),
        call(get.clone(), "/api/state", Viewer),
        call(get.clone(), "/api/monitoring/overview", Viewer),
        call(get.clone(), "/api/monitoring/troubles", Viewer),
        Call {
            at: "/api/monitoring/instances/tcp::fixed",
            ..call(get.clone(), "/api/monitoring/instances/{key}", Viewer)
        },
        call(get.clone(), "/api/events", Viewer),
        call(get.clone(), "/api/events/recent", Viewer),
        Call { body: Some(json!({"reason": "a test"})), ..nobody("/api/monitoring/breakers/{key}/reset") },
        call(post.clone(), "/api/monitoring/dlq/retry", Admin),
        nobody("/api/monitoring/dlq/{key}/retry"),
        Call { method: Method::DELETE, ..nobody("/api/monitoring/dlq/{key}") },
        nobody("/api/monitoring/instances/{key}/poll"),
        nobody("/api/monitoring/instances/{key}/pause"),
        nobody("/api/monitoring/instances/{key}/resume"),
        call(get.clone(), "/api/system/settings", Viewer),
        Call { body: Some(json!({})), ..call(post.clone(), "/api/system/settings/update", Admin) },
        call(get.clone(), "/api/notifications", Viewer),
        Call { answer: StatusCode::NOT_FOUND, ..call(post.clone(), "/api/notifications/test", Admin) },
        call(get.clone(), "/api/security/tokens", Admin),
        Call {
            body: Some(json!({"name": "made by the table", "role": "viewer"})),
            answer: StatusCode::CREATED,
            ..call(post.clone(), "/api/security/tokens", Admin)
        },
        Call {
            at: "/api/security/tokens/made%20by%20the%20table",
            ..call(delete, "/api/security/tokens/{name}", Admin)
        },
        call(get.clone(), "/api/audit", Admin),
        call(post.clone(), "/api/audit/verify", Admin),
        call(get.clone(), "/api/updates/history", Viewer),
        call(get.clone(), "/api/health", Viewer),
        call(get.clone(), "/api/version", Viewer),
        call(get, "/api/openapi.json", Viewer),
    ];
    calls.extend(calls_about_the_configuration());
    calls.extend(calls_of_people());
    calls.extend(calls_about_users());
    calls
}

/// They work on the fleet of [`one_endpoint`], in this order.
fn calls_about_the_configuration() -> [Call; 12] {
    use Role::{Admin, Operator, Viewer};
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let tcp = |name: &str| json!({"instance": {"type": "tcp", "name": name, "host": "127.0.0.1", "port": 1}});
    [
        call(get.clone(), "/api/config/nodes", Viewer),
        Call { body: Some(tcp("made")), answer: StatusCode::CREATED, ..call(post.clone(), "/api/config/nodes", Admin) },
        Call {
            body: Some(json!({"key": "tcp::fixed"})),
            ..call(post.clone(), "/api/config/nodes/test-connection", Operator)
        },
        Call { at: "/api/config/nodes/tcp::fixed", ..call(get.clone(), "/api/config/nodes/{key}", Viewer) },
        Call {
            at: "/api/config/nodes/tcp%3A%3Afixed",
            body: Some(tcp("fixed")),
            ..call(put, "/api/config/nodes/{key}", Admin)
        },
        Call {
            at: "/api/config/nodes/tcp::fixed/cluster",
            answer: StatusCode::CONFLICT,
            ..call(get.clone(), "/api/config/nodes/{key}/cluster", Admin)
        },
        Call {
            at: "/api/config/nodes/tcp::fixed/cluster",
            body: Some(json!({"nodes": [{"name": "rack-2"}]})),
            answer: StatusCode::CONFLICT,
            ..call(post.clone(), "/api/config/nodes/{key}/cluster", Admin)
        },
        Call { at: "/api/config/nodes/tcp::made", ..call(delete.clone(), "/api/config/nodes/{key}", Admin) },
        call(get.clone(), "/api/config/history", Admin),
        Call { at: "/api/config/history/1", ..call(get.clone(), "/api/config/history/{version}", Admin) },
        Call { body: Some(json!({"reason": "the table"})), ..call(post.clone(), "/api/config/rollback", Admin) },
        call(post.clone(), "/api/config/rekey", Admin),
    ]
}

/// Those by which people come in and leave. The credentials that are tried here have no session.
fn calls_of_people() -> [Call; 7] {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let everybody =
        |path, body, answer| Call { body: Some(body), role: None, answer, ..call(Method::POST, path, Role::Viewer) };
    let needs_session = |method, path| Call { answer: StatusCode::CONFLICT, ..call(method, path, Role::Viewer) };
    let setup = json!({"token": "setup_wrong", "name": "eve", "password": WORDS});
    let change = json!({"currentPassword": WORDS, "newPassword": WORDS});
    [
        everybody("/api/setup", setup, StatusCode::FORBIDDEN),
        everybody("/api/login", json!({"name": "eve", "password": WORDS}), StatusCode::UNAUTHORIZED),
        needs_session(post.clone(), "/api/logout"),
        call(get.clone(), "/api/security/me", Role::Viewer),
        Call { body: Some(change), ..needs_session(post, "/api/security/me/password") },
        needs_session(get, "/api/security/me/sessions"),
        Call { at: "/api/security/me/sessions/1", ..needs_session(delete, "/api/security/me/sessions/{id}") },
    ]
}

fn calls_about_users() -> [Call; 7] {
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let with = |method, path, at, body| Call { at, body: Some(body), ..call(method, path, Role::Admin) };
    let (users, user) = ("/api/security/users", "/api/security/users/tabled");
    let (role, password) = ("/api/security/users/tabled/role", "/api/security/users/tabled/password");
    let new = json!({"name": "tabled", "role": "viewer", "password": WORDS});
    [
        call(get.clone(), "/api/security/sessions", Role::Admin),
        Call {
            at: "/api/security/sessions/1",
            answer: StatusCode::NOT_FOUND,
            ..call(delete.clone(), "/api/security/sessions/{id}", Role::Admin)
        },
        call(get, users, Role::Admin),
        Call { answer: StatusCode::CREATED, ..with(post, users, users, new) },
        with(put.clone(), "/api/security/users/{name}/role", role, json!({"role": "operator"})),
        with(put, "/api/security/users/{name}/password", password, json!({"password": WORDS})),
        with(delete, "/api/security/users/{name}", user, json!({"reason": "tried"})),
    ]
}

const WORDS: &str = "a few words in a row";

/// Calls that are answered over the unix socket alone, whoever makes them.
fn local_calls() -> [(&'static str, Value); 2] {
    let export = json!({"passphrase": "correct horse battery"});
    [("/api/config/export", export), ("/api/config/import", json!("none"))]
}

#[tokio::test]
async fn what_would_show_secrets_is_refused_to_every_token() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    for role in Role::ALL {
        let token = daemon.new_token(role.as_str(), role).await;
        for (path, body) in local_calls() {
            let response = daemon.anonymous(Method::POST, path).bearer_auth(&token).json(&body).send().await.unwrap();
            let code = if role == Role::Admin { "local_only" } else { "forbidden" };
            assert_is_problem(&response.json().await.unwrap(), 403, code);
        }
    }
    daemon.stop().await;
}

/// A fleet of one endpoint that is down.
pub(crate) fn one_endpoint() -> Value {
    json!({"instances": [{"type": "tcp", "name": "fixed", "host": "127.0.0.1", "port": 1}]})
}

#[tokio::test]
async fn every_documented_call_is_in_the_table_of_calls_and_the_other_way_round() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    let document = daemon.get("/api/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    let documented: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())))
        .collect();
    let named = |method: &Method, path: &str| (method.as_str().to_lowercase(), path.to_owned());
    let local = local_calls().map(|(path, _)| named(&Method::POST, path));
    let tabled: BTreeSet<_> = calls().iter().map(|call| named(&call.method, call.path)).chain(local).collect();
    let routed: BTreeSet<_> = pulse::api::ROUTES.iter().map(|route| named(&route.method, route.path)).collect();
    assert_eq!(documented, tabled);
    assert_eq!(routed, tabled);
    for call in calls() {
        let answers = &paths[call.path][call.method.as_str().to_lowercase()]["responses"];
        let refuses = call.role.is_some_and(|role| role > Role::Viewer || call.method != Method::GET);
        let refuses = refuses || call.answer == StatusCode::FORBIDDEN;
        let expected = [("401", call.role.is_some()), ("403", refuses), ("429", true), ("503", true)];
        for (status, _) in expected.into_iter().filter(|(_, expected)| *expected) {
            let content = &answers[status]["content"];
            assert!(content["application/problem+json"].is_object(), "{} does not tell of {status}", call.path);
        }
        assert_eq!(answers["403"].is_object(), refuses, "{} tells of its role and of CSRF tokens", call.path);
        assert!(answers[call.answer.as_str()].is_object(), "{} tells what it answers", call.path);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn every_call_is_refused_without_the_right_token_and_answered_with_it() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = daemon_behind_a_proxy(&folder).await;
    let nearly = &daemon.token[..daemon.token.len() - 1];
    for call in calls().into_iter().filter(|call| call.role.is_some()) {
        let Call { method, at: path, .. } = &call;
        let new = || call.request(&daemon);
        let refused = [
            ("no token", new()),
            ("a wrong token", new().bearer_auth("pulse_wrong")),
            ("an empty token", new().bearer_auth("")),
            ("most of the token", new().bearer_auth(nearly)),
            ("the token by another scheme", new().header("Authorization", format!("Basic {}", daemon.token))),
            ("the token as password", new().basic_auth("admin", Some(&daemon.token))),
            ("a wrong token of the other kind", new().header("X-API-Token", "pulse_wrong")),
            ("the token in the address", call.request_at(&daemon, &format!("{path}?token={}", daemon.token))),
            ("a session that is none", new().header("Cookie", format!("pulse_session={}", daemon.token))),
        ];
        for (with, request) in refused {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} with {with}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "unauthorized");
        }
        let response = new().bearer_auth(&daemon.token).send().await.unwrap();
        assert_eq!(response.status(), call.answer, "{method} {path}");
        let kind = match call.answer.is_success() {
            _ if *path == "/api/events" => "text/event-stream",
            true => "application/json",
            false => "application/problem+json",
        };
        assert_eq!(response.headers()[CONTENT_TYPE], kind);
    }
    let request = daemon.anonymous(Method::GET, "/api/version").header("X-API-Token", &daemon.token);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "the other header does as well");
    daemon.stop().await;
}

#[tokio::test]
async fn a_claim_to_be_local_is_not_believed() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for header in ["X-Forwarded-For", "X-Real-IP", "Forwarded"] {
        for claim in ["127.0.0.1", "for=127.0.0.1", "::1"] {
            let request = daemon.anonymous(Method::GET, "/api/version").header(header, claim);
            assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{header}: {claim}");
        }
    }
    let request = daemon.anonymous(Method::POST, "/api/security/tokens").header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(request.json(&json!({})).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let told = daemon.get("/api/audit?action=token.create&outcome=refused").await;
    let (actor, address) = (&told["entries"][0]["actor"], &told["entries"][0]["address"]);
    assert_eq!((actor, address), (&json!("anonymous"), &json!("127.0.0.1")), "nobody told it to trust a proxy");
    daemon.stop().await;
}

#[tokio::test]
async fn each_role_makes_the_calls_of_its_row_and_no_other() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = daemon_behind_a_proxy(&folder).await;
    for role in Role::ALL {
        for call in calls() {
            let Call { method, path, .. } = &call;
            let token = daemon.new_token(&format!("{role}: {method} {path}"), role).await;
            let response = call.request(&daemon).bearer_auth(&token).send().await.unwrap();
            if call.role.is_none_or(|least| role >= least) {
                assert_eq!(response.status(), call.answer, "{role}: {method} {path}");
            } else {
                assert_eq!(response.status(), StatusCode::FORBIDDEN, "{role}: {method} {path}");
                assert_is_problem(&response.json().await.unwrap(), 403, "forbidden");
            }
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_needs_no_token() {
    let folder = Folder::quick(&one_endpoint());
    let daemon = Daemon::start(&folder).await;
    let metadata = daemon.socket().metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let local = client_builder().unix_socket(daemon.socket()).build().unwrap();
    for call in calls() {
        let request = call.with_body(local.request(call.method.clone(), format!("http://localhost{}", call.at)));
        assert_eq!(request.send().await.unwrap().status(), call.answer, "{} {}", call.method, call.path);
    }
    let ended = run(&mut folder.pulse(["health", "--json"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let health: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(health["enabled"], true);
    daemon.stop().await;
}

#[tokio::test]
async fn a_stranger_learns_nothing_of_which_paths_there_are() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for (method, path) in [
        (Method::POST, "/"),
        (Method::GET, "/no-such-page"),
        (Method::GET, "/api/no-such-call"),
        (Method::DELETE, "/api/version"),
    ] {
        let response = daemon.anonymous(method, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_no_call_is_answered_with_a_problem() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    for (method, path, status, code) in [
        (Method::GET, "/no-such-page", 404, "not_found"),
        (Method::GET, "/api/no-such-call", 404, "not_found"),
        (Method::GET, "/api/health/", 404, "not_found"),
        (Method::GET, "/api/../etc/passwd", 404, "not_found"),
        (Method::DELETE, "/api/health", 405, "method_not_allowed"),
        (Method::POST, HEALTH, 405, "method_not_allowed"),
        (Method::GET, "/api/system/settings/update", 405, "method_not_allowed"),
    ] {
        let response = daemon.request(method.clone(), path).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        if status == 405 {
            assert!(response.headers().contains_key("allow"), "RFC 9110 wants the methods that are allowed");
        }
        assert_is_problem(&response.json().await.unwrap(), status, code);
    }
    daemon.stop().await;
}

/// What RFC 9457 wants, and the code for programs.
pub(crate) fn assert_is_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["status"], status, "{problem:#}");
    assert_eq!(problem["code"], code, "{problem:#}");
    assert_eq!(problem["type"], format!("urn:pulse:problem:{code}"));
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem:#}");
    }
}

/// A fleet that signs in in every way, one of them refused, and everything in it that is secret.
async fn fleet_with_secrets() -> (Lab, Value, Vec<String>) {
    let lab = lab(vec![
        HostPlan::pve(SEED, "by-token", 3),
        HostPlan::pve(SEED, "by-password", 3).by_password(SEED),
        HostPlan::pbs(SEED, "refused-token", &["daily"]).with_rejected_secret(),
        HostPlan::pmg(SEED, "refused-password").by_password(SEED).with_rejected_secret(),
        HostPlan::pmg(SEED, "by-file"),
        HostPlan::pbs(SEED, "by-variable", &["daily"]),
    ])
    .await;
    let fleet = lab.instances_json(None);
    let secret = |instance: &Value| {
        let auth = &instance["auth"];
        auth["secret"].as_str().or(auth["password"].as_str()).unwrap().to_owned()
    };
    let secrets = fleet["instances"].as_array().unwrap().iter().map(secret).collect();
    (lab, fleet, secrets)
}

#[tokio::test]
async fn no_answer_and_no_log_line_holds_a_secret() {
    let (lab, mut fleet, mut secrets) = fleet_with_secrets().await;
    fleet["instances"][4]["auth"]["secret"] = json!({"file": "mail.secret"});
    fleet["instances"][5]["auth"]["secret"] = json!({"env": "VAULT_SECRET"});
    let folder = Folder::quick(&fleet);
    folder.write("mail.secret", &secrets[4]);
    let variables = [("VAULT_SECRET", secrets[5].as_str()), ("PULSE_LOG", "trace")];
    let daemon = Daemon::start_with(&folder, &["--trusted-proxy", "127.0.0.1"], &variables).await;
    for key in ["pve::by-token", "pve::by-password", "pmg::by-file", "pbs::by-variable"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    }
    for key in ["pbs::refused-token", "pmg::refused-password"] {
        daemon.until_instance(key, |row| row["pollStatus"]["lastError"]["category"] == "unauthorized").await;
    }
    // An edit that is refused is shown with its errors, not with what it held.
    let mut broken = fleet.clone();
    broken["instances"][0]["auth"]["tokenid"] = json!("misspelt");
    broken["instances"][1]["type"] = json!("vmware");
    folder.write_json("instances.json", &broken);
    let refused = async || (daemon.get("/api/system/settings").await["refusedEdits"] != json!([])).then_some(());
    super::support::eventually("the edit is refused", super::support::PATIENCE, refused).await.unwrap();

    secrets.push(daemon.token.clone());
    let mut told = vec![("the log".to_owned(), daemon.program.stderr())];
    for call in calls() {
        let new = || call.request(&daemon);
        let leaked = format!("{}-and-more", daemon.token);
        for request in [new().bearer_auth(&daemon.token), new(), new().bearer_auth(leaked)] {
            let response = request.send().await.unwrap();
            let headers = format!("{:?}", response.headers());
            let endless = headers.contains("text/event-stream");
            let body = if endless { String::new() } else { response.text().await.unwrap() };
            told.push((format!("{} {}", call.method, call.path), headers + &body));
        }
    }
    for command in [&["health"][..], &["health", "--json"], &["config", "info"], &["config", "validate"]] {
        let ended = run(folder.pulse(command).env("VAULT_SECRET", &secrets[5])).await;
        told.push((format!("pulse {command:?}"), ended.stdout + &ended.stderr));
    }
    told.push(("the log at the end".to_owned(), daemon.program.stderr()));
    for file in ["pulse.db", "pulse.db-wal"] {
        let content = std::fs::read(folder.path().join(file)).unwrap();
        told.push((file.to_owned(), String::from_utf8_lossy(&content).into_owned()));
    }
    for (place, text) in &told {
        assert!(!text.is_empty(), "{place}");
        for (number, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret.as_str()), "secret {number} is told by {place}");
        }
    }
    daemon.stop().await;
    lab.shutdown().await;
}
