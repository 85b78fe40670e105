//! What happens, kept for a while for whoever watches: a bounded ring between the engine's events and their readers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::engine::{BreakerState, Event, FleetEvent, InstanceEvent, InstanceKey, What};
use crate::runtime::{Calendar, Clock, Subscriber};

/// Events that are kept for readers who were away.
const KEPT: usize = 4_096;
/// Events on their way from the driver to the ring; more are lost and counted.
const ON_THE_WAY: usize = 4_096;
/// Readers at once.
const MAX_READERS: usize = 64;

/// What happens, for readers who come and go. Cheap to clone.
#[derive(Clone)]
pub struct EventFeed {
    ring: Arc<Mutex<Ring>>,
    latest: watch::Receiver<u64>,
    places: Arc<Semaphore>,
    /// Tells the events of this run of the daemon from those of others.
    run: Arc<str>,
}

/// The ring; the numbers of its items grow, with a gap where events were lost.
#[derive(Default)]
struct Ring {
    items: VecDeque<Arc<Item>>,
}

/// An event as readers get it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) data: String,
    /// Whether an operator wants to hear of it afterwards.
    pub(super) is_news: bool,
}

/// Takes the events out of the driver's loop without ever making it wait.
pub struct FeedSubscriber {
    to_ring: mpsc::Sender<Passed>,
    lost: u64,
}

struct Passed {
    lost_before: u64,
    event: Event,
    key: Option<InstanceKey>,
}

/// Moves events into the ring until the driver is gone.
pub struct FeedPump {
    passed: mpsc::Receiver<Passed>,
    ring: Arc<Mutex<Ring>>,
    latest: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

impl EventFeed {
    /// A feed, what fills it, and what has to run beside the driver.
    pub fn new(clock: Arc<dyn Clock>) -> (Self, FeedSubscriber, FeedPump) {
        let (to_ring, passed) = mpsc::channel(ON_THE_WAY);
        let (sender, latest) = watch::channel(0);
        let ring = Arc::<Mutex<Ring>>::default();
        let run = format!("{:x}", clock.wall().as_millisecond()).into();
        let places = Arc::new(Semaphore::new(MAX_READERS));
        let feed = Self { ring: Arc::clone(&ring), latest, places, run };
        (feed, FeedSubscriber { to_ring, lost: 0 }, FeedPump { passed, ring, latest: sender, clock })
    }

    /// A reader that goes on behind the event `last`, if that is one of this run. `None` if there are too many readers.
    pub(super) fn reader(&self, last: Option<&str>) -> Option<Reader> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let latest = *self.latest.borrow();
        let of_this_run = |id: &str| {
            let (run, number) = id.split_once('-')?;
            number.parse().ok().filter(|number| run == &*self.run && *number <= latest)
        };
        let (seen, unknown) = match last.map(of_this_run) {
            None => (latest, false),
            Some(Some(seen)) => (seen, false),
            Some(None) => (latest, true),
        };
        Some(Reader { feed: self.clone(), latest: self.latest.clone(), seen, unknown, _place: place })
    }

    /// The last events that are news, the newest first.
    pub(super) fn news(&self, limit: usize) -> Vec<Arc<Item>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.items.iter().rev().filter(|item| item.is_news).take(limit).cloned().collect()
    }

    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }
}

impl std::fmt::Debug for EventFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventFeed").field("run", &self.run).finish_non_exhaustive()
    }
}

/// One reader's place in the feed.
pub(super) struct Reader {
    feed: EventFeed,
    latest: watch::Receiver<u64>,
    /// The last event that it has seen.
    pub(super) seen: u64,
    /// Whether it asked for events that nobody knows any more.
    unknown: bool,
    _place: OwnedSemaphorePermit,
}

/// What a reader gets next.
pub(super) enum Next {
    Item(Arc<Item>),
    /// Events went by before it could have them; how many, if that is known.
    Lagged(Option<u64>),
}

impl Reader {
    /// Waits for the next event. `None` once no more come. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Next> {
        if std::mem::take(&mut self.unknown) {
            return Some(Next::Lagged(None));
        }
        loop {
            self.latest.borrow_and_update();
            if let Some(item) = self.following() {
                let missed = item.number - self.seen - 1;
                if missed > 0 {
                    self.seen = item.number - 1;
                    return Some(Next::Lagged(Some(missed)));
                }
                self.seen = item.number;
                return Some(Next::Item(item));
            }
            self.latest.changed().await.ok()?;
        }
    }

    /// The id that a reader gives to go on from here.
    pub(super) fn id(&self) -> String {
        self.feed.id(self.seen)
    }

    fn following(&self) -> Option<Arc<Item>> {
        let ring = self.feed.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ring.items.partition_point(|item| item.number <= self.seen);
        ring.items.get(place).cloned()
    }
}

