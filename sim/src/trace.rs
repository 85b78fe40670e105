//! The trace of a run: every event of the engine in order, as a hash and, when asked for, as lines.
//!
//! Orders are not in it: each has an event beside it, and a driver of its own may carry them out in its own way.

use std::hash::{Hash, Hasher};

use pulse::engine::Event;

/// How many lines are kept at the most.
const MAX_LINES: usize = 5_000_000;

/// Takes the events of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: Fnv,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines, or only their hash.
    pub fn new(keep_lines: bool) -> Self {
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), events: 0, lines: keep_lines.then(Vec::new) }
    }

    /// Takes the next event.
    pub fn take(&mut self, event: &Event) {
        self.events += 1;
        event.hash(&mut self.hash);
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < MAX_LINES) {
            let what = serde_json::to_string(&event.what).unwrap_or_else(|error| error.to_string());
            lines.push(format!("{} {what}", event.at.as_millis()));
        }
    }

    /// The hash of everything so far: FNV-1a, 64 bits, over the events' fields.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines, if they were kept: milliseconds, and the event as JSON.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// The same in every run and on every little-endian machine. Words are mixed whole, which is quick.
#[derive(Clone, Debug)]
struct Fnv(u64);

impl Fnv {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.mix(word as u64);
    }
}
