//! What is read of each product, which calls a poll cannot do without, and what counts as a change.

use pulse::engine::{FailureKind, Millis, Outcome};
use pulse::lab::{Fault, FaultKind, HostPlan};
use pulse::targets::{Access, GuestKind, PbsReading, PmgReading, PveReading, Reading, Trust};
use serde_json::json;

use crate::raw_server::{RawServer, Then, answer, pve_node};
use crate::{BUDGET, Poller, SEED, lab_with, pve_at, reading_of};

fn pve(reading: Reading) -> PveReading {
    match reading {
        Reading::Pve(reading) => reading,
        other => panic!("{other:?}"),
    }
}

fn pbs(reading: Reading) -> PbsReading {
    match reading {
        Reading::Pbs(reading) => reading,
        other => panic!("{other:?}"),
    }
}

fn pmg(reading: Reading) -> PmgReading {
    match reading {
        Reading::Pmg(reading) => reading,
        other => panic!("{other:?}"),
    }
}

fn failed_paths(calls: &[pulse::targets::FailedCall]) -> Vec<&str> {
    calls.iter().map(|call| call.call.split(' ').nth(1).unwrap()).collect()
}

#[tokio::test]
async fn a_cluster_is_read_with_its_nodes_guests_and_storage() {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "rack", 9).cluster_of(3)).await;
    poller.reading().await;
    let reading = pve(poller.reading().await);
    assert_eq!(reading.version, "8.4.1");
    let cluster = reading.cluster.unwrap();
    assert_eq!((cluster.name.as_str(), cluster.quorate, cluster.members), ("rack", true, Some(3)));
    assert_eq!(reading.nodes.len(), 3);
    assert!(reading.nodes.iter().all(|node| node.online && node.address.is_some() && node.memory.total.is_some()));
    assert_eq!(reading.nodes.iter().filter(|node| node.status.is_some()).count(), 1, "only the member that answers");
    assert_eq!(reading.nodes.iter().filter(|node| node.disks.is_some()).count(), 3, "after two polls");
    assert_eq!(reading.guests.iter().map(|guest| guest.vmid).collect::<Vec<_>>(), (100..109).collect::<Vec<_>>());
    assert_eq!(reading.guests[2].kind, GuestKind::Lxc);
    assert_eq!(reading.guests[0].tags, ["production"]);
    assert_eq!(reading.storage.len(), 6);
    assert_eq!(reading.ceph.unwrap().value.health, "HEALTH_OK");
    assert!(!reading.truncated);
    assert_eq!(reading.failed_calls, []);
}

#[tokio::test]
async fn a_backup_server_is_read_with_its_datastores() {
    let (_lab, poller) = lab_with(HostPlan::pbs(SEED, "vault", &["weekly", "daily"])).await;
    let reading = pbs(poller.reading().await);
    assert_eq!(reading.version, "3.4-1");
    assert_eq!(reading.datastores.iter().map(|store| store.name.as_str()).collect::<Vec<_>>(), ["daily", "weekly"]);
    let daily = &reading.datastores[0];
    assert_eq!(daily.used.unwrap() + daily.available.unwrap(), daily.total.unwrap());
    assert!(daily.estimated_full_at.is_some() && daily.garbage_collection.is_some());
    assert_eq!(reading.status.unwrap().cpus, Some(8));
    assert_eq!(reading.settings.unwrap().value[0].comment.as_deref(), Some("Backups: daily"));
    assert_eq!(reading.failed_calls, []);
}

#[tokio::test]
async fn a_mail_gateway_is_read_with_its_queue_mail_and_quarantine() {
    let (_lab, poller) = lab_with(HostPlan::pmg(SEED, "mail-in")).await;
    let reading = pmg(poller.reading().await);
    assert_eq!(reading.version, "8.2.1");
    let [node] = &reading.nodes[..] else { panic!("{:?}", reading.nodes) };
    assert!(node.queue.as_ref().unwrap().deferred.is_some());
    assert_eq!(node.status.as_ref().unwrap().load.len(), 3, "numbers that come as texts");
    assert!(reading.mail.unwrap().value.received.unwrap() > 0);
    assert!(reading.quarantine.unwrap().value.mails.is_some());
    assert_eq!(reading.failed_calls, []);
}

