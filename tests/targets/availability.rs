//! HTTP and TCP endpoints: down is a result, with a reason and a latency.

use pulse::engine::{FailureKind, Millis, Outcome};
use pulse::lab::{FaultKind, HostPlan};
use pulse::targets::{
    Access, Client, ClientError, Connector, DownCategory, HttpCheck, HttpReading, Reading, Target, TcpCheck, Trust,
};

use crate::raw_server::{RawServer, Then, answer};
use crate::{Poller, SHORT, lab_with, reading_of};

fn check(url: &str) -> HttpCheck {
    HttpCheck {
        url: url.parse().unwrap(),
        method: "GET".into(),
        expected_status: 200..=299,
        body_contains: None,
        trust: Trust::Fingerprint([0; 32]),
    }
}

fn http_target(check: HttpCheck) -> Target {
    Target { key: "http::site".parse().unwrap(), display_name: "Site".into(), access: Access::Http(check) }
}

fn tcp_target(host: &str, port: u16) -> Target {
    let access = Access::Tcp(TcpCheck { host: host.into(), port });
    Target { key: "tcp::port".parse().unwrap(), display_name: "Port".into(), access }
}

async fn read(poller: &Poller) -> HttpReading {
    let report = poller.poll().await;
    assert!(matches!(report.outcome, Outcome::Success { .. }), "{:?}", report.outcome);
    match reading_of(report) {
        Reading::Http(reading) => reading,
        other => panic!("{other:?}"),
    }
}

async fn read_once(check: HttpCheck) -> HttpReading {
    read(&Poller::new(http_target(check))).await
}

fn category(reading: &HttpReading) -> DownCategory {
    assert!(!reading.up);
    reading.reason.as_ref().unwrap().category
}

