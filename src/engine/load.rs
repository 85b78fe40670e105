//! How loaded the daemon is, measured: the lag of due polls and the share of slots in use.
//!
//! Overload stretches the whole fleet in proportion, to where it fits: the slots that the fleet needs, by the intervals
//! it wants and the time its polls take, against the slots there are. Queue depth is not looked at: it is about the
//! fleet's size whatever the load.

use super::settings::Settings;
use super::time::{Millis, Timestamp};

/// The share of slots that the fleet is stretched to fit in.
const TARGET_USE: f64 = 0.8;
/// The share of slots in use below which lag cannot come from a want of slots.
const IDLE_USE: f64 = 0.5;
/// The mean lag, as a share of the base interval, from which a daemon with free slots counts as overloaded.
const TARGET_LAG: f64 = 0.1;
/// The share of slots that is counted on, however many are held by polls that fail.
const LEAST_SUPPLY: f64 = 0.1;
/// The largest growth and the largest relief in one window.
const GROWTH: f64 = 2.0;
const RELIEF: f64 = 0.9;

/// Measures load, window by window. A window is one base interval, stretched too, so that each change is felt before
/// the next one is decided.
#[derive(Clone, Debug)]
pub(super) struct LoadMeter {
    stretch: f64,
    lag: Millis,
    slots_used: f64,
    window_start: Timestamp,
    measured_until: Timestamp,
    window: Window,
}

/// What was counted since the window began.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    slot_time: Millis,
    lag: Millis,
    starts: u64,
    wanted: Millis,
    took: Millis,
}

impl LoadMeter {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            stretch: 1.0,
            lag: Millis::ZERO,
            slots_used: 0.0,
            window_start: now,
            measured_until: now,
            window: Window::default(),
        }
    }

    /// By how much every interval is stretched; 1 where there is no overload.
    pub(super) fn stretch(&self) -> f64 {
        self.stretch
    }

    /// Mean lag of the polls started in the last full window.
    pub(super) fn lag(&self) -> Millis {
        self.lag
    }

    /// Share of slots in use over the last full window, 0 to 1.
    pub(super) fn slots_used(&self) -> f64 {
        self.slots_used
    }

    /// A poll started `lag` after it was due.
    pub(super) fn started(&mut self, lag: Millis) {
        self.window.lag = self.window.lag + lag;
        self.window.starts += 1;
    }

    /// A poll took its slot for `took` and succeeded, and its instance wants to be polled again after `interval`.
    pub(super) fn succeeded(&mut self, took: Millis, interval: Millis) {
        self.window.took = self.window.took + took;
        self.window.wanted = self.window.wanted + interval;
    }

    /// Time passed with `in_flight` polls under way.
    pub(super) fn pass(&mut self, now: Timestamp, in_flight: u32) {
        if now <= self.measured_until {
            return;
        }
        let elapsed = now.since(self.measured_until).get();
        let slot_time = Millis::new(elapsed.saturating_mul(u64::from(in_flight)));
        self.window.slot_time = self.window.slot_time + slot_time;
        self.measured_until = now;
    }

    /// Whether the window is full.
    pub(super) fn is_window_full(&self, now: Timestamp, settings: &Settings) -> bool {
        now.since(self.window_start) >= settings.base_interval.scaled(self.stretch)
    }

    /// Closes the window; says whether that changed the stretch. `live` is the number of instances in the live queue or
    /// in flight.
    pub(super) fn close_window(&mut self, now: Timestamp, live: u32, settings: &Settings) -> bool {
        let length = now.since(self.window_start);
        let window = std::mem::take(&mut self.window);
        self.window_start = now;
        let before = self.stretch;
        self.close(window, length, live, settings);
        before != self.stretch
    }

    fn close(&mut self, window: Window, length: Millis, live: u32, settings: &Settings) {
        let slots = f64::from(settings.max_in_flight);
        let in_use = window.slot_time.get() as f64 / length.get() as f64;
        self.slots_used = (in_use / slots).min(1.0);
        self.lag = Millis::new(window.lag.get() / window.starts.max(1));
        let lag = self.lag.get() as f64 / settings.base_interval.get() as f64;
        let lost = in_use - window.took.get() as f64 / length.get() as f64;
        let supply = (slots * TARGET_USE - lost).max(slots * LEAST_SUPPLY);
        let by_slots = window.slots_needed(live) / supply;
        let wanted = if self.slots_used >= IDLE_USE {
            by_slots
        } else if lag > TARGET_LAG {
            // Half of the slots are free and polls are late all the same: the daemon itself is short of time.
            self.stretch * (1.0 + lag)
        } else {
            // The slots carry what is asked of them. The few polls of a window may want more than the others of the fleet.
            by_slots.min(self.stretch)
        };
        let most = settings.max_interval.get() as f64 / settings.min_interval.get() as f64;
        self.stretch = wanted.clamp(self.stretch * RELIEF, self.stretch * GROWTH).clamp(1.0, most.max(1.0));
    }
}

