//! Lesson 3: a failure is told by status and kind of error, through the real client, never by text.

use pulse::engine::{FailureClass, FailureKind, Millis};
use pulse::lab::{Fault, FaultKind, HostPlan};
use pulse::targets::Trust;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::raw_server::{RawServer, Then, answer, pve_node};
use crate::{Poller, SEED, SHORT, TOKEN, failure_of, kind_of, lab_with, pve_at};

async fn kind_with(fault: impl Into<Fault>) -> FailureKind {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", 2).behaving(fault.into())).await;
    kind_of(poller.poll_within(SHORT).await)
}

/// The failure of a PVE host that answers `/version` with these bytes.
async fn kind_of_bytes(bytes: &'static str, then: Then) -> FailureKind {
    let server = RawServer::tls(move |_, _| (bytes.to_owned(), then)).await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    poller.failure().await.kind
}

#[tokio::test]
async fn every_fault_of_a_connection_has_its_kind() {
    for (fault, kind) in [
        (FaultKind::Refuse, FailureKind::Refused),
        (FaultKind::HangBeforeTls, FailureKind::Timeout),
        (FaultKind::CutHandshake, FailureKind::TlsHandshake),
        (FaultKind::WrongCertificate, FailureKind::FingerprintMismatch),
        (FaultKind::Hang, FailureKind::Timeout),
        (FaultKind::CutBody, FailureKind::Reset),
    ] {
        assert_eq!(kind_with(fault).await, kind, "{fault:?}");
    }
}

#[tokio::test]
async fn every_status_has_its_kind_and_class() {
    for (code, kind, class) in [
        (400, FailureKind::ClientError, FailureClass::Permanent),
        (401, FailureKind::Unauthorized, FailureClass::Permanent),
        (403, FailureKind::Forbidden, FailureClass::Permanent),
        (404, FailureKind::NotFound, FailureClass::Permanent),
        (408, FailureKind::ServerError, FailureClass::Transient),
        (429, FailureKind::RateLimited, FailureClass::Transient),
        (500, FailureKind::ServerError, FailureClass::Transient),
        (503, FailureKind::ServerError, FailureClass::Transient),
        (595, FailureKind::ServerError, FailureClass::Transient),
    ] {
        let seen = kind_with(FaultKind::status(code)).await;
        assert_eq!((seen, seen.class()), (kind, class), "{code}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_no_fault_of_the_connection() {
    for fault in [FaultKind::BrokenJson, FaultKind::TruncatedJson, FaultKind::Html, FaultKind::Oversized] {
        let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", 2).behaving(fault)).await;
        assert_eq!(poller.failure().await.kind, FailureKind::NotTheApi, "{fault:?}");
    }
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"data\":null}",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ] {
        assert_eq!(kind_of_bytes(bytes, Then::KeepOpen).await, FailureKind::NotTheApi, "{bytes:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_a_cut_connection() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":{\"version\"",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"dat\r\n",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":{\"version\"",
    ] {
        assert_eq!(kind_of_bytes(bytes, Then::Close).await, FailureKind::Reset, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused_however_it_is_announced() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n{\"data\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let endless = bytes.contains("chunked");
        let server = RawServer::tls(move |_, _| {
            let flood = if endless { format!("200000\r\n{}\r\n", " ".repeat(0x20_0000)) } else { String::new() };
            (format!("{bytes}{flood}"), Then::KeepOpen)
        })
        .await;
        let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
        let failure = poller.failure().await;
        assert_eq!(failure.kind, FailureKind::NotTheApi);
        assert!(failure.message.contains("longer than 1024 KiB"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_fault_of_dns() {
    let poller = Poller::new(pve_at("https://no-such-host.invalid:8006", Trust::System));
    let failure = poller.failure().await;
    assert_eq!(failure.kind, FailureKind::Dns);
    assert!(failure.message.contains("the name no-such-host.invalid was not found"), "{}", failure.message);
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls_is_not_the_api() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        // Stays until the client has understood.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(Poller::new(pve_at(&url, Trust::Fingerprint([0; 32]))).failure().await.kind, FailureKind::NotTheApi);
}

#[tokio::test]
async fn numbers_in_the_text_do_not_decide() {
    // "401" in the port, in a name and in the reason of a server error.
    let server = RawServer::tls(|_, _| (answer("500 VM 401 is 403 and 404", "", ""), Then::KeepOpen)).await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    assert_eq!(poller.failure().await.kind, FailureKind::ServerError);
}

#[tokio::test]
async fn a_host_that_asks_for_rest_is_heard_in_both_forms() {
    for (status, headers, rest) in [
        ("429 Too Many Requests", "Retry-After: 30\r\n", Some(Millis::from_secs(30))),
        (
            "503 Service Unavailable",
            "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:30:00 GMT\r\n",
            Some(Millis::from_mins(2)),
        ),
        ("500 Internal Server Error", "Retry-After: 30\r\n", None),
        ("503 Service Unavailable", "", None),
    ] {
        let server = RawServer::tls(move |_, _| (answer(status, headers, ""), Then::KeepOpen)).await;
        let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
        assert_eq!(poller.failure().await.retry_after, rest, "{status}");
    }
}

#[tokio::test]
async fn no_message_repeats_a_secret_or_a_control_character() {
    let server = RawServer::tls(|line, _| {
        let reason = if line.contains("version") { format!("token {TOKEN} refused") } else { "x".into() };
        (answer(&format!("401 {reason}"), "", &format!("bad token {TOKEN}")), Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    let failure = poller.failure().await;
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(!failure.message.contains(TOKEN), "{}", failure.message);
    assert!(failure.message.contains("the API token was refused"), "{}", failure.message);

    let server = RawServer::tls(|_, _| (answer("500 a\tb\u{85}c", "", ""), Then::KeepOpen)).await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    let failure = poller.failure().await;
    assert!(!failure.message.chars().any(char::is_control), "{:?}", failure.message);
}

#[tokio::test]
async fn a_hung_poll_names_the_call_before_its_time_is_up() {
    let (_lab, poller) =
        lab_with(HostPlan::pve(SEED, "a", 2).behaving(Fault::from(FaultKind::Hang).on("/cluster/resources"))).await;
    let started = poller.now();
    let failure = failure_of(poller.poll_within(SHORT).await);
    assert!(poller.now() - started < SHORT + Millis::new(100));
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.starts_with("GET /cluster/resources on https://127."), "{}", failure.message);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_no_failure() {
    // Closes after each answer without saying so first, as a host does whose idle time is short.
    let server = RawServer::tls(|line, _| (pve_node(line), Then::Close)).await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    for _ in 0..5 {
        poller.reading().await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_ends_under_a_request_is_replaced_once() {
    // The second request finds its connection ended; so do all from the eighth on, on whatever connection.
    let server = RawServer::tls(|line, before| {
        if before == 1 || before >= 7 { (String::new(), Then::Close) } else { (pve_node(line), Then::KeepOpen) }
    })
    .await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    let report = poller.poll().await;
    assert!(report.reading.is_some(), "{:?}", report.outcome);
    assert_eq!((report.cost.calls, server.requests().len()), (6, 6), "five calls, one of them twice");
    poller.poll().await;
    let cut = poller.poll().await;
    assert_eq!(kind_of(cut), FailureKind::Reset);
    assert_eq!(server.requests().len(), 6 + 3 + 1, "a new connection is not tried again");
}
