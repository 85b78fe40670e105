//! The one task around the desk: takes in news, keeps time, has deliveries made, and tells how they went.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::desk::Desk;
use super::message::{Message, Names};
use super::news::{Cause, News, NewsKind};
use super::outbox::Delivery;
use super::send::{DeliveryError, send};
use super::settings::{Channel, ChannelName};
use super::subscriber::{NewsSubscriber, Noted};
use crate::config::LiveConfig;
use crate::engine::{InstanceHealth, InstanceKey, Millis, Timestamp};
use crate::fleet::Fleet;
use crate::runtime::{Clock, DriverGone, Handle};

/// How often the fleet is looked through for instances that are late.
const LATE_EVERY: Millis = Millis::from_secs(15);
/// News that is taken in before anything else has its turn.
const AT_ONCE: usize = 256;

/// What others see of it: how channels do, and tests of them. Cheap to clone.
#[derive(Clone)]
pub struct Notifications {
    config: LiveConfig,
    clock: Arc<dyn Clock>,
    board: Board,
}

/// Runs beside the driver.
pub struct Service {
    desk: Desk,
    noted: mpsc::Receiver<Noted>,
    sends: JoinSet<(Delivery, Result<(), DeliveryError>)>,
    outside: Notifications,
    fleet: Fleet,
    late_at: Timestamp,
    /// Tells the messages of this run from those of others.
    run: i64,
}

/// What came of a test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The channel.
    pub channel: ChannelName,
    /// Whether its receiver took the message.
    pub result: Result<(), DeliveryError>,
}

impl Notifications {
    /// How channels do, what listens to the driver, and what has to run beside it.
    pub fn new(config: LiveConfig, clock: Arc<dyn Clock>, fleet: Fleet) -> (Self, NewsSubscriber, Service) {
        let (subscriber, noted) = NewsSubscriber::new();
        let desk = Desk::new(Arc::clone(config.system().notifications()));
        let outside = Self { config, clock, board: Board::default() };
        let (run, late_at) = (outside.clock.wall().as_millisecond(), outside.clock.now() + LATE_EVERY);
        outside.board.write(desk.states());
        let service = Service { desk, noted, sends: JoinSet::new(), outside: outside.clone(), fleet, late_at, run };
        (outside, subscriber, service)
    }

    /// How each channel does.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Sends a test message by one channel, or by each; past the queue, and tried once.
    pub async fn test(&self, only: Option<&str>) -> Vec<Tested> {
        let system = self.config.system();
        let channels = system.notifications().channels.iter();
        let tests = channels.filter(|channel| only.is_none_or(|only| only == &*channel.name)).map(|channel| {
            let wall = self.clock.wall();
            let message = Message::test(format!("pulse-{}-test-{}", wall.as_millisecond(), channel.name), wall);
            async move { Tested { channel: Arc::clone(&channel.name), result: send(channel, &message).await } }
        });
        futures::future::join_all(tests).await
    }
}

impl Service {
    /// Runs until `stop` is cancelled. What was not delivered by then is lost: a daemon that starts looks anew.
    pub async fn run(mut self, handle: Handle, stop: CancellationToken) {
        let mut changes = self.outside.config.changes();
        let mut noted = Vec::with_capacity(AT_ONCE);
        loop {
            let late_at = self.desk.settings().wants(NewsKind::Late).then_some(self.late_at);
            let wakeup = self.desk.next_wakeup().into_iter().chain(late_at).min();
            let clock = Arc::clone(&self.outside.clock);
            let alarm = async {
                match wakeup {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(sent) = self.sends.join_next() => {
                    // The task catches its own panics, so it fails only with the runtime.
                    if let Ok((delivery, result)) = sent {
                        self.delivered(&delivery, result);
                    }
                }
                changed = changes.changed() => match changed {
                    Ok(()) => self.desk.apply(Arc::clone(self.outside.config.system().notifications())),
                    Err(_) => return,
                },
                count = self.noted.recv_many(&mut noted, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    self.note(noted.drain(..));
                }
                () = alarm => {}
            }
            if self.look_for_late(&handle).await.is_err() {
                return;
            }
            self.send_what_is_due();
            self.outside.board.write(self.desk.states());
        }
    }

    fn note(&mut self, noted: impl Iterator<Item = Noted>) {
        let now = self.outside.clock.now();
        for noted in noted {
            match noted {
                Noted::News(news) => self.desk.note(now, news),
                Noted::Forget(key) => self.desk.forget(&key),
                Noted::Lost(events) => self.desk.lost(events),
            }
        }
    }

    fn send_what_is_due(&mut self) {
        let now = self.outside.clock.now();
        for delivery in self.desk.due(now) {
            let message = self.message(&delivery);
            self.sends.spawn(async move {
                let sending = AssertUnwindSafe(send(&delivery.channel, &message)).catch_unwind().await;
                let broke = || Err(DeliveryError::transient("sending it broke; see the daemon's log"));
                let result = sending.unwrap_or_else(|_| broke());
                (delivery, result)
            });
        }
    }

    fn message(&self, delivery: &Delivery) -> Message {
        let Delivery { channel, serial, news, omitted } = delivery;
        let (clock, members) = (&self.outside.clock, self.fleet.members());
        let id = format!("pulse-{}-{serial}-{}", self.run, channel.name);
        let names = |key: &InstanceKey| -> Option<Names> {
            members.get(key).map(|member| (member.display_name(), member.connection()))
        };
        Message::of(id, news, *omitted, clock.calendar(), clock.wall(), names)
    }

    fn delivered(&mut self, delivery: &Delivery, result: Result<(), DeliveryError>) {
        let (Channel { name, .. }, events) = (&*delivery.channel, delivery.news.len());
        match &result {
            Ok(()) => tracing::info!(channel = &**name, events, "a notification was delivered"),
            Err(error) if error.is_permanent() => {
                tracing::error!(channel = &**name, events, %error, "a notification was refused, and is dropped");
            }
            Err(error) => {
                tracing::warn!(channel = &**name, events, %error, "a notification could not be delivered");
            }
        }
        self.desk.delivered(self.outside.clock.now(), delivery, result);
    }

    /// Looks through the fleet now and then, a page at a time, so that polls go on meanwhile.
    async fn look_for_late(&mut self, handle: &Handle) -> Result<(), DriverGone> {
        let now = self.outside.clock.now();
        if now < self.late_at || !self.desk.settings().wants(NewsKind::Late) {
            return Ok(());
        }
        self.late_at = now + LATE_EVERY;
        let (mut late, mut after) = (Vec::new(), None);
        loop {
            let page = handle
                .page(after, |now, rows| {
                    let late = rows.map(|row| row.health()).filter(|row| row.late);
                    late.map(|row| late_news(now, row)).collect::<Vec<_>>()
                })
                .await?;
            late.extend(page.found);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.desk.late(self.outside.clock.now(), late);
        Ok(())
    }
}

fn late_news(now: Timestamp, row: InstanceHealth) -> News {
    News {
        kind: NewsKind::Late,
        key: row.key,
        at: now,
        since: row.last_success.unwrap_or(now),
        failures: row.consecutive_failures,
        error: row.last_error.map(|error| Cause::new(error.kind, error.message)),
        next_try: row.due,
    }
}