#[tokio::test]
async fn each_essential_call_that_fails_fails_the_poll_and_is_named() {
    let node_of = |name: &str| format!("/nodes/{name}/status");
    for (plan, path) in [
        (HostPlan::pve(SEED, "a", 2), "/version".to_owned()),
        (HostPlan::pve(SEED, "a", 2), "/cluster/resources".to_owned()),
        (HostPlan::pve(SEED, "a", 2), "/cluster/status".to_owned()),
        (HostPlan::pve(SEED, "a", 2), node_of("a")),
        (HostPlan::pbs(SEED, "a", &["daily"]), "/version".to_owned()),
        (HostPlan::pbs(SEED, "a", &["daily"]), "/status/datastore-usage".to_owned()),
        (HostPlan::pbs(SEED, "a", &["daily"]), node_of("localhost")),
        (HostPlan::pmg(SEED, "a"), "/version".to_owned()),
        (HostPlan::pmg(SEED, "a"), "/config/cluster/status".to_owned()),
        (HostPlan::pmg(SEED, "a"), node_of("a")),
    ] {
        let kind = plan.system.kind();
        let (_lab, poller) = lab_with(plan.behaving(Fault::from(FaultKind::status(500)).on(&path))).await;
        let failure = poller.failure().await;
        assert_eq!(failure.kind, FailureKind::ServerError, "{kind} {path}");
        assert!(failure.message.starts_with(&format!("GET {path} on https://127.")), "{}", failure.message);
    }
}

#[tokio::test]
async fn each_optional_call_that_fails_is_told_and_fails_nothing() {
    for (plan, path) in [
        (HostPlan::pve(SEED, "a", 2), "/nodes/a/disks/list"),
        (HostPlan::pbs(SEED, "a", &["daily"]), "/admin/datastore"),
        (HostPlan::pmg(SEED, "a"), "/nodes/a/postfix/qshape"),
        (HostPlan::pmg(SEED, "a"), "/statistics/mail"),
        (HostPlan::pmg(SEED, "a"), "/quarantine/spamstatus"),
    ] {
        let kind = plan.system.kind();
        let (_lab, poller) = lab_with(plan.behaving(Fault::from(FaultKind::status(500)).on(path))).await;
        let reading = serde_json::to_value(poller.reading().await).unwrap();
        let [failed] = &reading["failedCalls"].as_array().unwrap()[..] else { panic!("{kind} {path}: {reading}") };
        assert_eq!(failed["category"], "server_error", "{kind} {path}");
        assert!(failed["call"].as_str().unwrap().starts_with(&format!("GET {path} on https://")), "{failed}");
    }
}

#[tokio::test]
async fn what_a_token_may_not_read_is_told_and_fails_nothing() {
    for (plan, path) in [
        (HostPlan::pve(SEED, "a", 2), "/nodes/a/status"),
        (HostPlan::pve(SEED, "a", 2), "/cluster/status"),
        (HostPlan::pbs(SEED, "a", &["daily"]), "/nodes/localhost/status"),
        (HostPlan::pmg(SEED, "a"), "/nodes/a/status"),
    ] {
        let kind = plan.system.kind();
        let (_lab, poller) = lab_with(plan.behaving(Fault::from(FaultKind::status(403)).on(path))).await;
        let reading = serde_json::to_value(poller.reading().await).unwrap();
        assert_eq!(reading["failedCalls"][0]["category"], "forbidden", "{kind} {path}: {reading}");
        assert_eq!(reading["failedCalls"].as_array().unwrap().len(), 1, "{kind} {path}");
    }
    let (_lab, poller) =
        lab_with(HostPlan::pve(SEED, "a", 2).behaving(Fault::from(FaultKind::status(403)).on("/cluster/resources")))
            .await;
    assert_eq!(poller.failure().await.kind, FailureKind::Forbidden, "without this there is nothing to show");
}

