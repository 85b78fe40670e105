//! The emulated fleet as a real client sees it: every answer, every refusal and every fault over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pulse::engine::Timestamp;
use pulse::lab::{Auth, Behaviour, Fault, FaultKind, HostPlan, Lab, LabClock, LabHost, LabPlan};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

const SEED: u64 = 7;
/// Long enough for loopback, short enough for a test.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A client with the credentials of one host.
struct Caller {
    client: Client,
    base: String,
    authorization: String,
}

impl Caller {
    fn of(lab: &Lab, name: &str) -> Self {
        Self::of_member(lab, name, 0)
    }

    fn of_member(lab: &Lab, name: &str, member: usize) -> Self {
        let host = lab.hosts().into_iter().find(|host| host.name == name).unwrap();
        let product = host.kind.as_str().to_uppercase();
        let authorization = match &host.auth {
            Some(Auth::Token { id, secret, .. }) => {
                format!("{product}APIToken={id}{}{secret}", if product == "PVE" { '=' } else { ':' })
            }
            Some(Auth::Password { .. }) | None => String::new(),
        };
        Self { client: client(lab), base: host.urls[member].clone(), authorization }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}/api2/json{path}", self.base))
            .header("Authorization", &self.authorization)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn data(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json::<Value>().await.unwrap()["data"].take()
    }

    async fn fails(&self, path: &str) -> reqwest::Error {
        match self.request(Method::GET, path).send().await {
            Err(error) => error,
            Ok(response) => response.bytes().await.unwrap_err(),
        }
    }
}

fn client(lab: &Lab) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Certificate::from_pem(lab.authority_pem().as_bytes()).unwrap();
    Client::builder().tls_certs_only([authority]).timeout(TIMEOUT).retry(reqwest::retry::never()).build().unwrap()
}

/// An error and its causes, outermost first. An I/O error hides its inner error from `source`.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn io_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).last()
}

fn has_cause<E: Error + 'static>(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<E>())
}

/// Waits for what another task is about to bring about.
async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("it comes about");
}

async fn lab_with(host: HostPlan) -> Lab {
    Lab::start(LabPlan::new(SEED, vec![host]), LabClock::real()).await.unwrap()
}

async fn rack() -> Lab {
    lab_with(HostPlan::pve(SEED, "rack", 6)).await
}

