//! Where every instance waits: for its time (a hashed timing wheel), for a slot (lanes), or for its host.
//!
//! The wheel is scheme 6 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), with one slot a
//! millisecond. Whatever is due within a turn of 16 s, the common case, is found without a second look.

use super::lists::Lists;
use super::time::{Millis, Timestamp};

/// Slots of the wheel, one a millisecond; a power of two.
const SLOTS: usize = 1 << 14;
const WORDS: usize = SLOTS / 64;
/// How many entries a search for the next due time looks at before it settles for an early wake-up.
const SEARCH_LIMIT: usize = 1024;

/// A queue of instances that are due and wait for a free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Never polled so far: nothing is known of them, so they come first.
    Unknown,
    /// The last poll succeeded.
    Known,
    /// The last poll failed: they may hang, so they take half of the slots at most.
    Suspect,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Unknown, Self::Known, Self::Suspect];

    const fn list(self) -> usize {
        SLOTS + self as usize
    }
}

const FIRST_HOST_LIST: usize = SLOTS + Lane::ALL.len();

/// Every instance's place to wait, at most one each.
#[derive(Debug)]
pub(super) struct Agenda {
    lists: Lists,
    due: Vec<Timestamp>,
    occupied: [u64; WORDS],
    /// Everything due up to here has left the wheel.
    time: Timestamp,
    /// Instances in lanes and host queues.
    waiting: u32,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self {
            lists: Lists::new(FIRST_HOST_LIST),
            due: Vec::new(),
            occupied: [0; WORDS],
            time: Timestamp::ZERO,
            waiting: 0,
        }
    }

    /// Makes room for ids below `instances`.
    pub(super) fn grow(&mut self, instances: usize) {
        self.lists.grow_nodes(instances);
        if instances > self.due.len() {
            self.due.resize(instances, Timestamp::ZERO);
        }
    }

    /// Sets the number of hosts that have a queue. The queues that go must be empty.
    pub(super) fn resize_hosts(&mut self, hosts: usize) {
        self.lists.resize_lists(FIRST_HOST_LIST + hosts);
    }

    /// Puts `id` on the wheel, wherever it waited before. What is already due comes at the next turn of time.
    #[inline]
    pub(super) fn schedule(&mut self, id: u32, due: Timestamp) {
        self.unlink(id);
        self.due[id as usize] = due;
        let slot = slot_of(due.max(self.time + Millis::new(1)));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.lists.push_back(slot, id);
    }

    /// Takes `id` out of wherever it waits.
    #[inline]
    pub(super) fn unlink(&mut self, id: u32) {
        match self.lists.unlink(id) {
            Some(slot) if slot < SLOTS && self.lists.is_empty(slot) => {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
            Some(list) if list >= SLOTS => self.waiting -= 1,
            Some(_) | None => {}
        }
    }

    /// When `id` is or was last due.
    pub(super) fn due(&self, id: u32) -> Timestamp {
        self.due[id as usize]
    }

    /// Notes since when `id` waits, without moving it.
    pub(super) fn set_due(&mut self, id: u32, due: Timestamp) {
        self.due[id as usize] = due;
    }

    /// Whether `id` is on the wheel.
    pub(super) fn is_on_wheel(&self, id: u32) -> bool {
        self.lists.list_of(id).is_some_and(|list| list < SLOTS)
    }

    /// Whether `id` is in one of the lanes or in the queue of a host.
    pub(super) fn is_waiting_for_a_slot(&self, id: u32) -> bool {
        self.lists.list_of(id).is_some_and(|list| list >= SLOTS)
    }

    /// How many instances are due and wait for a slot or for their host.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    #[inline]
    pub(super) fn push_lane(&mut self, lane: Lane, id: u32) {
        self.unlink(id);
        self.lists.push_back(lane.list(), id);
        self.waiting += 1;
    }

    pub(super) fn lane_head(&self, lane: Lane) -> Option<u32> {
        self.lists.head(lane.list())
    }

    pub(super) fn push_host(&mut self, host: u32, id: u32) {
        self.unlink(id);
        self.lists.push_back(FIRST_HOST_LIST + host as usize, id);
        self.waiting += 1;
    }

    pub(super) fn host_head(&self, host: u32) -> Option<u32> {
        self.lists.head(FIRST_HOST_LIST + host as usize)
    }

    /// Moves time on to `now` and hands out whatever is due by then, earliest first.
    #[inline]
    pub(super) fn expire(&mut self, now: Timestamp, expired: &mut Vec<u32>) {
        expired.clear();
        if now <= self.time {
            return;
        }
        let turn = now.since(self.time).get();
        if turn < SLOTS as u64 {
            let first = slot_of(self.time + Millis::new(1));
            let mut distance = 0;
            while let Some(found) = self.next_occupied(first, distance, turn as usize) {
                self.take_due(wrap(first + found), now, expired);
                distance = found + 1;
            }
        } else {
            for slot in 0..SLOTS {
                self.take_due(slot, now, expired);
            }
            expired.sort_unstable_by_key(|id| (self.due[*id as usize], *id));
        }
        self.time = now;
    }

    /// The next time at which something may be due; `None` if the wheel is empty.
    ///
    /// It may be early where many instances are due in later turns, never late.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let origin = self.time + Millis::new(1);
        let first = slot_of(origin);
        let mut looked_at = 0;
        let mut earliest: Option<Timestamp> = None;
        let mut distance = 0;
        while let Some(found) = self.next_occupied(first, distance, SLOTS) {
            let at = origin + Millis::new(found as u64);
            let mut next = self.lists.head(wrap(first + found));
            while let Some(id) = next {
                let due = self.due[id as usize];
                if due <= at {
                    return Some(at);
                }
                earliest = Some(earliest.map_or(due, |other| other.min(due)));
                looked_at += 1;
                if looked_at == SEARCH_LIMIT {
                    return Some(at);
                }
                next = self.lists.next(id);
            }
            distance = found + 1;
        }
        earliest
    }

    /// The smallest `distance <= d < end` whose slot, counted from `first`, is occupied.
    #[inline]
    fn next_occupied(&self, first: usize, distance: usize, end: usize) -> Option<usize> {
        let mut distance = distance;
        while distance < end {
            let slot = wrap(first + distance);
            let rest = self.occupied[slot / 64] >> (slot % 64);
            if rest != 0 {
                let found = distance + rest.trailing_zeros() as usize;
                return (found < end).then_some(found);
            }
            distance += 64 - slot % 64;
        }
        None
    }

    #[inline]
    fn take_due(&mut self, slot: usize, now: Timestamp, expired: &mut Vec<u32>) {
        self.lists.take(slot, |id| self.due[id as usize] <= now, expired);
        if self.lists.is_empty(slot) {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }
}

