//! The fleet as a whole: nobody is forgotten, no slot idles, no herd forms, load is what was measured, health is true.

use std::collections::BTreeSet;

use pulse::engine::{Engine, InstanceType, Millis, PerType, Place, Timestamp};

use super::Judge;
use super::demand::Demand;
use crate::violation::Rule;

/// From so many plans made at once a herd is looked for.
const HERD: usize = 20;
/// A daemon with fewer of its slots in use is not short of them.
const BUSY: f64 = 0.25;
/// A stretch up to here may come from the share of slots that is kept free.
const SLIGHT: f64 = 1.1;
/// A poll that starts by more than this share of the base interval late is a sign of load.
const LATE: u64 = 20;
/// Windows of load within which every change is answered for.
const WINDOWS: f64 = 3.0;
/// Who of those that wait is looked at for an idle slot.
const LOOKED_AT: usize = 32;

/// What is known of the load.
#[derive(Debug)]
pub(super) struct Load {
    /// By how much every interval is stretched.
    pub(super) stretch: f64,
    changed: Timestamp,
    /// When slots were last short, or polls late.
    signs: Timestamp,
    /// The last tick, and the one before it: load is looked at when time passes.
    ticks: [Timestamp; 2],
    /// Whose plans of this step should not meet.
    pub(super) herd: BTreeSet<usize>,
    pub(super) demand: Demand,
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            stretch: 1.0,
            changed: Timestamp::ZERO,
            signs: Timestamp::ZERO,
            ticks: [Timestamp::ZERO; 2],
            herd: BTreeSet::new(),
            demand: Demand::default(),
        }
    }

    /// Whether a stretch was ever told.
    pub(super) fn ever_changed(&self) -> bool {
        self.changed > Timestamp::ZERO
    }
}

impl Judge {
    /// A poll starts `lag` after it was due: late ones and many at once are signs of load.
    pub(super) fn started_late(&mut self, lag: Millis) {
        let busy = f64::from(self.in_flight + 1) >= f64::from(self.settings.max_in_flight) * BUSY;
        if busy || lag.get() > self.settings.base_interval.get() / LATE {
            self.load.signs = self.now;
        }
    }

    /// A poll succeeded: one that took long lets the whole fleet be expected to need more slots.
    pub(super) fn took(&mut self, took: Millis) {
        self.load.demand.took(took);
        if took.get() > self.settings.base_interval.get() / 5 {
            self.load.signs = self.now;
        }
    }

    /// The daemon turns to what is due by now: what has waited for long is a sign of load.
    pub(crate) fn woke(&mut self, now: Timestamp) {
        let first = self.waiting.first().into_iter().chain(self.deadlines.first()).map(|(due, _)| *due).min();
        if first.is_some_and(|due| (now - due).get() > self.settings.base_interval.get() / LATE) {
            self.load.signs = now;
        }
    }

    /// From when on a sign of load explains what is done about it now.
    fn explained_since(&self) -> Timestamp {
        let span = self.settings.base_interval.scaled(self.load.stretch * WINDOWS) + Millis::from_secs(1);
        Timestamp::from_millis(self.load.ticks[0].as_millis().saturating_sub(span.get()))
    }

    pub(super) fn load_changed(&mut self, stretch_permille: u32) {
        let (before, stretch) = (self.load.stretch, f64::from(stretch_permille) / 1_000.0);
        let most = self.settings.max_interval.as_secs_f64() / self.settings.min_interval.as_secs_f64();
        let busy = f64::from(self.in_flight) >= f64::from(self.settings.max_in_flight) * BUSY;
        let silent = !busy && self.load.signs < self.explained_since();
        let grew = stretch > before;
        let grew_much = grew && stretch > SLIGHT;
        if !(0.999..=most.max(1.0) + 0.001).contains(&stretch)
            || stretch > before * 2.0 + 0.002
            || (grew_much && silent)
        {
            let signs = self.load.signs;
            self.accuse(Rule::Load, || {
                format!("intervals are stretched from {before} to {stretch}; last busy {signs:?}")
            });
        }
        self.reached(if grew { "load stretched the fleet" } else { "load let go of the fleet" });
        (self.load.stretch, self.load.changed) = (stretch, self.now);
        self.load.demand.stretched(stretch);
    }

    /// A fleet that is stretched without need is let go, window by window.
    pub(super) fn judge_load(&mut self) {
        let busy = f64::from(self.in_flight) >= f64::from(self.settings.max_in_flight) * BUSY;
        if busy {
            self.load.signs = self.now;
        }
        let quiet_since = self.load.signs.max(self.load.changed);
        if self.load.stretch > 1.001 && quiet_since + self.settings.max_interval < self.explained_since() {
            let stretch = self.load.stretch;
            self.accuse(Rule::Load, || {
                format!("still stretched by {stretch}, though nobody was late since {quiet_since:?}")
            });
        }
    }

    /// Plans that were made at once lie apart.
    pub(super) fn judge_herd(&mut self) {
        let herd = std::mem::take(&mut self.load.herd);
        if herd.len() >= HERD {
            let mut herd: Vec<Timestamp> = herd.into_iter().map(|host| self.truths[host].due).collect();
            herd.sort_unstable();
            let apart = self.settings.base_interval.get() / 20;
            let half = herd.len() / 2;
            let close = herd.windows(half).any(|some| (some[half - 1] - some[0]).get() < apart);
            let planned = herd.len();
            match close {
                true => {
                    self.accuse(Rule::Herd, || format!("half of {planned} plans made at once fall within {apart} ms"))
                }
                false if self.touched.iter().any(|host| self.truths[*host].step.added) => {
                    self.reached("herd of first polls spread");
                }
                false => self.reached("herd of rechecks spread"),
            }
        }
    }