impl<R> Subscriber<R> for FeedSubscriber {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        if !is_told(&event.what) {
            return;
        }
        let passed = Passed { lost_before: self.lost, event: event.clone(), key: key.cloned() };
        match self.to_ring.try_send(passed) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

impl FeedPump {
    /// Runs until the driver is gone.
    pub async fn run(mut self) {
        let mut number = 0;
        while let Some(Passed { lost_before, event, key }) = self.passed.recv().await {
            number += lost_before + 1;
            let (name, data) = tell(&event, key.as_ref(), self.clock.calendar());
            let item = Arc::new(Item { number, name, data: data.to_string(), is_news: is_news(&event.what) });
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.items.len() == KEPT {
                ring.items.pop_front();
            }
            ring.items.push_back(item);
            drop(ring);
            self.latest.send_replace(number);
        }
    }
}

/// Changes of state are told; the routine of a healthy fleet, thousands of polls a second, is not.
fn is_told(what: &What) -> bool {
    match what {
        What::Instance { what, .. } => !matches!(
            what,
            InstanceEvent::PollStarted { .. }
                | InstanceEvent::PollSucceeded { changed: false, .. }
                | InstanceEvent::PollCancelled { .. }
                | InstanceEvent::StaleTicket { .. }
                | InstanceEvent::Scheduled { .. }
        ),
        What::Fleet(what) => !matches!(what, FleetEvent::UnknownTicket { .. } | FleetEvent::CommandDone { .. }),
    }
}

/// What begins or ends a trouble, and what somebody did. Further failures and new readings are the course of things.
fn is_news(what: &What) -> bool {
    let What::Instance { what, .. } = what else { return false };
    match what {
        InstanceEvent::PollFailed { failures, .. } => *failures == 1,
        InstanceEvent::BreakerMoved { to, .. } => *to != BreakerState::HalfOpen,
        InstanceEvent::Added { .. }
        | InstanceEvent::Removed { .. }
        | InstanceEvent::Paused
        | InstanceEvent::Resumed
        | InstanceEvent::DeadLettered { .. }
        | InstanceEvent::Revived
        | InstanceEvent::Recovered { .. } => true,
        _ => false,
    }
}

fn tell(event: &Event, key: Option<&InstanceKey>, calendar: Calendar) -> (&'static str, Value) {
    let (name, mut data) = match &event.what {
        What::Instance { what, .. } => tell_instance(what, calendar),
        What::Fleet(what) => tell_fleet(what),
    };
    data["at"] = json!(calendar.at(event.at));
    if let Some(key) = key {
        data["key"] = json!(key);
    }
    (name, data)
}

fn tell_instance(what: &InstanceEvent, calendar: Calendar) -> (&'static str, Value) {
    match what {
        InstanceEvent::Added { key } => ("added", json!({"key": key})),
        InstanceEvent::Removed { key } => ("removed", json!({"key": key})),
        InstanceEvent::Reconfigured => ("reconfigured", json!({})),
        InstanceEvent::Paused => ("paused", json!({})),
        InstanceEvent::Resumed => ("resumed", json!({})),
        InstanceEvent::PollSucceeded { took, .. } => ("reading_changed", json!({"tookMs": took.get()})),
        InstanceEvent::PollFailed { took, failure, failures, .. } => {
            let (category, message) = (failure.kind.as_str(), &failure.message);
            let data = json!({"tookMs": took.get(), "category": category, "message": message, "failures": failures});
            ("poll_failed", data)
        }
        InstanceEvent::BreakerMoved { from, to, failures, retry_at } => {
            let retry_at = retry_at.map(|at| calendar.at(at));
            ("breaker_moved", json!({"from": from, "to": to, "failures": failures, "retryAt": retry_at}))
        }
        InstanceEvent::DeadLettered { reason, next_retry, failures } => {
            let next_retry = calendar.at(*next_retry);
            ("dead_lettered", json!({"reason": reason, "nextRetry": next_retry, "failures": failures}))
        }
        InstanceEvent::RecheckFailed { reason, next_retry, retry_count } => {
            let next_retry = calendar.at(*next_retry);
            ("recheck_failed", json!({"reason": reason, "nextRetry": next_retry, "retryCount": retry_count}))
        }
        InstanceEvent::Revived => ("revived", json!({})),
        InstanceEvent::Recovered { failures, down_for } => {
            ("recovered", json!({"failures": failures, "downForMs": down_for.get()}))
        }
        InstanceEvent::PollStarted { .. }
        | InstanceEvent::PollCancelled { .. }
        | InstanceEvent::StaleTicket { .. }
        | InstanceEvent::Scheduled { .. } => ("poll", json!({})),
    }
}

fn tell_fleet(what: &FleetEvent) -> (&'static str, Value) {
    match what {
        FleetEvent::SettingsApplied { replanned } => ("settings_applied", json!({"replanned": replanned})),
        FleetEvent::InventoryApplied { added, removed, changed } => {
            ("inventory_applied", json!({"added": added, "removed": removed, "changed": changed}))
        }
        FleetEvent::LoadChanged { stretch_permille } => {
            ("load_changed", json!({"stretch": f64::from(*stretch_permille) / 1_000.0}))
        }
        FleetEvent::CommandDone { .. } | FleetEvent::UnknownTicket { .. } => ("other", json!({})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{InstanceId, Timestamp};
    use crate::runtime::TokioClock;

    fn event() -> Event {
        let what = What::Instance { instance: InstanceId::from_index(0), what: InstanceEvent::Revived };
        Event { at: Timestamp::ZERO, what }
    }

    fn feed() -> (EventFeed, FeedSubscriber, FeedPump) {
        EventFeed::new(Arc::new(TokioClock::start()))
    }

    async fn fill(feed: (FeedSubscriber, FeedPump), events: usize) {
        let (mut subscriber, pump) = feed;
        for _ in 0..events {
            Subscriber::<()>::event(&mut subscriber, &event(), None);
        }
        drop(subscriber);
        pump.run().await;
    }

    async fn numbers(reader: &mut Reader) -> Vec<Result<u64, Option<u64>>> {
        let mut seen = Vec::new();
        while let Some(next) = reader.next().await {
            seen.push(match next {
                Next::Item(item) => Ok(item.number),
                Next::Lagged(missed) => Err(missed),
            });
        }
        seen
    }

    #[tokio::test]
    async fn whoever_comes_back_goes_on_behind_what_it_has_seen() {
        let (feed, subscriber, pump) = feed();
        let mut new = feed.reader(None).unwrap();
        fill((subscriber, pump), 3).await;
        assert_eq!(numbers(&mut new).await, [Ok(1), Ok(2), Ok(3)]);
        let mut back = feed.reader(Some(&feed.id(2))).unwrap();
        assert_eq!(numbers(&mut back).await, [Ok(3)]);
        let mut stranger = feed.reader(Some("0-2")).unwrap();
        assert_eq!(numbers(&mut stranger).await, [Err(None)], "the events of another run are not these");
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_missed_and_what_is_kept_is_bounded() {
        let (feed, subscriber, pump) = feed();
        let mut slow = feed.reader(None).unwrap();
        fill((subscriber, pump), ON_THE_WAY + 10).await;
        assert_eq!(numbers(&mut slow).await.len(), KEPT, "the driver never waits: ten were lost on the way");
        assert_eq!(feed.ring.lock().unwrap().items.len(), KEPT);
        let mut slower = feed.reader(Some(&feed.id(0))).unwrap();
        feed.ring.lock().unwrap().items.drain(..5);
        assert_eq!(numbers(&mut slower).await[..2], [Err(Some(5)), Ok(6)]);
    }

    #[tokio::test]
    async fn the_news_is_the_newest_first_and_bounded() {
        let (feed, subscriber, pump) = feed();
        fill((subscriber, pump), 5).await;
        assert_eq!(feed.news(3).iter().map(|item| item.number).collect::<Vec<_>>(), [5, 4, 3]);
        let routine = InstanceEvent::Reconfigured;
        assert!(!is_news(&What::Instance { instance: InstanceId::from_index(0), what: routine }));
    }

    #[tokio::test]
    async fn there_are_only_so_many_readers_and_one_that_leaves_makes_room() {
        let (feed, _subscriber, _pump) = feed();
        let readers: Vec<_> = (0..MAX_READERS).map(|_| feed.reader(None).unwrap()).collect();
        assert!(feed.reader(None).is_none());
        drop(readers);
        assert!(feed.reader(None).is_some());
    }
}