#[tokio::test]
async fn an_optional_call_that_hangs_leaves_the_poll_its_time() {
    let (_lab, poller) =
        lab_with(HostPlan::pve(SEED, "a", 2).behaving(Fault::from(FaultKind::Hang).on("/nodes/a/disks/list"))).await;
    let report = poller.poll_within(Millis::new(600)).await;
    let reading = pve(reading_of(report));
    assert_eq!(failed_paths(&reading.failed_calls), ["/nodes/a/disks/list"]);
    assert_eq!(reading.failed_calls[0].category, FailureKind::Timeout);
    let again = poller.poll_within(Millis::new(600)).await;
    assert!(again.cost.calls <= 4, "it is not repeated at each poll");
}

#[tokio::test]
async fn an_optional_call_that_hangs_leaves_the_others_theirs() {
    let hanging = Fault::from(FaultKind::Hang).on("/nodes/a/postfix/qshape");
    let (_lab, poller) = lab_with(HostPlan::pmg(SEED, "a").behaving(hanging)).await;
    let reading = pmg(reading_of(poller.poll_within(Millis::new(600)).await));
    assert_eq!(failed_paths(&reading.failed_calls), ["/nodes/a/postfix/qshape"]);
    assert!(reading.mail.is_some() && reading.quarantine.is_some());
}

