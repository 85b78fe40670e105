//! The first start: one token makes one admin.

use axum::http::StatusCode;
use pulse::engine::Millis;
use pulse::security::{Caller, NewUser, Role};
use pulse::targets::Secret;
use serde_json::{Value, json};

use super::rig::{PASSWORD, Rig};

fn request(token: &str) -> Value {
    json!({"token": token, "name": "alice", "password": PASSWORD})
}

#[tokio::test(start_paused = true)]
async fn the_setup_token_makes_the_first_admin_once() {
    let rig = Rig::new().await;
    let token = rig.books.accounts.make_setup_token().await.unwrap();
    let mut browser = rig.browser();
    let made = browser.post("/api/setup", request(token.expose())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!((made.body["name"].as_str(), made.body["role"].as_str()), (Some("alice"), Some("admin")));
    let again = browser.post("/api/setup", request(token.expose())).await;
    assert_eq!((again.status, again.code()), (StatusCode::FORBIDDEN, "setup_token_wrong"));
    assert_eq!(browser.sign_in("alice", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(browser.get("/api/security/users").await.status, StatusCode::OK);
    assert!(rig.books.accounts.make_setup_token().await.is_err(), "there is a user now");
    let outcomes: Vec<_> = rig.audited("setup.complete").await.into_iter().map(|(_, _, outcome)| outcome).collect();
    assert_eq!(outcomes, ["done", "refused"]);
    let text = rig.audit_text().await;
    assert!(!text.contains(token.expose()) && !text.contains(PASSWORD));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_an_old_and_a_replaced_setup_token_are_refused() {
    let rig = Rig::new().await;
    let mut browser = rig.browser();
    let none = browser.post("/api/setup", request("setup_guess")).await;
    assert_eq!((none.status, none.code()), (StatusCode::FORBIDDEN, "setup_token_wrong"));
    let first = rig.books.accounts.make_setup_token().await.unwrap();
    let second = rig.books.accounts.make_setup_token().await.unwrap();
    assert_eq!(browser.post("/api/setup", request(first.expose())).await.status, StatusCode::FORBIDDEN);
    rig.pass(Millis::from_mins(60)).await;
    assert_eq!(browser.post("/api/setup", request(second.expose())).await.status, StatusCode::FORBIDDEN);
    assert!(rig.books.accounts.is_empty().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_unfit_name_or_password_does_not_use_the_token_up() {
    let rig = Rig::new().await;
    let token = rig.books.accounts.make_setup_token().await.unwrap();
    let mut browser = rig.browser();
    for (name, password) in [("alice", "too short"), ("no spaces", PASSWORD), ("", PASSWORD)] {
        let body = json!({"token": token.expose(), "name": name, "password": password});
        let refused = browser.post("/api/setup", body).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNPROCESSABLE_ENTITY, "refused"), "{name:?}");
    }
    assert_eq!(browser.post("/api/setup", request(token.expose())).await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_was_added_otherwise_ends_the_setup_token() {
    let rig = Rig::new().await;
    let token = rig.books.accounts.make_setup_token().await.unwrap();
    let bob = NewUser { name: "bob".to_owned(), role: Role::Viewer, password: Secret::new(PASSWORD.to_owned()) };
    rig.books.accounts.add(bob, Caller::SYSTEM, None).await.unwrap();
    let refused = rig.browser().post("/api/setup", request(token.expose())).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn guessing_setup_tokens_is_held_up() {
    let rig = Rig::new().await;
    let token = rig.books.accounts.make_setup_token().await.unwrap();
    let mut browser = rig.browser();
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(browser.post("/api/setup", request("setup_guess")).await.status);
    }
    assert_eq!(answers.iter().filter(|status| **status == StatusCode::FORBIDDEN).count(), 11);
    let held_up = browser.post("/api/setup", request(token.expose())).await;
    assert_eq!((held_up.status, held_up.code()), (StatusCode::TOO_MANY_REQUESTS, "locked"));
    rig.pass(Millis::from_secs(2)).await;
    assert_eq!(browser.post("/api/setup", request(token.expose())).await.status, StatusCode::CREATED);
}
