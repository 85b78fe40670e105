//! How a host fails, when, and for whom.
//!
//! A [`Behaviour`] is data: given the time and a count of what was asked so far it says which fault, if any,
//! strikes now. Nothing here touches a socket.

use serde::{Deserialize, Serialize};

use super::noise::Noise;
use crate::engine::{Millis, Timestamp};

/// The highest number of outcomes in a [`Behaviour::Sequence`].
pub const MAX_SEQUENCE: usize = 1_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FaultKind {
    /// Nobody listens: connections are refused, and those that were open are reset.
    Refuse,
    /// A connection is accepted, and then nothing.
    HangBeforeTls,
    /// The TLS handshake is cut off after the client's first message.
    CutHandshake,
    /// A self-signed certificate that nobody trusts is presented.
    WrongCertificate,
    /// The request is read and never answered.
    Hang,
    /// The connection is reset in the middle of the body.
    CutBody,
    /// The answer begins late and its body comes in small pieces.
    Slow {
        /// How long the head of the answer is held back, in milliseconds.
        delay_ms: u64,
        /// The pause before each of the body's eight pieces, in milliseconds.
        drip_ms: u64,
    },
    /// An HTTP status instead of the answer.
    Status {
        /// The status, 400 to 599.
        code: u16,
        /// The `Retry-After` header, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u32>,
    },
    /// A body that is no JSON.
    BrokenJson,
    /// The first half of the JSON, under a content length that fits the half.
    TruncatedJson,
    /// A web page instead of the API's answer.
    Html,
    /// A body without end.
    Oversized,
}

impl FaultKind {
    /// A status without `Retry-After`.
    pub const fn status(code: u16) -> Self {
        Self::Status { code, retry_after_secs: None }
    }

    /// Whether it strikes before a request is read.
    pub const fn is_of_connection(self) -> bool {
        matches!(self, Self::Refuse | Self::HangBeforeTls | Self::CutHandshake | Self::WrongCertificate)
    }
}

/// A fault and whom it strikes: by default everybody, for ever.
///
/// ```
/// use pulse::lab::{Fault, FaultKind};
/// let fault = Fault::from(FaultKind::status(503)).first(3).on("/cluster/resources");
/// assert_eq!(
///     serde_json::to_value(&fault).unwrap(),
///     serde_json::json!({"kind": {"status": {"code": 503}}, "first": 3, "paths": ["/cluster/resources"]}),
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only the first so many requests (or connections, for faults that strike before a request) of each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
    /// Only requests whose path, without `/api2/json`, is one of these or lies below it. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Fault {
    /// Limits the fault to the first `count` requests or connections.
    #[must_use]
    pub fn first(mut self, count: u32) -> Self {
        self.first = Some(count);
        self
    }

    /// Limits the fault to `path` and what lies below it, besides the paths named before.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        self.paths.push(path.to_owned());
        self
    }

    fn check(&self) -> Result<(), &'static str> {
        check_kind(self.kind)?;
        if self.kind.is_of_connection() && !self.paths.is_empty() {
            return Err("a fault that strikes before a request cannot be limited to paths");
        }
        if self.kind == FaultKind::Refuse && self.first.is_some() {
            return Err("refused connections cannot be counted; use flapping instead");
        }
        Ok(())
    }

    fn strikes(&self, asked_before: u32) -> bool {
        self.first.is_none_or(|first| asked_before < first)
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, first: None, paths: Vec::new() }
    }
}

/// How a host behaves over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Behaviour {
    /// Every request is answered.
    #[default]
    Healthy,
    /// A fault, until something else is set.
    Faulty(Fault),
    /// Well for `up_ms`, then struck by `fault` for `down_ms`, and so on, counted from the lab's start.
    Flapping {
        /// How long all is well, in milliseconds; more than zero.
        up_ms: u64,
        /// How long the fault strikes, in milliseconds; more than zero.
        down_ms: u64,
        /// What strikes.
        fault: FaultKind,
    },
    /// One outcome for each request to `path` in turn, then by chance. Other paths are answered.
    ///
    /// With a path that each poll asks for exactly once, this scripts polls.
    Sequence {
        /// The path, without `/api2/json`.
        path: String,
        /// A fault that strikes a request, or `None` for an answer. At most [`MAX_SEQUENCE`].
        outcomes: Vec<Option<FaultKind>>,
        /// The share of answers after that, 0 to 1.
        then_success: f64,
        /// What strikes the rest.
        otherwise: FaultKind,
    },
}

