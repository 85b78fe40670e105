//! The daemon's driver and its real router in one world: what operators ask for goes through HTTP, roles, limits and audit.
//!
//! Whatever reached the engine is then played to the simulator's loop at the same moments, which has to give the same
//! events; so the judge's word on them, and on what the health answer told, holds for the router too.

use std::collections::BTreeMap;
use std::sync::Arc;

use pulse::engine::{InstanceSpec, Millis, Settings, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::desk::{Answer, Asked, Audited, Desk, settle};
use crate::nodes::Edit;
use crate::operators::{Request, Script};
use crate::run::{Report, RunOptions, run_script};
use crate::scenario::Scenario;
use crate::stack::{Arrived, People, SharedTrace, Stage, lock_trace, without_foreign_faults};
use crate::violation::{Rule, Violation};

/// Before the end, this long nothing is asked any more, so that a disk that stalls delays nothing beyond it.
const LAST_CALLS: Millis = Millis::from_secs(40);
/// Requests from one look at the health answer to the next.
const REQUESTS_A_LOOK: u64 = 4;
/// How many instances somebody adds or removes in one go.
const CALLS_AT_ONCE: usize = 6;
/// After this long whoever could not put an instance back tries again.
const ONCE_MORE: Millis = Millis::from_secs(15);

/// Runs `scenario` with operators who call the real router, and holds router, audit log and engine to their rules.
///
/// # Panics
/// The operating system gives no runtime or no folder, or the fleet is larger than `instances.json` may be.
pub fn run_router(scenario: &Scenario, seed: u64, options: RunOptions) -> Report {
    let scenario = without_foreign_faults(scenario);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing that a system could refuse");
    let played = runtime.block_on(play(&scenario, seed, options)).expect("there is a folder to keep keys in");
    let mut report = run_script(&scenario, seed, options, &played.specs, played.script);
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
    report.done = played.done;
    report
}

struct Played {
    hash: String,
    /// The fleet as it begins.
    specs: Arc<[InstanceSpec]>,
    script: Script,
    violations: Vec<Violation>,
    answers: BTreeMap<u16, u64>,
    callers: BTreeMap<&'static str, u64>,
    done: BTreeMap<String, u64>,
}

async fn play(scenario: &Scenario, seed: u64, options: RunOptions) -> Result<Played, Box<dyn std::error::Error>> {
    let stage = Stage::set(scenario, seed, options.policy);
    let desk = Desk::open(stage.handle.clone(), stage.stepped.clone(), scenario, seed).await?;
    let stop = CancellationToken::new();
    let specs = desk.specs();
    let mut shift = Shift { desk, script: Vec::new(), violations: Vec::new(), requests: 0, reached: 0 };
    let Stage { driver, mut people, trace, .. } = stage;
    people.follow_inventory(&specs);
    let ((), _) = tokio::join!(people.act_through(&mut shift, &trace, stop.clone()), driver.run(stop));
    let at = Timestamp::ZERO + scenario.length();
    let (answers, callers) = (shift.desk.answers(), shift.desk.callers());
    let Audited { wrong, done } = shift.desk.audit().await?;
    shift.violations.extend(wrong.into_iter().map(|detail| Violation { rule: Rule::Audited, at, detail }));
    let hash = format!("{:016x}", lock_trace(&trace).hash());
    Ok(Played { hash, specs, script: shift.script, violations: shift.violations, answers, callers, done })
}

/// What is asked through the router, and what came of it.
pub(crate) struct Shift {
    desk: Desk,
    script: Script,
    violations: Vec<Violation>,
    requests: u64,
    /// How many requests have reached the engine by calls.
    reached: usize,
}

impl Shift {
    /// Whether there is still time to ask for something.
    pub(crate) fn is_open(now: Timestamp, end: Timestamp) -> bool {
        now + LAST_CALLS <= end
    }

    /// Has one request served, call by call.
    pub(crate) async fn serve(&mut self, request: Request, people: &mut People<'_>, trace: &SharedTrace) {
        for asked in self.calls_of(&request, people) {
            if Self::is_open(people.now(), people.end_of_scenario()) {
                self.call(asked, people, trace).await;
            }
        }
        if let Request::Enlist(hosts) = request {
            let missing = self.desk.unlisted(&hosts);
            if !missing.is_empty() {
                people.ask_later(ONCE_MORE, Request::Enlist(missing));
            }
        }
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS_A_LOOK) {
            let (status, health) = self.desk.health().await;
            if status.is_success() {
                self.script.push((people.now(), Request::Look(Arc::new(health))));
            }
        }
    }

    /// What is called for a request. Over HTTP instances come and go one by one.
    fn calls_of(&mut self, request: &Request, people: &People<'_>) -> Vec<Asked> {
        let desk = &mut self.desk;
        let mut each = |hosts: &[usize], edit: Edit| {
            hosts.iter().take(CALLS_AT_ONCE).map(|host| Asked::Change(desk.change(*host, edit))).collect()
        };
        match request {
            Request::Command(command) => vec![Asked::Command(command.clone())],
            Request::Discharge(hosts) => each(hosts, Edit::Remove),
            Request::Enlist(hosts) => each(hosts, Edit::Add),
            Request::EditHost(host) => vec![Asked::Change(desk.edit(*host))],
            Request::ToggleAdaptive | Request::Settings(_) | Request::OriginalSettings => {
                people.wanted_settings(request).into_iter().map(|it| Asked::Settings(Box::new(it))).collect()
            }
            Request::Inventory(_) | Request::Look(_) => Vec::new(),
        }
    }

    async fn call(&mut self, asked: Asked, people: &mut People<'_>, trace: &SharedTrace) {
        settle().await;
        let before = lock_trace(trace).requests.len();
        let answer = self.desk.ask(&asked).await;
        settle().await;
        let done = lock_trace(trace).requests[before..].to_vec();
        // The engine need not hear of settings that are in force.
        let may_be_spared = matches!(&asked, Asked::Settings(wanted) if **wanted == *people.settings());
        let (kind, played) = match asked {
            Asked::Command(command) => (Arrived::Command, Request::Command(command)),
            Asked::Settings(wanted) => (Arrived::Settings, Request::Settings(wanted)),
            Asked::Change(_) => (Arrived::Inventory, Request::Inventory(self.desk.specs())),
        };
        self.judge(&answer, kind, &done, may_be_spared, people.now());
        match &played {
            Request::Settings(wanted) if !done.is_empty() => *people.settings() = Settings::clone(wanted),
            Request::Inventory(specs) => people.follow_inventory(specs),
            _ => {}
        }
        self.reached += done.len();
        self.script.extend(done.into_iter().map(|(at, _)| (at, played.clone())));
    }

    /// Holds an answer, and what reached the engine meanwhile, against what the caller may do.
    fn judge(
        &mut self,
        answer: &Answer,
        kind: Arrived,
        done: &[(Timestamp, Arrived)],
        may_be_spared: bool,
        at: Timestamp,
    ) {
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
        if let Some(wrong) = &answer.wrong {
            accuse(wrong);
        }
        let expected = usize::from(answer.reaches_engine);
        let other = done.iter().any(|(_, arrived)| *arrived != kind);
        if other || (done.len() != expected && !(may_be_spared && done.len() < expected)) {
            accuse(&format!("{done:?} reached the engine, not {expected} of {kind:?}"));
        }
    }

    /// Holds what has reached the engine against what was called for, `all` of it beside the fleet that it began with.
    pub(crate) fn close(&mut self, all: usize, at: Timestamp) {
        if all != self.reached {
            let detail = format!("{all} requests have reached the engine, and {} by calls", self.reached);
            self.violations.push(Violation { rule: Rule::Authorised, at, detail });
        }
    }
}
