//! Programs of Debian that the tests run against. Where they are not installed they are fetched; where that is not possible
//! the tests say so, and fail if this is a CI run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::support::{Program, eventually};

/// Making a database cluster takes its time on a busy machine.
pub(crate) const INSTALLED_AND_STARTED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The first of these that can be run.
pub(crate) fn found(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| path.is_file())
}

pub(crate) async fn until_connectable(program: &str, address: SocketAddr) {
    let look = async || std::net::TcpStream::connect(address).ok();
    eventually(&format!("{program} accepts connections"), INSTALLED_AND_STARTED_WITHIN, look).await.unwrap();
}

/// Finds a program of a Debian package, or installs it, or says loudly that it cannot be had.
pub(crate) async fn provided<T>(package: &str, find: impl Fn() -> Option<T>) -> Option<T> {
    if let Some(program) = find() {
        return Some(program);
    }
    if is_root() && Path::new("/usr/bin/apt-get").is_file() {
        install(package).await;
    }
    let program = find();
    if program.is_none() {
        let missing = format!("{package} is neither installed nor could it be installed: NOT TESTED against it");
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        eprintln!("\n*** {missing} ***\n");
    }
    program
}

async fn install(package: &str) {
    for arguments in [&["update", "-qq"][..], &["install", "-y", "-qq", "--no-install-recommends", package]] {
        let output = tempfile::tempdir().unwrap();
        let mut command = Command::new("/usr/bin/apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        Program::start(&mut command, output.path()).ended(INSTALLED_AND_STARTED_WITHIN).await;
    }
}
