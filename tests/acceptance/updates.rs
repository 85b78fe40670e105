//! Updates of a release: signed ones are switched to, broken ones go back by themselves, and the settings stay.
//!
//! The archives are signed with Debian's minisign. Where systemd would restart the service, a shell script does. Two real
//! builds, one updated to the other and back, are tried by `.ci/package`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pulse::lab::HostPlan;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::installed::{found, provided};
use super::support::{
    Ended, Folder, PATIENCE, Program, SEED, client_builder, eventually, free_address, lab, quick_settings,
};

/// Packing and signing a debug build takes its time.
const PACKED_WITHIN: Duration = Duration::from_secs(120);

fn minisign() -> Option<PathBuf> {
    found([PathBuf::from("/usr/bin/minisign"), PathBuf::from("/usr/local/bin/minisign")])
}

async fn run(command: &mut Command) -> Ended {
    let output = tempfile::tempdir().unwrap();
    let mut program = Program::start(command, output.path());
    let code = program.ended(PACKED_WITHIN).await.code();
    Ended { code, stdout: program.stdout(), stderr: program.stderr() }
}

/// An installation as `install.sh` makes it, and a service that runs what is current.
struct Machine {
    root: TempDir,
    folder: Folder,
    version: String,
}

impl Machine {
    async fn new(fleet: &Value) -> Self {
        let machine =
            Self { root: tempfile::tempdir().unwrap(), folder: Folder::quick(fleet), version: version_of_this() };
        machine.minisign(&["-G", "-W", "-p", "release.pub", "-s", "release.key"]).await;
        let release = machine.path("releases").join(&machine.version);
        fs::create_dir_all(&release).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_pulse"), release.join("pulse")).unwrap();
        symlink(format!("releases/{}", machine.version), machine.path("current")).unwrap();
        // What a service manager does, but for starting anew what ends by itself.
        let script = format!(
            "#!/bin/sh\ncd {root}\n\
             if [ -f pid ]; then kill \"$(cat pid)\" 2>/dev/null; while kill -0 \"$(cat pid)\" 2>/dev/null; do sleep 0.05; done; fi\n\
             rm -f pid\n[ \"$1\" = stop ] && exit 0\n\
             PULSE_DATA_DIR={data} PULSE_LISTEN={api} PULSE_METRICS_LISTEN={metrics} setsid current/pulse serve >>service.log 2>&1 </dev/null &\n\
             echo $! >pid\n",
            root = machine.root.path().display(),
            data = machine.folder.path().display(),
            api = free_address(),
            metrics = free_address(),
        );
        machine.script("service.sh", &script);
        let started = run(Command::new(machine.path("service.sh")).arg("restart")).await;
        assert_eq!(started.code, Some(0), "{started:?}");
        machine.until_version(&machine.version).await;
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn minisign(&self, arguments: &[&str]) {
        let done = run(Command::new(minisign().unwrap()).current_dir(self.root.path()).args(arguments)).await;
        assert_eq!(done.code, Some(0), "{done:?}");
    }

    /// A signed archive of a program that says it is `version` and does `serve` when it is to serve.
    async fn release(&self, version: &str, serve: &str) -> PathBuf {
        let name = format!("pulse-{}", version.replace('/', "-"));
        fs::create_dir_all(self.path(&name)).unwrap();
        self.script(&format!("{name}/pulse"), &format!("#!/bin/sh\n{serve}\n"));
        fs::write(self.path(&name).join("VERSION"), format!("{version}\n")).unwrap();
        let archive = self.path(&format!("{name}.tar.gz"));
        let packed = run(Command::new("tar").arg("-C").arg(self.root.path()).arg("-czf").arg(&archive).arg(name)).await;
        assert_eq!(packed.code, Some(0), "{packed:?}");
        self.minisign(&["-S", "-s", "release.key", "-m", archive.to_str().unwrap()]).await;
        archive
    }

    async fn update(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(self.path("current/pulse"));
        command.env_clear().env("PULSE_DATA_DIR", self.folder.path()).env("PATH", "/usr/bin:/bin");
        command.arg("update").args(arguments);
        if arguments[0] != "history" {
            let service = self.path("service.sh");
            command.arg("--restart-with").arg(format!("{} restart", service.display()));
            command.arg("--stop-with").arg(format!("{} stop", service.display()));
            command.args(["--within", "8", "--steady", "1"]);
        }
        run(&mut command).await
    }

    async fn apply(&self, archive: &Path) -> Ended {
        self.update(&["apply", archive.to_str().unwrap()]).await
    }

    async fn history(&self) -> Value {
        serde_json::from_str(&self.update(&["history", "--json"]).await.stdout).unwrap()
    }

    /// What the daemon that runs answers to its owner.
    async fn get(&self, path: &str) -> Option<Value> {
        let owner = client_builder().unix_socket(self.folder.path().join("pulse.sock")).build().unwrap();
        owner.get(format!("http://localhost{path}")).send().await.ok()?.json().await.ok()
    }

    async fn until_version(&self, version: &str) {
        let look = async || self.get("/api/version").await.filter(|it| it["version"] == version);
        let seen = eventually(&format!("{version} runs"), PATIENCE, look).await;
        seen.unwrap_or_else(|late| panic!("{late}: {}", fs::read_to_string(self.path("service.log")).unwrap()));
    }

    async fn until_polled(&self, key: &str) {
        let look = async || {
            let health = self.get("/api/monitoring/scheduler/health").await?;
            let row = health["instances"].as_array()?.iter().find(|row| row["key"] == key)?.clone();
            row["pollStatus"]["lastSuccess"].is_string().then_some(())
        };
        eventually(&format!("{key} is polled"), PATIENCE, look).await.unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails only if it has stopped by itself.
        let _ = Command::new(self.path("service.sh")).arg("stop").status();
    }
}

fn version_of_this() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pulse")).arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().trim_start_matches("pulse ").to_owned()
}

