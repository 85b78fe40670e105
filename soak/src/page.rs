//! The report of a run as a page: the verdict, every rule, and plots of what the daemon held over time.

use sim::report::{Block, Figure, Page, Plot, Section, Series, Table, Tone};

use crate::checks::{Check, SERIES, Unit, Verdict};
use crate::format::Summary;
use crate::sample::Sample;

const MIB: f64 = 1_048_576.0;

/// The page as HTML.
pub(crate) fn html(summary: &Summary) -> String {
    let broken = summary.checks.iter().filter(|check| check.failed()).count();
    let (verdict, tone) = match broken {
        0 => ("every rule held".to_owned(), Tone::Good),
        1 => ("1 rule broken".to_owned(), Tone::Bad),
        more => (format!("{more} rules broken"), Tone::Bad),
    };
    let early = if summary.is_early { ", ended early" } else { "" };
    let minutes = summary.samples.last().map_or(0, |sample| sample.at) as f64 / 60_000.0;
    let lead = format!("{minutes:.1} minutes, {} samples{early}", summary.samples.len());
    Page::new(format!("Soak: {}", summary.scenario))
        .with_lead(lead)
        .with_verdict(verdict, tone)
        .with(Section::new("At the end", figures(summary)))
        .with(Section::new("Rules", [Block::Table(rules(&summary.checks))]))
        .with(Section::new("Where memory grew", sites(summary)))
        .with(Section::new("Over time", plots(summary)))
        .with(Section::new("Calls", calls(summary)))
        .with(Section::new("Not played", not_played(summary)))
        .to_html()
}

fn figures(summary: &Summary) -> Option<Block> {
    let (last, first) = (summary.samples.last()?, summary.samples.get(summary.warm_up_samples)?);
    let figure = |name: &str, unit: Unit, value: fn(&Sample) -> f64| {
        Figure::new(name, format!("{} → {}", unit.show(value(first)), unit.show(value(last))))
    };
    let shown = SERIES.iter().filter(|series| summary.samples.iter().any(|sample| (series.value)(sample) != 0.0));
    Some(Block::Figures(shown.map(|series| figure(series.name, series.unit, series.value)).collect()))
}

fn rules(checks: &[Check]) -> Table {
    let row = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Pass => "held",
            Verdict::Fail => "BROKEN",
            Verdict::NotJudged => "not judged",
        };
        vec![check.rule.clone(), check.measured.clone(), check.allowed.clone(), verdict.to_owned()]
    };
    let headings = ["rule", "measured", "allowed", "verdict"].map(str::to_owned).to_vec();
    Table { headings, rows: checks.iter().map(row).collect() }
}

fn sites(summary: &Summary) -> impl Iterator<Item = Block> + '_ {
    summary.sites.iter().take(20).map(|site| {
        let title = format!("{:+} bytes in {:+} blocks: {}", site.bytes, site.blocks, site.site);
        Block::More(title, vec![Block::List(site.frames.clone())])
    })
}

fn plots(summary: &Summary) -> Vec<Block> {
    let line = |name: &str, value: &dyn Fn(&Sample) -> f64| {
        let points = summary.samples.iter().map(|sample| (sample.at as f64 / 1_000.0, value(sample)));
        Series::new(name, points.collect::<Vec<_>>())
    };
    let warm_up = summary.samples.get(summary.warm_up_samples).map_or(0, |sample| sample.at) / 1_000;
    let heap = Plot::new("Memory", "MiB", [line("live heap", &|it| it.heap_bytes as f64 / MIB)])
        .with_note(format!("The warm-up ends at {warm_up} seconds."));
    if summary.leftover.is_none() {
        return vec![Block::Plot(heap)];
    }
    vec![
        Block::Plot(heap),
        Block::Plot(Plot::new(
            "Resident memory, with the heap's profile",
            "MiB",
            [line("resident", &|it| it.resident_bytes as f64 / MIB)],
        )),
        Block::Plot(Plot::new(
            "Tasks and threads",
            "",
            [
                line("tasks", &|it| it.tasks as f64),
                line("standing tasks", &Sample::standing_tasks),
                line("threads", &|it| it.threads as f64),
            ],
        )),
        Block::Plot(Plot::new(
            "Descriptors and connections",
            "",
            [
                line("descriptors", &|it| it.descriptors as f64),
                line("to hosts", &|it| it.outbound as f64),
                line("of callers", &|it| it.inbound as f64),
            ],
        )),
        Block::Plot(Plot::new(
            "Scheduler",
            "",
            [line("queued", &|it| it.queue_depth as f64), line("polls under way", &|it| it.in_flight as f64)],
        )),
    ]
}

fn calls(summary: &Summary) -> Option<Block> {
    let row = |(who, calls): (&&str, &crate::load::Calls)| {
        vec![(*who).to_owned(), calls.made.to_string(), (calls.made - calls.right).to_string(), calls.wrong.join("; ")]
    };
    let headings = ["who", "calls", "not answered rightly", "such as"].map(str::to_owned).to_vec();
    let rows: Vec<_> = summary.calls.iter().map(row).collect();
    (!rows.is_empty()).then_some(Block::Table(Table { headings, rows }))
}

fn not_played(summary: &Summary) -> Option<Block> {
    (!summary.unplayed.is_empty()).then(|| Block::List(summary.unplayed.clone()))
}
