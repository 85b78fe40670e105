//! What the engine was asked for: every command is answered once and truly, and what was replaced is in force.

use std::collections::BTreeSet;

use pulse::engine::{
    BreakerState, Command, CommandError, DeadLetterReason, InstanceKey, Millis, Place, Reply, Retry, RetryResult,
    Settings, Timestamp,
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
        /// Who is to be in it, and the revision of each.
        wanted: BTreeSet<usize>,
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
        self.request = Request::Settings;
    }

    /// This is the whole fleet from now on, with the revision that each host has.
    pub(crate) fn inventory_replaced(&mut self, hosts: impl Iterator<Item = (usize, u64)>) {
        let mut wanted = BTreeSet::new();
        for (host, revision) in hosts {
            wanted.insert(host);
            let truth = &mut self.truths[host];
            let edited = truth.present && truth.spec.revision != revision;
            truth.spec.revision = revision;
            if edited {
                truth.edited = true;
                self.touch(host);
            }
        }
        self.request = Request::Inventory { wanted, answered: false };
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
                    let missed = std::mem::take(&mut self.truths[host].edited) && !self.truths[host].step.reconfigured;
                    if self.truths[host].present != wanted.contains(&host) || missed {
                        self.accuse_host(Rule::CommandAnswered, host, || "the inventory is not in force".to_owned());
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
