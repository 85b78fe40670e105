//! How results are shown: as a table, as JSON, as JUnit XML.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};
use sim::Report;
use sim::report::Page;

use super::Failed;

/// A report, the real time it took, and where its scenario came from.
#[derive(Clone, Debug)]
pub(super) struct Timed {
    /// A built-in name or a file, as the command line had it.
    pub(super) source: String,
    pub(super) report: Report,
    pub(super) took: Duration,
    /// Options that belong to the run: another duration, another driver.
    pub(super) options: String,
}

impl Timed {
    /// The command that makes the run again.
    pub(super) fn replay_command(&self) -> String {
        // A saved finding has its own seed.
        let seed = if self.source.ends_with(".json") { String::new() } else { format!("{} ", self.report.seed) };
        format!("cargo run --release --bin sim -- replay {} {seed}--trace{}", quoted(&self.source), self.options)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut value = json!(self.report);
        value["wallSeconds"] = json!(self.took.as_secs_f64());
        value
    }
}

/// Prints a table of reports, and for each broken one what was broken and how to replay it.
pub(super) fn print_table(reports: &[Timed]) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["SCENARIO", "SEED", "VERDICT", "VIRTUAL", "POLLS", "EVENTS", "WALL", "EVENTS/S", "TRACE"]);
    for Timed { report, took, .. } in reports {
        let rate = report.events as f64 / took.as_secs_f64().max(1e-9);
        table.add_row([
            report.scenario.clone(),
            report.seed.to_string(),
            report.verdict.to_owned(),
            format!("{:.0}s", report.virtual_seconds),
            report.polls.to_string(),
            report.events.to_string(),
            format!("{:.3}s", took.as_secs_f64()),
            format!("{:.1}M", rate / 1e6),
            report.trace_hash.clone(),
        ]);
    }
    println!("{table}");
    for timed in reports {
        print_violations(timed);
    }
}

/// Prints what was broken and how to replay it.
pub(super) fn print_violations(timed: &Timed) {
    let report = &timed.report;
    for violation in &report.violations {
        println!("{} seed {}: {violation}", report.scenario, report.seed);
    }
    if !report.passed() {
        println!("replay it: {}", timed.replay_command());
    }
}

/// A word of a command line as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+,@".contains(c);
    match word.chars().all(plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Writes a page.
pub(super) fn write_page(file: &Path, page: &Page) -> Result<(), Failed> {
    write_file(file, &page.to_html())
}

pub(super) fn write_file(file: &Path, text: &str) -> Result<(), Failed> {
    std::fs::write(file, text).map_err(|error| Failed::Usage(format!("cannot write {}: {error}", file.display())))
}

/// Writes reports as JUnit XML, and beside them what is only known to have passed.
pub(super) fn write_junit(file: &Path, reports: &[Timed], passed: &[String]) -> Result<(), Failed> {
    let failures = reports.iter().filter(|timed| !timed.report.passed()).count();
    let tests = reports.len() + passed.len();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuite name=\"sim\" tests=\"{tests}\" failures=\"{failures}\">");
    for name in passed {
        let _ = writeln!(xml, "  <testcase name=\"{}\" classname=\"sim\"/>", escape(name));
    }
    for timed in reports {
        let Timed { report, took, .. } = timed;
        let name = escape(&format!("{} seed {}", report.scenario, report.seed));
        let seconds = took.as_secs_f64();
        let _ = write!(xml, "  <testcase name=\"{name}\" classname=\"sim\" time=\"{seconds:.3}\">");
        for violation in &report.violations {
            let message = escape(&violation.to_string());
            let _ = write!(xml, "<failure message=\"{message}\">{}</failure>", escape(&timed.replay_command()));
        }
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite>\n");
    write_file(file, &xml)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Broken if any report is.
pub(super) fn verdict(reports: &[Timed]) -> Result<(), Failed> {
    match reports.iter().all(|timed| timed.report.passed()) {
        true => Ok(()),
        false => Err(Failed::Broken),
    }
}