impl Behaviour {
    /// Whether it can be carried out.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Healthy => Ok(()),
            Self::Faulty(fault) => fault.check(),
            Self::Flapping { up_ms: 0, .. } | Self::Flapping { down_ms: 0, .. } => {
                Err("a flapping host is up for some time and down for some time")
            }
            Self::Flapping { fault, .. } => check_kind(*fault),
            Self::Sequence { outcomes, then_success, otherwise, .. } => {
                if outcomes.len() > MAX_SEQUENCE {
                    return Err("a sequence has at most 1000 outcomes");
                }
                if !(0.0..=1.0).contains(then_success) {
                    return Err("the share of successes is a number from 0 to 1");
                }
                for kind in outcomes.iter().flatten().chain([otherwise]) {
                    if kind.is_of_connection() {
                        return Err("a sequence counts requests; its faults strike requests");
                    }
                    check_kind(*kind)?;
                }
                Ok(())
            }
        }
    }

    /// The fault that strikes before a request is read, with `accepted` connections already counted.
    pub(super) fn connection_fault(&self, now: Timestamp, accepted: u32) -> Option<FaultKind> {
        let kind = match self {
            Self::Faulty(fault) if fault.strikes(accepted) => fault.kind,
            Self::Flapping { fault, .. } if self.is_down(now) => *fault,
            _ => return None,
        };
        kind.is_of_connection().then_some(kind)
    }

    /// Whether requests to `path` are counted towards [`Self::request_fault`].
    pub(super) fn counts(&self, path: &str) -> bool {
        match self {
            Self::Healthy | Self::Flapping { .. } => false,
            Self::Faulty(fault) => {
                !fault.kind.is_of_connection()
                    && (fault.paths.is_empty() || fault.paths.iter().any(|prefix| is_below(path, prefix)))
            }
            Self::Sequence { path: scripted, .. } => path == scripted,
        }
    }

    /// The fault that strikes a request that [`Self::counts`], with `asked` such requests before it.
    ///
    /// A flapping host counts nothing, so its requests are asked about with any number.
    pub(super) fn request_fault(&self, now: Timestamp, asked: u32, chance: Noise) -> Option<FaultKind> {
        let kind = match self {
            Self::Healthy => return None,
            Self::Faulty(fault) => fault.strikes(asked).then_some(fault.kind)?,
            Self::Flapping { fault, .. } => self.is_down(now).then_some(*fault)?,
            Self::Sequence { outcomes, then_success, otherwise, .. } => match outcomes.get(asked as usize) {
                Some(outcome) => (*outcome)?,
                None if chance.fraction(u64::from(asked)) < *then_success => return None,
                None => *otherwise,
            },
        };
        (!kind.is_of_connection()).then_some(kind)
    }

    /// How long from `now` until the schedule turns; `None` without one.
    pub(super) fn turns_in(&self, now: Timestamp) -> Option<Millis> {
        let Self::Flapping { up_ms, down_ms, .. } = self else { return None };
        let period = up_ms.saturating_add(*down_ms);
        let phase = now.as_millis() % period;
        Some(Millis::new(if phase < *up_ms { up_ms - phase } else { period - phase }))
    }

    fn is_down(&self, now: Timestamp) -> bool {
        match self {
            Self::Flapping { up_ms, down_ms, .. } => now.as_millis() % up_ms.saturating_add(*down_ms) >= *up_ms,
            _ => false,
        }
    }
}

impl From<Fault> for Behaviour {
    fn from(fault: Fault) -> Self {
        Self::Faulty(fault)
    }
}

