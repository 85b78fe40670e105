//! The simulator's run with the same check of the heap: hours of engine memory in seconds.

use std::path::Path;

use indicatif::ProgressBar;
use pulse::engine::Millis;
use sim::{RunOptions, Scenario, run_watched};

use crate::checks::{Check, SERIES, no_growth, trend_of};
use crate::format::{self, Summary};
use crate::judged::{FRAMES, PEAK_AT_MARK, PEAK_AT_START, plant_peak};
use crate::leak::{Leak, Leaked};
use crate::sample::Sample;
use crate::sites::grown_sites;

/// So many samples after the warm-up.
const SAMPLES: u64 = 1_440;
const HEAP: usize = 0;

/// Runs `scenario` on virtual time, with `leak` beside it. The heap's profile goes to `profile` if it is needed.
pub(crate) fn run(
    scenario: &Scenario,
    seed: u64,
    leak: Option<Leak>,
    profile: &Path,
    bar: &ProgressBar,
) -> Result<Summary, String> {
    let every = Millis::new((scenario.duration.0.get() / SAMPLES).max(1));
    let capacity = scenario.length().get().div_ceil(every.get()) as usize + 1;
    let mut samples: Vec<Sample> = Vec::with_capacity(capacity);
    let (mut leaked, mut marked, mut no_peak) = (Leaked::default(), None, None);
    let profiler = dhat::Profiler::builder().file_name(profile).trim_backtraces(Some(FRAMES)).build();
    plant_peak(PEAK_AT_START)?;
    let report = run_watched(scenario, seed, RunOptions::default(), every, |now| {
        let heap = dhat::HeapStats::get();
        let sample = Sample {
            at: now.as_millis(),
            heap_bytes: heap.curr_bytes as u64,
            heap_blocks: heap.curr_blocks as u64,
            ..Sample::default()
        };
        samples.push(sample);
        if marked.is_none() && now.as_millis() >= scenario.warm_up.0.get() {
            no_peak = plant_peak(PEAK_AT_MARK).err();
            marked = Some(samples.len());
        }
        if let Some(leak) = leak.filter(|_| marked.is_some()) {
            leaked.more(leak, None);
        }
        format::progress(bar, &sample);
    });
    bar.finish_and_clear();
    if let Some(reason) = no_peak {
        return Err(reason);
    }
    let marked = marked.unwrap_or(samples.len());
    let trend = trend_of(&SERIES[HEAP], &samples[marked..]);
    let mut checks = vec![no_growth(&SERIES[HEAP], trend)];
    let wrong = report.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let measured = if wrong.is_empty() { format!("{} polls", report.polls) } else { wrong };
    checks.push(Check::new("rules of the simulator", measured, "none broken", report.passed()));
    let sites = match checks[0].failed() {
        true => {
            drop(profiler);
            let text = std::fs::read_to_string(profile).map_err(|error| error.to_string())?;
            grown_sites(&text).map_err(|error| error.to_string())?
        }
        false => {
            std::mem::forget(profiler);
            Vec::new()
        }
    };
    drop(leaked);
    Ok(Summary {
        scenario: scenario.name.clone(),
        checks,
        sites,
        samples,
        warm_up_samples: marked,
        ..Summary::default()
    })
}
