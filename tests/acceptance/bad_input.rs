//! Bad input: one clear error that names the place and the mend, an exit code that tells the kind, and nothing changed
//! on disk.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use pulse::lab::HostPlan;
use serde_json::{Value, json};

use super::support::{Daemon, Ended, Folder, SEED, client, eventually, free_address, lab, run};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONFIGURATION: i32 = 3;
const DAEMON: i32 = 4;

fn serve(folder: &Folder) -> Command {
    let (listen, metrics) = (free_address().to_string(), free_address().to_string());
    folder.pulse(["serve", "--listen", &listen, "--metrics-listen", &metrics])
}

/// Runs a command that has to be refused with these words, and has to leave the folder as it was.
async fn refused(folder: &Folder, command: &mut Command, code: i32, place: &str, mend: &str) -> Ended {
    let before = folder.snapshot();
    let ended = run(command).await;
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(folder.snapshot(), before, "nothing is changed on disk");
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.starts_with("pulse: "), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "one error: {}", ended.stderr);
    assert!(ended.stderr.contains(place), "{place:?} is not in: {}", ended.stderr);
    assert!(ended.stderr.contains(mend), "{mend:?} is not in: {}", ended.stderr);
    ended
}

/// Wrong configuration stops `serve`, and `config validate` says the same.
async fn refused_configuration(folder: &Folder, place: &str, mend: &str) {
    let serving = refused(folder, &mut serve(folder), CONFIGURATION, place, mend).await;
    let validating = refused(folder, &mut folder.pulse(["config", "validate"]), CONFIGURATION, place, mend).await;
    assert_eq!(serving.stderr, validating.stderr);
}

fn pve(name: &str, secret: &Value) -> Value {
    json!({
        "type": "pve",
        "name": name,
        "url": "https://127.0.0.1:8006",
        "auth": {"tokenId": "pulse@pve!monitor", "secret": secret},
    })
}

fn folder_with_fleet(instances: &[Value]) -> Folder {
    let folder = Folder::new();
    folder.write_json("instances.json", &json!({ "instances": instances }));
    folder
}

#[tokio::test]
async fn an_unknown_type_is_refused_with_those_that_are_known() {
    let folder = folder_with_fleet(&[json!({"type": "vmware", "name": "rack"})]);
    refused_configuration(&folder, "instances.json: instances[0].type:", "must be one of http, pbs, pmg, pve, tcp")
        .await;
}

#[tokio::test]
async fn a_minimum_above_the_maximum_is_refused() {
    let folder = Folder::new();
    folder.write_json("system.json", &json!({"adaptivePollingMinInterval": "10m", "adaptivePollingMaxInterval": "1m"}));
    let before = folder.snapshot();
    let ended = run(&mut serve(&folder)).await;
    assert_eq!((ended.code, folder.snapshot()), (Some(CONFIGURATION), before), "{ended:?}");
    // The base interval lies between the two, so more than one rule is broken; each is told on its own line.
    assert!(ended.stderr.contains("system.json: adaptivePollingMinInterval"), "{}", ended.stderr);
    assert!(ended.stderr.contains("must not exceed"), "{}", ended.stderr);
}

#[tokio::test]
async fn two_instances_of_one_name_are_refused() {
    let secret = json!("hunter2");
    let folder = folder_with_fleet(&[pve("rack", &secret), pve("rack", &secret)]);
    let place = "instances.json: instances[1].name: pve::rack is already the name of instances[0]";
    refused_configuration(&folder, place, "give one of them another name").await;
}

