//! The shipped alert rules and dashboard, in a real Prometheus that scrapes a real daemon with the lab.
//!
//! An alert waits for minutes. Here a copy of the shipped rules is loaded in which every minute is a second.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pulse::lab::{FaultKind, HostPlan, Lab};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::installed::{found, provided};
use super::support::{Daemon, Folder, Program, SEED, client, eventually, free_address, lab, quick_settings, run};

const RULES: &str = include_str!("../../packaging/prometheus/pulse.rules.yml");
const DASHBOARD: &str = include_str!("../../packaging/grafana/pulse.json");
const METRICS: &str = include_str!("../../docs/metrics.md");

/// What the lab cannot bring about: nobody takes the log's lines for longer than a test may last.
const NOT_BY_THE_LAB: [&str; 1] = ["PulseLogLinesDropped"];
const PATIENCE: Duration = Duration::from_secs(60);

fn debian_program(name: &str) -> Option<PathBuf> {
    found([Path::new("/usr/bin").join(name), Path::new("/usr/local/bin").join(name)])
}

/// The names of all shipped alerts.
fn shipped_alerts() -> BTreeSet<&'static str> {
    RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// The shipped rules, a minute made a second.
fn quick_rules() -> String {
    let quick = |line: &str| {
        let line = line.replace("m]", "s]");
        match line.trim_start().starts_with("for: ") {
            true => line.trim_end_matches('m').to_owned() + "s",
            false => line,
        }
    };
    RULES.lines().map(quick).collect::<Vec<_>>().join("\n")
}

/// Every expression of the shipped dashboard, with the panel that it is in.
fn dashboard_expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels.flat_map(of_panel).collect()
}

/// The names of Pulse's metrics in a text, without what a histogram adds.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("pulse_monitor_") || word.starts_with("pulse_log_"));
    metrics
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect()
}

/// A Prometheus of one's own that scrapes one daemon.
struct Prometheus {
    url: String,
    _program: Program,
    _folder: TempDir,
}

