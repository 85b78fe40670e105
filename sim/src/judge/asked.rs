//! What the engine was asked for: every command is answered once and truly, and what was replaced is in force.

use std::collections::BTreeMap;

use pulse::engine::{
    BreakerState, Command, CommandError, DeadLetterReason, InstanceKey, InstanceSpec, Millis, Place, Reply, Retry,
    RetryResult, Settings, Timestamp,
};

use super::Judge;
use super::planning::Allowed;
use super::truth::Truth;
use crate::violation::Rule;

/// How far apart many rechecks that an operator asked for are at the least, on average.
const RETRY_SPACING: Millis = Millis::new(20);

/// What the engine is asked for in one step.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Nothing,
    Settings,
    Inventory {
        /// Who is to be in it, and whether each of them is to be paused then.
        wanted: BTreeMap<usize, bool>,
        answered: bool,
    },
    Command {
        command: Command,
        before: Option<Before>,
        /// Whom a retry of many concerns, and whether the recheck of each is under way.
        dead: Vec<(InstanceKey, bool)>,
        answered: bool,
    },
}

/// How it was with the host that a command names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    host: usize,
    place: Place,
    availability: bool,
    breaker: BreakerState,
    dead: Option<DeadLetterReason>,
    rechecks: u32,
    failures: u32,
}

impl Request {
    /// The wait that a plan has which an operator asked for; `None` if nobody did.
    pub(super) fn operators_span(&self, settings: &Settings) -> Option<Allowed> {
        match self {
            Self::Command { command: Command::RetryDeadLetters { .. }, dead, .. } => {
                Some(Allowed::upto(spread(dead, settings)))
            }
            Self::Command { .. } => Some(Allowed::exactly(Millis::ZERO)),
            _ => None,
        }
    }
}

impl Judge {
    pub(crate) fn settings_replaced(&mut self, settings: Settings) {
        self.settings = settings;
        self.bounds = Default::default();
        self.load.demand.begin(self.now);
        self.request = Request::Settings;
    }

