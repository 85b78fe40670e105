//! What happened to each instance lately: its last polls, and what its breaker and the dead-letter queue did.
//!
//! A task of its own keeps it, so that whoever reads it never holds up a poll.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::engine::{
    BreakerState, DeadLetterReason, Event, FailureKind, InstanceEvent, InstanceKey, IntervalReason, Millis, Timestamp,
    What,
};
use crate::runtime::Subscriber;

/// Entries of all instances together; a larger fleet keeps fewer of each.
const MAX_ENTRIES: usize = 1 << 19;
/// Entries of one instance in a small fleet.
const MOST_OF_EACH: usize = 240;
/// Entries of one instance in a large one.
const LEAST_OF_EACH: usize = 8;
/// Entries on their way to the log; what does not fit is left out of it.
const PENDING: usize = 16_384;
/// The span over which the rate of polls is measured.
const RATE_WINDOW: Millis = Millis::from_secs(10);

/// Something that happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A poll ended.
    Polled {
        /// From order to answer.
        took: Millis,
        /// Why it failed; `None` for a success.
        failure: Option<(FailureKind, Arc<str>)>,
        /// When the next poll comes after this one, and why then; `None` until it is planned.
        next: Option<(Millis, IntervalReason)>,
    },
    /// The breaker changed its state.
    BreakerMoved(BreakerState),
    /// It left the live queue.
    DeadLettered(DeadLetterReason),
    /// It came back to it.
    Revived,
    /// It is no longer polled.
    Paused,
    /// It is polled again.
    Resumed,
}

enum Message {
    Happened { key: InstanceKey, entry: Entry },
    Planned { key: InstanceKey, interval: Millis, reason: IntervalReason },
    Removed(InstanceKey),
    Read { key: InstanceKey, reply: oneshot::Sender<Vec<Entry>> },
    Rate { now: Timestamp, reply: oneshot::Sender<f64> },
}

/// Asks the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PollLog {
    inbox: mpsc::Sender<Message>,
}

impl PollLog {
    /// A log, who writes it, and who keeps it: the keeper's [`PollLogKeeper::run`] must run.
    pub fn new() -> (Self, PollLogWriter, PollLogKeeper) {
        let (inbox, messages) = mpsc::channel(PENDING);
        let keeper = PollLogKeeper { messages, entries: BTreeMap::new(), polls: VecDeque::new() };
        (Self { inbox: inbox.clone() }, PollLogWriter { inbox }, keeper)
    }

