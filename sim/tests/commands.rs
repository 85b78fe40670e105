//! The program `sim` through its command line: what it prints, writes and exits with.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn sim(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).current_dir(folder).output().expect("sim is built")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("sim prints text")
}

/// Nothing is ever late in it, but it says that the queue must stay empty.
const BROKEN: &str = r#"
    name = "broken"
    description = "An <expectation> that cannot hold"
    duration = "1m"
    [settings]
    adaptivePollingBaseInterval = "7s"
    [[hosts]]
    group = "racks & rows"
    count = 3
    [[faults]]
    kind = "refuse"
    from = "10s"
    for = "20s"
    [expect]
    maxQueueDepth = 0
"#;

fn broken(folder: &TempDir) -> String {
    std::fs::write(folder.path().join("my fleet.toml"), BROKEN).expect("the folder can be written to");
    "my fleet.toml".to_owned()
}

#[test]
fn json_has_exactly_the_documented_fields() {
    let done = sim(&["run", "integration", "--json"], folder().path());
    assert_eq!(done.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).expect("it is JSON");
    let mut fields: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut documented = [
        "scenario",
        "seed",
        "mode",
        "verdict",
        "events",
        "polls",
        "virtualSeconds",
        "wallSeconds",
        "traceHash",
        "violations",
    ];
    documented.sort_unstable();
    assert_eq!(fields, documented);
}

#[test]
fn a_failure_prints_one_command_and_that_command_fails_in_the_same_way() {
    let folder = folder();
    let file = broken(&folder);
    let done = sim(&["run", &file, "--seed", "7", "--duration", "30s"], folder.path());
    assert_eq!(done.status.code(), Some(1));
    let printed = words(&done.stdout);
    let command = printed.lines().find_map(|line| line.strip_prefix("replay it: cargo run --release --bin sim -- "));
    assert_eq!(command, Some("replay 'my fleet.toml' 7 --trace --duration 30s"));
    let again = sim(&["replay", &file, "7", "--trace", "--duration", "30s"], folder.path());
    assert_eq!(again.status.code(), Some(1));
    let broken = |text: &str| text.lines().find(|line| line.contains("queue-depth")).map(str::to_owned);
    assert!(broken(&printed).is_some());
    assert_eq!(broken(&printed), broken(&words(&again.stdout)));
}

#[test]
fn a_report_holds_verdict_replay_settings_hosts_and_plots_and_escapes_what_the_scenario_says() {
    let folder = folder();
    let file = broken(&folder);
    let done = sim(&["run", &file, "--report", "page.html", "--junit", "junit.xml"], folder.path());
    assert_eq!(done.status.code(), Some(1));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it was written");
    let page = read("page.html");
    for part in [
        "1 broken",
        "queue-depth at",
        "replay &#39;my fleet.toml&#39; 1 --trace",
        "An &#60;expectation&#62; that cannot hold",
        "adaptivePollingBaseInterval",
        "pve::racks &#38; rows-2",
        "first failure: refused",
        "Staleness",
        "Poll rate",
        "Queue and slots",
        "all hosts, at 10s for 20s",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("<expectation>") && !page.contains("<script"));
    assert!(read("junit.xml").contains("tests=\"1\" failures=\"1\""));
}

#[test]
fn a_farm_and_sim_alone_write_a_page_of_all_their_runs() {
    let folder = folder();
    let file = broken(&folder);
    let done = sim(
        &["farm", &file, "swarm", "--seeds", "2", "--check", "--report", "farm.html", "--junit", "farm.xml"],
        folder.path(),
    );
    assert_eq!(done.status.code(), Some(1));
    let page = std::fs::read_to_string(folder.path().join("farm.html")).expect("it was written");
    assert!(page.contains("2 of 4 runs broken") && page.contains("broken, seed 1: Hosts"), "with the first in full");
    assert!(page.contains("Rare states"));
    let junit = std::fs::read_to_string(folder.path().join("farm.xml")).expect("it was written");
    assert!(junit.contains("tests=\"3\" failures=\"2\"") && junit.contains("swarm: 2 seeds"), "{junit}");
    let alone = sim(&["--report", "alone.html", "--json"], folder.path());
    assert_eq!(alone.status.code(), Some(0));
    let page = std::fs::read_to_string(folder.path().join("alone.html")).expect("it was written");
    assert!(page.contains("42 runs, none broken") && page.contains("integration") && page.contains("soak"));
}

#[test]
fn a_farm_with_a_time_goes_on_until_it_is_over() {
    let done = sim(&["farm", "integration", "--for", "300ms", "--jobs", "1", "--json"], folder().path());
    assert_eq!(done.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).expect("it is JSON");
    let took = value["wallSeconds"].as_f64().expect("a number");
    assert!(took >= 0.3, "{took}");
}

#[test]
fn what_is_no_scenario_gets_one_line_and_code_2() {
    let folder = folder();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("it can be written");
    write("empty.toml", b"");
    write("binary.toml", &[0, 159, 146, 150, 255, 0, 1]);
    write("huge.toml", &vec![b'#'; 5 << 20]);
    write("found.json", b"{\"seed\": 1,\n \"scenario\": 7}");
    for (arguments, part) in [
        (&["run", "empty.toml"][..], "empty.toml:1:1: missing field `name`"),
        (&["run", "binary.toml"], "cannot read binary.toml: "),
        (&["run", "huge.toml"], "larger than 4 MiB"),
        (&["run", "."], "cannot read .: "),
        (&["run", "soka"], "`sim list` names the built-in scenarios"),
        (&["replay", "found.json"], "found.json: "),
        (&["diff", "soka:1", "soak:1"], "`sim list` names the built-in scenarios"),
    ] {
        let done = sim(arguments, folder.path());
        let said = words(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.starts_with("sim: ") && said.contains(part) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}

#[test]
fn a_seed_alone_is_that_of_a_swarm_and_replays_as_such() {
    let folder = folder();
    let done = sim(&["replay", "267", "--duration", "1m", "--report", "page.html"], folder.path());
    assert_eq!(done.status.code(), Some(0));
    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("it was written");
    assert!(page.contains("replay swarm 267 --trace --duration 1m"), "{page}");
}

#[test]
fn the_first_event_that_differs_is_shown() {
    let same = sim(&["diff", "integration:1", "integration:1"], folder().path());
    assert_eq!(same.status.code(), Some(0));
    let other = sim(&["diff", "integration:1", "integration:2"], folder().path());
    assert_eq!(other.status.code(), Some(1));
    let shown = words(&other.stdout);
    assert!(shown.contains("\n- ") && shown.contains("\n+ ") && shown.contains("event "), "{shown}");
}

#[test]
fn a_run_of_another_length_is_shrunk_from_that_length() {
    let folder = folder();
    let done = sim(&["shrink", &broken(&folder), "1", "--duration", "40s"], folder.path());
    assert_eq!(done.status.code(), Some(1));
    let told = words(&done.stdout);
    assert!(told.starts_with("before: 3 hosts, 1 faults, 0 operators, 40s"), "{told}");
}