    /// This is the whole fleet from now on.
    ///
    /// An operator's pause or resumption stands until the inventory says something new of the host: it is polled
    /// otherwise, or switched.
    pub(crate) fn inventory_replaced<'a>(&mut self, hosts: impl Iterator<Item = (usize, &'a InstanceSpec)>) {
        let mut wanted = BTreeMap::new();
        for (host, spec) in hosts {
            let truth = &mut self.truths[host];
            let edited = truth.present && truth.spec.revision != spec.revision;
            let says_nothing_new = truth.present && !edited && truth.spec.enabled == spec.enabled;
            wanted.insert(host, if says_nothing_new { truth.paused } else { !spec.enabled });
            truth.spec = spec.clone();
            if edited {
                truth.edited = true;
                if truth.paused {
                    self.reached("edit took back a pause");
                }
                self.touch(host);
            }
        }
        self.request = Request::Inventory { wanted, answered: false };
        self.load.demand.begin(self.now);
    }

    pub(crate) fn commanded(&mut self, command: Command) {
        let named = match &command {
            Command::RetryDeadLetters { .. } => None,
            Command::ResetBreaker { key }
            | Command::RetryDeadLetter { key }
            | Command::RemoveDeadLetter { key }
            | Command::PollNow { key }
            | Command::SetEnabled { key, .. } => self.by_key.get(key).copied(),
        };
        let before = named.filter(|host| self.truths[*host].present).map(|host| {
            let truth = &self.truths[host];
            Before {
                host,
                place: truth.place(),
                availability: truth.is_availability_check(),
                breaker: truth.breaker.state,
                dead: truth.dead,
                rechecks: truth.rechecks,
                failures: truth.failures,
            }
        });
        let dead = match command {
            Command::RetryDeadLetters { .. } => self.dead_letters(),
            _ => Vec::new(),
        };
        self.load.demand.begin(self.now);
        self.request = Request::Command { command, before, dead, answered: false };
    }

    pub(super) fn command_done(&mut self, result: &Result<Reply, CommandError>) {
        let Request::Command { command, before, dead, answered } = &mut self.request else {
            return self.accuse(Rule::CommandAnswered, || format!("an answer to no command: {result:?}"));
        };
        let twice = std::mem::replace(answered, true);
        let (command, before, dead) = (command.clone(), *before, std::mem::take(dead));
        let (now, latest) = (self.now, self.now + spread(&dead, &self.settings));
        let silent = self.touched.is_empty();
        if result.is_err() {
            self.reached("command refused");
        }
        let is_true = match &command {
            Command::RetryDeadLetters { .. } => tells_retries(result, &dead, latest),
            command => *result == expected(command, before, now),
        };
        if twice || !is_true || (result.is_err() && !silent) {
            let detail = || format!("{command:?} of {before:?} and {dead:?} was answered {result:?}");
            self.accuse(Rule::CommandAnswered, detail);
        }
        if let (Ok(_), Some(before)) = (result, before) {
            self.judge_carried_out(&command, before);
        }
    }

    /// Every dead letter in the order of the keys, and whether its recheck is under way.
    fn dead_letters(&self) -> Vec<(InstanceKey, bool)> {
        let hosts = self.by_key.iter().map(|(key, host)| (key, &self.truths[*host]));
        let dead = hosts.filter(|(_, truth)| truth.present && truth.dead.is_some());
        dead.map(|(key, truth)| (key.clone(), truth.place() == Place::InFlight)).collect()
    }

    /// What a command must have done by the time it is answered.
    fn judge_carried_out(&mut self, command: &Command, before: Before) {
        let (now, host) = (self.now, before.host);
        let truth = &mut self.truths[host];
        let (polled_at_once, done) = match command {
            Command::ResetBreaker { .. } => {
                truth.failures = 0;
                truth.first_failure = None;
                truth.breaker.trips = 0;
                truth.forgiven = true;
                (before.failures > 0 && before.place == Place::Queued, truth.breaker.state == BreakerState::Closed)
            }
            Command::RetryDeadLetter { .. } | Command::PollNow { .. } => (true, true),
            Command::RemoveDeadLetter { .. } => (false, truth.paused && truth.dead.is_none()),
            Command::SetEnabled { enabled, .. } => (false, truth.paused != *enabled),
            Command::RetryDeadLetters { .. } => (false, true),
        };
        let waits_for_slot = truth.due <= now || truth.machine.is_some();
        if !done || (polled_at_once && !waits_for_slot) {
            let due = truth.due;
            self.accuse_host(Rule::CommandAnswered, host, || format!("{command:?} did nothing; it is due at {due:?}"));
        }
    }

    pub(super) fn inventory_applied(&mut self, added: u32, removed: u32) {
        let Request::Inventory { answered, .. } = &mut self.request else {
            return self.accuse(Rule::CommandAnswered, || "an inventory was applied that nobody sent".to_owned());
        };
        *answered = true;
        let heard = |is: &dyn Fn(&Truth) -> bool| self.touched.iter().filter(|host| is(&self.truths[**host])).count();
        let (truly_added, truly_removed) = (heard(&|it| it.step.added), heard(&|it| !it.present));
        if (added as usize, removed as usize) != (truly_added, truly_removed) {
            let detail = || format!("{added} added, {removed} removed; truly {truly_added} and {truly_removed}");
            self.accuse(Rule::TrueHealth, detail);
        }
    }

    pub(super) fn settings_applied(&mut self, replanned: u32) {
        let moved = self.touched.iter().filter(|host| self.truths[**host].step.scheduled).count();
        if moved > 0 {
            self.reached("settings moved somebody's plan");
        }
        if !matches!(self.request, Request::Settings) || moved != replanned as usize {
            let request = self.request.clone();
            self.accuse(Rule::CommandAnswered, || {
                format!("{replanned} replanned, truly {moved}, asked for {request:?}")
            });
        }
        self.request = Request::Nothing;
    }

    /// Whatever was asked for must have been answered in this step.
    pub(super) fn judge_request(&mut self) {
        match std::mem::replace(&mut self.request, Request::Nothing) {
            Request::Nothing => {}
            Request::Command { answered: true, .. } => {}
            Request::Inventory { wanted, answered: true } => {
                for host in 0..self.truths.len() {
                    let truth = &mut self.truths[host];
                    let missed = std::mem::take(&mut truth.edited) && !truth.step.reconfigured;
                    let (paused, wanted) = (truth.paused, wanted.get(&host).copied());
                    if truth.present != wanted.is_some() || missed {
                        self.accuse_host(Rule::CommandAnswered, host, || "the inventory is not in force".to_owned());
                    } else if let Some(wanted) = wanted.filter(|wanted| *wanted != paused) {
                        let detail = || format!("paused: {paused}; by the inventory, or an operator since: {wanted}");
                        self.accuse_host(Rule::CommandAnswered, host, detail);
                    }
                }
            }
            request => self.accuse(Rule::CommandAnswered, || format!("{request:?} was not answered in its own step")),
        }
    }
}