#[tokio::test]
async fn every_path_that_monitoring_reads_is_answered() {
    let hosts = vec![
        HostPlan::pve(SEED, "rack", 6).cluster_of(3),
        HostPlan::pbs(SEED, "vault", &["daily"]),
        HostPlan::pmg(SEED, "mail"),
    ];
    let lab = Lab::start(LabPlan::new(SEED, hosts), LabClock::real()).await.unwrap();
    let paths: [(&str, &[&str]); 3] = [
        (
            "rack",
            &[
                "/version",
                "/nodes",
                "/nodes/rack-2/status",
                "/cluster/status",
                "/cluster/resources",
                "/cluster/resources?type=vm",
                "/nodes/rack-1/storage",
                "/nodes/rack-1/disks/list",
                "/cluster/ceph/status",
                "/nodes/rack-1/qemu",
                "/nodes/rack-3/lxc",
            ],
        ),
        (
            "vault",
            &[
                "/version",
                "/nodes",
                "/nodes/localhost/status",
                "/admin/datastore",
                "/admin/datastore/daily/status",
                "/status/datastore-usage",
            ],
        ),
        (
            "mail",
            &[
                "/version",
                "/nodes",
                "/config/cluster/status?list_single_node=1",
                "/nodes/mail/status",
                "/nodes/localhost/postfix/queue",
                "/nodes/mail/postfix/qshape?queue=active",
                "/statistics/mail",
                "/quarantine/spamstatus",
            ],
        ),
    ];
    for (host, paths) in paths {
        let caller = Caller::of(&lab, host);
        for path in paths {
            let data = caller.data(path).await;
            let is_empty = data.as_array().map_or_else(|| data.as_object().unwrap().is_empty(), Vec::is_empty);
            assert!(!is_empty, "{host} {path}: {data}");
        }
        let stats = lab.stats(host).unwrap();
        assert_eq!((stats.connections, stats.handshakes), (1, 1), "{host} keeps its connection");
        assert_eq!(stats.requests, paths.len() as u64);
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_the_reason_phrase_of_the_product() {
    let lab = lab_with(HostPlan::pve(SEED, "rack", 2).with_rejected_secret()).await;
    let response = Caller::of(&lab, "rack").get("/version").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"invalid token value!");
    assert_eq!(lab.stats("rack").unwrap().failed_logins, 1);
    lab.shutdown().await;
}

#[tokio::test]
async fn the_token_separators_of_the_products_are_not_interchangeable() {
    let lab = lab_with(HostPlan::pbs(SEED, "vault", &["daily"])).await;
    let mut caller = Caller::of(&lab, "vault");
    caller.data("/version").await;
    caller.authorization = caller.authorization.replacen(':', "=", 1);
    assert_eq!(caller.get("/version").await.status(), StatusCode::UNAUTHORIZED);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_ticket_opens_for_two_hours_and_a_write_needs_the_csrf_token() {
    let now = Arc::new(AtomicU64::new(0));
    let reading = Arc::clone(&now);
    let clock = LabClock::new(move || Timestamp::from_millis(reading.load(Ordering::Relaxed)));
    let host = HostPlan::pmg(SEED, "mail").by_password(SEED);
    let lab = Lab::start(LabPlan::new(SEED, vec![host]), clock).await.unwrap();
    let (base, client) = (lab.hosts()[0].urls[0].clone(), client(&lab));
    let Some(Auth::Password { user, password, .. }) = lab.hosts()[0].auth.clone() else { panic!("a password") };

    let sign_in = |password: &str| {
        let body = format!("username={}&password={password}", user.replace('@', "%40"));
        let request = client.post(format!("{base}/api2/json/access/ticket"));
        request.header("Content-Type", "application/x-www-form-urlencoded").body(body).send()
    };
    assert_eq!(sign_in("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let answer: Value = sign_in(&password).await.unwrap().json().await.unwrap();
    let (ticket, csrf) = (answer["data"]["ticket"].as_str().unwrap(), &answer["data"]["CSRFPreventionToken"]);

    let call = |method: Method, csrf: &str| {
        let request = client.request(method, format!("{base}/api2/json/version"));
        let cookie = format!("PMGAuthCookie={}", ticket.replace(':', "%3A"));
        request.header("Cookie", cookie).header("CSRFPreventionToken", csrf).send()
    };
    assert_eq!(call(Method::GET, "").await.unwrap().status(), StatusCode::OK);
    assert_eq!(call(Method::POST, "").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(call(Method::POST, csrf.as_str().unwrap()).await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);

    now.store(2 * 3_600_000 - 1, Ordering::Relaxed);
    assert_eq!(call(Method::GET, "").await.unwrap().status(), StatusCode::OK);
    now.store(2 * 3_600_000, Ordering::Relaxed);
    assert_eq!(call(Method::GET, "").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.stats("mail").unwrap().logins, 1);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_refusing_host_closes_its_port_cuts_what_was_open_and_comes_back_at_the_same_port() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    caller.data("/version").await;
    lab.set_fault("rack", FaultKind::Refuse).await.unwrap();
    // The first call may find the connection that was kept alive; it is reset as well.
    caller.fails("/version").await;
    assert_eq!(io_kind(&caller.fails("/version").await), Some(ErrorKind::ConnectionRefused));
    lab.clear_fault("rack").await.unwrap();
    caller.data("/version").await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_hanging_host_takes_the_call_and_never_answers() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    for kind in [FaultKind::Hang, FaultKind::HangBeforeTls] {
        lab.set_fault("rack", kind).await.unwrap();
        assert!(caller.fails("/version").await.is_timeout(), "{kind:?}");
    }
    let stats = lab.stats("rack").unwrap();
    assert_eq!((stats.handshakes, stats.requests), (1, 1), "only the first got as far as a request");
    eventually(|| lab.stats("rack").unwrap().open_connections == 0).await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_handshake_that_is_cut_off_is_no_certificate_error() {
    let lab = rack().await;
    lab.set_fault("rack", FaultKind::CutHandshake).await.unwrap();
    let error = Caller::of(&lab, "rack").fails("/version").await;
    assert!(error.is_connect());
    assert_eq!(io_kind(&error), Some(ErrorKind::UnexpectedEof), "{error:?}");
    assert!(!has_cause::<rustls::Error>(&error));
    lab.shutdown().await;
}

#[tokio::test]
async fn a_wrong_certificate_is_presented_even_to_clients_that_could_resume_a_session() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    caller.data("/version").await;
    lab.set_fault("rack", FaultKind::WrongCertificate).await.unwrap();
    // The connection that was kept alive is gone, whether or not the client has seen it yet.
    let mut error = caller.fails("/version").await;
    if !has_cause::<rustls::Error>(&error) {
        error = caller.fails("/version").await;
    }
    assert!(has_cause::<rustls::Error>(&error), "{error:?}");
    lab.clear_fault("rack").await.unwrap();
    caller.data("/version").await;
    lab.shutdown().await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    caller.data("/version").await;
    lab.set_fault("rack", FaultKind::Refuse).await.unwrap();
    caller.fails("/version").await;
    lab.clear_fault("rack").await.unwrap();
    caller.data("/version").await;
    let stats = lab.stats("rack").unwrap();
    assert_eq!((stats.handshakes, stats.resumed_handshakes), (2, 1));
    lab.shutdown().await;
}

#[tokio::test]
async fn statuses_are_sent_as_asked_with_retry_after() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    for code in [401, 403, 404, 408, 429, 500, 503] {
        lab.set_fault("rack", FaultKind::Status { code, retry_after_secs: Some(7) }).await.unwrap();
        let response = caller.get("/nodes").await;
        assert_eq!(response.status(), code);
        assert_eq!(response.headers()["Retry-After"], "7");
        assert_eq!(response.json::<Value>().await.unwrap()["data"], Value::Null);
    }
    assert_eq!(lab.stats("rack").unwrap().connections, 1);
    lab.shutdown().await;
}

#[tokio::test]
async fn answers_that_are_not_the_apis_are_what_they_claim_to_be() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    let whole = caller.get("/nodes").await.bytes().await.unwrap();

    lab.set_fault("rack", FaultKind::BrokenJson).await.unwrap();
    assert!(caller.get("/nodes").await.json::<Value>().await.unwrap_err().is_decode());

    lab.set_fault("rack", FaultKind::TruncatedJson).await.unwrap();
    let half = caller.get("/nodes").await.bytes().await.unwrap();
    assert!(half.len() < whole.len() && serde_json::from_slice::<Value>(&half).is_err());

    lab.set_fault("rack", FaultKind::Html).await.unwrap();
    let page = caller.get("/nodes").await;
    assert_eq!(page.headers()["Content-Type"], "text/html; charset=utf-8");
    assert!(page.text().await.unwrap().contains("It works!"));
    lab.shutdown().await;
}

#[tokio::test]
async fn a_connection_cut_in_the_body_is_reset() {
    let lab = rack().await;
    lab.set_fault("rack", FaultKind::CutBody).await.unwrap();
    let mut response = Caller::of(&lab, "rack").get("/cluster/resources").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.content_length().unwrap() > 1_000);
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "the body must not end in peace"),
            Err(error) => break error,
        }
    };
    assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionReset), "{error:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn an_oversized_body_goes_on_as_long_as_the_client_reads() {
    let lab = rack().await;
    lab.set_fault("rack", FaultKind::Oversized).await.unwrap();
    let mut response = Caller::of(&lab, "rack").get("/nodes").await;
    assert_eq!(response.content_length(), None);
    let mut received = 0;
    while received < 4 << 20 {
        received += response.chunk().await.unwrap().unwrap().len();
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn a_slow_answer_starts_late_and_drips() {
    let lab = rack().await;
    lab.set_fault("rack", FaultKind::Slow { delay_ms: 60, drip_ms: 10 }).await.unwrap();
    let caller = Caller::of(&lab, "rack");
    let clock = LabClock::real();
    let response = caller.get("/nodes").await;
    assert!(clock.now() >= Timestamp::from_millis(60));
    response.json::<Value>().await.unwrap();
    assert!(clock.now() >= Timestamp::from_millis(60 + 7 * 10));

    lab.set_fault("rack", FaultKind::Slow { delay_ms: 60_000, drip_ms: 0 }).await.unwrap();
    assert!(caller.fails("/nodes").await.is_timeout());
    lab.shutdown().await;
}

#[tokio::test]
async fn a_fault_can_be_limited_to_the_first_requests_and_to_some_paths() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    lab.set_fault("rack", Fault::from(FaultKind::status(503)).first(3).on("/nodes")).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        assert_eq!(caller.get("/version").await.status(), StatusCode::OK);
        statuses.push(caller.get("/nodes/rack/status").await.status().as_u16());
    }
    assert_eq!(statuses, [503, 503, 503, 200]);
    lab.shutdown().await;
}

