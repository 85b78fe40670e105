//! A cluster has many doors.

use pulse::engine::{FailureKind, Millis};
use pulse::lab::{FaultKind, HostPlan, Lab};

use crate::{Poller, SEED, failure_of, lab, lab_with, target_of};

async fn cluster() -> (Lab, Poller) {
    lab_with(HostPlan::pve(SEED, "rack", 3).cluster_of(3)).await
}

async fn member_fails(lab: &Lab, member: usize, fault: FaultKind) {
    lab.set_member_behaviour("rack", member, fault).await.unwrap();
}

#[tokio::test]
async fn a_member_that_cannot_be_reached_is_passed_over() {
    for fault in [FaultKind::Refuse, FaultKind::CutHandshake, FaultKind::CutBody] {
        let (lab, poller) = cluster().await;
        member_fails(&lab, 0, fault).await;
        let report = poller.poll().await;
        assert!(report.reading.is_some(), "{fault:?}: {:?}", report.outcome);
    }
}

#[tokio::test]
async fn the_last_good_member_is_asked_first_the_next_time() {
    let (lab, poller) = cluster().await;
    member_fails(&lab, 0, FaultKind::Refuse).await;
    assert!(poller.poll().await.cost.connections > 1);
    assert_eq!(poller.poll().await.cost.connections, 0, "the connection to the second member is kept");
}

#[tokio::test]
async fn a_hanging_member_leaves_the_others_their_share_of_the_time() {
    for fault in [FaultKind::HangBeforeTls, FaultKind::Hang] {
        let (lab, poller) = cluster().await;
        member_fails(&lab, 0, fault).await;
        let report = poller.poll_within(Millis::new(900)).await;
        assert!(report.reading.is_some(), "{fault:?}: {:?}", report.outcome);
    }
}

#[tokio::test]
async fn refused_credentials_are_not_carried_from_door_to_door() {
    let plan = HostPlan::pve(SEED, "rack", 1).cluster_of(3).with_rejected_secret();
    let (lab, poller) = lab_with(plan).await;
    assert_eq!(poller.failure().await.kind, FailureKind::Unauthorized);
    assert_eq!(lab.stats("rack").unwrap().requests, 1);
}

#[tokio::test]
async fn a_cluster_with_all_doors_shut_fails_once_and_says_so() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 1).cluster_of(3).behaving(FaultKind::Refuse)]).await;
    let failure = failure_of(Poller::new(target_of(&lab.hosts()[0])).poll().await);
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("none of the 2 other members"), "{}", failure.message);
}