/// Over how long the rechecks of many dead letters are spread.
fn spread(dead: &[(InstanceKey, bool)], settings: &Settings) -> Millis {
    let waiting = dead.iter().filter(|(_, under_way)| !under_way).count() as u64;
    settings.base_interval.max(Millis::new(RETRY_SPACING.get().saturating_mul(waiting)))
}

/// Whether an answer tells of every dead letter, and of no other, that it is rechecked by `latest` or just now.
fn tells_retries(result: &Result<Reply, CommandError>, dead: &[(InstanceKey, bool)], latest: Timestamp) -> bool {
    let Ok(Reply::RetriesScheduled { retries }) = result else { return false };
    let is_told = |(retry, (key, under_way)): (&Retry, &(InstanceKey, bool))| {
        let told = match retry.result {
            RetryResult::ScheduledFor(at) => !under_way && at <= latest,
            RetryResult::UnderWay => *under_way,
            RetryResult::WouldRetry => false,
        };
        retry.key == *key && told
    };
    retries.len() == dead.len() && retries.iter().zip(dead).all(is_told)
}

/// What a command about one host must be answered.
fn expected(command: &Command, before: Option<Before>, now: Timestamp) -> Result<Reply, CommandError> {
    let before = before.ok_or(CommandError::UnknownInstance)?;
    let scheduled_for = now;
    match command {
        Command::RetryDeadLetters { .. } => Err(CommandError::UnknownInstance),
        Command::ResetBreaker { .. } if before.availability => Err(CommandError::NoBreaker),
        Command::ResetBreaker { .. } => Ok(Reply::BreakerReset { previous: before.breaker }),
        Command::RetryDeadLetter { .. } | Command::RemoveDeadLetter { .. } if before.dead.is_none() => {
            Err(CommandError::NotDeadLettered)
        }
        Command::RetryDeadLetter { .. } if before.place == Place::InFlight => Err(CommandError::PollInFlight),
        Command::RetryDeadLetter { .. } => {
            Ok(Reply::RetryScheduled { previous_retry_count: before.rechecks, scheduled_for })
        }
        Command::RemoveDeadLetter { .. } => match before.dead {
            Some(reason) => Ok(Reply::DeadLetterRemoved { reason }),
            None => Err(CommandError::NotDeadLettered),
        },
        Command::PollNow { .. } => match (before.place, before.breaker) {
            (Place::Paused, _) => Err(CommandError::Paused),
            (Place::InFlight, _) => Err(CommandError::PollInFlight),
            (Place::DeadLettered, _) => Err(CommandError::DeadLettered),
            (Place::Queued, BreakerState::Open) => Err(CommandError::BreakerOpen),
            (Place::Queued, _) => Ok(Reply::PollScheduled { scheduled_for }),
        },
        Command::SetEnabled { enabled, .. } => {
            Ok(Reply::EnabledSet { changed: *enabled == (before.place == Place::Paused) })
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse::engine::{CommandId, Effect, Effects, Engine, Event, Input, InstanceEvent, InstanceType, What};

    use super::*;

    /// One host, its engine and its judge.
    struct Held {
        spec: InstanceSpec,
        engine: Engine,
        judge: Judge,
    }

    impl Held {
        fn new() -> Self {
            let spec = InstanceSpec::new(InstanceKey::new(InstanceType::Pve, "one").unwrap());
            let settings = Settings::default();
            let judge = Judge::new(std::slice::from_ref(&spec), settings.clone(), Timestamp::ZERO, false);
            let mut held = Self { spec: spec.clone(), engine: Engine::new(settings, 1, Timestamp::ZERO), judge };
            held.inventory(&spec);
            held
        }

        /// The engine takes a step, and the judge hears of it what a planted fault would let it hear.
        fn step(&mut self, input: Input, is_heard: impl Fn(&InstanceEvent) -> bool) {
            let mut effects = Effects::new();
            self.engine.handle(Timestamp::ZERO, input, &mut effects);
            for effect in effects.drain() {
                let hidden = matches!(&effect, Effect::Event(Event { what: What::Instance { what, .. }, .. }) if !is_heard(what));
                if !hidden {
                    self.judge.hear(Timestamp::ZERO, &effect);
                }
            }
            self.judge.stepped(Timestamp::ZERO);
        }

        fn inventory(&mut self, spec: &InstanceSpec) {
            self.inventory_with_fault(spec, spec, |_| true);
        }

        /// The judge knows of `asked`, and the engine takes `done` for it.
        fn inventory_with_fault(
            &mut self,
            asked: &InstanceSpec,
            done: &InstanceSpec,
            is_heard: impl Fn(&InstanceEvent) -> bool,
        ) {
            self.spec = asked.clone();
            self.judge.inventory_replaced([(0, asked)].into_iter());
            self.step(Input::Inventory(vec![done.clone()]), is_heard);
        }

        fn enable(&mut self, enabled: bool) {
            let command = Command::SetEnabled { key: self.spec.key.clone(), enabled };
            self.judge.commanded(command.clone());
            self.step(Input::Command { id: CommandId(1), command }, |_| true);
        }

        fn edited(&self) -> InstanceSpec {
            InstanceSpec { revision: self.spec.revision + 1, ..self.spec.clone() }
        }

        fn switched(&self) -> InstanceSpec {
            InstanceSpec { enabled: !self.spec.enabled, ..self.spec.clone() }
        }

        /// The only rule that was broken, and whether the host is paused.
        fn verdict(&self) -> (Option<Rule>, bool) {
            assert!(self.judge.violations.len() <= 1, "{:?}", self.judge.violations);
            (self.judge.violations.first().map(|violation| violation.rule), self.judge.truths[0].paused)
        }
    }

    #[test]
    fn an_edit_takes_back_an_operators_pause() {
        let mut held = Held::new();
        held.enable(false);
        assert_eq!(held.verdict(), (None, true));
        held.inventory(&held.edited());
        assert_eq!(held.verdict(), (None, false));
        held.enable(false);
        let edited = held.edited();
        let keeps_the_pause = |what: &InstanceEvent| matches!(what, InstanceEvent::Reconfigured);
        held.inventory_with_fault(&edited, &edited, keeps_the_pause);
        assert_eq!(held.verdict(), (Some(Rule::CommandAnswered), true));
    }

    #[test]
    fn an_inventory_that_says_nothing_new_of_a_host_leaves_an_operators_pause() {
        let mut held = Held::new();
        held.enable(false);
        held.inventory(&held.spec.clone());
        assert_eq!(held.verdict(), (None, true));
        let (asked, taken_for) = (held.spec.clone(), held.switched());
        held.inventory(&asked);
        // What was asked for says nothing new, and is taken for an edit.
        held.engine.handle(Timestamp::ZERO, Input::Inventory(vec![taken_for]), &mut Effects::new());
        held.inventory_with_fault(&asked, &asked, |_| true);
        assert_eq!(held.verdict(), (Some(Rule::CommandAnswered), false));
    }

    #[test]
    fn the_switch_in_the_inventory_and_an_operator_take_back_each_others_word() {
        let mut held = Held::new();
        held.enable(false);
        held.inventory(&held.switched());
        assert_eq!(held.verdict(), (None, true), "switched off, it stays paused");
        held.enable(true);
        assert_eq!(held.verdict(), (None, false), "an operator has it polled all the same");
        held.inventory(&held.edited());
        assert_eq!(held.verdict(), (None, true), "an edit takes that back");
        held.inventory(&held.switched());
        assert_eq!(held.verdict(), (None, false), "switched on");
        let switched = held.switched();
        held.inventory_with_fault(&switched, &switched, |what| !matches!(what, InstanceEvent::Paused));
        assert_eq!(held.verdict(), (Some(Rule::CommandAnswered), false));
    }

    #[test]
    fn an_edit_has_its_failures_forgotten() {
        let mut held = Held::new();
        let edited = held.edited();
        held.inventory_with_fault(&edited, &edited, |what| !matches!(what, InstanceEvent::Reconfigured));
        assert!(held.judge.violations.iter().any(|it| it.rule == Rule::CommandAnswered), "{:?}", held.judge.violations);
    }
}
