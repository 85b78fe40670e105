//! What systemd hears of the daemon: that it is ready, that it lives, and that it stops.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::support::{Daemon, Folder, PATIENCE};

#[tokio::test]
async fn a_service_manager_is_told_ready_then_signs_of_life_then_stopping() {
    let folder = Folder::quick(&json!({"instances": []}));
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("the daemon tells something");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut daemon = Daemon::start_with(&folder, &[], &variables).await;
    assert_eq!(next(), "READY=1");
    for _ in 0..5 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    daemon.program.signal(Signal::TERM);
    let status = daemon.program.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.program.stderr());
    let told = std::iter::from_fn(|| Some(next())).find(|told| told != "WATCHDOG=1");
    assert_eq!(told.as_deref(), Some("STOPPING=1"));
}
