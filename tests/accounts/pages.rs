//! The pages as a browser asks for them: who is shown what, and what may be kept.

use axum::http::{HeaderMap, StatusCode};
use pulse::security::Role;
use pulse::ui::PAGES;
use serde_json::json;

use super::rig::{Browser, PASSWORD, Rig};

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The addresses of scripts, styles and icons in a page.
fn assets(page: &str) -> Vec<&str> {
    let quoted = page.split('"').skip(1).step_by(2);
    quoted.filter(|text| text.starts_with("/assets/")).collect()
}

async fn page(browser: &mut Browser<'_>, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}");
    assert_eq!(header(&answer.headers, "content-type"), "text/html; charset=utf-8", "{path}");
    assert_eq!(header(&answer.headers, "cache-control"), "no-store", "{path}: pages tell of the fleet");
    answer.text
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_sent_to_sign_in_and_back_to_where_they_wanted() {
    let rig = Rig::with_users(&[("ada", Role::Viewer)]).await;
    let mut stranger = rig.browser();
    for path in PAGES {
        let path = path.replace("{key}", "pve%3A%3Anobody");
        let answer = stranger.get(&path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        let next: String = path.chars().flat_map(|letter| escaped(letter).chars().collect::<Vec<_>>()).collect();
        assert_eq!(header(&answer.headers, "location"), format!("/login?next={next}"));
        assert_eq!(answer.text, "", "{path} tells a stranger nothing");
    }
    assert!(page(&mut stranger, "/login").await.contains("Sign in to Pulse"));
}

fn escaped(letter: char) -> String {
    if letter.is_ascii_alphanumeric() { letter.to_string() } else { format!("%{:02X}", u32::from(letter)) }
}

#[tokio::test(start_paused = true)]
async fn before_there_is_a_user_every_way_leads_to_the_setup_and_after_that_none() {
    let rig = Rig::new().await;
    let mut stranger = rig.browser();
    assert_eq!(header(&stranger.get("/login").await.headers, "location"), "/setup");
    assert!(page(&mut stranger, "/setup").await.contains("Setup token"));
    let token = rig.books.accounts.make_setup_token().await.unwrap();
    let first = json!({"token": token.expose(), "name": "ada", "password": PASSWORD});
    assert_eq!(stranger.post("/api/setup", first).await.status, StatusCode::CREATED);
    assert_eq!(header(&stranger.get("/setup").await.headers, "location"), "/login");
    assert_eq!(stranger.sign_in("ada", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(header(&stranger.get("/login").await.headers, "location"), "/", "whoever is in need not sign in");
}

#[tokio::test(start_paused = true)]
async fn every_page_is_shown_to_every_role_with_the_csrf_token_of_its_session_alone() {
    let users = [("vera", Role::Viewer), ("otto", Role::Operator), ("ada", Role::Admin)];
    let rig = Rig::with_users(&users).await;
    for (name, role) in users {
        let mut browser = rig.signed_in(name).await;
        let csrf = browser.csrf.clone().unwrap();
        for path in PAGES.into_iter().filter(|path| !path.contains('{')) {
            let text = page(&mut browser, path).await;
            assert!(text.contains(&format!("data-role=\"{role}\"")), "{path} for {name}");
            assert!(text.contains(&format!("data-csrf=\"{csrf}\"")), "{path} for {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_in_a_page_is_inline() {
    let rig = Rig::with_users(&[("ada", Role::Admin)]).await;
    let mut browser = rig.signed_in("ada").await;
    for path in PAGES.into_iter().filter(|path| !path.contains('{')) {
        let text = page(&mut browser, path).await;
        assert!(!text.contains("style=") && !text.contains("<style"), "{path}");
        let is_handler =
            |rest: &str| rest.trim_start_matches(|letter: char| letter.is_ascii_lowercase()).starts_with('=');
        assert!(!text.split(" on").skip(1).any(is_handler), "{path}");
        for script in text.split("<script").skip(1) {
            assert!(script.split('>').next().unwrap().contains("src="), "{path}: {script}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_pages_are_drawn_with_is_kept_for_ever_under_an_address_that_changes_with_it() {
    let rig = Rig::with_users(&[("ada", Role::Viewer)]).await;
    let mut stranger = rig.browser();
    let login = page(&mut stranger, "/login").await;
    let found = assets(&login);
    assert!(found.len() >= 5, "{found:?}");
    for path in found {
        let answer = stranger.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(header(&answer.headers, "cache-control"), "public, max-age=31536000, immutable", "{path}");
        assert!(!answer.text.is_empty());
        let (_, file) = path.trim_start_matches("/assets/").split_once('/').unwrap();
        for wrong in [format!("/assets/another/{file}"), format!("{path}.map"), format!("{path}/../../../etc/passwd")] {
            let answer = stranger.get(&wrong).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{wrong}");
            assert_eq!(header(&answer.headers, "cache-control"), "no-store", "{wrong}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_there_has_a_page_that_says_so() {
    let rig = Rig::with_users(&[("ada", Role::Viewer)]).await;
    let mut browser = rig.signed_in("ada").await;
    for key in ["pve%3A%3Anobody", "%3Cscript%3E", "%FF"] {
        let answer = browser.get(&format!("/instances/{key}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{key}");
        assert!(answer.text.contains("There is no such instance"), "{key}");
    }
}
