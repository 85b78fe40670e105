//! What every test here needs: a data folder, a daemon that works on it, and patience that ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use pulse::engine::{Millis, Timestamp};
use pulse::lab::{HostPlan, Lab, LabClock, LabPlan};
use pulse::runtime::{Clock, TokioClock};
use pulse::security::Role;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The seed of every lab here.
pub(crate) const SEED: u64 = 7;
/// How long anything may take that is not bounded more closely.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What operators are promised for an edit.
pub(crate) const EDIT_TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(2);

pub(crate) const HEALTH: &str = "/api/monitoring/scheduler/health";

const LOOK_EVERY: Millis = Millis::new(20);

/// A data folder, and beside it what the programs that work on it print.
pub(crate) struct Folder {
    data: TempDir,
    output: TempDir,
    metrics: SocketAddr,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// A data folder in `parent`.
    pub(crate) fn inside(parent: &Path) -> Self {
        Self::of(tempfile::tempdir_in(parent).unwrap())
    }

    fn of(data: TempDir) -> Self {
        Self { data, output: tempfile::tempdir().unwrap(), metrics: free_address() }
    }

    /// A folder with the settings of [`quick_settings`] and this fleet.
    pub(crate) fn quick(fleet: &Value) -> Self {
        let folder = Self::new();
        folder.write_json("system.json", &quick_settings());
        folder.write_json("instances.json", fleet);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.data.path()
    }

    /// A daemon that is started here has the token of the one on `other`, from which the data comes.
    pub(crate) fn has_token_of(&self, other: &Self) {
        fs::copy(other.output.path().join("token"), self.output.path().join("token")).unwrap();
    }

    /// What the last daemon on this folder printed, logs aside.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(self.output.path().join("stdout")).unwrap()
    }

    /// Writes a file that only its owner reads.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn write_json(&self, name: &str, content: &Value) {
        self.write(name, content.to_string());
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// Everything in the folder: the mode of each entry, and the content of each file.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path, (metadata.permissions().mode(), content));
            }
        }
        found
    }

    /// The configuration in the folder: the same without the database, which changes with every call.
    pub(crate) fn configuration(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = self.snapshot();
        found.retain(|path, _| path.extension().is_some_and(|kind| kind == "json"));
        found
    }

    /// A command of the program on this folder, with no environment but its own.
    pub(crate) fn pulse(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulse"));
        command.env_clear().env("PULSE_DATA_DIR", self.path()).args(arguments);
        command
    }
}

/// Settings under which everything happens within a second or two.
pub(crate) fn quick_settings() -> Value {
    json!({
        "adaptivePollingBaseInterval": "300ms",
        "adaptivePollingMinInterval": "200ms",
        "adaptivePollingMaxInterval": "1s",
        "pvePollingTimeout": "2s",
        "pollingBackoffInitial": "100ms",
        "pollingBackoffMax": "400ms",
        "breakerOpenInitial": "200ms",
        "breakerOpenMax": "1s",
    })
}

pub(crate) async fn lab(hosts: Vec<HostPlan>) -> Lab {
    Lab::start(LabPlan::new(SEED, hosts), LabClock::real()).await.unwrap()
}

/// An address that no other test, and no other run at the same time, listens at.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 128 + (high & 0x3f), middle, low);
    (address, NEXT_PORT.fetch_add(1, Ordering::Relaxed)).into()
}

/// What a program that has ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, which has to come in time.
pub(crate) async fn run(command: &mut Command) -> Ended {
    let output = tempfile::tempdir().unwrap();
    let mut program = Program::start(command, output.path());
    let code = program.ended(PATIENCE).await.code();
    Ended { code, stdout: program.stdout(), stderr: program.stderr() }
}

