//! What is told when: news comes in, deliveries go out, and time is handed in.
//!
//! The same is not told again for a while, and the end of a trouble only if the trouble was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::board::ChannelState;
use super::news::{News, NewsKind};
use super::outbox::{Delivery, Outbox};
use super::send::DeliveryError;
use super::settings::{Channel, NotificationSettings};
use crate::engine::{InstanceKey, Millis, Timestamp};

/// How often quiet periods that are over are thrown away.
const TIDY: Millis = Millis::from_secs(60);

/// Decides what is told when. The same news at the same times give the same deliveries.
///
/// ```
/// use pulse::engine::{Millis, Timestamp};
/// use pulse::notify::{Desk, NotificationSettings};
/// let mut desk = Desk::new(NotificationSettings::default().into());
/// assert!(desk.due(Timestamp::ZERO + Millis::from_mins(1)).is_empty(), "without channels nothing is told");
/// assert_eq!(desk.next_wakeup(), None);
/// ```
#[derive(Debug)]
pub struct Desk {
    settings: Arc<NotificationSettings>,
    boxes: Vec<Outbox>,
    /// Until when the same is not told again.
    quiet_until: BTreeMap<(InstanceKey, NewsKind), Timestamp>,
    /// Trouble that waits for the end of its quiet period, by that end.
    held: BTreeMap<(Timestamp, InstanceKey, NewsKind), News>,
    /// Trouble that was told and is not over.
    told: BTreeMap<InstanceKey, Told>,
    tidy_at: Timestamp,
    serial: u64,
}

#[derive(Debug)]
struct Told {
    since: Timestamp,
    /// Whether being late is all that was told.
    late_alone: bool,
}

impl Desk {
    /// A desk at which nothing was told yet.
    pub fn new(settings: Arc<NotificationSettings>) -> Self {
        let mut desk = Self {
            settings: Arc::new(NotificationSettings::default()),
            boxes: Vec::new(),
            quiet_until: BTreeMap::new(),
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            tidy_at: Timestamp::ZERO,
            serial: 0,
        };
        desk.apply(settings);
        desk
    }

    /// What is in force.
    pub fn settings(&self) -> &Arc<NotificationSettings> {
        &self.settings
    }

    /// Other settings are in force. A channel that keeps its name keeps what it has not delivered.
    pub fn apply(&mut self, settings: Arc<NotificationSettings>) {
        let mut before = std::mem::take(&mut self.boxes);
        let outbox = |channel: &Arc<Channel>| match before.iter().position(|it| it.channel().name == channel.name) {
            Some(at) => before.swap_remove(at).of(Arc::clone(channel)),
            None => Outbox::new(Arc::clone(channel)),
        };
        self.boxes = settings.channels.iter().map(outbox).collect();
        self.settings = settings;
    }

    /// Something happened to an instance.
    pub fn note(&mut self, now: Timestamp, news: News) {
        if self.boxes.is_empty() {
            return;
        }
        match news.kind {
            NewsKind::Recovery => self.recovered(now, news),
            _ => self.trouble(now, news),
        }
    }

    /// So many events were lost on their way here.
    pub fn lost(&mut self, events: u64) {
        self.boxes.iter_mut().for_each(|outbox| outbox.lost(events));
    }

    /// An instance is gone, paused or edited: what was known of its trouble is forgotten.
    pub fn forget(&mut self, key: &InstanceKey) {
        self.told.remove(key);
        self.unhold(key);
    }

    /// These are all instances that are late now.
    pub fn late(&mut self, now: Timestamp, late: Vec<News>) {
        let keys: std::collections::BTreeSet<InstanceKey> = late.iter().map(|news| news.key.clone()).collect();
        let over: Vec<InstanceKey> = self
            .told
            .iter()
            .filter(|(key, told)| told.late_alone && !keys.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            let since = self.told.get(&key).map_or(now, |told| told.since);
            let news = News { kind: NewsKind::Recovery, key, at: now, since, failures: 0, error: None, next_try: None };
            self.note(now, news);
        }
        let no_longer = self.held.keys().filter(|(_, key, kind)| *kind == NewsKind::Late && !keys.contains(key));
        let no_longer: Vec<_> = no_longer.cloned().collect();
        for held in no_longer {
            self.held.remove(&held);
        }
        for news in late {
            if !self.told.contains_key(&news.key) && !self.is_held(&news.key) {
                self.note(now, news);
            }
        }
    }

