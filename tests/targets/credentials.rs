//! Signing in: tokens, passwords, tickets that end, and never a flood of attempts (lessons 4 and 7).

use pulse::engine::{FailureKind, Millis};
use pulse::lab::{HostPlan, Lab};
use pulse::targets::{Access, Credentials, Secret, Target, Trust};

use crate::raw_server::{RawServer, Then, answer, pve_node};
use crate::{Poller, SEED, lab_with, pve_at};

fn logins(lab: &Lab) -> (u64, u64) {
    let stats = lab.stats("a").unwrap();
    (stats.logins, stats.failed_logins)
}

fn with_password(mut target: Target) -> Target {
    if let Access::Pve(access) = &mut target.access {
        access.credentials =
            Credentials::Password { user: "pulse@pve".into(), password: Secret::new("p&ss=wörd %".into()) };
    }
    target
}

/// Answers the sign-in with a ticket and the rest as a healthy node.
fn ticket_or_node(line: &str) -> String {
    if line.starts_with("POST /api2/json/access/ticket ") {
        return answer("200 OK", "", r#"{"data":{"ticket":"PVE:pulse@pve:66::sig+/=","username":"pulse@pve"}}"#);
    }
    pve_node(line)
}

#[tokio::test]
async fn each_product_takes_its_own_form_of_token_and_of_ticket() {
    for plan in [HostPlan::pve(SEED, "a", 1), HostPlan::pbs(SEED, "a", &["daily"]), HostPlan::pmg(SEED, "a")] {
        let (lab, poller) = lab_with(plan.clone()).await;
        poller.reading().await;
        assert_eq!(logins(&lab), (0, 0), "a token needs no sign-in");

        let (lab, poller) = lab_with(plan.by_password(SEED)).await;
        poller.reading().await;
        poller.reading().await;
        assert_eq!(logins(&lab), (1, 0), "a ticket is kept");
    }
}

#[tokio::test]
async fn a_ticket_is_renewed_before_it_ends() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1).by_password(SEED)).await;
    poller.reading().await;
    poller.skip(Millis::from_mins(89));
    poller.reading().await;
    assert_eq!(logins(&lab), (1, 0));
    poller.skip(Millis::from_mins(2));
    let report = poller.poll().await;
    assert_eq!((report.cost.sign_ins, logins(&lab)), (1, (2, 0)));
}

#[tokio::test]
async fn a_refused_password_is_permanent_and_given_once_a_poll() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1).by_password(SEED).with_rejected_secret()).await;
    let failure = poller.failure().await;
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(failure.message.starts_with("POST /access/ticket on https://127."), "{}", failure.message);
    assert!(failure.message.contains("check the user, its realm and the password"), "{}", failure.message);
    assert_eq!(logins(&lab), (0, 1));
}

#[tokio::test]
async fn a_refused_token_is_permanent_and_given_once() {
    let (lab, poller) = lab_with(HostPlan::pbs(SEED, "a", &["daily"]).with_rejected_secret()).await;
    assert_eq!(poller.failure().await.kind, FailureKind::Unauthorized);
    assert_eq!(lab.stats("a").unwrap().requests, 1);
}

#[tokio::test]
async fn a_ticket_that_ended_early_is_replaced_once_in_the_same_poll() {
    // The first ticket is forgotten after the first poll, as by a host that was reinstalled.
    let server = RawServer::tls(|line, before| {
        let forgotten = before == 6 && line.contains("/version");
        (if forgotten { answer("401 invalid ticket", "", "") } else { ticket_or_node(line) }, Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(with_password(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))));
    assert_eq!(poller.poll().await.cost.calls, 6, "sign-in, four calls and the disks");
    let report = poller.poll().await;
    assert!(report.reading.is_some(), "{:?}", report.outcome);
    assert_eq!((report.cost.sign_ins, report.cost.calls), (1, 6));
}

#[tokio::test]
async fn a_host_that_refuses_its_own_tickets_is_not_hammered() {
    let server = RawServer::tls(|line, _| {
        let signs_in = line.starts_with("POST");
        (if signs_in { ticket_or_node(line) } else { answer("401 no", "", "") }, Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(with_password(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))));
    assert_eq!(poller.failure().await.kind, FailureKind::Unauthorized);
    assert_eq!(server.requests().iter().filter(|request| request.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_password_travels_in_the_body_and_a_ticket_in_a_cookie() {
    let server = RawServer::tls(|line, _| (ticket_or_node(line), Then::KeepOpen)).await;
    let poller = Poller::new(with_password(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))));
    poller.reading().await;
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api2/json/access/ticket HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, "username=pulse%40pve&password=p%26ss%3Dw%C3%B6rd+%25");
    assert!(!head.contains("p%26ss"));
    assert!(requests[1].contains("cookie: PVEAuthCookie=PVE:pulse@pve:66::sig+/=\r\n"), "{}", requests[1]);
    assert!(requests[1..].iter().all(|request| request.starts_with("GET ") && !request.contains("p%26ss")));
}

#[tokio::test]
async fn an_account_with_a_second_factor_is_told_to_use_a_token() {
    let server = RawServer::tls(|_, _| {
        (answer("200 OK", "", r#"{"data":{"ticket":"PVE:!tfa!x:66::sig","NeedTFA":1}}"#), Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(with_password(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))));
    let failure = poller.failure().await;
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(failure.message.contains("use an API token instead"), "{}", failure.message);
}

#[tokio::test]
async fn a_poll_dropped_at_any_moment_leaves_the_client_sane() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 2).by_password(SEED).answering_in(5)).await;
    for millis in 0..30 {
        let poll = poller.poll();
        // Whether it ended by then does not matter.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), poll).await;
    }
    poller.reading().await;
    let (issued, refused) = logins(&lab);
    assert_eq!(refused, 0);
    assert!(issued < 30, "{issued}: a ticket once obtained is kept");
    assert!(lab.stats("a").unwrap().open_connections <= 2);
}

#[tokio::test]
async fn two_polls_at_once_are_safe() {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", 2).by_password(SEED)).await;
    let (first, second) = tokio::join!(poller.poll(), poller.poll_within(crate::BUDGET));
    assert!(first.reading.is_some() && second.reading.is_some(), "{:?} {:?}", first.outcome, second.outcome);
}