/// A program that runs, until it is dropped.
pub(crate) struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Program {
    /// Starts a command that prints into files of `output`.
    pub(crate) fn start(command: &mut Command, output: &Path) -> Self {
        let (stdout, stderr) = (output.join("stdout"), output.join("stderr"));
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        Self { child, stdout, stderr }
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let Self { child, stderr, .. } = self;
        eventually("the program ends", within, async || child.try_wait().unwrap())
            .await
            .unwrap_or_else(|late| panic!("{late}; it said: {}", fs::read_to_string(stderr).unwrap()))
    }

    fn panic_if_ended(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}: {}", self.stderr());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon that answers on its ports, until it is dropped.
pub(crate) struct Daemon {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    /// Where the metrics are; the same for every daemon on one folder.
    pub(crate) metrics: SocketAddr,
    /// A token that opens the API.
    pub(crate) token: String,
    socket: PathBuf,
}

impl Daemon {
    /// Starts a daemon on this folder, and returns as soon as its ports answer.
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, &[], &[]).await
    }

    /// The same with further arguments and variables.
    pub(crate) async fn start_with(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut daemon = Self::start_as_first(folder, arguments, variables).await;
        let kept = folder.output.path().join("token");
        daemon.token = match fs::read_to_string(&kept) {
            Ok(token) => token,
            Err(_) => daemon.first_token().await,
        };
        fs::write(kept, &daemon.token).unwrap();
        daemon
    }

    /// The same, and nobody has a token.
    pub(crate) async fn start_as_first(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let address = free_address();
        let mut command = folder.pulse(["serve"]);
        command.args(["--listen", &address.to_string(), "--metrics-listen", &folder.metrics.to_string()]);
        command.args(arguments).envs(variables.iter().copied());
        let program = Program::start(&mut command, folder.output.path());
        let socket = folder.path().join("pulse.sock");
        let mut daemon = Self { program, address, metrics: folder.metrics, token: String::new(), socket };
        let answers = async || {
            daemon.program.panic_if_ended();
            std::net::TcpStream::connect(daemon.address).ok()
        };
        eventually("the daemon answers", PATIENCE, answers).await.unwrap();
        daemon
    }

    /// A token of the highest role, made by the daemon's owner.
    async fn first_token(&self) -> String {
        let owner = client_builder().unix_socket(self.socket()).build().unwrap();
        let request =
            owner.post("http://localhost/api/security/tokens").json(&json!({"name": "tests", "role": "admin"}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()["token"].as_str().unwrap().to_owned()
    }

    /// The secret that the daemon prints at its start, by how it begins.
    pub(crate) async fn printed(&self, prefix: &str) -> String {
        let look = async || {
            let stdout = self.program.stdout();
            stdout.lines().map(str::trim).find(|line| line.starts_with(prefix)).map(str::to_owned)
        };
        eventually("the daemon prints it", PATIENCE, look).await.unwrap()
    }

    /// A request over TCP, without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("http://{}{path}", self.address))
    }

    /// A request over TCP with the right token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    /// A new token of this name and role.
    pub(crate) async fn new_token(&self, name: &str, role: Role) -> String {
        let response = self.post("/api/security/tokens", &json!({"name": name, "role": role})).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn health(&self) -> Value {
        self.get(HEALTH).await
    }

    /// The row of one instance in the health answer.
    pub(crate) async fn instance(&self, key: &str) -> Value {
        row(&self.health().await["instances"], key)
    }

    /// The row of one instance in the state answer.
    pub(crate) async fn state(&self, key: &str) -> Value {
        row(&self.get(&format!("/api/state?key={key}")).await["instances"], key)
    }

    /// Waits until the row of one instance in the health answer is as wanted.
    pub(crate) async fn until_instance(&self, key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async || Some(self.instance(key).await).filter(&wanted);
        match eventually("the instance is as wanted", PATIENCE, look).await {
            Ok(row) => row,
            Err(late) => panic!("{late}: {:#}", self.instance(key).await),
        }
    }

    /// Waits until the row of one instance in the state answer is as wanted.
    pub(crate) async fn until_state(&self, key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async || Some(self.state(key).await).filter(&wanted);
        match eventually("the reading is as wanted", PATIENCE, look).await {
            Ok(row) => row,
            Err(late) => panic!("{late}: {:#}", self.state(key).await),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Has it end by SIGTERM, which it has to do in order and in time.
    pub(crate) async fn stop(mut self) {
        self.program.signal(Signal::TERM);
        let status = self.program.ended(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", self.program.stderr());
    }
}

/// The row with this key, which has to be there.
pub(crate) fn row(rows: &Value, key: &str) -> Value {
    let found = rows.as_array().unwrap().iter().find(|row| row["key"] == key);
    found.unwrap_or_else(|| panic!("{key} is not among {rows:#}")).clone()
}

pub(crate) fn client() -> Client {
    client_builder().build().unwrap()
}

pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    // Fails only if a provider is there already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(PATIENCE).no_proxy()
}

/// Measures and waits in real time.
pub(crate) struct Stopwatch {
    clock: TokioClock,
    began: Timestamp,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let clock = TokioClock::start();
        Self { clock, began: clock.now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_millis((self.clock.now() - self.began).get())
    }
}

/// Waits for a moment.
pub(crate) async fn pause(span: Millis) {
    let clock = TokioClock::start();
    clock.sleep_until(clock.now() + span).await;
}

/// Looks again and again until there is something to see; if that takes too long, says so.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, String> {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            pause(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(within, looking).await.map_err(|_| format!("not within {within:?}: {what}"))
}