/// A mail gateway of the nodes `a` and `b`, of which those in `away` cannot be asked.
async fn gateway_without(away: &'static [&'static str]) -> pulse::runtime::PollReport<Reading> {
    let server = RawServer::tls(|line, _| {
        let path = line.split(['?', ' ']).nth(1).unwrap().trim_start_matches("/api2/json");
        if away.iter().any(|node| path == format!("/nodes/{node}/status")) {
            return (answer("595 No route to host", "", ""), Then::KeepOpen);
        }
        let data = match path {
            "/version" => r#"{"version":"8.2.1"}"#,
            "/config/cluster/status" => r#"[{"name":"b","type":"node"},{"name":"a","type":"master"}]"#,
            "/nodes/a/postfix/qshape" | "/nodes/b/postfix/qshape" => r#"[{"domain":"TOTAL","total":"3"}]"#,
            _ => "{}",
        };
        (answer("200 OK", "", &format!(r#"{{"data":{data}}}"#)), Then::KeepOpen)
    })
    .await;
    let mut target = pve_at(&server.url, Trust::Fingerprint(server.fingerprint));
    if let Access::Pve(access) = target.access {
        target.access = Access::Pmg(access);
    }
    Poller::new(target).poll().await
}

#[tokio::test]
async fn a_mail_gateway_whose_second_node_is_away_still_shows_the_first() {
    let whole = gateway_without(&[]).await;
    let report = gateway_without(&["b"]).await;
    assert_ne!(report.outcome, whole.outcome, "a node that goes is a change");
    let reading = pmg(reading_of(report));
    assert_eq!(failed_paths(&reading.failed_calls), ["/nodes/b/status"]);
    assert_eq!(reading.nodes[0].queue.as_ref().unwrap().deferred, Some(3));
    assert_eq!((reading.nodes[0].status.is_some(), reading.nodes[1].status.is_some()), (true, false));
    assert!(matches!(gateway_without(&["a", "b"]).await.outcome, Outcome::Failure(_)), "there is none to read");
}

#[tokio::test]
async fn the_last_good_data_of_an_optional_part_stays_marked_with_its_age() {
    let (lab, poller) = lab_with(HostPlan::pbs(SEED, "vault", &["daily"])).await;
    assert_eq!(pbs(poller.reading().await).failed_calls, []);
    lab.set_fault("vault", Fault::from(FaultKind::status(500)).on("/admin/datastore")).await.unwrap();
    poller.skip(Millis::from_mins(5));
    let reading = pbs(poller.reading().await);
    assert_eq!(failed_paths(&reading.failed_calls), ["/admin/datastore"]);
    let settings = reading.settings.unwrap();
    assert!(settings.age >= Millis::from_mins(5), "{}", settings.age);
    assert_eq!(settings.value[0].name, "daily");
}

#[tokio::test]
async fn a_host_without_ceph_is_not_blamed_for_having_none() {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "pair", 2).cluster_of(2)).await;
    let reading = pve(poller.reading().await);
    assert_eq!((reading.ceph, reading.failed_calls), (None, vec![]));
}

#[tokio::test]
async fn a_reading_is_served_in_camel_case_with_its_type() {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    let reading = serde_json::to_value(poller.reading().await).unwrap();
    assert_eq!(reading["type"], "pve");
    assert_eq!(reading["failedCalls"], json!([]));
    assert!(reading["nodes"][0]["uptimeSeconds"].is_u64());
    assert!(reading["nodes"][0]["disks"]["age"].is_u64());
}

async fn hash_with(resources: &'static str) -> Outcome {
    let server = RawServer::tls(move |line, _| {
        let body = format!(r#"{{"data":[{resources}]}}"#);
        let is_list = line.contains("/cluster/resources");
        (if is_list { answer("200 OK", "", &body) } else { pve_node(line) }, Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    poller.poll_within(BUDGET).await.outcome
}

#[tokio::test]
async fn the_change_hash_ignores_load_and_order_and_sees_state() {
    const GUEST: &str = r#"{"type":"qemu","vmid":7,"node":"a","name":"db","status":"running","cpu":0.1,"mem":5,"uptime":9,"netin":1,"tags":"x;y"}"#;
    const BUSY: &str = r#"{"type":"qemu","vmid":"7","node":"a","name":"db","status":"running","cpu":0.9,"mem":8,"uptime":99,"netin":7,"tags":"y,x"}"#;
    const OTHER: &str = r#"{"type":"lxc","vmid":8,"node":"a","status":"stopped"}"#;
    let base = hash_with(entries(GUEST, OTHER)).await;
    assert!(matches!(base, Outcome::Success { .. }), "{base:?}");
    assert_eq!(base, hash_with(entries(OTHER, BUSY)).await);
    assert_ne!(base, hash_with(OTHER).await, "a guest that is gone");
    for (from, to) in [
        (r#""status":"running""#, r#""status":"stopped""#),
        (r#""node":"a""#, r#""node":"b""#),
        (r#""name":"db""#, r#""name":"db2""#),
        (r#""tags":"x;y""#, r#""tags":"x""#),
        (r#""vmid":7"#, r#""vmid":9"#),
        (r#""type":"qemu""#, r#""type":"lxc""#),
    ] {
        let changed: &'static str = GUEST.replace(from, to).leak();
        assert_ne!(base, hash_with(entries(changed, OTHER)).await, "{to}");
    }
}

/// Two entries of a list. A test may leak a few bytes.
fn entries(first: &str, second: &str) -> &'static str {
    format!("{first},{second}").leak()
}

#[tokio::test]
async fn an_unchanged_host_keeps_its_hash_from_poll_to_poll() {
    for plan in [HostPlan::pve(SEED, "a", 8), HostPlan::pbs(SEED, "a", &["x", "y"]), HostPlan::pmg(SEED, "a")] {
        let (_lab, poller) = lab_with(plan).await;
        let first = poller.poll().await;
        poller.skip(Millis::from_mins(6));
        let second = poller.poll().await;
        assert_eq!(first.outcome, second.outcome);
    }
}

#[tokio::test]
async fn a_reading_is_bounded_and_says_so() {
    let server = RawServer::tls(|line, _| {
        if !line.contains("/cluster/resources") {
            return (pve_node(line), Then::KeepOpen);
        }
        let guests: Vec<String> =
            (1..=20_001).map(|vmid| format!(r#"{{"type":"lxc","vmid":{vmid},"node":"a"}}"#)).collect();
        (answer("200 OK", "", &format!(r#"{{"data":[{}]}}"#, guests.join(","))), Then::KeepOpen)
    })
    .await;
    let poller = Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint)));
    let reading = pve(poller.reading().await);
    assert_eq!((reading.guests.len(), reading.truncated), (20_000, true));
}
