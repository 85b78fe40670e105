//! Takes what may be news out of the driver's loop, without ever making it wait.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::news::{Cause, News, NewsKind};
use crate::engine::{BreakerState, Event, InstanceEvent, InstanceId, InstanceKey, Timestamp, What};
use crate::runtime::{PollReport, Subscriber};
use crate::targets::{DownReason, Reading};

/// Events on their way; more are lost and counted.
pub(super) const ON_THE_WAY: usize = 4_096;
/// Checks in a row that have to find an endpoint down before that is news.
const CHECKS: u32 = 2;

/// What was noted.
#[derive(Debug)]
pub enum Noted {
    /// Something happened.
    News(News),
    /// The instance is gone, paused or edited.
    Forget(InstanceKey),
    /// So many were lost before the next one.
    Lost(u64),
}

/// Listens to the driver.
pub struct NewsSubscriber {
    noted: mpsc::Sender<Noted>,
    lost: u64,
    /// Instances that fail: since when, and how they failed last.
    failing: BTreeMap<InstanceId, Failing>,
    /// Endpoints that are down: since when, and how many checks found that.
    down: BTreeMap<InstanceKey, (Timestamp, u32)>,
}

struct Failing {
    since: Timestamp,
    failures: u32,
    error: Cause,
}

impl NewsSubscriber {
    pub(super) fn new() -> (Self, mpsc::Receiver<Noted>) {
        let (noted, receiver) = mpsc::channel(ON_THE_WAY);
        (Self { noted, lost: 0, failing: BTreeMap::new(), down: BTreeMap::new() }, receiver)
    }

    fn pass(&mut self, noted: Noted) {
        if self.lost > 0 && self.noted.try_send(Noted::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        if self.noted.try_send(noted).is_err() {
            self.lost += 1;
        }
    }

    fn trouble(
        &mut self,
        kind: NewsKind,
        at: Timestamp,
        id: InstanceId,
        key: &InstanceKey,
        next_try: Option<Timestamp>,
    ) {
        let failing = self.failing.get(&id);
        let news = News {
            kind,
            key: key.clone(),
            at,
            since: failing.map_or(at, |it| it.since),
            failures: failing.map_or(0, |it| it.failures),
            error: failing.map(|it| it.error.clone()),
            next_try,
        };
        self.pass(Noted::News(news));
    }

    fn instance_event(&mut self, at: Timestamp, id: InstanceId, key: &InstanceKey, what: &InstanceEvent) {
        match what {
            InstanceEvent::PollFailed { failure, failures, .. } => {
                let error = Cause::of_failure(failure);
                let failing = Failing { since: at, failures: *failures, error };
                let since = self.failing.get(&id).filter(|_| *failures > 1).map_or(at, |before| before.since);
                self.failing.insert(id, Failing { since, ..failing });
            }
            InstanceEvent::BreakerMoved { from: BreakerState::Closed, to: BreakerState::Open, retry_at, .. } => {
                self.trouble(NewsKind::BreakerOpen, at, id, key, *retry_at);
            }
            InstanceEvent::DeadLettered { next_retry, .. } => {
                self.trouble(NewsKind::DeadLetter, at, id, key, Some(*next_retry));
            }
            InstanceEvent::Recovered { failures, .. } => {
                let since = self.failing.remove(&id).map_or(at, |it| it.since);
                let (key, failures) = (key.clone(), *failures);
                let kind = NewsKind::Recovery;
                self.pass(Noted::News(News { kind, key, at, since, failures, error: None, next_try: None }));
            }
            InstanceEvent::Removed { .. } | InstanceEvent::Paused | InstanceEvent::Reconfigured => {
                self.failing.remove(&id);
                self.down.remove(key);
                self.pass(Noted::Forget(key.clone()));
            }
            _ => {}
        }
    }

    fn endpoint(&mut self, key: &InstanceKey, at: Timestamp, down: Option<&DownReason>) {
        let kind = NewsKind::Down;
        match down {
            None => {
                if let Some((since, failures)) = self.down.remove(key) {
                    let (key, kind) = (key.clone(), NewsKind::Recovery);
                    self.pass(Noted::News(News { kind, key, at, since, failures, error: None, next_try: None }));
                }
            }
            Some(reason) => {
                let (since, checks) = self.down.entry(key.clone()).or_insert((at, 0));
                *checks += 1;
                let (since, failures) = (*since, *checks);
                if failures == CHECKS {
                    let error = Some(Cause::of_endpoint(reason));
                    let key = key.clone();
                    self.pass(Noted::News(News { kind, key, at, since, failures, error, next_try: None }));
                }
            }
        }
    }
}

impl Subscriber<Reading> for NewsSubscriber {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        let What::Instance { instance, what } = &event.what else { return };
        // The driver does not know the key of one that has just left.
        let key = if let InstanceEvent::Removed { key } = what { Some(key) } else { key };
        if let Some(key) = key {
            self.instance_event(event.at, *instance, key, what);
        }
    }

    fn report(&mut self, key: &InstanceKey, at: Timestamp, report: &PollReport<Reading>) {
        match report.reading.as_deref() {
            Some(Reading::Http(reading)) => self.endpoint(key, at, reading.reason.as_ref()),
            Some(Reading::Tcp(reading)) => self.endpoint(key, at, reading.reason.as_ref()),
            _ => {}
        }
    }
}
