//! The page of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use pulse::config::{Draft, SETTINGS};
use pulse::engine::{FailureKind, Millis, Timestamp};

use super::lane::{Lane, Mark, Marks, words};
use super::palette::{self, Ink};
use super::plot::{TimeScale, number};
use super::recorder::{Recording, Slice};
use super::timeline::{Band, Height, Strip, Timeline};
use super::{Block, Figure, Page, Plot, Section, Series, Table, Tone};
use crate::run::Report;
use crate::scenario::{Fault, Scenario};

/// Hosts whose strips are shown.
const HOSTS_SHOWN: usize = 48;
/// Faults whose strips are shown.
const FAULTS_SHOWN: usize = 24;

const STRIPS: [(Mark, Height, Ink, &str); 14] = [
    (Mark::Success, Height::Low, palette::SUCCESS, "succeeded"),
    (Mark::Silent, Height::Tall, palette::SILENT, "no answer in time"),
    (Mark::Unreachable, Height::Tall, palette::UNREACHABLE, "no connection, no name"),
    (Mark::Untrusted, Height::Tall, palette::UNTRUSTED, "TLS or certificate"),
    (Mark::Overloaded, Height::Tall, palette::OVERLOADED, "429 or 5xx"),
    (Mark::Denied, Height::Tall, palette::DENIED, "401, 403, 404"),
    (Mark::Garbled, Height::Tall, palette::GARBLED, "not the API's answer"),
    (Mark::Open, Height::Top, palette::OPEN, "breaker open"),
    (Mark::HalfOpen, Height::Top, palette::HALF_OPEN, "half-open"),
    (Mark::Dead, Height::Top, palette::DEAD, "dead-lettered"),
    (Mark::Paused, Height::Top, palette::ABSENT, "paused or not there"),
    (Mark::Absent, Height::Top, palette::ABSENT, ""),
    (Mark::Operator, Height::Tick, palette::OPERATOR, "an operator"),
    (Mark::Violation, Height::Whole, palette::VIOLATION, "a rule broken"),
];

/// The page of a run of `scenario`; `replay` is the command that makes it again, `took` its real time.
///
/// ```
/// let scenario = sim::builtin("integration").expect("it is built in");
/// let options = sim::RunOptions { record: true, ..Default::default() };
/// let report = sim::run(&scenario, 1, options);
/// let page = sim::report::run_page(&scenario, &report, "sim replay integration 1", std::time::Duration::ZERO);
/// assert!(page.to_html().contains("pve::permanent-1"));
/// ```
pub fn run_page(scenario: &Scenario, report: &Report, replay: &str, took: Duration) -> Page {
    let (verdict, tone) = match report.violations.len() {
        0 => ("every rule held".to_owned(), Tone::Good),
        count => (format!("{count} broken"), Tone::Bad),
    };
    let page = Page::new(format!("{}, seed {}", report.scenario, report.seed))
        .with_lead(scenario.description.clone())
        .with_verdict(verdict, tone)
        .with(Section::new("What was found", found(report, replay)))
        .with(Section::new("The run", [Block::Figures(figures(report, took)), world(scenario)]));
    let Some(recording) = &report.recording else { return page };
    page.with(Section::new("What went wrong in this world", faults(scenario, recording)))
        .with(Section::new("Hosts", hosts(recording)))
        .with(Section::new("The fleet over time", plots(recording)))
}

fn found(report: &Report, replay: &str) -> Vec<Block> {
    let violations = report.violations.iter().map(ToString::to_string).collect::<Vec<_>>();
    let what = match violations.is_empty() {
        true => Block::Text("No rule was broken.".to_owned()),
        false => Block::List(violations),
    };
    let again = format!("The same run again, event by event; its trace is {}:", report.trace_hash);
    vec![what, Block::Text(again), Block::Command(replay.to_owned())]
}