impl Window {
    /// How many slots a fleet of `live` instances would use without any stretch, if all did like those that succeeded.
    fn slots_needed(&self, live: u32) -> f64 {
        if self.wanted == Millis::ZERO {
            return 0.0;
        }
        f64::from(live) * self.took.get() as f64 / self.wanted.get() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows in which `in_flight` slots were used and every poll took two seconds, for a fleet of `live`.
    fn windows(meter: &mut LoadMeter, count: u64, in_flight: u32, live: u32, lag: Millis) {
        let settings = Settings::default();
        for _ in 0..count {
            let length = settings.base_interval.scaled(meter.stretch());
            for _ in 0..u64::from(in_flight) * length.get() / 2_000 {
                meter.started(lag);
                meter.succeeded(Millis::from_secs(2), settings.base_interval);
            }
            let end = meter.window_start + length;
            meter.pass(end, in_flight);
            assert!(meter.is_window_full(end, &settings));
            meter.close_window(end, live, &settings);
        }
    }

    #[test]
    fn lesson_12_a_full_daemon_stretches_the_fleet_to_where_it_fits_and_an_idle_one_lets_go() {
        let slots = Settings::default().max_in_flight;
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        // A slot carries five instances at two seconds in ten; the fleet is twice as large.
        windows(&mut meter, 1, slots, slots * 10, Millis::from_mins(1));
        assert_eq!(meter.stretch(), 2.0, "never more than doubled in one window");
        windows(&mut meter, 9, slots, slots * 10, Millis::from_mins(1));
        assert!((meter.stretch() - 2.5).abs() < 0.01, "twice the slots at a use of 80 %: {}", meter.stretch());
        windows(&mut meter, 40, 1, 5, Millis::ZERO);
        assert_eq!(meter.stretch(), 1.0);
    }

    #[test]
    fn a_large_fleet_with_free_slots_is_no_load() {
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        windows(&mut meter, 10, 100, 500, Millis::new(3));
        assert_eq!(meter.stretch(), 1.0);
    }

    #[test]
    fn slots_held_by_hanging_polls_are_not_taken_for_demand() {
        let settings = Settings::default();
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        meter.started(Millis::ZERO);
        meter.succeeded(Millis::from_secs(1), settings.base_interval);
        let end = meter.window_start + settings.base_interval;
        meter.pass(end, settings.max_in_flight / 2);
        meter.close_window(end, 300, &settings);
        assert!((meter.slots_used() - 0.5).abs() < 1e-9);
        assert_eq!(meter.stretch(), 1.0, "300 instances at a second in ten need 30 slots of the 77 that are left");
    }

    #[test]
    fn one_eager_host_in_a_quiet_window_does_not_speak_for_an_idle_fleet() {
        let settings = Settings::default();
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        meter.started(Millis::ZERO);
        meter.succeeded(Millis::from_secs(2), Millis::new(750));
        let end = meter.window_start + settings.base_interval;
        meter.pass(end, 1);
        meter.close_window(end, 300, &settings);
        assert_eq!(meter.stretch(), 1.0, "one slot is in use");
    }

    #[test]
    fn lag_alone_stretches_too() {
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        windows(&mut meter, 1, 1, 5, Millis::from_secs(2));
        assert!((meter.stretch() - 1.2).abs() < 1e-9, "{}", meter.stretch());
        assert_eq!(meter.lag(), Millis::from_secs(2));
    }

    #[test]
    fn the_stretch_stays_between_one_and_the_span_of_the_intervals() {
        let mut meter = LoadMeter::new(Timestamp::ZERO);
        windows(&mut meter, 20, 10, u32::MAX, Millis::MAX);
        assert_eq!(meter.stretch(), 60.0);
    }
}
