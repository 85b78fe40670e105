//! How each channel does, for the API and for metrics: written by the service alone, read without a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::send::DeliveryError;
use super::settings::{Channel, ChannelName};
use crate::engine::Timestamp;

/// How one channel does.
#[derive(Clone, Debug)]
pub struct ChannelState {
    /// Its name.
    pub name: ChannelName,
    /// `webhook` or `mail`.
    pub route: &'static str,
    /// What is told there, by name.
    pub kinds: Vec<&'static str>,
    /// Messages that were delivered.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Events that no message tells: they had no room, or their message could not be delivered.
    pub dropped: u64,
    /// Events that wait to be delivered.
    pub waiting: u64,
    /// When the message on its way is tried again.
    pub next_try: Option<Timestamp>,
    /// When a message was last delivered.
    pub last_sent: Option<Timestamp>,
    /// The last try, if it failed.
    pub last_error: Option<(Timestamp, DeliveryError)>,
}

impl ChannelState {
    pub(super) fn new(channel: &Channel) -> Self {
        let mut state = Self {
            name: Arc::clone(&channel.name),
            route: "",
            kinds: Vec::new(),
            sent: 0,
            failed: 0,
            dropped: 0,
            waiting: 0,
            next_try: None,
            last_sent: None,
            last_error: None,
        };
        state.describe(channel);
        state
    }

    /// The channel was edited.
    pub(super) fn describe(&mut self, channel: &Channel) {
        self.route = channel.route.as_str();
        self.kinds = channel.kinds.iter().map(|kind| kind.as_str()).collect();
    }
}

/// The channels as they were last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<ArcSwap<Vec<ChannelState>>>);

impl Board {
    /// How each channel does.
    pub fn read(&self) -> Arc<Vec<ChannelState>> {
        self.0.load_full()
    }

    pub(super) fn write(&self, states: Vec<ChannelState>) {
        self.0.store(Arc::new(states));
    }
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Figure = fn(&ChannelState) -> u64;
        let counters: [(&str, &str, Figure); 3] = [
            ("pulse_notifications_sent", "Messages that were delivered", |state| state.sent),
            ("pulse_notifications_failed", "Tries to deliver a message that failed", |state| state.failed),
            ("pulse_notifications_dropped", "Events that no message tells", |state| state.dropped),
        ];
        let states = self.read();
        for (name, help, figure) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for state in states.iter() {
                let labels = [("channel", &*state.name)];
                ConstCounter::new(figure(state)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Events that wait to be delivered";
        let mut family = encoder.encode_descriptor("pulse_notifications_waiting", help, None, MetricType::Gauge)?;
        for state in states.iter() {
            let labels = [("channel", &*state.name)];
            let waiting = i64::try_from(state.waiting).unwrap_or(i64::MAX);
            ConstGauge::new(waiting).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
