//! `sim diff`: the first event in which two runs differ.

use clap::Args;
use sim::RunOptions;

use super::{Failed, scenario};

/// Events shown before the first that differs.
const CONTEXT: usize = 3;

/// Shows the first event in which two runs differ. A run is SCENARIO:SEED, or a trace that `sim run --trace` wrote.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// One run.
    a: String,
    /// The other.
    b: String,
}

impl Diff {
    pub(super) fn run(self) -> Result<(), Failed> {
        let (a, b) = (lines(&self.a)?, lines(&self.b)?);
        let Some(first) = (0..a.len().max(b.len())).find(|index| a.get(*index) != b.get(*index)) else {
            println!("no difference in {} events", a.len());
            return Ok(());
        };
        for line in &a[first.saturating_sub(CONTEXT)..first] {
            println!("  {line}");
        }
        let end = "(the run has ended)".to_owned();
        println!("- {}", a.get(first).unwrap_or(&end));
        println!("+ {}", b.get(first).unwrap_or(&end));
        println!("event {} of {} and {}", first + 1, a.len(), b.len());
        Err(Failed::Broken)
    }
}

fn lines(run: &str) -> Result<Vec<String>, Failed> {
    if let Some((name, seed)) = run.rsplit_once(':')
        && let Ok(seed) = seed.parse()
    {
        let options = RunOptions { keep_trace: true, ..RunOptions::default() };
        return Ok(sim::run(&scenario(name, seed)?, seed, options).trace);
    }
    let text = std::fs::read_to_string(run)
        .map_err(|error| Failed::Usage(format!("{run}: {error}; give SCENARIO:SEED or a file of `sim run --trace`")))?;
    Ok(text.lines().map(str::to_owned).collect())
}
