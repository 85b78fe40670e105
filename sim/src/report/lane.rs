//! What is kept of one host: in each slice of the run which states it had, and the moments worth a sentence.

use pulse::engine::{BreakerState, FailureKind, InstanceEvent, Millis, Timestamp};

/// Moments kept of one host; the rest are counted.
const MAX_MOMENTS: usize = 40;

/// Something that a host was, did or suffered within a slice of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    Success,
    /// No answer in time.
    Silent,
    /// No connection: refused, reset, no such name.
    Unreachable,
    /// TLS: the handshake or the certificate.
    Untrusted,
    /// Too busy or broken: 429, 5xx.
    Overloaded,
    /// Refused by the API: 401, 403, 404 and the like.
    Denied,
    /// An answer that is not the API's.
    Garbled,
    Open,
    HalfOpen,
    Dead,
    Paused,
    Absent,
    Operator,
    Violation,
}

impl Mark {
    pub(super) const FAILURES: [Self; 6] =
        [Self::Denied, Self::Untrusted, Self::Garbled, Self::Overloaded, Self::Unreachable, Self::Silent];
    pub(super) const STATES: [Self; 5] = [Self::Absent, Self::Paused, Self::Dead, Self::Open, Self::HalfOpen];

    fn of_failure(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Timeout => Self::Silent,
            FailureKind::Refused | FailureKind::Reset | FailureKind::Dns => Self::Unreachable,
            FailureKind::TlsHandshake | FailureKind::CertificateUntrusted | FailureKind::FingerprintMismatch => {
                Self::Untrusted
            }
            FailureKind::RateLimited | FailureKind::ServerError | FailureKind::Internal => Self::Overloaded,
            FailureKind::Unauthorized
            | FailureKind::Forbidden
            | FailureKind::NotFound
            | FailureKind::ClientError
            | FailureKind::InvalidSettings => Self::Denied,
            FailureKind::NotTheApi => Self::Garbled,
        }
    }
}

/// The marks of one slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u16);

impl Marks {
    pub(super) fn has(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u8) != 0
    }

    fn set(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u8;
    }
}

/// One host over the run.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) key: String,
    pub(super) group: String,
    /// A slice each; none for hosts beyond those whose lanes are kept.
    pub(super) slices: Vec<Marks>,
    pub(super) moments: Vec<(Timestamp, String)>,
    pub(super) moments_left_out: u64,
    pub(super) polls: u64,
    pub(super) successes: u64,
    pub(super) failures: [u64; FailureKind::ALL.len()],
    pub(super) openings: u64,
    pub(super) dead_letters: u64,
    pub(super) violations: u64,
    pub(super) in_flight: bool,
    present: bool,
    paused: bool,
    dead: bool,
    breaker: BreakerState,
    /// The last success, or the moment from which one is waited for.
    fresh_at: Timestamp,
}