    /// What happened to an instance lately, the oldest first. Empty for one that is not known, and when the daemon stops.
    pub async fn of(&self, key: InstanceKey) -> Vec<Entry> {
        let (reply, answer) = oneshot::channel();
        match self.inbox.send(Message::Read { key, reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Polls a second, over the last ten seconds.
    pub async fn rate(&self, now: Timestamp) -> f64 {
        let (reply, answer) = oneshot::channel();
        match self.inbox.send(Message::Rate { now, reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => 0.0,
        }
    }
}

/// Listens to the driver and passes on what the log keeps.
#[derive(Debug)]
pub struct PollLogWriter {
    inbox: mpsc::Sender<Message>,
}

impl<R> Subscriber<R> for PollLogWriter {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        if let (What::Instance { what, .. }, Some(key)) = (&event.what, key)
            && let Some(message) = message(event.at, key, what)
        {
            // A log that cannot keep up misses entries; the driver does not wait for it.
            let _ = self.inbox.try_send(message);
        }
    }
}

fn message(at: Timestamp, key: &InstanceKey, event: &InstanceEvent) -> Option<Message> {
    let polled = |took: Millis, failure| Happening::Polled { took, failure, next: None };
    let what = match event {
        InstanceEvent::PollSucceeded { took, .. } => polled(*took, None),
        InstanceEvent::PollFailed { took, failure, .. } => {
            polled(*took, Some((failure.kind, Arc::clone(&failure.message))))
        }
        InstanceEvent::BreakerMoved { to, .. } => Happening::BreakerMoved(*to),
        InstanceEvent::DeadLettered { reason, .. } => Happening::DeadLettered(*reason),
        InstanceEvent::Revived => Happening::Revived,
        InstanceEvent::Paused => Happening::Paused,
        InstanceEvent::Resumed => Happening::Resumed,
        InstanceEvent::Scheduled { interval, reason, .. } => {
            return Some(Message::Planned { key: key.clone(), interval: *interval, reason: *reason });
        }
        InstanceEvent::Removed { .. } => return Some(Message::Removed(key.clone())),
        _ => return None,
    };
    Some(Message::Happened { key: key.clone(), entry: Entry { at, what } })
}

/// Keeps the log.
#[derive(Debug)]
pub struct PollLogKeeper {
    messages: mpsc::Receiver<Message>,
    entries: BTreeMap<InstanceKey, VecDeque<Entry>>,
    /// Polls that ended in each second of the rate's window.
    polls: VecDeque<(u64, u32)>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

impl PollLogKeeper {
    /// Keeps the log until `stop`, or until nobody writes and nobody reads.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => return,
                message = self.messages.recv() => message,
            };
            match message {
                Some(message) => self.take(message),
                None => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Happened { key, entry } => self.keep(key, entry),
            Message::Planned { key, interval, reason } => self.plan(&key, interval, reason),
            Message::Removed(key) => drop(self.entries.remove(&key)),
            // Whoever asked may be gone by now.
            Message::Read { key, reply } => {
                let _ =
                    reply.send(self.entries.get(&key).map(|kept| kept.iter().cloned().collect()).unwrap_or_default());
            }
            Message::Rate { now, reply } => {
                let _ = reply.send(self.rate(now));
            }
        }
    }

    fn keep(&mut self, key: InstanceKey, entry: Entry) {
        if matches!(entry.what, Happening::Polled { .. }) {
            self.count(entry.at);
        }
        let most = (MAX_ENTRIES / (self.entries.len() + 1)).clamp(LEAST_OF_EACH, MOST_OF_EACH);
        let kept = self.entries.entry(key).or_insert_with(|| VecDeque::with_capacity(LEAST_OF_EACH));
        while kept.len() >= most {
            kept.pop_front();
        }
        if kept.len() == kept.capacity() {
            // All at once, so that memory stands still after minutes and not after hours. The size of the fleet is known by now.
            kept.reserve_exact(most - kept.len());
        }
        kept.push_back(entry);
    }

    fn plan(&mut self, key: &InstanceKey, interval: Millis, reason: IntervalReason) {
        let Some(kept) = self.entries.get_mut(key) else { return };
        let last = kept.iter_mut().rev().find_map(|entry| match &mut entry.what {
            Happening::Polled { next, .. } => Some(next),
            _ => None,
        });
        if let Some(next) = last {
            *next = Some((interval, reason));
        }
    }

    fn count(&mut self, at: Timestamp) {
        let second = at.as_millis() / 1_000;
        match self.polls.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => self.polls.push_back((second, 1)),
        }
        while self.polls.len() as u64 > RATE_WINDOW.get() / 1_000 + 1 {
            self.polls.pop_front();
        }
    }

    /// The second that is not over yet is left out, since it would pull the rate down.
    fn rate(&self, now: Timestamp) -> f64 {
        let this = now.as_millis() / 1_000;
        let seconds = (RATE_WINDOW.get() / 1_000).min(this);
        let counted = self.polls.iter().filter(|(second, _)| *second < this && *second >= this - seconds);
        let polls: u32 = counted.map(|(_, count)| count).sum();
        if seconds == 0 { 0.0 } else { f64::from(polls) / seconds as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> InstanceKey {
        format!("pve::{name}").parse().unwrap()
    }

    fn keeper() -> PollLogKeeper {
        PollLog::new().2
    }

    fn success(at: u64) -> Entry {
        let what = Happening::Polled { took: Millis::new(20), failure: None, next: None };
        Entry { at: Timestamp::from_millis(at), what }
    }

    #[test]
    fn each_instance_keeps_its_last_entries_and_no_more() {
        let mut keeper = keeper();
        for at in 0..1_000 {
            keeper.keep(key("a"), success(at));
        }
        keeper.keep(key("b"), success(7));
        let kept = &keeper.entries[&key("a")];
        assert_eq!(kept.len(), MOST_OF_EACH);
        assert_eq!(kept.back(), Some(&success(999)));
        assert_eq!(keeper.entries[&key("b")].len(), 1);
    }

    #[test]
    fn an_instance_takes_the_memory_for_all_its_entries_with_the_ninth() {
        let mut keeper = keeper();
        let mut capacity_after = |entries: u64| {
            (0..entries).for_each(|at| keeper.keep(key("a"), success(at)));
            keeper.entries[&key("a")].capacity()
        };
        assert_eq!(capacity_after(LEAST_OF_EACH as u64), LEAST_OF_EACH);
        assert_eq!((capacity_after(1), capacity_after(1_000)), (MOST_OF_EACH, MOST_OF_EACH));
    }

    #[test]
    fn a_plan_belongs_to_the_poll_before_it() {
        let mut keeper = keeper();
        keeper.plan(&key("a"), Millis::from_secs(1), IntervalReason::First);
        keeper.keep(key("a"), success(1));
        keeper.keep(key("a"), Entry { at: Timestamp::from_millis(1), what: Happening::Revived });
        keeper.plan(&key("a"), Millis::from_secs(10), IntervalReason::Base);
        let Happening::Polled { next, .. } = &keeper.entries[&key("a")][0].what else { panic!("it is a poll") };
        assert_eq!(*next, Some((Millis::from_secs(10), IntervalReason::Base)));
    }

    #[test]
    fn the_rate_is_that_of_the_whole_seconds_before_this_one() {
        let mut keeper = keeper();
        for at in (0..30_000).step_by(100) {
            keeper.keep(key("a"), success(at));
        }
        assert!((keeper.rate(Timestamp::from_millis(30_000)) - 10.0).abs() < 1e-9);
        assert!((keeper.rate(Timestamp::from_millis(35_000)) - 5.0).abs() < 1e-9, "half of the window had polls");
        assert!(keeper.rate(Timestamp::from_millis(60_000)).abs() < 1e-9);
    }

    #[test]
    fn what_was_removed_is_forgotten() {
        let mut keeper = keeper();
        keeper.take(Message::Happened { key: key("a"), entry: success(1) });
        keeper.take(Message::Removed(key("a")));
        assert!(keeper.entries.is_empty());
    }
}