fn figures(report: &Report, took: Duration) -> Vec<Figure> {
    let broken = report.violations.len();
    let tone = if broken == 0 { Tone::Good } else { Tone::Bad };
    let mut figures = vec![
        Figure::new("rules broken", broken.to_string()).with_tone(tone),
        Figure::new("virtual time", TimeScale::for_span(report.virtual_seconds).words(report.virtual_seconds)),
        Figure::new("polls", number(report.polls as f64)),
        Figure::new("events", number(report.events as f64)),
    ];
    if let Some(recording) = &report.recording {
        let failed: u64 = recording.lanes.iter().map(Lane::failed).sum();
        let sum = |of: fn(&Lane) -> u64| number(recording.lanes.iter().map(of).sum::<u64>() as f64);
        let most = |of: fn(&Slice) -> f64| number(recording.slices.iter().map(of).fold(0.0, f64::max));
        figures.extend([
            Figure::new("hosts", number(recording.lanes.len() as f64)),
            Figure::new("polls failed", format!("{} %", number(failed as f64 * 100.0 / report.polls.max(1) as f64))),
            Figure::new("breakers opened", sum(|lane| lane.openings)),
            Figure::new("dead letters", sum(|lane| lane.dead_letters)),
            Figure::new("deepest queue", most(|slice| f64::from(slice.deepest_queue))),
            Figure::new("most in flight", most(|slice| f64::from(slice.most_in_flight))),
            Figure::new("poll, median", percentile(recording, 0.5)),
            Figure::new("poll, 99th percentile", percentile(recording, 0.99)),
        ]);
    }
    figures.push(Figure::new("driven by", report.mode));
    figures.push(Figure::new("real time", format!("{} s", number(took.as_secs_f64()))));
    figures
}

fn percentile(recording: &Recording, share: f64) -> String {
    let all: u64 = recording.took.values().sum();
    let mut so_far = 0;
    let reached = |count: &u64| {
        so_far += count;
        so_far as f64 >= all as f64 * share
    };
    let mut reached = reached;
    let took = recording.took.iter().find(|(_, count)| reached(count)).map(|(took, _)| *took);
    took.map_or("none ended".to_owned(), |took| Millis::new(took).to_string())
}

/// The fleet and its settings.
fn world(scenario: &Scenario) -> Block {
    let draft = Draft::from(scenario.settings.clone());
    let changed = SETTINGS.iter().filter(|it| it.value(&draft) != it.default_value());
    let plain = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |it: &pulse::config::SettingDefinition| {
        vec![it.name.to_owned(), plain(it.value(&draft)), plain(it.default_value())]
    };
    let settings = Table {
        headings: ["setting", "here", "by default"].map(str::to_owned).into(),
        rows: changed.map(row).collect(),
    };
    match settings.rows.is_empty() {
        true => Block::Text("Every setting has its default.".to_owned()),
        false => Block::More(
            format!("Settings that differ from their defaults ({})", settings.rows.len()),
            vec![Block::Table(settings)],
        ),
    }
}

/// What the scenario lets go wrong, and who interferes.
fn faults(scenario: &Scenario, recording: &Recording) -> Vec<Block> {
    let length = recording.end.as_millis().max(1) as f64;
    let part = |span: Millis| span.get() as f64 / length;
    let strip = |fault: &Fault| Strip {
        name: words(&name_of(&fault.kind)),
        summary: fault_words(fault),
        bands: vec![Band {
            from: part(fault.from.0),
            to: part(fault.from.0 + fault.lasts.0),
            height: Height::Tall,
            ink: palette::FAULT,
        }],
        moments: Vec::new(),
    };
    let strips: Vec<_> = scenario.faults.iter().take(FAULTS_SHOWN).map(strip).collect();
    let mut blocks = Vec::new();
    if !strips.is_empty() {
        let legend = vec![(palette::FAULT, "from its beginning to its end")];
        blocks.push(Block::Timeline(Timeline { secs: length / 1_000.0, legend, strips }));
    }
    if let Some(more) = scenario.faults.len().checked_sub(FAULTS_SHOWN).filter(|more| *more > 0) {
        blocks.push(Block::Text(format!("{more} more faults are not shown.")));
    }
    let operators = scenario.operators.iter().map(|operator| {
        let (from, until, every) = (operator.from, operator.until, operator.every);
        format!("Operator: {}, every {every} from {from} to {until}", words(&name_of(&operator.action)))
    });
    let operators: Vec<_> = operators.collect();
    if !operators.is_empty() {
        blocks.push(Block::List(operators));
    }
    let moments = told(&recording.moments, recording.moments_left_out);
    if !moments.is_empty() {
        blocks.push(Block::More("What happened to the whole fleet".to_owned(), vec![Block::List(moments)]));
    }
    blocks
}

