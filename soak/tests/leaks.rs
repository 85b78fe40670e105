//! Each kind of leak, planted in the judged process, is caught and named; without one, nothing is.

use std::process::{Command, Output};

use serde_json::Value;

/// A few hosts and no warm-up to speak of, so that a run takes seconds.
const SMALL: &str = r#"
name = "small"
duration = "20s"
[settings]
adaptivePollingBaseInterval = "1s"
adaptivePollingMinInterval = "500ms"
adaptivePollingMaxInterval = "2s"
[[hosts]]
group = "healthy"
count = 6
latency = "40ms"
[expect]
finalQueueDepth = 6
[expect.groups.healthy]
maxAge = "10s"
minSuccesses = 3
[expect.deadLetters]
groups = []
others = "none"
"#;

fn soak(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_soak");
    Command::new(program).args(arguments).output().expect("the program can be started")
}

/// A run in real time; its exit code and what it found.
fn small_run(arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("small.toml");
    std::fs::write(&file, SMALL).expect("the folder takes files");
    let scenario = format!("--scenario={}", file.display());
    let output = soak(&[&[scenario.as_str(), "--for=20s", "--warm-up=10s", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text);
    let report = report.unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn broken(report: &Value) -> Vec<(&str, &str)> {
    let checks = report["checks"].as_array().expect("a report has checks").iter();
    let failed = checks.filter(|check| check["verdict"] == "fail");
    failed.map(|check| (check["rule"].as_str().unwrap_or(""), check["measured"].as_str().unwrap_or(""))).collect()
}

/// The functions of the sites that grew, the largest growth first.
fn sites(report: &Value) -> Vec<&str> {
    report["sites"].as_array().expect("a report has sites").iter().filter_map(|site| site["site"].as_str()).collect()
}

#[test]
fn a_daemon_without_a_leak_breaks_no_rule() {
    let (code, report) = small_run(&[]);
    assert_eq!(broken(&report), []);
    assert_eq!(code, Some(0));
    assert!(report["calls"]["dashboards"]["made"].as_u64() > Some(10), "{}", report["calls"]);
}

#[test]
fn leaked_memory_is_caught_and_its_site_is_named() {
    let (code, report) = small_run(&["--leak=heap", "--no-callers"]);
    assert!(broken(&report).iter().any(|(rule, _)| *rule == "growth: live heap"), "{report:#}");
    assert!(sites(&report)[0].contains("leaked_memory"), "{:?}", sites(&report));
    assert_eq!(code, Some(1));
}

#[test]
fn a_leaked_task_is_caught_while_it_runs_and_after_the_daemon_and_where_it_was_spawned_is_named() {
    let (code, report) = small_run(&["--leak=task", "--no-callers"]);
    let broken = broken(&report);
    for rule in ["growth: standing tasks", "standing tasks after the warm-up", "tasks that outlive the daemon"] {
        assert!(broken.iter().any(|(broken, _)| *broken == rule), "{rule}: {broken:?}");
    }
    assert!(sites(&report).iter().any(|site| site.contains("leak_task")), "{:?}", sites(&report));
    assert_eq!(code, Some(1));
}

#[test]
fn a_leaked_descriptor_is_caught_and_what_it_leads_to_is_named() {
    let (code, report) = small_run(&["--leak=descriptor", "--no-callers"]);
    let broken = broken(&report);
    assert!(broken.iter().any(|(rule, _)| *rule == "growth: standing descriptors"), "{broken:?}");
    let left = broken.iter().find(|(rule, _)| *rule == "descriptors that outlive the daemon");
    assert!(left.is_some_and(|(_, measured)| measured.contains("/dev/null")), "{broken:?}");
    assert_eq!(code, Some(1));
}

#[test]
fn the_engines_memory_is_flat_over_virtual_hours_and_a_leak_beside_it_is_named() {
    let run = |arguments: &[&str]| {
        let output = soak(&[&["--virtual=30m", "--json"], arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
        (output.status.code(), report)
    };
    let (code, report) = run(&[]);
    assert_eq!(broken(&report), []);
    assert_eq!(code, Some(0));
    let (code, report) = run(&["--leak=heap"]);
    assert_eq!(broken(&report).len(), 1, "{:?}", broken(&report));
    assert!(sites(&report)[0].contains("leaked_memory"), "{:?}", sites(&report));
    assert_eq!(code, Some(1));
}

#[test]
fn an_interrupt_ends_a_run_early_with_a_whole_report() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let out = format!("--out={}", folder.path().display());
    let child = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--minutes=60", "--scenario=integration", "--json", "--no-callers", &out])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let log = folder.path().join("daemon.log");
    let is_polling = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("dead-letter"));
    let patience = std::time::Duration::from_millis(100);
    for _ in 0..600 {
        if is_polling() {
            break;
        }
        // Reading from a channel that nobody writes to waits without a clock of our own.
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let _ = never.recv_timeout(patience);
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill can be started").success());
    let output = child.wait_with_output().expect("it ends");
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    assert_eq!(report["isEarly"], true);
    assert_eq!(broken(&report), []);
    assert_eq!(output.status.code(), Some(0));
    for file in ["report.json", "report.txt", "report.html"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}

#[test]
fn bad_inputs_are_told_in_one_line() {
    for (arguments, words) in [
        (["--scenario=no-such", "--minutes=1"], "no scenario"),
        (["--out=/proc/nowhere", "--minutes=1"], "choose another --out"),
        (["--scenario=/etc/hostname", "--minutes=1"], "/etc/hostname:1:"),
    ] {
        let output = soak(&arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(words) && told.lines().count() == 1, "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = soak(&["--minutes=0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 is not in 1..=525600"), "minutes");
    assert_eq!(output.status.code(), Some(2));
}
