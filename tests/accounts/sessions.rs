//! Sessions: what they open, with which CSRF token, and when they end.

use axum::http::{Method, StatusCode};
use proptest::prelude::*;
use pulse::engine::Millis;
use pulse::security::{Caller, NewToken, Role};
use serde_json::json;

use super::rig::{PASSWORD, Rig};

const SETTINGS: &str = "/api/system/settings/update";

#[tokio::test(start_paused = true)]
async fn a_write_needs_the_csrf_token_of_its_own_session() {
    let rig = Rig::with_users(&[("alice", Role::Admin), ("bob", Role::Admin)]).await;
    let mut alice = rig.signed_in("alice").await;
    let bob = rig.signed_in("bob").await;
    let earlier = rig.signed_in("alice").await;
    let right = alice.csrf.clone();
    let mut shorter = right.clone().unwrap();
    shorter.pop();
    let cookie = alice.cookie.clone().unwrap();
    let wrong = [
        ("none", None),
        ("an empty one", Some(String::new())),
        ("another user's", bob.csrf.clone()),
        ("another session's of the same user", earlier.csrf.clone()),
        ("most of it", Some(shorter)),
        ("the cookie itself", cookie.split_once('=').map(|(_, value)| value.to_owned())),
    ];
    for (with, csrf) in wrong {
        alice.csrf = csrf;
        for (method, path) in
            [(Method::POST, SETTINGS), (Method::DELETE, "/api/security/users/bob"), (Method::POST, "/api/logout")]
        {
            let answer = alice.call(method, path, Some(json!({}))).await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::FORBIDDEN, "csrf_token_wrong"),
                "{path} with {with}"
            );
        }
        assert!(alice.is_signed_in().await, "reads need none");
        // Refused calls count against a limit a minute.
        rig.pass(Millis::from_mins(1)).await;
    }
    alice.csrf = right;
    assert_eq!(alice.post(SETTINGS, json!({})).await.status, StatusCode::OK);
    let audited = rig.audited("user.remove").await;
    assert_eq!(audited.len(), 6);
    assert_eq!(audited[0], ("user:alice".to_owned(), Some("bob".to_owned()), "refused".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_page_is_told_again_to_a_page_that_is_loaded_anew() {
    let rig = Rig::with_users(&[("alice", Role::Operator)]).await;
    let mut alice = rig.signed_in("alice").await;
    let me = alice.get("/api/security/me").await;
    assert_eq!(me.body["name"], "alice");
    assert_eq!(me.body["kind"], "user");
    assert_eq!(me.body["role"], "operator");
    assert_eq!(me.body["session"]["csrfToken"].as_str(), alice.csrf.as_deref());
}

#[tokio::test(start_paused = true)]
async fn an_unused_session_ends_after_an_hour_and_a_used_one_after_a_day() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut unused = rig.signed_in("alice").await;
    rig.pass(Millis::from_mins(59)).await;
    assert!(unused.is_signed_in().await);
    rig.pass(Millis::from_mins(60)).await;
    assert!(!unused.is_signed_in().await);
    let mut used = rig.signed_in("alice").await;
    for minute in (30..24 * 60).step_by(30) {
        rig.pass(Millis::from_mins(30)).await;
        assert!(used.is_signed_in().await, "after {minute} minutes");
    }
    rig.pass(Millis::from_mins(30)).await;
    assert!(!used.is_signed_in().await);
    rig.books.accounts.tidy_sessions().await.unwrap();
    assert!(rig.books.accounts.list_sessions(None).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_tidied_up_keeps_the_sessions_that_are_in_use() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut alice = rig.signed_in("alice").await;
    for _ in 0..4 {
        rig.pass(Millis::from_mins(50)).await;
        assert!(alice.is_signed_in().await);
        rig.books.accounts.tidy_sessions().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_signs_out_is_out() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut alice = rig.signed_in("alice").await;
    let copy = alice.cookie.clone();
    assert_eq!(alice.post("/api/logout", json!(null)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(alice.cookie, None, "the browser forgets it");
    alice.cookie = copy;
    assert!(!alice.is_signed_in().await, "and so does the daemon");
    assert_eq!(rig.audited("session.sign_out").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn users_see_and_end_their_own_sessions_and_admins_everybodys() {
    let rig = Rig::with_users(&[("alice", Role::Viewer), ("bob", Role::Operator), ("root", Role::Admin)]).await;
    let (mut alice, mut other) = (rig.signed_in("alice").await, rig.signed_in("alice").await);
    let (mut bob, mut root) = (rig.signed_in("bob").await, rig.signed_in("root").await);
    let own = alice.get("/api/security/me/sessions").await;
    let own = own.body["sessions"].as_array().unwrap();
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|session| session["user"] == "alice" && session["address"] == "192.0.2.1"));
    let id_of = async |browser: &mut super::rig::Browser<'_>| {
        browser.get("/api/security/me").await.body["session"]["id"].as_i64().unwrap()
    };
    let (other_id, bob_id) = (id_of(&mut other).await, id_of(&mut bob).await);
    let end = |scope: &str, id: i64| format!("/api/security{scope}/sessions/{id}");
    let foreign = alice.call(Method::DELETE, &end("/me", bob_id), None).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "not_found"));
    assert_eq!(alice.call(Method::DELETE, &end("", bob_id), None).await.status, StatusCode::FORBIDDEN);
    assert_eq!(alice.get("/api/security/sessions").await.status, StatusCode::FORBIDDEN);
    assert_eq!(alice.call(Method::DELETE, &end("/me", other_id), None).await.status, StatusCode::OK);
    assert!(!other.is_signed_in().await && alice.is_signed_in().await && bob.is_signed_in().await);
    assert_eq!(root.get("/api/security/sessions").await.body["sessions"].as_array().unwrap().len(), 3);
    assert_eq!(
        root.call(Method::DELETE, &end("", bob_id), Some(json!({"reason": "left"}))).await.status,
        StatusCode::OK
    );
    assert!(!bob.is_signed_in().await);
    assert_eq!(root.call(Method::DELETE, &end("", bob_id), None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_user_has_a_bounded_number_of_sessions_and_the_one_used_longest_ago_ends() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let mut browsers = Vec::new();
    for _ in 0..11 {
        browsers.push(rig.signed_in("alice").await);
        rig.pass(Millis::from_secs(1)).await;
    }
    assert_eq!(rig.books.accounts.list_sessions(None).len(), 10);
    assert!(!browsers[0].is_signed_in().await);
    assert!(browsers[10].is_signed_in().await);
}

#[tokio::test(start_paused = true)]
async fn a_token_has_no_session_and_needs_no_csrf_token() {
    let rig = Rig::new().await;
    let new = NewToken { name: "script".to_owned(), role: Role::Admin, expires_at: None };
    let token = rig.books.tokens.create(new, Caller::SYSTEM, None).await.unwrap().token;
    let send = async |method: Method, path: &str| {
        use axum::http::{Request, header};
        let request = Request::builder().method(method).uri(path).extension(pulse::api::Peer::Tcp(super::rig::HOME));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        rig.send(request.body("{}".into()).unwrap()).await.status()
    };
    assert_eq!(send(Method::POST, SETTINGS).await, StatusCode::OK);
    for (method, path) in [(Method::POST, "/api/logout"), (Method::GET, "/api/security/me/sessions")] {
        assert_eq!(send(method, path).await, StatusCode::CONFLICT, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_refused_even_beside_a_good_session() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let alice = rig.signed_in("alice").await;
    let request = axum::http::Request::builder().uri("/api/version").extension(pulse::api::Peer::Tcp(super::rig::HOME));
    let request = request.header("Cookie", alice.cookie.unwrap()).header("X-API-Token", "pulse_wrong");
    assert_eq!(rig.send(request.body(axum::body::Body::empty()).unwrap()).await.status(), StatusCode::UNAUTHORIZED);
}

#[test]
fn no_cookie_whatever_its_bytes_opens_anything_or_breaks_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let rig = runtime.block_on(Rig::with_users(&[("alice", Role::Admin)]));
    let lines = prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "(pulse_session|__Host-pulse_session|x)?=?[A-Za-z0-9_=; -]{0,60}".prop_map(String::into_bytes),
        ],
        0..4,
    );
    proptest!(|(lines in lines, csrf in "[ -~]{0,60}")| {
        let mut request = axum::http::Request::builder().method(Method::POST).uri(SETTINGS);
        for line in lines {
            if let Ok(line) = axum::http::HeaderValue::from_bytes(&line) {
                request = request.header("Cookie", line);
            }
        }
        let request = request.header("X-CSRF-Token", csrf).extension(pulse::api::Peer::Tcp(super::rig::HOME));
        let answer = runtime.block_on(rig.send(request.body("{}".into()).unwrap()));
        prop_assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        runtime.block_on(rig.pass(Millis::from_mins(1)));
    });
}

#[tokio::test(start_paused = true)]
async fn changing_the_own_password_needs_the_old_one_and_ends_every_other_session() {
    let rig = Rig::with_users(&[("alice", Role::Viewer)]).await;
    let (mut alice, mut other) = (rig.signed_in("alice").await, rig.signed_in("alice").await);
    let before = alice.cookie.clone();
    let change = |current: &str, new: &str| json!({"currentPassword": current, "newPassword": new});
    let path = "/api/security/me/password";
    let wrong = alice.post(path, change("four words in a rov", "five words in a row")).await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::UNAUTHORIZED, "wrong_password"));
    let short = alice.post(path, change(PASSWORD, "too short")).await;
    assert_eq!((short.status, short.code()), (StatusCode::UNPROCESSABLE_ENTITY, "refused"));
    assert!(other.is_signed_in().await);
    let changed = alice.post(path, change(PASSWORD, "five words in a row")).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_ne!(alice.cookie, before);
    assert!(alice.is_signed_in().await && !other.is_signed_in().await);
    assert_eq!(rig.browser().sign_in("alice", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.browser().sign_in("alice", "five words in a row").await.status, StatusCode::OK);
    let outcomes: Vec<_> = rig.audited("user.password").await.into_iter().map(|(_, _, outcome)| outcome).collect();
    assert_eq!(outcomes, ["refused", "done"]);
}
