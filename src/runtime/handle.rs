//! The way to talk to a running driver: bounded, answered in the order of arrival.

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{
    Command, CommandError, Engine, InstanceHealth, InstanceKey, InstanceSpec, InstanceView, Overview, Reply, Settings,
    Timestamp,
};

/// Requests that may wait for the driver; senders wait beyond that.
pub(super) const INBOX: usize = 256;

/// The driver has stopped and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the scheduler has stopped")]
pub struct DriverGone;

/// How many instances one look at the engine takes in: some 0.1 ms of the scheduler's time.
const PAGE: usize = 256;
/// How many one that asks each for a word takes in: no longer.
const GLANCE: usize = 4 * PAGE;

/// What was found on one page of the fleet.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What was found.
    pub found: T,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<InstanceKey>,
}

/// A read of the engine at a moment.
type Read = Box<dyn FnOnce(&Engine, Timestamp) + Send>;

pub(super) enum Request {
    Read(Read),
    Command { command: Command, reply: oneshot::Sender<Result<Reply, CommandError>> },
    Observed { key: InstanceKey, command: Command, reply: oneshot::Sender<Observed> },
    Inventory { specs: Vec<InstanceSpec>, done: oneshot::Sender<()> },
    Settings { settings: Box<Settings>, done: oneshot::Sender<()> },
}

/// What a command did to one instance.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The instance right before.
    pub before: Option<InstanceHealth>,
    /// What the engine answered.
    pub result: Result<Reply, CommandError>,
    /// The instance right after.
    pub after: Option<InstanceHealth>,
}

/// Talks to a running driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::Sender<Request>,
}

impl Handle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (inbox, requests) = mpsc::channel(INBOX);
        (Self { inbox }, requests)
    }

    /// What can be told of the scheduler without looking at every instance.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn overview(&self) -> Result<Overview, DriverGone> {
        self.read(Engine::overview).await
    }

    /// Whatever `look` finds in the next few hundred instances after `after`, in the order of keys. It has to take all of
    /// them. Polls go on between pages, so pages are from different moments.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn page<T: Send + 'static>(
        &self,
        after: Option<InstanceKey>,
        look: impl FnOnce(Timestamp, &mut dyn Iterator<Item = InstanceView<'_>>) -> T + Send + 'static,
    ) -> Result<Page<T>, DriverGone> {
        self.page_of(PAGE, after, look).await
    }

    /// The same, for a `glance` that reads little of each instance and keeps less: of more of them at once.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn glance<T: Send + 'static>(
        &self,
        after: Option<InstanceKey>,
        glance: impl FnOnce(Timestamp, &mut dyn Iterator<Item = InstanceView<'_>>) -> T + Send + 'static,
    ) -> Result<Page<T>, DriverGone> {
        self.page_of(GLANCE, after, glance).await
    }

    async fn page_of<T: Send + 'static>(
        &self,
        size: usize,
        after: Option<InstanceKey>,
        look: impl FnOnce(Timestamp, &mut dyn Iterator<Item = InstanceView<'_>>) -> T + Send + 'static,
    ) -> Result<Page<T>, DriverGone> {
        let page = move |engine: &Engine, now| {
            let (mut count, mut last) = (0, None);
            let views = engine.instances_after(after.as_ref(), now).take(size);
            let mut views = views.inspect(|view| {
                count += 1;
                last = Some(view.key());
            });
            let found = look(now, &mut views);
            Page { found, next: last.filter(|_| count == size).cloned() }
        };
        self.read(page).await
    }

    /// The state of one instance; `None` if there is no such instance.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn instance(&self, key: InstanceKey) -> Result<Option<InstanceHealth>, DriverGone> {
        self.read(move |engine, now| engine.instance_health(&key, now)).await
    }

    /// Whatever `look` finds in the engine. Polls wait while it looks, so it must be quick.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine, Timestamp) -> T + Send + 'static,
    ) -> Result<T, DriverGone> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may be gone by now; then nobody misses the answer.
        let read: Read = Box::new(move |engine, now| drop(reply.send(look(engine, now))));
        self.ask(Request::Read(read), answer).await
    }

    /// Carries out an operator's command. The next read sees its effect.
    ///
    /// # Errors
    /// The driver has stopped; inside, the engine's refusal.
    pub async fn command(&self, command: Command) -> Result<Result<Reply, CommandError>, DriverGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Command { command, reply }, answer).await
    }

    /// The same, with the state of the instance `key` right before and after, so that nothing happens in between.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn command_observed(&self, key: InstanceKey, command: Command) -> Result<Observed, DriverGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Observed { key, command, reply }, answer).await
    }

    /// Replaces the fleet; returns once the engine has taken it over.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn replace_inventory(&self, specs: Vec<InstanceSpec>) -> Result<(), DriverGone> {
        let (done, answer) = oneshot::channel();
        self.ask(Request::Inventory { specs, done }, answer).await
    }

    /// Replaces the settings; returns once the engine has taken them over.
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn replace_settings(&self, settings: Settings) -> Result<(), DriverGone> {
        let (done, answer) = oneshot::channel();
        self.ask(Request::Settings { settings: Box::new(settings), done }, answer).await
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T, DriverGone> {
        self.inbox.send(request).await.map_err(|_| DriverGone)?;
        answer.await.map_err(|_| DriverGone)
    }
}