#[tokio::test]
async fn an_endpoint_that_answers_as_expected_is_up() {
    for tls in [true, false] {
        let (_lab, poller) = lab_with(HostPlan::http("portal", tls, "all systems go").answering_in(20)).await;
        let reading = read(&poller).await;
        assert_eq!((reading.up, reading.status, reading.reason), (true, Some(200), None));
        assert!(reading.latency >= Millis::new(10), "{}", reading.latency);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_a_result_with_a_reason() {
    for (fault, kind) in [
        (FaultKind::Refuse, FailureKind::Refused),
        (FaultKind::CutHandshake, FailureKind::TlsHandshake),
        (FaultKind::WrongCertificate, FailureKind::FingerprintMismatch),
        (FaultKind::CutBody, FailureKind::Reset),
    ] {
        let (_lab, poller) = lab_with(HostPlan::http("portal", true, "x").behaving(fault)).await;
        let reading = read(&poller).await;
        assert_eq!(category(&reading), DownCategory::Failed(kind), "{fault:?}");
        assert!(reading.reason.unwrap().message.starts_with("GET https://127."));
    }
    let reading = read_once(check("http://no-such-host.invalid/")).await;
    assert_eq!(category(&reading), DownCategory::Failed(FailureKind::Dns));
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_down_by_timeout_before_the_poll_is_cancelled() {
    let (_lab, poller) = lab_with(HostPlan::http("portal", true, "x").behaving(FaultKind::Hang)).await;
    let poll = poller.poll_within(SHORT);
    let report = tokio::time::timeout(SHORT.into(), poll).await.expect("it answers before its time is up");
    let Reading::Http(reading) = reading_of(report) else { panic!("an http check reads an endpoint") };
    assert_eq!(category(&reading), DownCategory::Failed(FailureKind::Timeout));
}

#[tokio::test]
async fn an_unexpected_status_is_down_and_an_expected_one_up_whatever_it_is() {
    let server = RawServer::plain(|_, _| (answer("503 Busy", "", ""), Then::KeepOpen)).await;
    let reading = read_once(check(&server.url)).await;
    assert_eq!((category(&reading), reading.status), (DownCategory::UnexpectedStatus, Some(503)));
    assert!(reading.reason.unwrap().message.ends_with("answered 503, expected 200 to 299"));
    assert!(read_once(HttpCheck { expected_status: 503..=503, ..check(&server.url) }).await.up);
}

#[tokio::test]
async fn the_expected_text_must_be_in_the_first_mebibyte() {
    let server = RawServer::plain(|line, _| {
        let padding = if line.contains("late") { 1024 * 1024 } else { 1000 };
        (answer("200 OK", "", &format!("{}needle", " ".repeat(padding))), Then::KeepOpen)
    })
    .await;
    let wanting =
        |path: &str| HttpCheck { body_contains: Some("needle".into()), ..check(&format!("{}{path}", server.url)) };
    assert!(read_once(wanting("/soon")).await.up);
    assert_eq!(category(&read_once(wanting("/late")).await), DownCategory::BodyMismatch);
}

#[tokio::test]
async fn redirects_are_followed_five_times_unless_they_are_what_is_expected() {
    let server = RawServer::plain(|line, _| {
        let hops: u32 = line.split(['/', ' ']).nth(2).unwrap().parse().unwrap_or(0);
        let next = format!("Location: /{}\r\n", hops.saturating_sub(1));
        (if hops > 0 { answer("302 Found", &next, "") } else { answer("200 OK", "", "") }, Then::KeepOpen)
    })
    .await;
    let at = |path: &str| check(&format!("{}{path}", server.url));
    assert!(read_once(at("/5")).await.up);
    assert_eq!(category(&read_once(at("/6")).await), DownCategory::TooManyRedirects);
    let heard = server.requests().len();
    assert!(read_once(HttpCheck { expected_status: 300..=399, ..at("/3") }).await.up);
    assert_eq!(server.requests().len(), heard + 1);
}

#[tokio::test]
async fn credentials_in_the_address_go_to_its_own_host_only_and_into_no_message() {
    let elsewhere = RawServer::plain(|_, _| (answer("500 Oops", "", ""), Then::KeepOpen)).await;
    let location = format!("Location: {}/\r\n", elsewhere.url);
    let server = RawServer::plain(move |_, _| (answer("302 Found", &location, ""), Then::KeepOpen)).await;
    let url = server.url.replace("http://", "http://me:s%26cret@");
    let reading = read_once(check(&format!("{url}/?key=s%26cret"))).await;
    let [asked] = &server.requests()[..] else { panic!("one request") };
    assert!(asked.contains("authorization: Basic bWU6cyZjcmV0\r\n"), "{asked}");
    assert!(!elsewhere.requests()[0].to_lowercase().contains("authorization"));
    assert!(!reading.reason.unwrap().message.contains("cret"));
}

#[tokio::test]
async fn a_method_is_used_as_set_and_unsafe_ones_are_refused() {
    let server = RawServer::plain(|_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into(), Then::KeepOpen)).await;
    assert!(read_once(HttpCheck { method: "head".into(), ..check(&server.url) }).await.up);
    assert!(server.requests()[0].starts_with("HEAD / HTTP/1.1\r\n"));
    let target = http_target(HttpCheck { method: "DELETE".into(), ..check(&server.url) });
    let refused = Client::new(target, &std::sync::Arc::new(Connector::default())).err();
    assert_eq!(refused, Some(ClientError::UnsafeMethod("DELETE".into())));
}

#[tokio::test]
async fn going_down_and_coming_back_are_changes_and_latency_is_none() {
    let (lab, poller) = lab_with(HostPlan::http("portal", false, "x")).await;
    let up = poller.poll().await.outcome;
    assert_eq!(poller.poll().await.outcome, up);
    lab.set_fault("portal", FaultKind::Refuse).await.unwrap();
    let down = poller.poll().await.outcome;
    assert_ne!(down, up);
    lab.clear_fault("portal").await.unwrap();
    assert_eq!(poller.poll().await.outcome, up);
}

#[tokio::test]
async fn a_port_that_accepts_is_up_and_one_that_refuses_is_down() {
    let (lab, poller) = lab_with(HostPlan::tcp("database")).await;
    let Reading::Tcp(reading) = poller.reading().await else { panic!("tcp") };
    assert_eq!((reading.up, reading.reason), (true, None));
    lab.set_fault("database", FaultKind::Refuse).await.unwrap();
    let Reading::Tcp(reading) = poller.reading().await else { panic!("tcp") };
    let reason = reading.reason.unwrap();
    assert_eq!((reading.up, reason.category), (false, DownCategory::Failed(FailureKind::Refused)));
    assert!(reason.message.starts_with("TCP connection to 127."), "{}", reason.message);
}

#[tokio::test]
async fn a_port_behind_an_unknown_name_is_down_by_dns() {
    let Reading::Tcp(reading) = Poller::new(tcp_target("no-such-host.invalid", 1)).reading().await else {
        panic!("tcp")
    };
    assert_eq!(reading.reason.unwrap().category, DownCategory::Failed(FailureKind::Dns));
}

#[tokio::test]
async fn a_name_with_several_addresses_is_up_if_one_of_them_accepts() {
    // "localhost" may lead to ::1 first, where nobody listens.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let Reading::Tcp(reading) = Poller::new(tcp_target("localhost", port)).reading().await else { panic!("tcp") };
    assert!(reading.up);
    for host in ["", "two words", "[::1"] {
        let refused = Client::new(tcp_target(host, port), &std::sync::Arc::new(Connector::default())).err();
        assert_eq!(refused, Some(ClientError::BadHost(host.into())));
    }
}
