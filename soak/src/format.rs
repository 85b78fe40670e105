//! What came of a run, and how it is shown: while it goes on, as a table, as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use pulse::engine::Millis;
use serde::Serialize;

use crate::checks::{Check, Verdict};
use crate::load::Calls;
use crate::sample::{Leftover, Sample};
use crate::sites::GrownSite;

const MIB: f64 = 1_048_576.0;
/// Sites told at the most.
const TOLD_SITES: usize = 8;

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) scenario: String,
    /// What of the scenario and its surroundings was not there.
    pub(crate) unplayed: Vec<String>,
    pub(crate) checks: Vec<Check>,
    pub(crate) calls: BTreeMap<&'static str, Calls>,
    /// Sites that hold more than after the warm-up; looked for only if something was broken or the heap rose.
    pub(crate) sites: Vec<GrownSite>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) warm_up_samples: usize,
    pub(crate) is_early: bool,
    pub(crate) leftover: Option<Leftover>,
}

impl Summary {
    /// Whether no rule was broken.
    pub(crate) fn passed(&self) -> bool {
        !self.checks.iter().any(Check::failed)
    }
}

/// A bar for a run of this length, or none.
pub(crate) fn progress_bar(length: Millis, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
    ProgressBar::new(length.get()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows where the run is and what the daemon holds.
pub(crate) fn progress(bar: &ProgressBar, sample: &Sample) {
    bar.set_position(sample.at);
    let heap = sample.heap_bytes as f64 / MIB;
    if sample.tasks == 0 {
        return bar.set_message(format!("{heap:.2} MiB heap"));
    }
    bar.set_message(format!(
        "{heap:.2} MiB heap, {} tasks, {} descriptors, {} + {} connections, {} queued",
        sample.tasks, sample.descriptors, sample.inbound, sample.outbound, sample.queue_depth
    ));
}

/// The table of checks, and for what was broken all that is known.
pub(crate) fn table(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["RULE", "MEASURED", "ALLOWED", "VERDICT"]);
    for check in &summary.checks {
        let verdict = match check.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotJudged => "not judged",
        };
        table.add_row([&check.rule, &check.measured, &check.allowed, verdict]);
    }
    let mut text = format!("{table}\n");
    if !summary.sites.is_empty() {
        text.push_str("\nallocation sites that grew since the warm-up:\n");
    }
    for site in summary.sites.iter().take(TOLD_SITES) {
        let GrownSite { site: name, bytes, blocks, .. } = site;
        let _ = writeln!(text, "  {:+} bytes in {:+} blocks  {name}", bytes, blocks);
        for frame in site.frames.iter().filter(|frame| *frame != name) {
            let _ = writeln!(text, "      {frame}");
        }
    }
    for what in &summary.unplayed {
        let _ = writeln!(text, "not played: {what}");
    }
    let broken = summary.checks.iter().filter(|check| check.failed()).count();
    let early = if summary.is_early { ", ended early" } else { "" };
    let _ = write!(text, "{}: {} rules, {broken} broken{early}", summary.scenario, summary.checks.len());
    text
}
