//! Swarm testing: each seed draws a world of its own, and above all which faults exist in it at all.
//!
//! Worlds with a few kinds of faults reach states that worlds with all of them never do (Groce and others, "Swarm
//! testing", 2012).

use pulse::engine::{InstanceType, Millis, SettingsDraft};

use crate::scenario::{Action, Answer, Expect, Fault, FaultKind, HostGroup, Operator, Scenario};
use crate::streams::Stream;
use crate::values::{Rate, Span};

const FAULTS: [FaultKind; 17] = [
    FaultKind::Hang,
    FaultKind::Refuse,
    FaultKind::Reset,
    FaultKind::TlsHandshake,
    FaultKind::Certificate,
    FaultKind::Dns,
    FaultKind::Unauthorized,
    FaultKind::Forbidden,
    FaultKind::NotFound,
    FaultKind::RateLimited,
    FaultKind::ServerError,
    FaultKind::BrokenAnswer,
    FaultKind::Slow,
    FaultKind::LateAnswers,
    FaultKind::DoubledAnswers,
    FaultKind::Stall,
    FaultKind::Crash,
];

/// Faults that were thought of later: they are drawn from a stream of their own, so that each seed keeps its world.
const LATER_FAULTS: [FaultKind; 3] = [FaultKind::TruncatedAnswer, FaultKind::ClockAhead, FaultKind::ClockBehind];

const ACTIONS: [Action; 10] = [
    Action::ResetBreaker,
    Action::RetryDeadLetter,
    Action::RetryAll,
    Action::RemoveDeadLetter,
    Action::PollNow,
    Action::Pause,
    Action::ToggleAdaptive,
    Action::EditSettings,
    Action::EditInventory,
    Action::EditHost,
];

const KINDS: [InstanceType; 5] =
    [InstanceType::Pve, InstanceType::Pbs, InstanceType::Pmg, InstanceType::Http, InstanceType::Tcp];

/// The world of `seed`.
pub fn swarm(seed: u64) -> Scenario {
    let mut draws = Stream::new(seed, "swarm", "");
    let minutes = 5 + draws.below(20);
    let groups = 1 + draws.below(3);
    let hosts = (0..groups).map(|number| group(number, &mut draws)).collect();
    let faults = FAULTS.into_iter().filter(|_| draws.below(4) == 0).collect::<Vec<_>>();
    let mut later = Stream::new(seed, "swarm", "later");
    let later_faults = LATER_FAULTS.into_iter().filter(|_| later.below(4) == 0).collect::<Vec<_>>();
    let actions = ACTIONS.into_iter().filter(|_| draws.below(4) == 0).collect::<Vec<_>>();
    let mut scenario = Scenario {
        name: "swarm".to_owned(),
        description: String::new(),
        warm_up: Span::default(),
        duration: Span(Millis::from_mins(minutes)),
        settings: settings(&mut draws),
        hosts,
        faults: faults.into_iter().map(|kind| fault(kind, minutes, &mut draws)).collect(),
        operators: actions.into_iter().map(|action| operator(action, minutes, &mut draws)).collect(),
        expect: Expect { liveness: true, ..Expect::default() },
    };
    scenario.faults.extend(later_faults.into_iter().map(|kind| fault(kind, minutes, &mut later)));
    scenario
}

fn group(number: u64, draws: &mut Stream) -> HostGroup {
    let few = draws.below(3) > 0;
    HostGroup {
        group: format!("group{number}"),
        kind: KINDS[draws.below(KINDS.len() as u64) as usize],
        count: 1 + draws.below(if few { 6 } else { 40 }) as u32,
        first: Vec::new(),
        then_success: Rate::clamped(1.0 - draws.below(3) as f64 * 0.1),
        otherwise: [Answer::Transient, Answer::Transient, Answer::Permanent, Answer::Hang][draws.below(4) as usize],
        latency: Span(Millis::new(1 + draws.below(2_000))),
        latency_jitter: Rate::clamped(0.3),
        heavy_tail: Rate::clamped(draws.below(3) as f64 * 0.02),
        latency_quantiles: None,
        changes_every: (draws.below(2) == 0).then(|| Span(Millis::from_secs(5 + draws.below(600)))),
        per_machine: 1 + draws.below(8) as u32,
        interval: (draws.below(5) == 0).then(|| Span(Millis::from_secs(5 + draws.below(120)))),
        outages: None,
    }
}

fn settings(draws: &mut Stream) -> SettingsDraft {
    let mut draft = match draws.below(2) {
        0 => SettingsDraft::documented_scenarios(),
        _ => SettingsDraft::default(),
    };
    draft.max_in_flight = [1, 2, 4, 16, 256][draws.below(5) as usize];
    draft.max_in_flight_per_host = 1 + draws.below(4) as u32;
    draft.breaker.failure_threshold = 1 + draws.below(5) as u32;
    draft.dead_letter.after_transient_failures = 1 + draws.below(8) as u32;
    draft
}

fn fault(kind: FaultKind, minutes: u64, draws: &mut Stream) -> Fault {
    let from = draws.below(minutes * 60);
    Fault {
        kind,
        group: None,
        share: Rate::clamped((1 + draws.below(10)) as f64 / 10.0),
        from: Span(Millis::from_secs(from)),
        lasts: Span(Millis::from_secs(1 + draws.below(minutes * 60 - from))),
        rate: Rate::clamped((1 + draws.below(10)) as f64 / 10.0),
        flapping: (draws.below(3) == 0).then(|| Span(Millis::from_secs(2 + draws.below(60)))),
        by: None,
    }
}

fn operator(action: Action, minutes: u64, draws: &mut Stream) -> Operator {
    Operator {
        action,
        from: Span::default(),
        until: Span(Millis::from_mins(minutes)),
        every: Span(Millis::from_secs(1 + draws.below(90))),
    }
}
