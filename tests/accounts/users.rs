//! Users as admins manage them.

use axum::http::{Method, StatusCode};
use pulse::security::Role;
use serde_json::{Value, json};

use super::rig::{PASSWORD, Rig};

const USERS: &str = "/api/security/users";

#[tokio::test(start_paused = true)]
async fn an_admin_adds_changes_lists_and_removes_users() {
    let rig = Rig::with_users(&[("root", Role::Admin)]).await;
    let mut root = rig.signed_in("root").await;
    let body = json!({"name": "Alice", "role": "viewer", "password": PASSWORD, "reason": "new here"});
    let added = root.post(USERS, body.clone()).await;
    assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
    assert_eq!(added.body["name"], "alice", "capitals are made small");
    let again = root.post(USERS, body).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "name_taken"));
    let listed = root.get(USERS).await.body;
    let names: Vec<&Value> = listed["users"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["alice", "root"]);
    assert!(!listed.to_string().contains("argon2"), "hashes are not shown");

    let mut alice = rig.signed_in("alice").await;
    assert_eq!(alice.get(USERS).await.status, StatusCode::FORBIDDEN);
    let role = root.call(Method::PUT, "/api/security/users/alice/role", Some(json!({"role": "operator"}))).await;
    assert_eq!((role.status, role.body["role"].as_str()), (StatusCode::OK, Some("operator")));
    assert!(!alice.is_signed_in().await, "a session has the role that it began with, so it ends");
    let mut alice = rig.signed_in("alice").await;
    let password = json!({"password": "five words in a row"});
    let set = root.call(Method::PUT, "/api/security/users/alice/password", Some(password)).await;
    assert_eq!(set.status, StatusCode::OK);
    assert!(!alice.is_signed_in().await);
    assert_eq!(alice.sign_in("alice", "five words in a row").await.status, StatusCode::OK);
    let removed = root.call(Method::DELETE, "/api/security/users/alice", Some(json!({"reason": "left"}))).await;
    assert_eq!(removed.status, StatusCode::OK);
    assert!(!alice.is_signed_in().await);
    assert_eq!(root.call(Method::DELETE, "/api/security/users/alice", None).await.status, StatusCode::NOT_FOUND);
    let text = rig.audit_text().await;
    assert!(!text.contains(PASSWORD) && !text.contains("five words") && !text.contains("argon2"), "{text}");
    for action in ["user.add", "user.role", "user.password", "user.remove"] {
        let done = rig
            .audited(action)
            .await
            .into_iter()
            .filter(|(actor, _, outcome)| actor == "user:root" && outcome == "done");
        assert_eq!(done.count(), 1, "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_admin_can_be_neither_demoted_nor_removed() {
    let rig = Rig::with_users(&[("root", Role::Admin), ("alice", Role::Operator)]).await;
    let mut root = rig.signed_in("root").await;
    let demote = Some(json!({"role": "viewer"}));
    for (method, path, body) in [
        (Method::PUT, "/api/security/users/root/role", demote.clone()),
        (Method::DELETE, "/api/security/users/root", None),
    ] {
        let refused = root.call(method, path, body).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "last_admin"));
    }
    assert!(root.is_signed_in().await);
    let promote = Some(json!({"role": "admin"}));
    assert_eq!(root.call(Method::PUT, "/api/security/users/alice/role", promote).await.status, StatusCode::OK);
    assert_eq!(root.call(Method::PUT, "/api/security/users/root/role", demote).await.status, StatusCode::OK);
    assert!(!root.is_signed_in().await);
}

#[tokio::test(start_paused = true)]
async fn unfit_names_and_passwords_are_refused_with_the_reason() {
    let rig = Rig::with_users(&[("root", Role::Admin)]).await;
    let mut root = rig.signed_in("root").await;
    let long = "x".repeat(65);
    for name in ["", " ", "a b", "ümlaut", "-dash", "a/b", "a\u{0}", long.as_str()] {
        let refused = root.post(USERS, json!({"name": name, "role": "viewer", "password": PASSWORD})).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{name:?}");
    }
    let long = "long password ".repeat(20);
    for password in ["", "short", "aaaaaaaaaaaaaaaaaaaa", "alice-alice-alice", long.as_str()] {
        let refused = root.post(USERS, json!({"name": "alice", "role": "viewer", "password": password})).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNPROCESSABLE_ENTITY, "refused"), "{password:?}");
        assert!(password.is_empty() || !refused.body.to_string().contains(password), "it is not told back");
    }
    assert_eq!(root.post(USERS, json!({"name": "alice", "role": "root", "password": PASSWORD})).await.status, 400);
}