impl From<FaultKind> for Behaviour {
    fn from(kind: FaultKind) -> Self {
        Self::Faulty(kind.into())
    }
}

fn check_kind(kind: FaultKind) -> Result<(), &'static str> {
    match kind {
        FaultKind::Status { code, .. } if !(400..600).contains(&code) => Err("a failing status lies in 400 to 599"),
        _ => Ok(()),
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANCE: Noise = Noise::new(7);

    #[test]
    fn a_fault_for_the_first_three_requests_ends_with_the_fourth() {
        let behaviour = Behaviour::from(Fault::from(FaultKind::status(503)).first(3));
        let struck: Vec<bool> =
            (0..5).map(|asked| behaviour.request_fault(Timestamp::ZERO, asked, CHANCE).is_some()).collect();
        assert_eq!(struck, [true, true, true, false, false]);
    }

    #[test]
    fn a_path_covers_what_lies_below_it_and_nothing_that_only_begins_alike() {
        let behaviour = Behaviour::from(Fault::from(FaultKind::Hang).on("/nodes"));
        assert!(behaviour.counts("/nodes"));
        assert!(behaviour.counts("/nodes/a/status"));
        assert!(!behaviour.counts("/nodesets"));
        assert!(!behaviour.counts("/version"));
    }

    #[test]
    fn a_flapping_host_is_down_exactly_in_its_down_time() {
        let behaviour = Behaviour::Flapping { up_ms: 40, down_ms: 20, fault: FaultKind::Refuse };
        for (millis, down, turns_in) in [(0, false, 40), (39, false, 1), (40, true, 20), (59, true, 1), (60, false, 40)]
        {
            let now = Timestamp::from_millis(millis);
            assert_eq!(behaviour.connection_fault(now, 0).is_some(), down, "{millis}");
            assert_eq!(behaviour.turns_in(now), Some(Millis::new(turns_in)), "{millis}");
        }
    }

    #[test]
    fn a_sequence_is_followed_by_its_share_of_successes() {
        let behaviour = Behaviour::Sequence {
            path: "/version".into(),
            outcomes: vec![Some(FaultKind::status(500)), None],
            then_success: 0.85,
            otherwise: FaultKind::status(503),
        };
        let answer = |asked| behaviour.request_fault(Timestamp::ZERO, asked, CHANCE);
        assert_eq!(answer(0), Some(FaultKind::status(500)));
        assert_eq!(answer(1), None);
        let successes = (2..10_002).filter(|asked| answer(*asked).is_none()).count();
        assert!((8_300..8_700).contains(&successes), "{successes}");
    }

    #[test]
    fn a_fault_strikes_either_connections_or_requests() {
        for kind in [FaultKind::Refuse, FaultKind::HangBeforeTls, FaultKind::CutHandshake, FaultKind::WrongCertificate]
        {
            let behaviour = Behaviour::from(kind);
            assert_eq!(behaviour.connection_fault(Timestamp::ZERO, 0), Some(kind));
            assert_eq!(behaviour.request_fault(Timestamp::ZERO, 0, CHANCE), None);
        }
        let behaviour = Behaviour::from(FaultKind::Hang);
        assert_eq!(behaviour.connection_fault(Timestamp::ZERO, 0), None);
        assert_eq!(behaviour.request_fault(Timestamp::ZERO, 0, CHANCE), Some(FaultKind::Hang));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let counted_refusal = Fault::from(FaultKind::Refuse).first(3);
        let path_of_a_handshake = Fault::from(FaultKind::CutHandshake).on("/version");
        for behaviour in [
            Behaviour::from(counted_refusal),
            Behaviour::from(path_of_a_handshake),
            Behaviour::from(FaultKind::status(200)),
            Behaviour::Flapping { up_ms: 0, down_ms: 1, fault: FaultKind::Hang },
            Behaviour::Sequence {
                path: "/version".into(),
                outcomes: vec![Some(FaultKind::Refuse)],
                then_success: 1.0,
                otherwise: FaultKind::Hang,
            },
        ] {
            assert!(behaviour.check().is_err(), "{behaviour:?}");
        }
    }
}
