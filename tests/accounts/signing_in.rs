//! Signing in: what it tells, what it does not tell, and how guessing is held up.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use futures::future::join_all;
use pulse::api::Peer;
use pulse::engine::Millis;
use pulse::security::{RefusalReason, Role};
use serde_json::json;

use super::rig::{Answer, HOME, PASSWORD, Rig};

fn elsewhere(host: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, host).into()
}

fn wait_of(answer: &Answer) -> Option<u64> {
    answer.headers.get(header::RETRY_AFTER).map(|wait| wait.to_str().unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_cookie_is_out_of_reach_of_scripts_other_sites_and_plain_http() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    for (encrypted, expected) in [
        (false, ("pulse_session=", "; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict")),
        (true, ("__Host-pulse_session=", "; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict; Secure")),
    ] {
        let mut browser = rig.browser();
        browser.encrypted = encrypted;
        let answer = browser.sign_in("Alice", PASSWORD).await;
        assert_eq!(answer.status, StatusCode::OK);
        let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
        let (begin, end) = expected;
        assert!(cookie.starts_with(begin) && cookie.ends_with(end), "{cookie}");
        let value = &cookie[begin.len()..cookie.len() - end.len()];
        assert_eq!(value.len(), 43, "256 bits");
        let told = answer.body.to_string();
        assert!(!told.contains(value), "scripts do not see it");
        assert!(browser.is_signed_in().await);
        browser.encrypted = !encrypted;
        assert!(!browser.is_signed_in().await, "a cookie counts on the kind of connection that it was made for");
    }
    let text = rig.audit_text().await;
    assert!(!text.contains(PASSWORD));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_a_wrong_name_are_refused_alike() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut bodies = Vec::new();
    for (name, password) in
        [("alice", "four words in a rov"), ("nobody", PASSWORD), ("not a name", PASSWORD), ("alice", "")]
    {
        let answer = rig.browser().sign_in(name, password).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "wrong_password"), "{name}");
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let audited = rig.audited("session.sign_in").await;
    let refused = |key: Option<&str>| ("anonymous".to_owned(), key.map(str::to_owned), "refused".to_owned());
    let (known, unknown) = (refused(Some("alice")), refused(None));
    assert_eq!(audited, [known.clone(), unknown.clone(), unknown, known], "a name that is none may be a password");
}