    /// Time has passed and everything that was due has been dealt with.
    pub(crate) fn judge_tick(&mut self, now: Timestamp) {
        self.now = now;
        self.load.ticks = [self.load.ticks[1], now];
        self.judge_demand();
        if let Some((deadline, host)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.accuse_host(Rule::TrueOutcome, host, || format!("its poll should have been given up at {deadline:?}"));
        }
        if self.in_flight >= self.settings.max_in_flight {
            return;
        }
        let per_machine = self.settings.max_in_flight_per_host;
        let has_room = |machine: Option<usize>| machine.is_none_or(|machine| self.machines[machine] < per_machine);
        let few_doubtful = self.in_flight < (self.settings.max_in_flight / 2).max(1);
        let due = || self.waiting.iter().take_while(|(due, _)| *due <= now).take(LOOKED_AT);
        let is_healthy = |host: usize| self.truths[host].is_known_healthy() && !self.truths[host].forgiven;
        // One that may hang leaves some slots to the others, and those of its machine wait behind it.
        let all_healthy = due().all(|(_, host)| is_healthy(*host));
        let idle = due().copied().find(|(_, host)| match self.truths[*host].machine {
            None => is_healthy(*host) || few_doubtful,
            machine => all_healthy && has_room(machine),
        });
        if let Some((due, host)) = idle {
            let in_flight = self.in_flight;
            self.accuse_host(Rule::IdleSlot, host, || format!("it waits since {due:?} beside {in_flight} polls"));
        }
    }

    /// The engine asks to be woken at `wakeup`: no later than somebody is due.
    pub(crate) fn judge_wakeup(&mut self, wakeup: Option<Timestamp>) {
        let now = self.now;
        let first_due = self.waiting.range((now + Millis::new(1), 0)..).next().copied();
        let first = first_due.into_iter().chain(self.deadlines.first().copied()).min();
        if let Some((due, host)) =
            first.filter(|(due, _)| wakeup.is_none_or(|at| at > (*due).max(now + Millis::new(1))))
        {
            self.accuse_host(Rule::Liveness, host, || {
                format!("it is due at {due:?}, and the next wake-up is {wakeup:?}")
            });
        }
    }

    /// Holds the health answers for those that were heard of against the truth.
    pub(crate) fn compare_touched(&mut self, engine: &Engine, touched: &[usize]) {
        for host in touched {
            let truth = &self.truths[*host];
            let health = engine.instance_health(&truth.spec.key, self.now);
            let difference = match &health {
                Some(health) if truth.present => truth.difference(health, &self.settings, self.now),
                health => (health.is_some() != truth.present).then(|| format!("is known: {}", health.is_some())),
            };
            if let Some(difference) = difference {
                self.accuse_host(Rule::TrueHealth, *host, || difference);
            }
        }
    }

    /// Holds the whole health answer against the truth.
    pub(crate) fn compare_health(&mut self, engine: &Engine, now: Timestamp) {
        self.now = now;
        let health = engine.health(now);
        let everybody: Vec<usize> = (0..self.truths.len()).collect();
        self.compare_touched(engine, &everybody);
        let present = || self.truths.iter().filter(|truth| truth.present);
        let counted = |place: Place| {
            let count = |kind: InstanceType| {
                present().filter(|it| it.place() == place && it.spec.key.kind() == kind).count() as u32
            };
            PerType::from_fn(count)
        };
        let (queued, in_flight) = (counted(Place::Queued), counted(Place::InFlight));
        let depth: u32 = queued.iter().map(|(_, count)| *count).sum();
        let soon = now + pulse::engine::DUE_SOON;
        let due_soon = |it: &&super::Truth| it.place() == Place::Queued && it.due <= soon;
        let due_soon = present().filter(due_soon).count() as u32;
        let waiting = self.waiting.iter().take_while(|(due, _)| *due <= now).count() as u32;
        let sorted = health.instances.is_sorted_by(|a, b| a.key < b.key);
        let said = &health.queue;
        let stretch_agrees = (health.load.stretch - self.load.stretch).abs() < 0.001;
        let share = health.load.slots_used;
        let wrong = [
            (said.per_type != queued || said.depth != depth, "the live queue"),
            (said.due_soon != due_soon, "who is due soon"),
            (said.waiting > waiting, "who waits for a slot"),
            (health.in_flight != in_flight || engine.in_flight() != self.in_flight, "polls under way"),
            (health.totals != self.totals || engine.totals() != self.totals, "the totals"),
            (health.instances.len() != present().count() || engine.len() != present().count(), "how many there are"),
            (engine.is_empty() != (present().count() == 0), "whether there are any"),
            (!sorted, "the order of the keys"),
            (!stretch_agrees || !(0.0..=1.0).contains(&share), "the load"),
            (health.adaptive != self.settings.adaptive || *engine.settings() != self.settings, "the settings"),
            (health.at != now, "the time"),
        ];
        for (_, what) in wrong.into_iter().filter(|(wrong, _)| *wrong) {
            let said = format!("{said:?} {:?} {:?} {:?}", health.in_flight, health.totals, health.load);
            let truly = format!("{queued:?}, {due_soon} soon, {waiting} waiting, {in_flight:?}, {:?}", self.totals);
            self.accuse(Rule::TrueHealth, || format!("{what}: {said}; truly {truly}"));
        }
    }
}
