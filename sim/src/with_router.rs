//! The daemon's driver and its real router in one world: what operators ask for goes through HTTP, roles, limits and audit.
//!
//! Whatever reached the engine is then played to the simulator's loop at the same moments, which has to give the same
//! events; so the judge's word on them, and on what the health answer told, holds for the router too.

use std::collections::BTreeMap;
use std::sync::Arc;

use pulse::engine::{Millis, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::desk::{Answer, Asked, Desk, settle};
use crate::operators::{Request, Script};
use crate::run::{Report, RunOptions, run_script};
use crate::scenario::Scenario;
use crate::stack::{People, SharedTrace, Stage, lock_trace, without_foreign_faults};
use crate::violation::{Rule, Violation};

/// Before the end, this long nothing is asked any more, so that a disk that stalls delays nothing beyond it.
const LAST_CALLS: Millis = Millis::from_secs(40);
/// Requests from one look at the health answer to the next.
const REQUESTS_A_LOOK: u64 = 4;

/// Runs `scenario` with operators who call the real router, and holds router, audit log and engine to their rules.
///
/// # Panics
/// The operating system gives no runtime or no folder.
pub fn run_router(scenario: &Scenario, seed: u64, options: RunOptions) -> Report {
    let scenario = without_foreign_faults(scenario);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing that a system could refuse");
    let played = runtime.block_on(play(&scenario, seed, options)).expect("there is a folder to keep keys in");
    let mut report = run_script(&scenario, seed, options, played.script);
    report.mode = "router";
    if report.passed() && played.hash != report.trace_hash {
        let detail = format!("the simulator's loop gives {}, the daemon {}", report.trace_hash, played.hash);
        report.violations.push(Violation { rule: Rule::Determinism, at: Timestamp::ZERO, detail });
    }
    report.violations.extend(played.violations);
    report.verdict = if report.passed() { "pass" } else { "fail" };
    report.trace_hash = played.hash;
    report.answers = played.answers;
    report.callers = played.callers;
    report
}

struct Played {
    hash: String,
    script: Script,
    violations: Vec<Violation>,
    answers: BTreeMap<u16, u64>,
    callers: BTreeMap<&'static str, u64>,
}

async fn play(scenario: &Scenario, seed: u64, options: RunOptions) -> Result<Played, Box<dyn std::error::Error>> {
    let stage = Stage::set(scenario, seed, options.policy);
    let desk = Desk::open(stage.handle.clone(), stage.stepped.clone(), scenario, seed).await?;
    let stop = CancellationToken::new();
    let mut shift = Shift { desk, script: Vec::new(), violations: Vec::new(), requests: 0 };
    let Stage { driver, people, trace, .. } = stage;
    let ((), _) = tokio::join!(people.act_through(&mut shift, &trace, stop.clone()), driver.run(stop));
    let at = Timestamp::ZERO + scenario.length();
    let (answers, callers) = (shift.desk.answers(), shift.desk.callers());
    let wrong = shift.desk.audit().await?;
    shift.violations.extend(wrong.into_iter().map(|detail| Violation { rule: Rule::Audited, at, detail }));
    let hash = format!("{:016x}", lock_trace(&trace).hash());
    Ok(Played { hash, script: shift.script, violations: shift.violations, answers, callers })
}

/// What is asked through the router, and what came of it.
pub(crate) struct Shift {
    desk: Desk,
    script: Script,
    violations: Vec<Violation>,
    requests: u64,
}

impl Shift {
    /// Whether there is still time to ask for something.
    pub(crate) fn is_open(now: Timestamp, end: Timestamp) -> bool {
        now + LAST_CALLS <= end
    }

    /// Has one request served: commands and settings by the router, a change of the inventory as it was before.
    pub(crate) async fn serve(&mut self, request: Request, people: &mut People<'_>, trace: &SharedTrace) {
        settle().await;
        let before = lock_trace(trace).requests.len();
        let wanted = people.wanted_settings(&request);
        let (asked, played) = match (&request, &wanted) {
            (Request::Command(command), _) => (Asked::Command(command), request.clone()),
            (_, Some(settings)) => (Asked::Settings(settings), Request::Settings(Box::new(settings.clone()))),
            (_, None) => {
                self.script.push((people.now(), request.clone()));
                return people.ask(request).await;
            }
        };
        let answer = self.desk.ask(asked).await;
        settle().await;
        let done = lock_trace(trace).requests[before..].to_vec();
        // The engine need not hear of settings that are in force.
        let may_be_spared = wanted.as_ref() == Some(people.settings());
        self.judge(&answer, done.len(), may_be_spared, people.now());
        if let Some(settings) = wanted.filter(|_| !done.is_empty()) {
            *people.settings() = settings;
        }
        self.script.extend(done.into_iter().map(|at| (at, played.clone())));
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS_A_LOOK) {
            let (status, health) = self.desk.health().await;
            if status.is_success() {
                self.script.push((people.now(), Request::Look(Arc::new(health))));
            }
        }
    }

    /// Holds an answer, and how many requests reached the engine meanwhile, against what the caller may do.
    fn judge(&mut self, answer: &Answer, done: usize, may_be_spared: bool, at: Timestamp) {
        let status = answer.status.as_u16();
        let mut accuse = |told: &str| {
            let detail = format!("{} was answered with {}: {told}", answer.what, answer.status);
            self.violations.push(Violation { rule: Rule::Authorised, at, detail });
        };
        if !answer.allowed && !matches!(status, 401 | 403 | 429) {
            accuse("the caller has not the role");
        }
        if status >= 500 && status != 503 {
            accuse("it broke");
        }
        let expected = usize::from(answer.allowed && !matches!(status, 400 | 429 | 503));
        if done != expected && !(may_be_spared && done < expected) {
            accuse(&format!("{done} requests reached the engine, not {expected}"));
        }
    }
}