#[tokio::test(start_paused = true)]
async fn failures_hold_up_the_account_with_a_growing_delay_that_is_capped_whether_it_exists_or_not() {
    for name in ["alice", "nobody"] {
        let rig = Rig::with_users(&[("alice", Role::Admin)]).await;
        let mut waits = Vec::new();
        for host in 0..16 {
            let mut attacker = rig.browser();
            attacker.address = elsewhere(host);
            let mut answer = attacker.sign_in(name, "four words in a rov").await;
            waits.push(wait_of(&answer).unwrap_or(0));
            while answer.status == StatusCode::TOO_MANY_REQUESTS {
                assert_eq!(answer.code(), "locked");
                rig.pass(Millis::from_secs(wait_of(&answer).unwrap())).await;
                answer = attacker.sign_in(name, "four words in a rov").await;
            }
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_right_password_is_held_up_too_so_that_guessing_tells_nothing() {
    let rig = Rig::with_users(&[("alice", Role::Admin)]).await;
    for host in 0..6 {
        let mut attacker = rig.browser();
        attacker.address = elsewhere(host);
        attacker.sign_in("alice", "four words in a rov").await;
    }
    let mut attacker = rig.browser();
    attacker.address = elsewhere(7);
    assert_eq!(attacker.sign_in("alice", PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    rig.pass(Millis::from_secs(2)).await;
    assert_eq!(attacker.sign_in("alice", PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_attacker_can_lock_out_neither_a_session_nor_the_address_that_its_user_signed_in_from() {
    let rig = Rig::with_users(&[("alice", Role::Admin)]).await;
    let mut at_home = rig.signed_in("alice").await;
    for host in 0..8 {
        let mut attacker = rig.browser();
        attacker.address = elsewhere(host);
        attacker.sign_in("alice", "four words in a rov").await;
    }
    let mut travelling = rig.browser();
    travelling.address = elsewhere(200);
    assert_eq!(travelling.sign_in("alice", PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(at_home.is_signed_in().await);
    assert_eq!(at_home.post("/api/logout", json!(null)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(at_home.sign_in("alice", PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn one_address_that_tries_many_names_is_held_up_and_others_are_not() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut attacker = rig.browser();
    attacker.address = elsewhere(1);
    let mut refused = 0;
    for number in 0..30 {
        let answer = attacker.sign_in(&format!("user-{number}"), PASSWORD).await;
        refused += u32::from(answer.status == StatusCode::UNAUTHORIZED);
    }
    assert_eq!(refused, 11);
    assert_eq!(attacker.sign_in("alice", PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rig.browser().sign_in("alice", PASSWORD).await.status, StatusCode::OK);
    let audited = rig.audited("session.sign_in").await;
    assert_eq!(audited.len(), 11 + 1 + 1, "waiting is written down once, not each time that somebody knocks");
}

#[tokio::test(start_paused = true)]
async fn many_attempts_at_once_get_no_further_than_one_after_another() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let attempts = (0..30).map(|host| {
        let mut attacker = rig.browser();
        attacker.address = elsewhere(host);
        async move { attacker.sign_in("alice", "four words in a rov").await.status }
    });
    let answers = join_all(attempts).await;
    assert_eq!(answers.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(), 6, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_form_of_another_site_can_sign_nobody_in() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let body = json!({"name": "alice", "password": PASSWORD}).to_string();
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")] {
        let request = Request::builder().method(Method::POST).uri("/api/login").extension(Peer::Tcp(HOME));
        let request = kind.into_iter().fold(request, |request, kind| request.header(header::CONTENT_TYPE, kind));
        let answer = rig.send(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_failures_from_many_addresses_does_not_fill_the_audit_log() {
    let rig = Rig::with_users(&[("alice", Role::Admin)]).await;
    for number in 0..150 {
        let mut attacker = rig.browser();
        attacker.address = Ipv4Addr::new(198, 51, 100, number).into();
        let answer = attacker.sign_in(&format!("user-{number}"), PASSWORD).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "its own delay is all that holds up an address");
    }
    assert_eq!(rig.audited("session.sign_in").await.len(), 100);
    let mut alice = rig.browser();
    assert_eq!(alice.sign_in("alice", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(rig.audited("session.sign_in").await.len(), 101, "what is done is written down in any case");
    rig.books.accounts.refusals().tell_the_rest(true).await.unwrap();
    assert_eq!(rig.audited("auth.refused").await.len(), 1);
    assert_eq!(rig.books.accounts.refusals().counts().of(RefusalReason::WrongPassword), 150);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_leaves_one_trace_whatever_it_asked_for() {
    let rig = Rig::new().await;
    let send = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path).extension(Peer::Tcp(HOME));
        let request = request.header("x-api-token", "pulse_of_somebody_else").body(Body::empty()).unwrap();
        rig.send(request).await.status()
    };
    for path in ["/api/monitoring/scheduler/health", "/api/config/nodes", "/no/such/path"] {
        assert_eq!(send(Method::GET, path).await, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(rig.audited("token.use").await, [("anonymous".to_owned(), None, "refused".to_owned())]);
    assert_eq!(send(Method::POST, "/api/monitoring/dlq/retry").await, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.audited("dlq.retry_many").await.len(), 1, "a call that changes something has its own entry");
    assert_eq!(rig.books.accounts.refusals().counts().of(RefusalReason::WrongToken), 4, "each is counted once");
    assert!(!rig.audit_text().await.contains("pulse_of_somebody_else"));
}