#[tokio::test]
async fn a_key_that_is_given_twice_is_refused() {
    let folder = Folder::new();
    folder.write("system.json", r#"{"pollingMaxInFlight": 1, "pollingMaxInFlight": 2}"#);
    refused_configuration(&folder, "system.json: pollingMaxInFlight", "is given more than once; keep one").await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_refused() {
    let folder = folder_with_fleet(&[pve("rack", &json!({"file": "rack.secret"}))]);
    let place = "instances.json: instances[0].auth.secret.file:";
    refused_configuration(&folder, place, "does not exist; create it or mend the path").await;

    std::fs::create_dir(folder.path().join("rack.secret")).unwrap();
    refused_configuration(&folder, place, "check that it is a file and that this user may read it").await;

    std::fs::remove_dir(folder.path().join("rack.secret")).unwrap();
    folder.write("rack.secret", "hunter2");
    let permissions = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(folder.path().join("rack.secret"), permissions).unwrap();
    refused_configuration(&folder, place, "run: chmod o-rwx").await;

    let folder = folder_with_fleet(&[pve("rack", &json!({"env": "RACK_SECRET"}))]);
    refused_configuration(&folder, "instances[0].auth.secret.env:", "RACK_SECRET is not set; set it and restart").await;
}

#[tokio::test]
async fn broken_json_is_refused_with_line_and_column() {
    for file in ["system.json", "instances.json"] {
        let folder = Folder::new();
        folder.write(file, "{\n  \"a\": }\n");
        refused_configuration(&folder, &format!("{file}: line 2, column 8: "), "expected value").await;
    }
}

#[tokio::test]
async fn a_bad_value_in_the_environment_is_refused_and_makes_no_folder() {
    let parent = Folder::new();
    for (name, value, mend) in [
        ("ADAPTIVE_POLLING_BASE_INTERVAL", "soon", "10s"),
        ("ADAPTIVE_POLLING_BASE_INTERVAL", "30", "write 30s for seconds"),
        ("ADAPTIVE_POLLING_ENABLED", "perhaps", "must be true or false"),
        ("POLLING_MAX_IN_FLIGHT", "many", "must be a whole number"),
    ] {
        let mut command = serve(&parent);
        command.env("PULSE_DATA_DIR", parent.path().join("new/folder")).env(name, value);
        refused(&parent, &mut command, CONFIGURATION, &format!("environment variable {name}: "), mend).await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_with_the_option_that_chooses_another() {
    let taken = TcpListener::bind(free_address()).unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    for option in ["--listen", "--metrics-listen"] {
        for demo in [false, true] {
            let folder = Folder::new();
            let free = free_address().to_string();
            let other = if option == "--listen" { "--metrics-listen" } else { "--listen" };
            let mut command = folder.pulse(["serve", option, &taken_at, other, &free]);
            command.args(demo.then_some("--demo"));
            let mend = format!("another program uses the port; stop it or choose another with {option}");
            refused(&folder, &mut command, FAILED, &format!("cannot listen on {taken_at}"), &mend).await;
            let mut command = command;
            command.env("PULSE_DATA_DIR", folder.path().join("new"));
            refused(&folder, &mut command, FAILED, &taken_at, &mend).await;
        }
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_refused() {
    let folder = Folder::new();
    folder.write("file", "mine");
    let file = folder.path().join("file");
    // Modes do not bind root, but nobody can write to these.
    for (data_dir, problem) in [
        (file.display().to_string(), "exists, but is not a folder"),
        (format!("{}/below", file.display()), "cannot be created"),
        ("/proc/self".to_owned(), "cannot be written to"),
        ("/proc/pulse".to_owned(), "cannot be created"),
    ] {
        let mend = "choose another with --data-dir or PULSE_DATA_DIR";
        for demo in [None, Some("--demo")] {
            let mut command = serve(&folder);
            command.args(["--data-dir", &data_dir]).args(demo);
            let ended = refused(&folder, &mut command, CONFIGURATION, &format!("data folder {data_dir}"), mend).await;
            assert!(ended.stderr.contains(problem), "{}", ended.stderr);
        }
        let mut command = folder.pulse(["token", "create", "--name", "a", "--data-dir", &data_dir]);
        refused(&folder, &mut command, CONFIGURATION, &data_dir, mend).await;
    }
}

#[tokio::test]
async fn a_second_daemon_on_the_same_data_folder_is_refused_and_the_first_goes_on() {
    let lab = lab(vec![HostPlan::pve(SEED, "rack", 3)]).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let daemon = Daemon::start(&folder).await;
    let place = format!("{} answers", folder.path().join("pulse.sock").display());
    for demo in [None, Some("--demo")] {
        let mut command = serve(&folder);
        command.args(demo);
        refused(&folder, &mut command, FAILED, &place, "stop it or choose another --data-dir").await;
    }
    let read = daemon.until_state("pve::rack", |row| row["readAt"].is_string()).await["readAt"].clone();
    daemon.until_state("pve::rack", |row| row["readAt"] != read).await;
    let over_socket = run(&mut folder.pulse(["health"])).await;
    assert_eq!(over_socket.code, Some(0), "{over_socket:?}");
    daemon.stop().await;
    lab.shutdown().await;
}

#[tokio::test]
async fn a_second_demo_is_refused_and_the_first_keeps_its_fleet() {
    let folder = Folder::new();
    let daemon = Daemon::start_with(&folder, &["--demo"], &[]).await;
    let healthy = |row: &Value| row["pollStatus"]["lastSuccess"].is_string();
    daemon.until_instance("pve::atlas", healthy).await;

    let mut command = folder.pulse(["serve", "--demo", "--listen", &daemon.address.to_string()]);
    let mend = "choose another with --listen";
    refused(&folder, &mut command, FAILED, &daemon.address.to_string(), mend).await;
    let mut command = serve(&folder);
    command.arg("--demo");
    refused(&folder, &mut command, FAILED, "another daemon is running", "choose another --data-dir").await;

    let seen = daemon.instance("pve::atlas").await["pollStatus"]["lastSuccess"].clone();
    daemon.until_instance("pve::atlas", |row| healthy(row) && row["pollStatus"]["lastSuccess"] != seen).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_refused_with_the_usage() {
    let folder = Folder::new();
    for (arguments, words) in [
        (&["health", "--url", "http://127.0.0.1:1"][..], "--token-file <FILE>"),
        (&["health", "--token-file", "token"], "--url <URL>"),
        (&["serve", "--listen", "everywhere"], "--listen <ADDRESS>"),
        (&["health", "--url", "not a url", "--token-file", "token"], "--url <URL>"),
        (&["polish"], "unrecognized subcommand"),
        (&[], "Usage: pulse"),
    ] {
        let before = folder.snapshot();
        let ended = run(&mut folder.pulse(arguments)).await;
        assert_eq!(ended.code, Some(USAGE), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{words:?} is not in: {}", ended.stderr);
        assert_eq!(folder.snapshot(), before);
    }
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_or_refuses_is_told_apart_from_other_failures() {
    let folder = Folder::quick(&json!({"instances": []}));
    let socket = folder.path().join("pulse.sock").display().to_string();
    refused(&folder, &mut folder.pulse(["health"]), DAEMON, &socket, "start one with `pulse serve`").await;

    folder.write("wrong.token", "pulse_wrong");
    let token_file = folder.path().join("wrong.token").display().to_string();
    let nobody = format!("http://{}", free_address());
    let mut command = folder.pulse(["health", "--url", &nobody, "--token-file", &token_file]);
    refused(&folder, &mut command, DAEMON, &nobody, "check the address").await;

    let daemon = Daemon::start(&folder).await;
    let url = format!("http://{}", daemon.address);
    let before = folder.configuration();
    let ended = run(&mut folder.pulse(["health", "--url", &url, "--token-file", &token_file])).await;
    assert_eq!((ended.code, folder.configuration()), (Some(DAEMON), before), "{ended:?}");
    for told in ["Valid credentials are needed (401)", "pulse token create"] {
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("pulse_wrong"), "{}", ended.stderr);
    let metrics = client().get(format!("http://{}/metrics", daemon.metrics)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("pulse_auth_refused_total{reason=\"wrong_token\"} 1\n"), "{metrics}");
    let audited = daemon.get("/api/audit?action=token.use&outcome=refused").await;
    assert_eq!(audited["entries"].as_array().unwrap().len(), 1, "{audited:#}");

    let mut command = folder.pulse(["health", "--url", &url, "--token-file", "/no/such/file"]);
    refused(&folder, &mut command, FAILED, "cannot read the token in /no/such/file", "No such file").await;

    folder.write("right.token", format!("{}\n", daemon.token));
    let token_file = folder.path().join("right.token").display().to_string();
    let ended = run(&mut folder.pulse(["health", "--url", &url, "--token-file", &token_file])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_made_while_the_daemon_runs_opens_the_api_at_once() {
    let folder = Folder::quick(&json!({"instances": []}));
    let daemon = Daemon::start(&folder).await;
    let made = run(&mut folder.pulse(["token", "create", "--name", "wall", "--json"])).await;
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    let asked = || async {
        let request = daemon.anonymous(reqwest::Method::GET, "/api/version").bearer_auth(token);
        (request.send().await.unwrap().status() == 200).then_some(())
    };
    eventually("the token is honoured", super::support::PATIENCE, asked).await.unwrap();
    let again = run(&mut folder.pulse(["token", "create", "--name", "wall"])).await;
    assert_eq!(again.code, Some(DAEMON), "{again:?}");
    assert!(again.stderr.contains("there is a token named \"wall\" already; choose another name"), "{again:?}");
    daemon.stop().await;
}
