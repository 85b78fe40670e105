//! The daemon polls servers that this project did not write: a Debian nginx over HTTPS, and PostgreSQL's TCP port.
//! They run as private instances on loopback.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::installed::{INSTALLED_AND_STARTED_WITHIN, found, is_root, provided, until_connectable};
use super::nginx::Nginx;
use super::support::{Daemon, Folder, Program, free_address, row};

/// The folder with PostgreSQL's server programs, which Debian keeps out of the search path.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let servers = versions.flatten().map(|version| version.path().join("bin/postgres"));
    found(servers).and_then(|server| server.parent().map(Path::to_owned))
}

fn instance(nginx: &Nginx, name: &str, path: &str, fingerprint: &str) -> Value {
    json!({
        "type": "http",
        "name": name,
        "url": format!("https://{}{path}", nginx.address),
        "bodyContains": "nginx is well",
        "tls": {"fingerprint": fingerprint},
        "interval": "200ms",
    })
}

#[tokio::test]
async fn a_foreign_nginx_is_up_over_https_if_its_pinned_certificate_and_its_answer_are_right() {
    let server = |address, certificate: &str| {
        let health = "location = /health { default_type text/plain; return 200 \"nginx is well\\n\"; }";
        format!("server {{ listen {address} ssl; {certificate} {health} }}")
    };
    let Some(nginx) = Nginx::start(server).await else { return };
    let folder = Folder::quick(&json!({"instances": [
        instance(&nginx, "right", "/health", &nginx.fingerprint),
        instance(&nginx, "impostor", "/health", &"00".repeat(32)),
        instance(&nginx, "missing", "/no-such-page", &nginx.fingerprint),
    ]}));
    let daemon = Daemon::start(&folder).await;
    let has_reading = |row: &Value| row["reading"].is_object();

    let reading = &daemon.until_state("http::right", has_reading).await["reading"];
    assert_eq!((&reading["up"], &reading["status"], &reading["reason"]), (&json!(true), &json!(200), &json!(null)));
    assert!(reading["latency"].is_u64(), "{reading}");

    let reading = &daemon.until_state("http::impostor", has_reading).await["reading"];
    assert_eq!((&reading["up"], &reading["status"]), (&json!(false), &json!(null)));
    assert_eq!(reading["reason"]["category"], "fingerprint_mismatch", "{reading}");

    let reading = &daemon.until_state("http::missing", has_reading).await["reading"];
    assert_eq!((&reading["up"], &reading["status"]), (&json!(false), &json!(404)));
    assert_eq!(reading["reason"]["category"], "unexpected_status", "{reading}");
    daemon.stop().await;
}

/// A PostgreSQL server of one's own, which can be stopped and started again.
struct Postgres {
    programs: PathBuf,
    address: SocketAddr,
    folder: TempDir,
    program: Program,
}

impl Postgres {
    async fn start(programs: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let (user, group) = server_user();
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let data = folder.path().join("data");
        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb.arg("-D").arg(&data).args(["-A", "trust", "--no-sync", "--no-locale"]);
        let mut initdb = Program::start(&mut initdb, folder.path());
        let status = initdb.ended(INSTALLED_AND_STARTED_WITHIN).await;
        assert!(status.success(), "{}", initdb.stderr());
        let address = free_address();
        let program = Self::serve(&programs, folder.path(), address).await;
        Self { programs, address, folder, program }
    }

    async fn serve(programs: &Path, folder: &Path, address: SocketAddr) -> Program {
        let mut command = unprivileged(&programs.join("postgres"));
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(["-F", "-c", "logging_collector=off"]);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        let program = Program::start(&mut command, folder);
        until_connectable("postgres", address).await;
        program
    }

    async fn stop(&mut self) {
        self.program.signal(Signal::INT);
        self.program.ended(INSTALLED_AND_STARTED_WITHIN).await;
    }

    async fn start_again(&mut self) {
        self.program = Self::serve(&self.programs, self.folder.path(), self.address).await;
    }
}

/// PostgreSQL refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if is_root() {
        let (user, group) = server_user();
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

/// The user and group that Debian made for PostgreSQL, else nobody's.
fn server_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.collect()))?;
        Some((fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("every system has a user nobody")
}

#[tokio::test]
async fn a_foreign_postgres_that_is_stopped_is_a_result_and_comes_back_by_itself() {
    let Some(programs) = provided("postgresql", postgres_programs).await else { return };
    let mut postgres = Postgres::start(programs).await;
    let (host, port) = (postgres.address.ip(), postgres.address.port());
    let folder = Folder::quick(&json!({"instances": [
        {"type": "tcp", "name": "database", "host": host, "port": port, "interval": "100ms"},
    ]}));
    let daemon = Daemon::start(&folder).await;
    let up = |row: &Value| row["reading"]["up"] == true;

    let reading = &daemon.until_state("tcp::database", up).await["reading"];
    assert!(reading["latency"].is_u64() && reading["reason"].is_null(), "{reading}");

    postgres.stop().await;
    let down = daemon.until_state("tcp::database", |row| row["reading"]["up"] == false).await;
    assert_eq!(down["reading"]["reason"]["category"], "refused", "{down}");
    // Seen down often enough that a breaker would have opened and a dead letter been written.
    let mut read_at = down["readAt"].clone();
    for _ in 0..6 {
        read_at = daemon.until_state("tcp::database", |row| row["readAt"] != read_at).await["readAt"].clone();
    }
    let health = daemon.health().await;
    let instance = row(&health["instances"], "tcp::database");
    assert_eq!(instance["pollStatus"]["consecutiveFailures"], 0, "a target that is down is a result: {instance:#}");
    assert!(instance["pollStatus"]["lastError"].is_null(), "{instance:#}");
    assert_eq!(instance["breaker"]["state"], "unknown");
    assert_eq!(instance["deadLetter"]["present"], false);
    assert_eq!(health["deadLetter"]["count"], 0);
    assert_eq!(health["breakers"], json!([]));
    let liveness = daemon.request(Method::GET, "/api/health").send().await.unwrap();
    assert_eq!(liveness.status(), 200);

    postgres.start_again().await;
    daemon.until_state("tcp::database", up).await;
    daemon.stop().await;
}