const fn slot_of(time: Timestamp) -> usize {
    wrap(time.as_millis() as usize)
}

const fn wrap(slot: usize) -> usize {
    slot & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn agenda(dues: &[u64]) -> Agenda {
        let mut agenda = Agenda::new();
        agenda.grow(dues.len());
        for (id, due) in dues.iter().enumerate() {
            agenda.schedule(id as u32, at(*due));
        }
        agenda
    }

    fn expired(agenda: &mut Agenda, now: u64) -> Vec<u32> {
        let mut ids = Vec::new();
        agenda.expire(at(now), &mut ids);
        ids
    }

    #[test]
    fn what_is_due_leaves_in_the_order_of_its_time() {
        let mut agenda = agenda(&[30, 10, 20, 10]);
        assert_eq!(agenda.next_due(), Some(at(10)));
        assert!(expired(&mut agenda, 9).is_empty());
        assert_eq!(expired(&mut agenda, 25), [1, 3, 2]);
        assert_eq!(agenda.next_due(), Some(at(30)));
    }

    #[test]
    fn a_due_time_many_turns_away_is_kept() {
        let far = 5 * SLOTS as u64 + 7;
        let mut agenda = agenda(&[far, 7]);
        assert_eq!(expired(&mut agenda, 7), [1]);
        assert_eq!(agenda.next_due(), Some(at(far)));
        assert!(expired(&mut agenda, far - 1).is_empty());
        assert_eq!(expired(&mut agenda, far), [0]);
        assert_eq!(agenda.next_due(), None);
    }

    #[test]
    fn a_jump_of_hours_hands_out_everything_in_order() {
        let mut agenda = agenda(&[90_000, 20_000, 50_000, 10]);
        assert_eq!(expired(&mut agenda, 7_200_000), [3, 1, 2, 0]);
    }

    #[test]
    fn what_is_due_in_the_past_comes_at_the_next_turn_of_time() {
        let mut agenda = agenda(&[1]);
        assert_eq!(expired(&mut agenda, 100), [0]);
        agenda.schedule(0, at(50));
        assert_eq!(agenda.next_due(), Some(at(101)));
        assert_eq!(agenda.due(0), at(50));
        assert_eq!(expired(&mut agenda, 101), [0]);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_hands_out_nothing() {
        let mut agenda = agenda(&[5]);
        assert!(expired(&mut agenda, 4).is_empty());
        assert!(expired(&mut agenda, 4).is_empty());
        assert!(expired(&mut agenda, 0).is_empty());
        assert_eq!(expired(&mut agenda, 5), [0]);
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_list(
            steps in proptest::collection::vec((0u64..200_000, 0u64..40_000), 1..60),
        ) {
            let mut agenda = Agenda::new();
            agenda.grow(steps.len());
            let mut model: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (id, (ahead, step)) in steps.iter().enumerate() {
                agenda.schedule(id as u32, at(now + 1 + ahead));
                model.push((now + 1 + ahead, id as u32));
                prop_assert_eq!(agenda.next_due(), model.iter().map(|(due, _)| at(*due)).min());
                now += step;
                let mut due: Vec<_> = model.iter().copied().filter(|(due, _)| *due <= now).collect();
                due.sort_unstable();
                model.retain(|(due, _)| *due > now);
                let mut got = expired(&mut agenda, now);
                // Within one millisecond the order of arrival counts; ids grow with arrival here.
                got.sort_by_key(|id| (agenda.due(*id), *id));
                prop_assert_eq!(got, due.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
            }
        }
    }
}
