//! One channel: a group that collects, and one message on its way.
//!
//! While the message is tried again, the group goes on collecting, so a receiver that was away gets one message and not a
//! flood, and nothing here grows without bound.

use std::sync::Arc;

use super::board::ChannelState;
use super::news::News;
use super::send::DeliveryError;
use super::settings::{Channel, NotificationSettings};
use crate::engine::Timestamp;

/// News that one message holds; what comes beyond is counted.
pub(super) const MAX_NEWS: usize = 500;

/// One channel: what it collects, and what is on its way.
#[derive(Debug)]
pub(super) struct Outbox {
    channel: Arc<Channel>,
    collecting: Option<Group>,
    sending: Option<Sending>,
    state: ChannelState,
}

#[derive(Debug)]
struct Group {
    news: Vec<News>,
    omitted: u64,
    closes_at: Timestamp,
}

#[derive(Debug)]
struct Sending {
    serial: u64,
    news: Arc<[News]>,
    omitted: u64,
    began: Timestamp,
    attempts: u32,
    /// When it is tried again; `None` while a try is under way.
    next_try: Option<Timestamp>,
}

/// A message to be sent now.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to.
    pub channel: Arc<Channel>,
    /// Names the message; the same for each try.
    pub serial: u64,
    /// What it tells.
    pub news: Arc<[News]>,
    /// How much more there was.
    pub omitted: u64,
}

impl Outbox {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        let state = ChannelState::new(&channel);
        Self { channel, collecting: None, sending: None, state }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The same with a channel that was edited.
    pub(super) fn of(mut self, channel: Arc<Channel>) -> Self {
        self.state.describe(&channel);
        self.channel = channel;
        self
    }

    pub(super) fn is_sending(&self, delivery: &Delivery) -> bool {
        let is_its = self.sending.as_ref().is_some_and(|it| it.serial == delivery.serial);
        is_its && self.channel.name == delivery.channel.name
    }

    /// So many events were lost on their way here.
    pub(super) fn lost(&mut self, events: u64) {
        self.state.dropped += events;
        if let Some(group) = &mut self.collecting {
            group.omitted += events;
        }
    }

    pub(super) fn collect(&mut self, closes_at: Timestamp, news: News) {
        let group = self.collecting.get_or_insert_with(|| Group { news: Vec::new(), omitted: 0, closes_at });
        if group.news.len() < MAX_NEWS {
            group.news.push(news);
        } else {
            group.omitted += 1;
            self.state.dropped += 1;
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Timestamp> {
        match &self.sending {
            Some(sending) => sending.next_try,
            None => self.collecting.as_ref().map(|group| group.closes_at),
        }
    }

    pub(super) fn due(&mut self, now: Timestamp, serial: &mut u64) -> Option<Delivery> {
        if self.sending.is_none() {
            let group = self.collecting.take_if(|group| group.closes_at <= now)?;
            *serial += 1;
            self.sending = Some(Sending {
                serial: *serial,
                news: group.news.into(),
                omitted: group.omitted,
                began: now,
                attempts: 0,
                next_try: Some(now),
            });
        }
        let sending = self.sending.as_mut().filter(|sending| sending.next_try.is_some_and(|at| at <= now))?;
        sending.next_try = None;
        sending.attempts += 1;
        Some(Delivery {
            channel: Arc::clone(&self.channel),
            serial: sending.serial,
            news: Arc::clone(&sending.news),
            omitted: sending.omitted,
        })
    }

    pub(super) fn delivered(
        &mut self,
        now: Timestamp,
        settings: &NotificationSettings,
        result: Result<(), DeliveryError>,
    ) {
        let Some(mut sending) = self.sending.take() else { return };
        let error = match result {
            Ok(()) => {
                self.state.sent += 1;
                self.state.last_sent = Some(now);
                self.state.last_error = None;
                return;
            }
            Err(error) => error,
        };
        self.state.failed += 1;
        let delay = settings.retry_initial.doubled(sending.attempts.saturating_sub(1)).min(settings.retry_max);
        let over = now.since(sending.began) + delay > settings.give_up_after;
        if error.is_permanent() || over {
            self.state.dropped += sending.news.len() as u64;
        } else {
            sending.next_try = Some(now + delay);
            self.sending = Some(sending);
        }
        self.state.last_error = Some((now, error));
    }

    pub(super) fn state(&self) -> ChannelState {
        let collected = self.collecting.as_ref().map_or(0, |group| group.news.len());
        let on_the_way = self.sending.as_ref().map_or(0, |sending| sending.news.len());
        let next_try = self.sending.as_ref().and_then(|sending| sending.next_try);
        ChannelState { waiting: (collected + on_the_way) as u64, next_try, ..self.state.clone() }
    }
}