fn fault_words(fault: &Fault) -> String {
    let percent = |share: f64| format!("{} %", number(share * 100.0));
    let of_whom = fault.group.as_ref().map_or("all hosts".to_owned(), |group| format!("the group {group}"));
    let whom = match (fault.kind.is_of_the_daemon(), fault.share.share()) {
        (true, _) => fault.by.map_or("the daemon".to_owned(), |by| format!("the daemon, by {by}")),
        (false, 1.0) => of_whom,
        (false, share) => format!("{} of {of_whom}", percent(share)),
    };
    let rate = match fault.rate.share() {
        rate if rate < 1.0 && !fault.kind.is_of_the_daemon() => format!(", {} of their polls", percent(rate)),
        _ => String::new(),
    };
    let flapping = fault.flapping.map_or(String::new(), |period| format!(", on and off every {period}"));
    format!("{whom}{rate}, at {} for {}{flapping}", fault.from, fault.lasts)
}

/// The name that a scenario file has for it.
fn name_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The hosts worth a look first, and sums of all of them.
fn hosts(recording: &Recording) -> Vec<Block> {
    let mut order: Vec<&Lane> = recording.lanes.iter().collect();
    let weight = |lane: &Lane| (lane.violations, lane.is_dead(), lane.dead_letters, lane.failed());
    // The order among equals stays that of the scenario.
    order.sort_by_key(|lane| std::cmp::Reverse(weight(lane)));
    let (shown, others) = order.split_at(order.len().min(HOSTS_SHOWN));
    let strips = shown.iter().map(|lane| strip(lane, recording)).collect();
    let legend = STRIPS.iter().filter(|(_, _, _, words)| !words.is_empty());
    let legend = legend.map(|(_, _, ink, words)| (*ink, *words)).collect();
    let secs = recording.end.as_millis() as f64 / 1_000.0;
    let mut blocks = vec![
        Block::Text(format!("Broken rules first, then dead letters, then failures. One slice is {}.", recording.slice)),
        Block::Timeline(Timeline { secs, legend, strips }),
    ];
    if !others.is_empty() {
        let failed: u64 = others.iter().map(|lane| lane.failed()).sum();
        let polls: u64 = others.iter().map(|lane| lane.polls).sum();
        let count = others.len();
        blocks.push(Block::Text(format!("{count} more hosts are left out: {polls} polls, {failed} of them failed.")));
    }
    blocks.push(Block::More("Sums of each group".to_owned(), vec![Block::Table(groups(recording))]));
    blocks
}

fn strip(lane: &Lane, recording: &Recording) -> Strip {
    Strip {
        name: lane.key.clone(),
        summary: summary(lane),
        bands: bands(&lane.slices, recording),
        moments: told(&lane.moments, lane.moments_left_out),
    }
}

fn summary(lane: &Lane) -> String {
    let kinds = FailureKind::ALL.iter().zip(lane.failures).filter(|(_, count)| *count > 0);
    let reasons: Vec<_> = kinds.map(|(kind, count)| format!("{count} × {}", words(kind.as_str()))).collect();
    let failed = if reasons.is_empty() { "no failure".to_owned() } else { reasons.join(", ") };
    format!("{} polls; {failed}", lane.polls)
}

