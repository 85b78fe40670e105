//! What polls cost the hosts (lessons 31 and 32).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use pulse::engine::Millis;
use pulse::lab::{FaultKind, HostPlan, Lab};
use pulse::targets::{Connector, Trust};

use crate::raw_server::{RawServer, Then, pve_node};
use crate::{Poller, SEED, lab_with, pve_at};

fn calls_by_path(lab: &Lab) -> BTreeMap<String, u64> {
    lab.stats("a").unwrap().requests_by_path
}

#[tokio::test]
async fn a_poll_of_many_guests_costs_as_few_calls_as_one_of_a_single_guest() {
    for guests in [1, 500] {
        let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", guests)).await;
        let first = poller.poll().await;
        assert_eq!((first.cost.calls, first.cost.connections), (5, 1), "{guests} guests");
        let second = poller.poll().await;
        assert_eq!((second.cost.calls, second.cost.connections), (4, 0), "{guests} guests");
        assert!(second.cost.bytes > u64::from(guests) * 100);
    }
    let (_lab, poller) = lab_with(HostPlan::pbs(SEED, "a", &["x", "y", "z"])).await;
    poller.poll().await;
    assert_eq!(poller.poll().await.cost.calls, 3);
    let (_lab, poller) = lab_with(HostPlan::pmg(SEED, "a")).await;
    poller.poll().await;
    assert_eq!(poller.poll().await.cost.calls, 4);
}

#[tokio::test]
async fn a_costly_call_has_its_own_slower_rhythm_and_wakes_no_disk() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    for _ in 0..30 {
        poller.reading().await;
        poller.skip(Millis::from_secs(10));
    }
    let disks = "/api2/json/nodes/a/disks/list";
    assert_eq!(calls_by_path(&lab)[disks], 1, "once in five minutes");
    poller.reading().await;
    assert_eq!(calls_by_path(&lab)[disks], 2);

    let server = RawServer::tls(|line, _| (pve_node(line), Then::KeepOpen)).await;
    Poller::new(pve_at(&server.url, Trust::Fingerprint(server.fingerprint))).reading().await;
    let requests = server.requests();
    let asked = requests.iter().find(|request| request.contains("/disks/list")).unwrap();
    assert!(asked.starts_with("GET /api2/json/nodes/a/disks/list?skipsmart=1 "), "{asked}");
}

#[tokio::test]
async fn the_nodes_of_a_cluster_take_turns_with_costly_calls() {
    let (_lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1).cluster_of(5)).await;
    for poll in 0..3 {
        let cost = poller.poll().await.cost;
        assert_eq!(cost.calls, 6, "poll {poll}: five nodes and Ceph, two at a time");
    }
    assert_eq!(poller.poll().await.cost.calls, 4);
}

#[tokio::test]
async fn connections_are_kept_between_polls() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    for _ in 0..10 {
        poller.reading().await;
    }
    assert_eq!(lab.stats("a").unwrap().connections, 1);
}

#[tokio::test]
async fn coming_back_costs_the_host_no_full_handshake() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    poller.reading().await;
    lab.set_fault("a", FaultKind::CutBody).await.unwrap();
    poller.failure().await;
    lab.clear_fault("a").await.unwrap();
    poller.reading().await;
    let stats = lab.stats("a").unwrap();
    assert!(stats.handshakes > 1);
    assert_eq!(stats.resumed_handshakes, stats.handshakes - 1);
}

#[tokio::test]
async fn a_host_that_closes_idle_connections_is_not_left_with_half_closed_ones() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    for _ in 0..3 {
        poller.reading().await;
        // Cuts what is open, as a host does after its idle time.
        lab.set_fault("a", FaultKind::Refuse).await.unwrap();
        lab.clear_fault("a").await.unwrap();
    }
    poller.reading().await;
    for _ in 0..100 {
        if lab.stats("a").unwrap().open_connections == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the connection is kept although the host has closed three in a row");
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_many_connections() {
    let server = RawServer::tls(|line, _| (pve_node(line), Then::Close)).await;
    let url = server.url.replace("127.0.0.1", "localhost");
    let connector = Arc::new(Connector::default());
    let mut lookups = 0;
    for _ in 0..3 {
        let poller = Poller::with(pve_at(&url, Trust::Fingerprint(server.fingerprint)), &connector);
        for _ in 0..3 {
            let report = poller.poll().await;
            assert!(report.reading.is_some(), "{:?}", report.outcome);
            lookups += report.cost.name_lookups;
        }
    }
    assert!(server.connections() > 30, "{}", server.connections());
    assert_eq!(lookups, 1);
}

/// Passes a wake-up on; whoever keeps it keeps what a task would keep.
struct Alarm(Mutex<Waker>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().wake_by_ref();
    }
}

#[tokio::test]
async fn an_idle_connection_holds_on_to_no_finished_task() {
    let (lab, poller) = lab_with(HostPlan::pve(SEED, "a", 1)).await;
    let alarm = Arc::new(Alarm(Mutex::new(Waker::noop().clone())));
    let waker = Waker::from(Arc::clone(&alarm));
    let mut poll = pin!(poller.poll());
    let report = poll_fn(|context| {
        *alarm.0.lock().unwrap() = context.waker().clone();
        poll.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await;
    assert!(report.reading.is_some(), "{:?}", report.outcome);
    assert_eq!(lab.stats("a").unwrap().open_connections, 1);
    assert_eq!(Arc::strong_count(&alarm), 2, "this test's own two");
}