impl Lane {
    pub(super) fn new(key: String, group: String, slices: usize) -> Self {
        Self {
            key,
            group,
            slices: vec![Marks::default(); slices],
            moments: Vec::new(),
            moments_left_out: 0,
            polls: 0,
            successes: 0,
            failures: [0; FailureKind::ALL.len()],
            openings: 0,
            dead_letters: 0,
            violations: 0,
            in_flight: false,
            present: false,
            paused: false,
            dead: false,
            breaker: BreakerState::Closed,
            fresh_at: Timestamp::ZERO,
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// How old the last reading is, of a host that is polled at the pace of the living.
    pub(super) fn age(&self, now: Timestamp) -> Option<Millis> {
        (self.present && !self.paused && !self.dead).then(|| now - self.fresh_at)
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker != BreakerState::Closed
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(super) fn mark(&mut self, slice: usize, mark: Mark) {
        if let Some(marks) = self.slices.get_mut(slice) {
            marks.set(mark);
        }
    }

    /// The states that last are marked in every slice that they touch.
    pub(super) fn mark_states(&mut self, slice: usize) {
        let states = [
            (!self.present, Mark::Absent),
            (self.paused, Mark::Paused),
            (self.dead, Mark::Dead),
            (self.breaker == BreakerState::Open, Mark::Open),
            (self.breaker == BreakerState::HalfOpen, Mark::HalfOpen),
        ];
        for (_, mark) in states.into_iter().filter(|(is, _)| *is) {
            self.mark(slice, mark);
        }
    }

    pub(super) fn say(&mut self, at: Timestamp, what: impl FnOnce() -> String) {
        match self.moments.len() < MAX_MOMENTS {
            true => self.moments.push((at, what())),
            false => self.moments_left_out += 1,
        }
    }

    /// The daemon was killed: what it knew is gone, and polls under way are lost.
    pub(super) fn restarted(&mut self) {
        (self.present, self.paused, self.in_flight) = (false, false, false);
        self.forget_failures();
    }

    fn forget_failures(&mut self) {
        (self.breaker, self.dead) = (BreakerState::Closed, false);
    }

    pub(super) fn hear(&mut self, at: Timestamp, slice: usize, what: &InstanceEvent) {
        // At the very beginning nobody is there yet, which is not worth showing.
        if at > Timestamp::ZERO {
            self.mark_states(slice);
        }
        self.take(at, slice, what);
        self.mark_states(slice);
    }

    fn take(&mut self, at: Timestamp, slice: usize, what: &InstanceEvent) {
        match what {
            InstanceEvent::Added { .. } => {
                self.restarted();
                (self.present, self.fresh_at) = (true, at);
                if at > Timestamp::ZERO {
                    self.say(at, || "added to the inventory".to_owned());
                }
            }
            InstanceEvent::Removed { .. } => {
                self.restarted();
                self.say(at, || "removed from the inventory".to_owned());
            }
            InstanceEvent::Reconfigured => {
                self.forget_failures();
                self.say(at, || "its settings were edited".to_owned());
            }
            InstanceEvent::Paused => {
                self.forget_failures();
                self.paused = true;
                self.say(at, || "paused".to_owned());
            }
            InstanceEvent::Resumed => {
                (self.paused, self.fresh_at) = (false, at);
                self.say(at, || "polled again".to_owned());
            }
            InstanceEvent::PollStarted { .. } => {
                self.polls += 1;
                self.in_flight = true;
            }
            InstanceEvent::PollSucceeded { .. } => {
                self.successes += 1;
                (self.in_flight, self.fresh_at) = (false, at);
                self.mark(slice, Mark::Success);
            }
            InstanceEvent::PollFailed { failure, failures, .. } => {
                self.in_flight = false;
                self.count_failure(failure.kind);
                self.mark(slice, Mark::of_failure(failure.kind));
                if *failures == 1 {
                    self.say(at, || format!("first failure: {}", words(failure.kind.as_str())));
                }
            }
            InstanceEvent::PollCancelled { .. } => self.in_flight = false,
            InstanceEvent::StaleTicket { .. } => self.say(at, || "a late answer was dropped".to_owned()),
            InstanceEvent::Scheduled { .. } => {}
            _ => self.take_penalty(at, what),
        }
    }

    fn take_penalty(&mut self, at: Timestamp, what: &InstanceEvent) {
        match what {
            InstanceEvent::BreakerMoved { from, to, failures, retry_at } => {
                self.breaker = *to;
                self.openings += u64::from(*to == BreakerState::Open);
                self.say(at, || {
                    let until = retry_at.map_or(String::new(), |until| format!(", probed in {}", until - at));
                    let (from, to) = (words(from.as_str()), words(to.as_str()));
                    format!("breaker {from} → {to} after {failures} failures in a row{until}")
                });
            }
            InstanceEvent::DeadLettered { reason, next_retry, failures } => {
                self.dead = true;
                self.dead_letters += 1;
                let again = *next_retry - at;
                let reason = words(reason.as_str());
                self.say(at, || format!("dead-lettered ({reason}, {failures} in a row), rechecked in {again}"));
            }
            InstanceEvent::RecheckFailed { next_retry, .. } => {
                let again = *next_retry - at;
                self.say(at, || format!("recheck failed, again in {again}"));
            }
            InstanceEvent::Revived => {
                self.dead = false;
                self.say(at, || "back from the dead-letter queue".to_owned());
            }
            InstanceEvent::Recovered { failures, down_for } => {
                self.say(at, || format!("recovered from {failures} failures, down for {down_for}"));
            }
            _ => {}
        }
    }

    fn count_failure(&mut self, kind: FailureKind) {
        if let Some(place) = FailureKind::ALL.iter().position(|known| *known == kind) {
            self.failures[place] += 1;
        }
    }
}

/// A name of the API as words.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane::new("pve::a-1".to_owned(), "a".to_owned(), 4)
    }

    fn opened() -> InstanceEvent {
        let (from, to) = (BreakerState::Closed, BreakerState::Open);
        InstanceEvent::BreakerMoved { from, to, failures: 3, retry_at: None }
    }

    #[test]
    fn an_edit_and_a_pause_end_the_band_of_an_open_breaker() {
        for end in [InstanceEvent::Reconfigured, InstanceEvent::Paused] {
            let mut lane = lane();
            lane.hear(Timestamp::from_millis(1), 0, &opened());
            lane.hear(Timestamp::from_millis(2), 1, &end);
            lane.mark_states(2);
            let open: Vec<_> = lane.slices.iter().map(|marks| marks.has(Mark::Open)).collect();
            assert_eq!(open, [true, true, false, false], "{end:?}");
        }
    }

    #[test]
    fn moments_are_bounded_and_the_rest_is_counted() {
        let mut lane = lane();
        for n in 0..100 {
            lane.hear(Timestamp::from_millis(n), 0, &opened());
        }
        assert_eq!((lane.moments.len() as u64 + lane.moments_left_out, lane.openings), (100, 100));
        assert_eq!(lane.moments.len(), MAX_MOMENTS);
    }

    #[test]
    fn every_kind_of_failure_has_a_mark_that_is_drawn() {
        for kind in FailureKind::ALL {
            assert!(Mark::FAILURES.contains(&Mark::of_failure(kind)), "{kind:?}");
        }
    }
}