    /// When to call [`Self::due`] again if nothing happens.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let held = self.held.keys().next().map(|(at, ..)| *at);
        self.boxes.iter().filter_map(Outbox::next_wakeup).chain(held).min()
    }

    /// Everything that has to be sent now. Each has to be answered with [`Self::delivered`].
    pub fn due(&mut self, now: Timestamp) -> Vec<Delivery> {
        while let Some(entry) = self.held.first_entry()
            && entry.key().0 <= now
        {
            let news = entry.remove();
            self.tell(now, news);
        }
        if now >= self.tidy_at {
            self.quiet_until.retain(|_, until| *until > now);
            self.tidy_at = now + TIDY;
        }
        let serial = &mut self.serial;
        self.boxes.iter_mut().filter_map(|outbox| outbox.due(now, serial)).collect()
    }

    /// What came of a delivery.
    pub fn delivered(&mut self, now: Timestamp, delivery: &Delivery, result: Result<(), DeliveryError>) {
        let settings = &self.settings;
        // The channel may be gone by now.
        if let Some(outbox) = self.boxes.iter_mut().find(|outbox| outbox.is_sending(delivery)) {
            outbox.delivered(now, settings, result);
        }
    }

    /// How each channel does.
    pub fn states(&self) -> Vec<ChannelState> {
        self.boxes.iter().map(Outbox::state).collect()
    }

    fn trouble(&mut self, now: Timestamp, news: News) {
        if !self.settings.wants(news.kind) {
            return;
        }
        let place = (news.key.clone(), news.kind);
        match self.quiet_until.get(&place) {
            Some(until) if *until > now => {
                self.held.entry((*until, place.0, place.1)).or_insert(news);
            }
            _ => self.tell(now, news),
        }
    }

    fn recovered(&mut self, now: Timestamp, mut news: News) {
        self.unhold(&news.key);
        // What was never told need not be told to be over.
        let Some(told) = self.told.remove(&news.key) else { return };
        news.since = told.since.min(news.since);
        self.collect(now, news);
    }

    fn tell(&mut self, now: Timestamp, news: News) {
        let until = now + self.settings.quiet_period;
        if let Some(before) = self.quiet_until.insert((news.key.clone(), news.kind), until) {
            // What was held until then is told with this.
            self.held.remove(&(before, news.key.clone(), news.kind));
        }
        let is_late = news.kind == NewsKind::Late;
        let told = self.told.entry(news.key.clone()).or_insert(Told { since: news.since, late_alone: true });
        told.since = told.since.min(news.since);
        told.late_alone &= is_late;
        self.collect(now, news);
    }

    fn collect(&mut self, now: Timestamp, news: News) {
        let closes_at = now + self.settings.group_window;
        for outbox in self.boxes.iter_mut().filter(|outbox| outbox.channel().kinds.contains(&news.kind)) {
            outbox.collect(closes_at, news.clone());
        }
    }

    fn is_held(&self, key: &InstanceKey) -> bool {
        self.held_places(key).any(|place| self.held.contains_key(&place))
    }

    /// Lets go of all that is held of an instance.
    fn unhold(&mut self, key: &InstanceKey) {
        let places: Vec<_> = self.held_places(key).collect();
        for place in places {
            self.held.remove(&place);
        }
    }

    fn held_places(&self, key: &InstanceKey) -> impl Iterator<Item = (Timestamp, InstanceKey, NewsKind)> {
        NewsKind::ALL.into_iter().filter_map(|kind| {
            let place = (key.clone(), kind);
            let until = self.quiet_until.get(&place)?;
            Some((*until, place.0, kind))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::MAX_NEWS;
    use super::*;
    use crate::notify::{Route, WebhookChannel};

    const WINDOW: Millis = Millis::from_secs(30);
    const QUIET: Millis = Millis::from_mins(15);

    fn channel(name: &str, kinds: &[NewsKind]) -> Arc<Channel> {
        let webhook = WebhookChannel {
            url: "http://127.0.0.1:9/".parse().unwrap(),
            headers: Vec::new(),
            content_type: "application/json".to_owned(),
            template: None,
            authorities: None,
        };
        let kinds = kinds.iter().copied().collect();
        Arc::new(Channel { name: name.into(), kinds, route: Route::Webhook(webhook) })
    }

    fn settings(channels: Vec<Arc<Channel>>) -> Arc<NotificationSettings> {
        Arc::new(NotificationSettings { channels, ..NotificationSettings::default() })
    }

    fn desk() -> Desk {
        Desk::new(settings(vec![channel("all", &NewsKind::ALL)]))
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::ZERO + Millis::from_secs(secs)
    }

    fn news(kind: NewsKind, name: &str, at: Timestamp) -> News {
        let key = InstanceKey::new(crate::engine::InstanceType::Pve, name).unwrap();
        News { kind, key, at, since: at, failures: 0, error: None, next_try: None }
    }

    fn note(desk: &mut Desk, kind: NewsKind, name: &str, secs: u64) {
        desk.note(at(secs), news(kind, name, at(secs)));
    }

    fn told(deliveries: &[Delivery]) -> Vec<String> {
        let one = |news: &News| format!("{} {}", news.key.name(), news.kind);
        deliveries.iter().map(|delivery| delivery.news.iter().map(one).collect::<Vec<_>>().join(", ")).collect()
    }

    /// What is told at that time, and taken by every receiver.
    fn delivered(desk: &mut Desk, secs: u64) -> Vec<String> {
        let due = desk.due(at(secs));
        for delivery in &due {
            desk.delivered(at(secs), delivery, Ok(()));
        }
        told(&due)
    }

    fn away() -> Result<(), DeliveryError> {
        Err(DeliveryError::transient("away"))
    }

    #[test]
    fn what_happens_within_a_window_goes_as_one_message() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        note(&mut desk, NewsKind::DeadLetter, "b", 29);
        assert_eq!(desk.next_wakeup(), Some(Timestamp::ZERO + WINDOW));
        assert!(desk.due(at(29)).is_empty());
        assert_eq!(delivered(&mut desk, 30), ["a breaker_open, b dead_letter"]);
        assert_eq!(desk.next_wakeup(), None);
    }

    #[test]
    fn the_same_trouble_is_told_again_only_after_its_quiet_period_and_only_if_it_still_holds() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        note(&mut desk, NewsKind::Recovery, "a", 10);
        assert_eq!(delivered(&mut desk, 30), ["a breaker_open, a recovery"]);
        // It comes and goes: nothing is told.
        note(&mut desk, NewsKind::BreakerOpen, "a", 60);
        note(&mut desk, NewsKind::Recovery, "a", 70);
        assert_eq!(desk.next_wakeup(), None);
        // It comes and stays: told when the quiet period is over.
        note(&mut desk, NewsKind::BreakerOpen, "a", 100);
        let quiet_ends = QUIET.get() / 1_000;
        assert_eq!(desk.next_wakeup(), Some(at(quiet_ends)));
        assert!(delivered(&mut desk, quiet_ends).is_empty(), "it opens a group");
        assert_eq!(delivered(&mut desk, quiet_ends + 30), ["a breaker_open"]);
        // Another kind, or another instance, is not quiet.
        note(&mut desk, NewsKind::DeadLetter, "a", 110);
        note(&mut desk, NewsKind::BreakerOpen, "b", 110);
        assert_eq!(delivered(&mut desk, quiet_ends + 60), ["a dead_letter, b breaker_open"]);
    }

    #[test]
    fn what_was_held_is_not_told_twice_when_the_same_comes_again_at_the_end_of_the_quiet_period() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        delivered(&mut desk, 30);
        note(&mut desk, NewsKind::BreakerOpen, "a", 40);
        let quiet_ends = QUIET.get() / 1_000;
        note(&mut desk, NewsKind::BreakerOpen, "a", quiet_ends);
        assert!(delivered(&mut desk, quiet_ends).is_empty());
        assert_eq!(delivered(&mut desk, quiet_ends + 30), ["a breaker_open"]);
    }

    #[test]
    fn a_recovery_is_told_once_and_only_of_what_was_told() {
        let mut desk = desk();
        note(&mut desk, NewsKind::Recovery, "a", 0);
        assert_eq!(desk.next_wakeup(), None);
        note(&mut desk, NewsKind::BreakerOpen, "a", 5);
        note(&mut desk, NewsKind::DeadLetter, "a", 6);
        assert_eq!(delivered(&mut desk, 40), ["a breaker_open, a dead_letter"]);
        note(&mut desk, NewsKind::Recovery, "a", 50);
        note(&mut desk, NewsKind::Recovery, "a", 51);
        let due = desk.due(at(80));
        assert_eq!(told(&due), ["a recovery"]);
        assert_eq!(due[0].news[0].since, at(5), "since the first of its troubles");
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_again_ever_later_and_then_gets_one_message_of_all_that_came_meanwhile() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        let (mut now, mut waits) = (30, Vec::new());
        for _ in 0..8 {
            let due = desk.due(at(now));
            assert_eq!(told(&due), ["a breaker_open"]);
            desk.delivered(at(now), &due[0], away());
            note(&mut desk, NewsKind::BreakerOpen, &format!("b{now}"), now);
            let next = desk.next_wakeup().unwrap().as_millis() / 1_000;
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(delivered(&mut desk, now), ["a breaker_open"]);
        let rest = delivered(&mut desk, now);
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].matches("breaker_open").count(), 8);
        let state = &desk.states()[0];
        assert_eq!((state.sent, state.failed, state.dropped, state.waiting), (2, 8, 0, 0));
    }

    #[test]
    fn what_is_refused_for_good_or_for_too_long_is_dropped_and_counted() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        note(&mut desk, NewsKind::BreakerOpen, "b", 0);
        let due = desk.due(at(30));
        desk.delivered(at(30), &due[0], Err(DeliveryError::permanent("refused with 401")));
        assert_eq!((desk.states()[0].dropped, desk.next_wakeup()), (2, None));
        note(&mut desk, NewsKind::BreakerOpen, "c", 40);
        let mut now = 70;
        while let [delivery] = &desk.due(at(now))[..] {
            desk.delivered(at(now), delivery, away());
            now = desk.next_wakeup().map_or(now, |next| next.as_millis() / 1_000);
        }
        assert_eq!(desk.states()[0].dropped, 3);
        assert!((23 * 3_600..24 * 3_600 + 70).contains(&now), "given up after a day, not after {now} s");
    }

    #[test]
    fn a_message_holds_so_many_events_and_counts_the_rest() {
        let mut desk = desk();
        for number in 0..MAX_NEWS + 7 {
            note(&mut desk, NewsKind::BreakerOpen, &number.to_string(), 0);
        }
        desk.lost(3);
        let due = desk.due(at(30));
        assert_eq!((due[0].news.len(), due[0].omitted), (MAX_NEWS, 10));
        assert_eq!(desk.states()[0].dropped, 10);
    }

    #[test]
    fn an_instance_is_late_only_where_nothing_worse_was_told_and_its_end_is_a_recovery() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "broken", 0);
        let late = || ["broken", "slow"].map(|name| news(NewsKind::Late, name, at(10))).to_vec();
        desk.late(at(10), late());
        desk.late(at(25), late());
        assert_eq!(delivered(&mut desk, 30), ["broken breaker_open, slow late"]);
        desk.late(at(40), vec![]);
        assert_eq!(delivered(&mut desk, 70), ["slow recovery"], "the other one is not over");
    }

    #[test]
    fn each_channel_gets_the_kinds_that_it_wants_and_none_waits_for_another() {
        let dead = channel("dead", &[NewsKind::DeadLetter]);
        let mut desk = Desk::new(settings(vec![dead, channel("all", &NewsKind::ALL)]));
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        note(&mut desk, NewsKind::DeadLetter, "a", 1);
        let due = desk.due(at(31));
        assert_eq!(told(&due), ["a dead_letter", "a breaker_open, a dead_letter"]);
        desk.delivered(at(31), &due[0], away());
        desk.delivered(at(31), &due[1], Ok(()));
        note(&mut desk, NewsKind::BreakerOpen, "b", 32);
        assert_eq!(delivered(&mut desk, 62), ["a dead_letter", "b breaker_open"]);
    }

    #[test]
    fn an_edit_of_the_settings_loses_nothing_of_a_channel_that_stays() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        desk.apply(settings(vec![channel("new", &NewsKind::ALL), channel("all", &NewsKind::ALL)]));
        assert_eq!(delivered(&mut desk, 30), ["a breaker_open"]);
        desk.apply(settings(vec![]));
        note(&mut desk, NewsKind::BreakerOpen, "b", 40);
        assert_eq!((desk.next_wakeup(), desk.states().len()), (None, 0));
    }

    #[test]
    fn what_was_known_of_an_instance_that_left_is_forgotten() {
        let mut desk = desk();
        note(&mut desk, NewsKind::BreakerOpen, "a", 0);
        delivered(&mut desk, 30);
        note(&mut desk, NewsKind::DeadLetter, "a", 40);
        delivered(&mut desk, 70);
        note(&mut desk, NewsKind::BreakerOpen, "a", 80);
        desk.forget(&InstanceKey::new(crate::engine::InstanceType::Pve, "a").unwrap());
        note(&mut desk, NewsKind::Recovery, "a", 90);
        assert_eq!(desk.next_wakeup(), None);
    }
}