#[tokio::test]
async fn a_broken_update_goes_back_by_itself_and_the_settings_stay() {
    let Some(_) = provided("minisign", minisign).await else { return };
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let machine = Machine::new(&lab.instances_json(None)).await;
    machine.until_polled("pve::rack").await;
    let before = machine.folder.configuration();

    let exits = "echo 'cannot start' >&2; exit 1";
    let hangs = "exec sleep 600";
    // Worse than hanging: it has spoiled the settings by then.
    let spoils = "echo '{}' >\"$PULSE_DATA_DIR/system.json\"; rm \"$PULSE_DATA_DIR/instances.json\"; exec sleep 600";
    for (version, broken) in [("7.0.0", exits), ("7.0.1", hangs), ("7.0.2", spoils)] {
        let archive = machine.release(version, broken).await;
        let ended = machine.apply(&archive).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&format!("version {} runs again", machine.version)), "{ended:?}");
        machine.until_version(&machine.version).await;
        machine.until_polled("pve::rack").await;
        assert!(machine.folder.configuration() == before, "the settings are those of before {version}");
        let last = machine.history().await[0].clone();
        assert_eq!((&last["to"], &last["outcome"]), (&json!(version), &json!("went_back")), "{last}");
        assert!(last["detail"].as_str().unwrap().contains("was not well within 8 s"), "{last}");
    }
    let told = machine.get("/api/updates/history").await.unwrap();
    assert_eq!((&told["managed"], &told["version"]), (&json!(true), &json!(machine.version)));
    assert_eq!(told["updates"], machine.history().await);
    let polled: Value = serde_json::from_str(&machine.folder.read("system.json")).unwrap();
    assert_eq!(polled, quick_settings());
    // What the third one left is kept beside the data folder.
    for aside in fs::read_dir(machine.folder.path().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()) {
        let name = machine.folder.path().file_name().unwrap().to_str().unwrap();
        if aside.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}.before-restore-")) {
            assert_eq!(fs::read_to_string(aside.join("system.json")).unwrap(), "{}\n");
            fs::remove_dir_all(aside).unwrap();
        }
    }
    drop(machine);
    lab.shutdown().await;
}

#[tokio::test]
async fn only_what_the_owner_of_the_pinned_key_has_signed_is_installed() {
    let Some(_) = provided("minisign", minisign).await else { return };
    let machine = Machine::new(&json!({"instances": []})).await;
    let refused = async |archive: &Path, why: &str| {
        let ended = machine.apply(archive).await;
        assert!(ended.code == Some(1) && ended.stderr.contains(why), "{why:?} is not in {ended:?}");
        let installed: Vec<_> = fs::read_dir(machine.path("releases")).unwrap().collect();
        assert_eq!(installed.len(), 1, "nothing of it is installed");
        assert_eq!(machine.history().await, json!([]));
        machine.until_version(&machine.version).await;
    };
    let archive = machine.release("9.0.0", "exit 1").await;
    let signature = machine.path("pulse-9.0.0.tar.gz.minisig");
    let good = fs::read(&signature).unwrap();

    fs::remove_file(&signature).unwrap();
    refused(&archive, "is not signed by the owner of").await;
    machine.minisign(&["-G", "-W", "-p", "other.pub", "-s", "other.key"]).await;
    machine.minisign(&["-S", "-s", "other.key", "-m", archive.to_str().unwrap()]).await;
    refused(&archive, "is not signed by the owner of").await;
    fs::write(&signature, good).unwrap();
    let mut altered = fs::read(&archive).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(&archive, altered).unwrap();
    refused(&archive, "is not signed by the owner of").await;

    refused(&machine.release("0.0.1", "exit 1").await, "is older than").await;
    refused(&machine.release(&machine.version, "exit 1").await, "runs already").await;
    refused(&machine.release("../9", "exit 1").await, "is no version").await;
    let ended = machine.update(&["restore"]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("no previous version"), "{ended:?}");
    let elsewhere = run(machine.folder.pulse(["update", "apply"]).arg(&archive)).await;
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains("is updated in the same way"), "{elsewhere:?}");
}
