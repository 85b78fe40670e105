//! The one loop around the engine: it keeps time, runs polls as tasks, and passes on what the engine says.
//!
//! At one instant the engine is handed finished polls in the order of their tickets, then requests in the order of
//! arrival, then a tick if one is due. The simulator's own loop keeps the same order, so both give the same trace.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::handle::{Handle, Observed, Request};
use super::transport::{PollCost, PollReport, PollRequest, Transport};
use crate::engine::{
    CommandError, CommandId, Effect, Effects, Engine, Event, Failure, FailureKind, FleetEvent, Input, InstanceKey,
    Millis, Outcome, PollOrder, Reply, Ticket, Timestamp, What,
};

/// How long a stopping driver waits for polls that are under way.
const DRAIN: Millis = Millis::from_secs(10);
/// How long requests may take in one turn before polls have theirs. One that was begun is ended.
const REQUEST_NANOS_A_TURN: u64 = 500_000;

/// Listens to what happens. Called from the driver's loop, so it must be quick and must not block.
pub trait Subscriber<R>: Send {
    /// Something happened; `key` names the instance that it happened to.
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>);

    /// A poll ended and its report was accepted. Comes before the events that it causes.
    fn report(&mut self, _key: &InstanceKey, _at: Timestamp, _report: &PollReport<R>) {}

    /// The engine took `inputs` inputs in `nanos` nanoseconds.
    fn step(&mut self, _inputs: usize, _nanos: u64) {}
}

/// How a driver came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Polls that were under way and ended by themselves.
    pub finished: usize,
    /// Polls that were cut off.
    pub aborted: usize,
}

type Finished<R> = (Ticket, Option<PollReport<R>>);

/// Runs an engine on a clock and a transport.
///
/// A poll that panics or outlives its timeout frees its slot; it touches no other.
pub struct Driver<C, T: Transport> {
    clock: Arc<C>,
    transport: Arc<T>,
    engine: Engine,
    effects: Effects,
    polls: JoinSet<Finished<T::Reading>>,
    running: BTreeMap<Ticket, AbortHandle>,
    requests: mpsc::Receiver<Request>,
    subscribers: Vec<Box<dyn Subscriber<T::Reading>>>,
    replies: BTreeMap<CommandId, oneshot::Sender<Result<Reply, CommandError>>>,
    commands: u64,
}

impl<C: Clock, T: Transport> Driver<C, T> {
    /// A driver for `engine`, and the handle to talk to it. It does nothing before [`Self::run`].
    pub fn new(engine: Engine, clock: Arc<C>, transport: Arc<T>) -> (Self, Handle) {
        let (handle, requests) = Handle::new();
        let driver = Self {
            clock,
            transport,
            engine,
            effects: Effects::new(),
            polls: JoinSet::new(),
            running: BTreeMap::new(),
            requests,
            subscribers: Vec::new(),
            replies: BTreeMap::new(),
            commands: 0,
        };
        (driver, handle)
    }