impl Prometheus {
    async fn scraping(daemon: &Daemon, program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "250ms"},
            "rule_files": ["quick.rules.yml"],
            "scrape_configs": [{"job_name": "pulse", "static_configs": [{"targets": [daemon.metrics]}]}],
        });
        std::fs::write(folder.path().join("quick.rules.yml"), quick_rules()).unwrap();
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let address = free_address();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let program = Program::start(&mut command, folder.path());
        let url = format!("http://{address}");
        let ready = async || client().get(format!("{url}/-/ready")).send().await.ok().filter(|it| it.status() == 200);
        eventually("Prometheus is ready", PATIENCE, ready).await.unwrap();
        Self { url, _program: program, _folder: folder }
    }

    async fn query(&self, expression: &str) -> Vec<Value> {
        let mut url = Url::parse(&format!("{}/api/v1/query", self.url)).unwrap();
        url.query_pairs_mut().append_pair("query", expression);
        let answer: Value = client().get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await;
        alerts.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until each of these has been seen to fire.
    async fn until_fired(&self, wanted: &[&'static str]) {
        let mut missing: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let look = async || {
            for name in self.firing().await {
                missing.remove(&name);
            }
            missing.is_empty().then_some(())
        };
        let late = eventually("the alerts fire", PATIENCE, look).await;
        assert!(late.is_ok(), "not fired: {missing:?}");
    }

    async fn until_quiet(&self) {
        let look = async || self.firing().await.is_empty().then_some(());
        let late = eventually("the alerts clear", PATIENCE, look).await;
        assert!(late.is_ok(), "still firing: {:?}", self.firing().await);
    }
}

async fn heal(lab: &Lab) {
    for host in lab.hosts() {
        lab.clear_fault(&host.name).await.unwrap();
    }
}

#[test]
fn rules_and_dashboard_name_nothing_but_documented_metrics() {
    let documented = metrics_named(METRICS);
    let expressions: Vec<String> = dashboard_expressions().into_iter().map(|(_, expression)| expression).collect();
    for used in metrics_named(RULES).union(&metrics_named(&expressions.join("\n"))) {
        assert!(documented.contains(used), "{used} is not in docs/metrics.md");
    }
    let shown = metrics_named(DASHBOARD);
    // The panels name late instances by their staleness; the alert does by the series made for it.
    let unused: Vec<&&str> = documented.iter().filter(|name| !shown.contains(*name)).collect();
    assert_eq!(unused, [&"pulse_monitor_instance_late"], "metrics that no panel shows");
}

#[tokio::test]
async fn promtool_finds_the_rules_sound_and_each_fires_and_clears_on_its_series() {
    let Some(promtool) = provided("prometheus", || debian_program("promtool")).await else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    for arguments in [["check", "rules", "pulse.rules.yml"], ["test", "rules", "pulse.rules.test.yml"]] {
        let ended = run(Command::new(&promtool).current_dir(&folder).args(arguments)).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let tests = std::fs::read_to_string(folder.join("pulse.rules.test.yml")).unwrap();
    for alert in shipped_alerts() {
        assert!(tests.contains(alert), "{alert} is not in pulse.rules.test.yml");
    }
}

#[tokio::test]
async fn alerts_fire_in_a_real_prometheus_when_the_lab_breaks_the_matching_thing_and_clear_after() {
    let Some(program) = provided("prometheus", || debian_program("prometheus")).await else { return };
    let mut hosts: Vec<HostPlan> = (0..8).map(|n| HostPlan::pve(SEED, format!("rack-{n}"), 3)).collect();
    hosts.extend([HostPlan::pve(SEED, "down", 3), HostPlan::pbs(SEED, "locked", &["daily"])]);
    let lab = lab(hosts).await;
    let folder = Folder::quick(&lab.instances_json(None));
    let mut settings = quick_settings();
    settings["pollingMaxInFlight"] = json!(1);
    for recheck in ["deadLetterPermanentRecheck", "deadLetterTransientRecheck", "deadLetterTransientRecheckMax"] {
        settings[recheck] = json!("500ms");
    }
    folder.write_json("system.json", &settings);
    let daemon = Daemon::start(&folder).await;
    let prometheus = Prometheus::scraping(&daemon, &program).await;
    let scraped = async || (prometheus.query("pulse_monitor_poll_staleness_seconds").await.len() == 10).then_some(());
    eventually("the fleet is scraped", PATIENCE, scraped).await.unwrap();
    prometheus.until_quiet().await;

    lab.set_fault("down", FaultKind::Refuse).await.unwrap();
    lab.set_fault("locked", FaultKind::status(403)).await.unwrap();
    let of_hosts = [
        "PulseBreakerOpen",
        "PulseDeadLetters",
        "PulsePermanentFailures",
        "PulseInstanceLate",
        "PulseManyInstancesLate",
    ];
    prometheus.until_fired(&of_hosts).await;
    let named = prometheus.query("ALERTS{alertname=\"PulseBreakerOpen\", alertstate=\"firing\"}").await;
    assert!(named.iter().any(|it| it["metric"]["exported_instance"] == "down"), "the instance is named: {named:?}");
    for (panel, expression) in dashboard_expressions() {
        let expression = expression.replace("$__rate_interval", "5s").replace("$daemon", ".*");
        assert!(!prometheus.query(&expression).await.is_empty(), "panel {panel:?} shows nothing: {expression}");
    }
    heal(&lab).await;
    prometheus.until_quiet().await;

    // One poll at a time, and each takes far longer than its share.
    for host in lab.hosts() {
        lab.set_fault(&host.name, FaultKind::Slow { delay_ms: 150, drip_ms: 0 }).await.unwrap();
    }
    let of_load = ["PulseQueueBacklog", "PulseOverloaded"];
    prometheus.until_fired(&of_load).await;
    heal(&lab).await;
    prometheus.until_quiet().await;

    daemon.stop().await;
    prometheus.until_fired(&["PulseDown"]).await;
    let daemon = Daemon::start(&folder).await;
    prometheus.until_quiet().await;
    daemon.stop().await;
    lab.shutdown().await;

    let seen: BTreeSet<&str> = of_hosts.into_iter().chain(of_load).chain(["PulseDown"]).collect();
    let not_seen: Vec<&str> = shipped_alerts().difference(&seen).copied().collect();
    assert_eq!(not_seen, NOT_BY_THE_LAB, "an alert that is shipped is fired here");
}