#[tokio::test]
async fn handshakes_can_fail_a_number_of_times() {
    let lab = rack().await;
    let caller = Caller::of(&lab, "rack");
    lab.set_fault("rack", Fault::from(FaultKind::CutHandshake).first(2)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(io_kind(&caller.fails("/version").await), Some(ErrorKind::UnexpectedEof));
    }
    caller.data("/version").await;
    lab.set_fault("rack", Fault::from(FaultKind::WrongCertificate).first(1)).await.unwrap();
    let caller = Caller::of(&lab, "rack");
    assert!(has_cause::<rustls::Error>(&caller.fails("/version").await));
    caller.data("/version").await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_large_fleet_shares_certificates_and_labs_side_by_side_keep_apart() {
    let start = |first| Lab::start(LabPlan::uniform(260, SEED).starting_at(first), LabClock::real());
    let (first, second) = (start(0).await.unwrap(), start(260).await.unwrap());
    let hosts = first.hosts();
    let fingerprints: BTreeSet<_> = hosts.iter().map(|host| host.fingerprint.clone()).collect();
    assert_eq!(fingerprints.len(), 2);
    Caller::of(&first, &hosts[0].name).data("/version").await;
    Caller::of(&first, &hosts[259].name).data("/version").await;
    let ip = |host: &LabHost| host.urls[0].rsplit_once(':').unwrap().0.to_owned();
    let ips: BTreeSet<String> = hosts.iter().chain(&second.hosts()).map(ip).collect();
    assert_eq!(ips.len(), 520);
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn a_flapping_host_follows_the_labs_clock() {
    let now = Arc::new(AtomicU64::new(0));
    let reading = Arc::clone(&now);
    let clock = LabClock::new(move || Timestamp::from_millis(reading.load(Ordering::Relaxed)));
    let flapping = Behaviour::Flapping { up_ms: 10_000, down_ms: 5_000, fault: FaultKind::Refuse };
    let host = HostPlan::pve(SEED, "rack", 2).behaving(flapping);
    let lab = Lab::start(LabPlan::new(SEED, vec![host]), clock).await.unwrap();
    let caller = Caller::of(&lab, "rack");
    caller.data("/version").await;
    for (millis, down) in [(12_000, true), (15_000, false)] {
        now.store(millis, Ordering::Relaxed);
        let turned = async {
            while caller.request(Method::GET, "/version").send().await.is_err() != down {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), turned).await.expect("the schedule turns");
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn each_member_of_a_cluster_fails_by_itself_and_the_others_see_it() {
    let lab = lab_with(HostPlan::pve(SEED, "rack", 6).cluster_of(3)).await;
    lab.set_member_behaviour("rack", 1, FaultKind::Refuse).await.unwrap();
    Caller::of_member(&lab, "rack", 1).fails("/version").await;
    let caller = Caller::of_member(&lab, "rack", 2);
    let online: Vec<(Value, Value)> = caller.data("/cluster/status").await.as_array().unwrap()[1..]
        .iter()
        .map(|node| (node["name"].clone(), node["online"].clone()))
        .collect();
    assert_eq!(online, [(json!("rack-1"), json!(1)), (json!("rack-2"), json!(0)), (json!("rack-3"), json!(1))]);
    assert_eq!(caller.get("/nodes/rack-2/status").await.status().as_u16(), 595);
    assert_eq!(caller.get("/nodes/rack-1/status").await.status().as_u16(), 200);
    lab.shutdown().await;
}

#[tokio::test]
async fn figures_are_a_function_of_seed_and_time_and_change_with_it() {
    let at = |millis| async move {
        let host = HostPlan::pve(SEED, "rack", 12).changing_every(60);
        let clock = LabClock::new(move || Timestamp::from_millis(millis));
        let lab = Lab::start(LabPlan::new(SEED, vec![host]), clock).await.unwrap();
        let data = Caller::of(&lab, "rack").data("/cluster/resources?type=vm").await;
        lab.shutdown().await;
        data
    };
    let statuses = |resources: &Value| -> Vec<Value> {
        resources.as_array().unwrap().iter().map(|guest| guest["status"].clone()).collect()
    };
    let (first, again, soon, later) = (at(0).await, at(0).await, at(30_000).await, at(70_000).await);
    assert_eq!(first, again);
    assert_ne!(first, soon);
    assert_eq!(statuses(&first), statuses(&soon), "gauges move before states do");
    assert_ne!(statuses(&first), statuses(&later));
}

#[tokio::test]
async fn http_and_tcp_endpoints_are_up_until_told_otherwise() {
    let hosts =
        vec![HostPlan::http("site", true, "all well"), HostPlan::http("plain", false, "ok"), HostPlan::tcp("db")];
    let lab = Lab::start(LabPlan::new(SEED, hosts), LabClock::real()).await.unwrap();
    let client = client(&lab);
    let urls: Vec<String> = lab.hosts().iter().map(|host| host.urls[0].clone()).collect();
    assert_eq!(client.get(&urls[0]).send().await.unwrap().text().await.unwrap(), "all well");
    assert_eq!(client.get(&urls[1]).send().await.unwrap().text().await.unwrap(), "ok");
    let address = urls[2].trim_start_matches("tcp://");
    let mut open = tokio::net::TcpStream::connect(address).await.unwrap();
    eventually(|| lab.stats("db").unwrap().open_connections == 1).await;
    lab.set_fault("db", FaultKind::Refuse).await.unwrap();
    let reset = tokio::io::AsyncReadExt::read(&mut open, &mut [0; 8]).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    lab.set_fault("site", FaultKind::status(503)).await.unwrap();
    assert_eq!(client.get(&urls[0]).send().await.unwrap().status(), 503);
    lab.shutdown().await;
}

#[tokio::test]
async fn another_process_sets_faults_and_reads_counts_over_the_control_port() {
    let lab = rack().await;
    let control = lab.serve_control("127.0.0.1:0".parse().unwrap(), Some("key".into())).await.unwrap();
    let client = client(&lab);
    let call = |method, path: &str| client.request(method, format!("http://{control}{path}")).bearer_auth("key");
    let keyless = client.get(format!("http://{control}/hosts")).send().await.unwrap();
    assert_eq!(keyless.status(), StatusCode::UNAUTHORIZED);

    let fault = json!({"kind": {"status": {"code": 429, "retryAfterSecs": 3}}, "first": 1});
    let answer = call(Method::PUT, "/hosts/rack/fault").json(&fault).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let hosts: Value = call(Method::GET, "/hosts").send().await.unwrap().json().await.unwrap();
    assert_eq!(hosts["hosts"][0]["behaviours"][0]["faulty"], fault);
    assert_eq!(Caller::of(&lab, "rack").get("/version").await.status(), 429);
    let stats: Value = call(Method::GET, "/hosts/rack/stats").send().await.unwrap().json().await.unwrap();
    assert_eq!(stats["requestsByPath"], json!({"/api2/json/version": 1}));

    for (path, body, status) in [
        ("/hosts/nobody/fault", json!({"kind": "hang"}), 404),
        ("/hosts/rack/fault?member=4", json!({"kind": "hang"}), 404),
        ("/hosts/rack/fault", json!({"kind": {"status": {"code": 200}}}), 422),
        ("/hosts/rack/fault", json!({"kind": "hang", "frist": 3}), 422),
    ] {
        assert_eq!(call(Method::PUT, path).json(&body).send().await.unwrap().status(), status, "{path} {body}");
    }
    assert_eq!(call(Method::DELETE, "/hosts/rack/fault").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert!(lab.serve_control("0.0.0.0:0".parse().unwrap(), None).await.is_err());
    lab.shutdown().await;
}

#[tokio::test]
async fn the_instances_file_names_every_host_with_what_it_takes_to_poll_it() {
    let lab = Lab::start(LabPlan::demo(SEED), LabClock::real()).await.unwrap();
    let file = lab.instances_json(Some("/tmp/ca.pem".as_ref()));
    let instances = file["instances"].as_array().unwrap();
    assert_eq!(instances.len(), lab.hosts().len());
    let named = |name: &str| instances.iter().find(|instance| instance["name"] == name).unwrap();
    assert_eq!(named("atlas")["members"].as_array().unwrap().len(), 2);
    assert_eq!(named("atlas")["auth"]["tokenId"], "pulse@pve!monitor");
    assert_eq!(named("atlas")["tls"], json!({"caFile": "/tmp/ca.pem"}));
    assert_eq!(named("mail-out")["auth"]["user"], "pulse@pmg");
    assert_eq!(named("portal")["bodyContains"], "portal: all systems go");
    assert_eq!(named("intranet").get("tls"), None);
    assert!(named("database")["port"].as_u64().unwrap() > 0);
    let pinned = lab.instances_json(None);
    assert_eq!(pinned["instances"][0]["tls"]["fingerprint"].as_str().unwrap().len(), 95);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_leaves_no_task_even_with_clients_that_hang() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let lab = rack().await;
    lab.serve_control("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    lab.set_fault("rack", FaultKind::Hang).await.unwrap();
    let address = lab.hosts()[0].urls[0].trim_start_matches("https://").to_owned();
    let mut silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    assert!(Caller::of(&lab, "rack").fails("/version").await.is_timeout());
    lab.shutdown().await;
    let end = tokio::io::AsyncReadExt::read(&mut silent, &mut [0; 8]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "the lab closed the connection");
    drop(silent);
    // The client's own connection task ends once it sees the reset.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
}
