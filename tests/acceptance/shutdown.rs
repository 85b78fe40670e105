//! A stop ends in order and in time whatever the hosts do, and what a kill leaves behind is no obstacle.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use pulse::lab::{FaultKind, HostPlan};
use rustix::process::Signal;
use serde_json::json;

use super::support::{Daemon, Folder, SEED, Stopwatch, eventually, lab, run};

const STOPS_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stop_while_a_host_hangs_and_a_caller_dawdles_ends_in_order_within_thirty_seconds() {
    let lab = lab(vec![HostPlan::pve(SEED, "tar-pit", 3).behaving(FaultKind::Hang)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    // The poll alone would hang for longer than a stop may take.
    folder.write_json("system.json", &json!({"adaptivePollingBaseInterval": "5s", "pvePollingTimeout": "2m"}));
    let mut daemon = Daemon::start(&folder).await;
    let hanging = async || (lab.stats("tar-pit").unwrap().requests > 0).then_some(());
    eventually("the poll hangs", STOPS_WITHIN, hanging).await.unwrap();
    let mut dawdler = TcpStream::connect(daemon.address).unwrap();
    dawdler.write_all(b"GET /api/version HTTP/1.1\r\nHost: a\r\n").unwrap();
    assert!(daemon.socket().exists());

    let stopwatch = Stopwatch::start();
    daemon.program.signal(Signal::TERM);
    let status = daemon.program.ended(STOPS_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.program.stderr());
    assert!(stopwatch.elapsed() < STOPS_WITHIN);
    assert!(!daemon.socket().exists(), "no socket is left behind");
    lab.shutdown().await;
}

#[tokio::test]
async fn a_daemon_without_work_stops_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::quick(&json!({"instances": []}));
        let mut daemon = Daemon::start(&folder).await;
        daemon.program.signal(signal);
        let status = daemon.program.ended(Duration::from_secs(3)).await;
        assert_eq!(status.code(), Some(0), "{}", daemon.program.stderr());
    }
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing_that_keeps_the_next_one_from_starting() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut daemon = Daemon::start(&folder).await;
    let token = daemon.token.clone();
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    daemon.program.signal(Signal::KILL);
    daemon.program.ended(STOPS_WITHIN).await;
    assert!(daemon.socket().exists(), "a killed daemon cannot remove its socket");

    let daemon = Daemon::start(&folder).await;
    assert_eq!(daemon.token, token, "the token of before opens the API still");
    daemon.until_instance("pve::rack", |row| row["pollStatus"]["lastSuccess"].is_string()).await;
    let ended = run(&mut folder.pulse(["health"])).await;
    assert_eq!(ended.code, Some(0), "the socket works again: {ended:?}");
    daemon.stop().await;
    lab.shutdown().await;
}
