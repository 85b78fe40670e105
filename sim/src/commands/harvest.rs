//! What many runs together came to, in words, as JSON, and as a page.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sim::report::{Block, Figure, Page, Section, Table, Tone, run_page};
use sim::{RunOptions, SOMETIMES};

use super::output::{Timed, print_violations};
use super::{Failed, scenario};

/// Broken runs that are kept; the rest are counted.
const KEPT: usize = 1_000;
/// Broken runs that are told in full.
const TOLD: usize = 10;

/// What many runs together came to.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    all: Sums,
    by_scenario: BTreeMap<String, Sums>,
    sometimes: [u64; SOMETIMES.len()],
    kept: Vec<Timed>,
}

/// Sums of runs.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    runs: u64,
    broken: u64,
    events: u64,
    polls: u64,
    virtual_seconds: f64,
    real: Duration,
}

impl Sums {
    fn add(&mut self, timed: &Timed) {
        self.runs += 1;
        self.broken += u64::from(!timed.report.passed());
        self.events += timed.report.events;
        self.polls += timed.report.polls;
        self.virtual_seconds += timed.report.virtual_seconds;
        self.real += timed.took;
    }

    fn hours(self) -> f64 {
        self.virtual_seconds / 3_600.0
    }
}

impl Harvest {
    pub(super) fn add(&mut self, timed: &Timed) {
        self.all.add(timed);
        self.by_scenario.entry(timed.source.clone()).or_default().add(timed);
        for (sum, count) in self.sometimes.iter_mut().zip(timed.report.sometimes) {
            *sum += count;
        }
        if !timed.report.passed() && self.kept.len() < KEPT {
            self.kept.push(timed.clone());
        }
    }

    /// Puts what several threads found into one order.
    pub(super) fn sort(&mut self) {
        self.kept.sort_by(|a, b| (a.report.seed, &a.source).cmp(&(b.report.seed, &b.source)));
    }

    /// A few words while it goes on.
    pub(super) fn progress(&self) -> String {
        format!("{} runs, {} broken", self.all.runs, self.all.broken)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.all.broken > 0
    }

    /// Broken runs, in the order of their seeds.
    pub(super) fn broken(&self) -> &[Timed] {
        &self.kept
    }

    /// How many seeds of each scenario passed, in words.
    pub(super) fn passed(&self) -> Vec<String> {
        let scenarios = self.by_scenario.iter().map(|(name, sums)| (name, sums.runs - sums.broken));
        scenarios.filter(|(_, passed)| *passed > 0).map(|(name, passed)| format!("{name}: {passed} seeds")).collect()
    }

    fn never_reached(&self) -> Vec<&'static str> {
        SOMETIMES.into_iter().zip(self.sometimes).filter(|(_, count)| *count == 0).map(|(state, _)| state).collect()
    }

    pub(super) fn to_json(&self, took: Duration) -> Value {
        json!({
            "runs": self.all.runs, "events": self.all.events, "polls": self.all.polls,
            "virtualSeconds": self.all.virtual_seconds, "wallSeconds": took.as_secs_f64(),
            "brokenRuns": self.all.broken,
            "broken": self.kept.iter().map(Timed::to_json).collect::<Vec<_>>(),
            "neverReached": self.never_reached(),
        })
    }

    pub(super) fn print(&self, took: Duration) {
        for timed in self.kept.iter().take(TOLD) {
            print_violations(timed);
        }
        println!(
            "{} runs, {} broken; {} polls in {:.0} virtual hours; {:.1} s, {:.1} M events/s",
            self.all.runs,
            self.all.broken,
            self.all.polls,
            self.all.hours(),
            took.as_secs_f64(),
            self.all.events as f64 / took.as_secs_f64().max(1e-9) / 1e6,
        );
        match self.never_reached().as_slice() {
            [] => println!("every rare state was reached"),
            never => println!("never reached: {}", never.join(", ")),
        }
    }

    /// A page of all of it, with the first broken run in full.
    pub(super) fn page(&self, title: &str, took: Duration) -> Result<Page, Failed> {
        let (verdict, tone) = match self.all.broken {
            0 => (format!("{} runs, none broken", self.all.runs), Tone::Good),
            broken => (format!("{broken} of {} runs broken", self.all.runs), Tone::Bad),
        };
        let page = Page::new(title)
            .with_verdict(verdict, tone)
            .with(Section::new("What was found", self.found()))
            .with(Section::new("The runs", [Block::Figures(self.figures(took)), Block::Table(self.scenarios())]))
            .with(Section::new("Rare states, and how often they were reached", [Block::Table(self.rare_states())]));
        let Some(first) = self.kept.first() else { return Ok(page) };
        let (seed, replay) = (first.report.seed, first.replay_command());
        let scenario = scenario(&first.source, seed)?;
        let report = sim::run(&scenario, seed, RunOptions { record: true, ..RunOptions::default() });
        Ok(page.with_all_of(run_page(&scenario, &report, &replay, first.took)))
    }

    fn found(&self) -> Vec<Block> {
        if self.kept.is_empty() {
            return vec![Block::Text("No rule was broken.".to_owned())];
        }
        let told = self.kept.iter().take(TOLD).flat_map(|timed| {
            let report = &timed.report;
            let head = format!("{} seed {}", report.scenario, report.seed);
            let violations = report.violations.iter().map(|it| format!("{head}: {it}")).collect();
            [Block::List(violations), Block::Command(timed.replay_command())]
        });
        let more = (self.all.broken as usize).saturating_sub(TOLD);
        let more = (more > 0).then(|| Block::Text(format!("{more} more broken runs are not told here.")));
        told.chain(more).collect()
    }

    fn figures(&self, took: Duration) -> Vec<Figure> {
        let tone = if self.is_broken() { Tone::Bad } else { Tone::Good };
        let rate = self.all.events as f64 / took.as_secs_f64().max(1e-9) / 1e6;
        vec![
            Figure::new("broken", self.all.broken.to_string()).with_tone(tone),
            Figure::new("runs", self.all.runs.to_string()),
            Figure::new("polls", self.all.polls.to_string()),
            Figure::new("virtual hours", format!("{:.1}", self.all.hours())),
            Figure::new("real time", format!("{:.1} s", took.as_secs_f64())),
            Figure::new("million events a second", format!("{rate:.1}")),
        ]
    }

    fn scenarios(&self) -> Table {
        let headings = ["scenario", "runs", "broken", "polls", "events", "virtual hours", "seconds a run"];
        let row = |(name, sums): (&String, &Sums)| {
            vec![
                name.clone(),
                sums.runs.to_string(),
                sums.broken.to_string(),
                sums.polls.to_string(),
                sums.events.to_string(),
                format!("{:.1}", sums.hours()),
                format!("{:.4}", sums.real.as_secs_f64() / sums.runs.max(1) as f64),
            ]
        };
        Table { headings: headings.map(str::to_owned).into(), rows: self.by_scenario.iter().map(row).collect() }
    }

    fn rare_states(&self) -> Table {
        let row = |(state, count): (&str, u64)| {
            vec![state.to_owned(), if count == 0 { "never".to_owned() } else { count.to_string() }]
        };
        let headings = ["state", "times"].map(str::to_owned).into();
        Table { headings, rows: SOMETIMES.into_iter().zip(self.sometimes).map(row).collect() }
    }
}