    /// Adds somebody who listens to everything that happens.
    #[must_use]
    pub fn subscribe(mut self, subscriber: impl Subscriber<T::Reading> + 'static) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// Polls until `stop` is cancelled, then waits up to ten seconds for polls under way, cuts off the rest, and
    /// leaves no task behind.
    pub async fn run(mut self, stop: CancellationToken) -> Drained {
        let mut finished = Vec::new();
        while !stop.is_cancelled() {
            let request = self.wait(&stop, &mut finished).await;
            // Whatever else became ready at this instant is gathered before the engine sees any of it.
            tokio::task::yield_now().await;
            while let Some(joined) = self.polls.try_join_next() {
                finished.extend(ended(joined));
            }
            self.step(&mut finished, request);
        }
        self.drain().await
    }

    /// Waits for the first thing to happen; gives the request, if it was one.
    async fn wait(&mut self, stop: &CancellationToken, finished: &mut Vec<Finished<T::Reading>>) -> Option<Request> {
        let wakeup = self.engine.next_wakeup();
        let alarm = async {
            match wakeup {
                Some(at) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(joined) = self.polls.join_next() => finished.extend(ended(joined)),
            Some(request) = self.requests.recv() => return Some(request),
            () = alarm => {}
        }
        None
    }

    /// Hands the engine everything that happened by now, in the documented order.
    fn step(&mut self, finished: &mut Vec<Finished<T::Reading>>, request: Option<Request>) {
        let began = self.clock.nanos();
        let now = self.clock.now();
        let mut inputs = finished.len();
        finished.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (ticket, report) in finished.drain(..) {
            self.finish(now, ticket, report);
        }
        let requests_began = self.clock.nanos();
        let mut next = request.or_else(|| self.requests.try_recv().ok());
        while let Some(request) = next {
            inputs += 1;
            self.serve(now, request);
            let has_time = self.clock.nanos().saturating_sub(requests_began) < REQUEST_NANOS_A_TURN;
            next = if has_time { self.requests.try_recv().ok() } else { None };
        }
        if self.engine.next_wakeup().is_some_and(|at| at <= now) {
            self.handle(now, Input::Tick);
        }
        let nanos = self.clock.nanos().saturating_sub(began);
        for subscriber in &mut self.subscribers {
            subscriber.step(inputs + 1, nanos);
        }
    }

    fn finish(&mut self, now: Timestamp, ticket: Ticket, report: Option<PollReport<T::Reading>>) {
        self.running.remove(&ticket);
        let report = report.unwrap_or_else(|| PollReport {
            outcome: Outcome::Failure(Failure::new(FailureKind::Internal, "the poll itself broke; see the log")),
            reading: None,
            cost: PollCost::default(),
        });
        // A report that the engine no longer waits for must not become the last reading.
        if self.engine.is_current(ticket)
            && let Some(key) = self.engine.key(ticket.instance())
        {
            for subscriber in &mut self.subscribers {
                subscriber.report(key, now, &report);
            }
        }
        self.handle(now, Input::Finished { ticket, outcome: report.outcome });
    }

    fn serve(&mut self, now: Timestamp, request: Request) {
        match request {
            Request::Read(look) => look(&self.engine, now),
            Request::Command { command, reply } => {
                self.commands += 1;
                let id = CommandId(self.commands);
                self.replies.insert(id, reply);
                self.handle(now, Input::Command { id, command });
            }
            Request::Observed { key, command, reply } => {
                let before = self.engine.instance_health(&key, now);
                let (done, mut result) = oneshot::channel();
                self.serve(now, Request::Command { command, reply: done });
                let after = self.engine.instance_health(&key, now);
                // The engine answers each command in its own step.
                if let Ok(result) = result.try_recv() {
                    let _ = reply.send(Observed { before, result, after });
                }
            }
            Request::Inventory { specs, done } => {
                self.handle(now, Input::Inventory(specs));
                // Whoever asked may be gone by now.
                let _ = done.send(());
            }
            Request::Settings { settings, done } => {
                self.handle(now, Input::Settings(settings));
                let _ = done.send(());
            }
        }
    }

    fn handle(&mut self, now: Timestamp, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.engine.handle(now, input, &mut effects);
        for effect in effects.drain() {
            match effect {
                Effect::Start(order) => self.start(order),
                Effect::Cancel(ticket) => {
                    if let Some(task) = self.running.remove(&ticket) {
                        task.abort();
                    }
                }
                Effect::Event(event) => self.publish(event),
            }
        }
        self.effects = effects;
    }

    fn start(&mut self, order: PollOrder) {
        let ticket = order.ticket;
        let Some(key) = self.engine.key(ticket.instance()).cloned() else { return };
        let transport = Arc::clone(&self.transport);
        let poll = async move {
            // The future is made inside, so that a panic while making it is caught too.
            let poll = async { transport.poll(PollRequest { key, timeout: order.timeout }).await };
            (ticket, AssertUnwindSafe(poll).catch_unwind().await.ok())
        };
        let task = self.polls.spawn(poll);
        self.running.insert(ticket, task);
    }

    fn publish(&mut self, event: Event) {
        let key = match &event.what {
            What::Instance { instance, .. } => self.engine.key(*instance),
            What::Fleet(_) => None,
        };
        for subscriber in &mut self.subscribers {
            subscriber.event(&event, key);
        }
        if let What::Fleet(FleetEvent::CommandDone { id, result }) = event.what
            && let Some(reply) = self.replies.remove(&id)
        {
            let _ = reply.send(result);
        }
    }

    async fn drain(mut self) -> Drained {
        self.requests.close();
        let deadline = self.clock.now() + DRAIN;
        let mut drained = Drained::default();
        loop {
            let joined = tokio::select! {
                biased;
                joined = self.polls.join_next() => joined,
                () = self.clock.sleep_until(deadline) => break,
            };
            match joined {
                Some(joined) => drained.finished += usize::from(ended(joined).is_some()),
                None => return drained,
            }
        }
        drained.aborted = self.polls.len();
        self.polls.shutdown().await;
        drained
    }
}

/// What a task brought; `None` for one that was cut off.
fn ended<R>(joined: Result<Finished<R>, JoinError>) -> Option<Finished<R>> {
    joined.ok()
}