/// Neighbouring slices with the same mark become one band.
fn bands(slices: &[Marks], recording: &Recording) -> Vec<Band> {
    let length = recording.end.as_millis().max(1) as f64;
    let part = |slice: usize| (slice as u64 * recording.slice.get()) as f64 / length;
    let slices = &slices[..slices.len().min(recording.slices.len())];
    let mut bands = Vec::new();
    for (mark, height, ink, _) in STRIPS {
        let mut from = None;
        for (number, marks) in slices.iter().chain([&Marks::default()]).enumerate() {
            // In one slice the first of several failures or states is drawn; the words tell all of them.
            let first_of = |several: &[Mark]| several.iter().find(|it| marks.has(**it)).copied();
            let hidden = [&Mark::FAILURES[..], &Mark::STATES[..]];
            let hidden = hidden.into_iter().any(|it| it.contains(&mark) && first_of(it) != Some(mark));
            match (from, marks.has(mark) && !hidden) {
                (None, true) => from = Some(number),
                (Some(begun), false) => {
                    bands.push(Band { from: part(begun), to: part(number), height, ink });
                    from = None;
                }
                _ => {}
            }
        }
    }
    bands
}

fn groups(recording: &Recording) -> Table {
    let mut groups = BTreeMap::<&str, [u64; 6]>::new();
    for lane in &recording.lanes {
        let sums = groups.entry(&lane.group).or_default();
        let own = [1, lane.polls, lane.failed(), lane.openings, lane.dead_letters, u64::from(lane.is_dead())];
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    let headings = ["group", "hosts", "polls", "failed", "breakers opened", "dead letters", "dead at the end"];
    let row = |(group, sums): (&str, [u64; 6])| {
        std::iter::once(group.to_owned()).chain(sums.map(|sum| sum.to_string())).collect()
    };
    Table { headings: headings.map(str::to_owned).into(), rows: groups.into_iter().map(row).collect() }
}

fn plots(recording: &Recording) -> Vec<Block> {
    let slice = recording.slice.as_secs_f64();
    let line = |name: &str, of: &dyn Fn(&Slice) -> Option<f64>| {
        let points = recording.slices.iter().enumerate();
        let end = |number: usize, it: &Slice| number as f64 * slice + it.length.as_secs_f64();
        Series::new(name, points.filter_map(|(number, it)| Some((end(number, it), of(it)?))))
    };
    let age = |place: usize| move |it: &Slice| it.ages.map(|ages| ages[place] / 1_000.0);
    let staleness = [line("mean", &age(0)), line("99th percentile", &age(1)), line("oldest", &age(2))];
    let rate = [
        line("polls", &|it| Some(it.polls as f64 / it.length.as_secs_f64().max(0.001))),
        line("failures", &|it| Some(it.failures as f64 / it.length.as_secs_f64().max(0.001))),
    ];
    let queue = [
        line("deepest queue", &|it| Some(f64::from(it.deepest_queue))),
        line("most in flight", &|it| Some(f64::from(it.most_in_flight))),
    ];
    let trouble = [
        line("breakers not closed", &|it| Some(f64::from(it.open))),
        line("dead letters", &|it| Some(f64::from(it.dead))),
    ];
    let mut plots = vec![
        Plot::new("Staleness", "s", staleness)
            .with_note("Age of the last success, of hosts in the live queue: neither paused nor dead-lettered."),
        Plot::new("Poll rate", "a second", rate),
        Plot::new("Queue and slots", "hosts", queue),
        Plot::new("Hosts in trouble", "hosts", trouble),
    ];
    if recording.slices.iter().any(|slice| slice.most_stretch > 1.0) {
        plots.push(
            Plot::new("Load", "times the interval", [line("stretch", &|it| Some(it.most_stretch))])
                .with_note("By how much the whole fleet is polled slower than planned, because slots are short."),
        );
    }
    if let Some(at) = recording.calm_at {
        let note = format!("Every fault ends at {}; what follows shows whether everybody gets well.", clock(at));
        return std::iter::once(Block::Text(note)).chain(plots.into_iter().map(Block::Plot)).collect();
    }
    plots.into_iter().map(Block::Plot).collect()
}

fn told(moments: &[(Timestamp, String)], left_out: u64) -> Vec<String> {
    let more = (left_out > 0).then(|| format!("… and {left_out} more"));
    moments.iter().map(|(at, what)| format!("{} {what}", clock(*at))).chain(more).collect()
}

/// A moment of a run: hours, minutes, seconds.
fn clock(at: Timestamp) -> String {
    let millis = at.as_millis();
    let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}
