//! One span a poll, with one below it for each call that the poll made.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};

use super::export::Span;
use super::{Ended, Spans};
use crate::engine::{
    BreakerState, Event, FailureKind, InstanceEvent, InstanceId, InstanceKey, Millis, Timestamp, What,
};
use crate::fleet::Overheard;
use crate::runtime::{Calendar, PollCost, PollReport, Subscriber};
use crate::targets::{CallSaid, Reading};

/// A poll that is over.
pub(super) struct EndedPoll {
    key: InstanceKey,
    began: Beginning,
    end: Timestamp,
    result: PollResult,
    /// What its report said; a poll that was cut off has none.
    cost: Option<PollCost>,
    calls: Vec<CallSaid>,
}

/// How things stood when a poll began.
#[derive(Clone, Copy)]
struct Beginning {
    at: Timestamp,
    lag: Millis,
    breaker: BreakerState,
    /// 1, and one more for each failure in a row before it.
    attempt: u32,
}

enum PollResult {
    Success { changed: bool },
    Failure { kind: FailureKind, message: Arc<str> },
    Cancelled,
}

/// What is known of an instance between its events.
#[derive(Clone)]
struct Known {
    breaker: BreakerState,
    failures: u32,
    poll: Option<Beginning>,
}

impl Known {
    const NOTHING: Self = Self { breaker: BreakerState::Closed, failures: 0, poll: None };
}

/// Listens to the driver and tells of each poll that ended.
pub struct PollSpans {
    spans: Spans,
    overheard: Overheard,
    /// By number, so that nothing is looked up.
    known: Vec<Known>,
    /// What the last report said, until the event that it causes.
    reported: Option<(PollCost, Vec<CallSaid>)>,
}

impl PollSpans {
    pub(super) fn new(spans: Spans, overheard: Overheard) -> Self {
        Self { spans, overheard, known: Vec::new(), reported: None }
    }

    fn known(&mut self, id: InstanceId) -> &mut Known {
        if self.known.len() <= id.index() {
            self.known.resize(id.index() + 1, Known::NOTHING);
        }
        &mut self.known[id.index()]
    }

    fn ended(&mut self, id: InstanceId, key: &InstanceKey, end: Timestamp, result: PollResult) {
        let (cost, calls) = self.reported.take().map(|(cost, calls)| (Some(cost), calls)).unwrap_or_default();
        let Some(began) = self.known(id).poll.take() else { return };
        let poll = EndedPoll { key: key.clone(), began, end, result, cost, calls };
        self.spans.tell(Ended::Poll(Box::new(poll)));
    }
}

impl Subscriber<Reading> for PollSpans {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        let (What::Instance { instance, what }, Some(key)) = (&event.what, key) else { return };
        let (id, at) = (*instance, event.at);
        match what {
            InstanceEvent::PollStarted { lag, .. } => {
                let known = self.known(id);
                let attempt = known.failures.saturating_add(1);
                known.poll = Some(Beginning { at, lag: *lag, breaker: known.breaker, attempt });
            }
            InstanceEvent::PollSucceeded { changed, .. } => {
                self.known(id).failures = 0;
                self.ended(id, key, at, PollResult::Success { changed: *changed });
            }
            InstanceEvent::PollFailed { failure, failures, .. } => {
                self.known(id).failures = *failures;
                let result = PollResult::Failure { kind: failure.kind, message: Arc::clone(&failure.message) };
                self.ended(id, key, at, result);
            }
            InstanceEvent::PollCancelled { .. } => self.ended(id, key, at, PollResult::Cancelled),
            InstanceEvent::BreakerMoved { to, .. } => self.known(id).breaker = *to,
            InstanceEvent::Added { .. } | InstanceEvent::Reconfigured => *self.known(id) = Known::NOTHING,
            InstanceEvent::Removed { .. } => drop(self.overheard.take(key)),
            _ => {}
        }
    }

    fn report(&mut self, key: &InstanceKey, _at: Timestamp, report: &PollReport<Reading>) {
        self.reported = Some((report.cost, self.overheard.take(key)));
    }
}

impl EndedPoll {
    /// How many spans it becomes.
    pub(super) fn spans(&self) -> u64 {
        1 + self.calls.len() as u64
    }

    /// The span of the poll, with those of its calls.
    pub(super) fn into_span(self, calendar: Calendar) -> Span {
        let kind = self.key.kind().as_str();
        let mut attributes = vec![
            KeyValue::new("pulse.instance.key", self.key.to_string()),
            KeyValue::new("pulse.instance.name", self.key.name().to_owned()),
            KeyValue::new("pulse.instance.type", kind),
            KeyValue::new("pulse.poll.attempt", i64::from(self.began.attempt)),
            KeyValue::new("pulse.poll.schedule_lag_ms", whole(self.began.lag.get())),
            KeyValue::new("pulse.breaker.state", self.began.breaker.as_str()),
        ];
        let status = match self.result {
            PollResult::Success { changed } => {
                attributes.push(KeyValue::new("pulse.poll.outcome", "success"));
                attributes.push(KeyValue::new("pulse.poll.changed", changed));
                Status::Unset
            }
            PollResult::Failure { kind, message } => {
                attributes.push(KeyValue::new("pulse.poll.outcome", "failure"));
                attributes.push(KeyValue::new("error.type", kind.as_str()));
                Status::error(message.to_string())
            }
            PollResult::Cancelled => {
                attributes.push(KeyValue::new("pulse.poll.outcome", "cancelled"));
                Status::Unset
            }
        };
        if let Some(cost) = self.cost {
            attributes.push(KeyValue::new("pulse.poll.calls", i64::from(cost.calls)));
            attributes.push(KeyValue::new("pulse.poll.bytes", whole(cost.bytes)));
            attributes.push(KeyValue::new("pulse.poll.connections", i64::from(cost.connections)));
            attributes.push(KeyValue::new("pulse.poll.sign_ins", i64::from(cost.sign_ins)));
        }
        Span {
            name: format!("poll {kind}").into(),
            kind: SpanKind::Internal,
            start: calendar.at(self.began.at),
            end: calendar.at(self.end),
            attributes,
            status,
            children: self.calls.into_iter().map(|call| span_of_call(call, calendar)).collect(),
        }
    }
}

fn span_of_call(call: CallSaid, calendar: Calendar) -> Span {
    let (start, end) = (calendar.at(call.at), calendar.at(call.at + call.took));
    let mut attributes = Vec::with_capacity(4);
    let name = match call.call.split_once(' ') {
        Some((method, url)) if url.starts_with("http") => {
            attributes.push(KeyValue::new("http.request.method", method.to_owned()));
            attributes.push(KeyValue::new("url.full", url.to_owned()));
            method.to_owned()
        }
        _ => call.call,
    };
    attributes.extend(call.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    let status = match (call.problem, call.status) {
        (Some(problem), _) => Status::error(problem),
        (None, Some(status @ 400..)) => {
            attributes.push(KeyValue::new("error.type", status.to_string()));
            Status::error("")
        }
        (None, _) => Status::Unset,
    };
    Span { name: name.into(), kind: SpanKind::Client, start, end, attributes, status, children: Vec::new() }
}

/// OpenTelemetry has signed numbers alone.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
