//! What every answer carries, whatever it answers.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use pulse::api::{Encrypted, Peer, ROUTES};
use pulse::security::{Role, TrustedProxies};
use serde_json::json;

use super::rig::{HOME, PASSWORD, Rig};

fn assert_secure(headers: &HeaderMap, what: &str) {
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{what}: {policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(headers[name], value, "{what}: {name}");
    }
    let allows = headers.keys().find(|name| name.as_str().starts_with("access-control-"));
    assert_eq!(allows, None, "{what}: no other origin is allowed anything");
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_every_route_carries_the_security_headers_and_allows_no_other_origin() {
    let rig = Rig::new().await;
    let strange = [
        (Method::GET, "/"),
        (Method::GET, "/api/no-such-call"),
        (Method::DELETE, "/api/version"),
        (Method::TRACE, "/api/version"),
        (Method::GET, "/api/security/sessions/x"),
    ];
    let routes = ROUTES.iter().map(|route| (route.method.clone(), route.path));
    let preflights = ROUTES.iter().map(|route| (Method::OPTIONS, route.path));
    for (method, path) in routes.chain(preflights).chain(strange) {
        for local in [false, true] {
            let what = format!("{method} {path}, {}", if local { "as admin" } else { "as nobody" });
            let peer = if local { Peer::Local { account: "root".into() } } else { Peer::Tcp(HOME) };
            let request = Request::builder().method(method.clone()).uri(path.replace(['{', '}'], "")).extension(peer);
            let request = request.header("Origin", "https://elsewhere.example");
            let request = request.header("Access-Control-Request-Method", "POST").body(Body::empty()).unwrap();
            let answer = rig.send(request).await;
            assert!(!answer.status().is_server_error(), "{what}: {}", answer.status());
            assert_secure(answer.headers(), &what);
            assert!(!answer.headers().contains_key("strict-transport-security"), "{what}: not without TLS");
            if method == Method::OPTIONS {
                assert!(!answer.status().is_success(), "{what}: {}", answer.status());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn over_tls_browsers_are_told_to_stay_with_it() {
    let rig = Rig::new().await;
    let request = Request::builder().uri("/api/version").extension(Peer::Tcp(HOME)).extension(Encrypted);
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
}

#[tokio::test(start_paused = true)]
async fn errors_that_no_handler_makes_carry_them_too() {
    let rig = Rig::new().await;
    let too_large = Request::builder().method(Method::POST).uri("/api/login").extension(Peer::Tcp(HOME));
    let too_large = too_large.header("Content-Type", "application/json").body(Body::from(vec![b' '; 300_000])).unwrap();
    let without_peer = Request::builder().uri("/api/version").body(Body::empty()).unwrap();
    for (request, status) in
        [(too_large, StatusCode::PAYLOAD_TOO_LARGE), (without_peer, StatusCode::INTERNAL_SERVER_ERROR)]
    {
        let answer = rig.send(request).await;
        assert_eq!(answer.status(), status);
        assert_secure(answer.headers(), status.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_trusted_proxy_took_over_tls_counts_as_encrypted_and_a_stranger_s_word_for_it_does_not() {
    let proxies = TrustedProxies { networks: vec!["192.0.2.0/24".parse().unwrap()], ..TrustedProxies::default() };
    let rig = Rig::behind(proxies).await;
    rig.add(&[("alice", Role::Viewer)]).await;
    let sign_in = async |peer: [u8; 4], scheme: &str| {
        let body = Body::from(json!({"name": "alice", "password": PASSWORD}).to_string());
        let request = Request::post("/api/login").extension(Peer::Tcp(peer.into())).header("x-forwarded-proto", scheme);
        let request = request.header("x-forwarded-for", "203.0.113.9").header("content-type", "application/json");
        let answer = rig.send(request.body(body).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        (cookie, answer.headers().contains_key("strict-transport-security"))
    };
    let (cookie, strict) = sign_in([192, 0, 2, 7], "https").await;
    assert!(cookie.starts_with("__Host-pulse_session=") && cookie.ends_with("; Secure") && strict, "{cookie}");
    for (peer, scheme) in [([192, 0, 2, 7], "http"), ([198, 51, 100, 1], "https")] {
        let (cookie, strict) = sign_in(peer, scheme).await;
        assert!(cookie.starts_with("pulse_session=") && !cookie.contains("Secure") && !strict, "{peer:?}: {cookie}");
    }
}
