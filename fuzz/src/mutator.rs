//! Draws from a seed, and what they do to valid input: bytes changed, moved and put in, JSON bent out of shape.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// What programs have stumbled over.
const AWKWARD: [&[u8]; 34] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"%00",
    b"%2f",
    b"%",
    b"%zz",
    b"%c0%ae",
    b"../",
    b"::",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"-1",
    b"-0",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1e400",
    b"NaN",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Expect: 100-continue\r\n",
    b"' OR 1=1 --",
    b"<script>",
];
/// How often a mutation makes something long.
const ONE_IN_LONG: usize = 24;

/// A stream of draws, and what can be done with them.
pub(crate) struct Mutator(ChaCha8Rng);

impl Mutator {
    /// The stream of this number of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of `some`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len())]
    }

    /// Up to `most` bytes of noise.
    pub(crate) fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        if self.one_in(2) {
            // Mostly printable, to come further.
            bytes.iter_mut().for_each(|byte| *byte = 0x20 + *byte % 0x5f);
        }
        bytes
    }

    /// Something awkward.
    pub(crate) fn awkward(&mut self) -> Vec<u8> {
        if self.one_in(ONE_IN_LONG) {
            let length = 1 << self.below(17);
            return self.pick(&AWKWARD).iter().copied().cycle().take(length).collect();
        }
        if self.one_in(4) { self.noise(24) } else { self.pick(&AWKWARD).to_vec() }
    }

    /// Changes one to four places of `bytes`.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            self.mutate_once(bytes);
        }
    }

    fn mutate_once(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let span = at..(at + self.below(1 + (bytes.len() - at).min(64))).min(bytes.len());
        match self.below(8) {
            0 => {
                let more = self.awkward();
                bytes.splice(at..at, more).for_each(drop);
            }
            1 => drop(bytes.drain(span)),
            2 => {
                let other = self.awkward();
                bytes.splice(span, other).for_each(drop);
            }
            3 => bytes.truncate(at),
            4 => {
                let copy = bytes[span].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy).for_each(drop);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                } else {
                    bytes.push(self.0.next_u32() as u8);
                }
            }
        }
    }

    /// Bends a JSON text out of shape, or changes its bytes.
    pub(crate) fn mutate_json(&mut self, text: &mut Vec<u8>) {
        let parsed = if self.one_in(3) { None } else { serde_json::from_slice::<Value>(text).ok() };
        let Some(mut value) = parsed else { return self.mutate(text) };
        for _ in 0..=self.below(3) {
            self.bend(&mut value);
        }
        *text = value.to_string().into_bytes();
        if self.one_in(16) {
            self.nest(text);
        }
    }

    fn bend(&mut self, value: &mut Value) {
        match value {
            Value::Object(members) if !members.is_empty() && !self.one_in(6) => {
                let name = members.keys().nth(self.below(members.len())).cloned().unwrap_or_default();
                match self.below(7) {
                    0 => drop(members.remove(&name)),
                    // What stood within stands for the whole.
                    6 => *value = members.remove(&name).unwrap_or_default(),
                    1 => {
                        let taken = members.remove(&name).unwrap_or_default();
                        members.insert(String::from_utf8_lossy(&self.awkward()).into_owned(), taken);
                    }
                    2 => drop(members.insert(String::from_utf8_lossy(&self.awkward()).into_owned(), self.odd_value())),
                    _ => {
                        if let Some(member) = members.get_mut(&name) {
                            self.bend(member);
                        }
                    }
                }
            }
            Value::Array(items) if !items.is_empty() && !self.one_in(6) => {
                let at = self.below(items.len());
                match self.below(4) {
                    0 => drop(items.remove(at)),
                    1 => items.insert(at, items[at].clone()),
                    _ => self.bend(&mut items[at]),
                }
            }
            Value::String(text) if !self.one_in(3) => {
                let mut bytes = std::mem::take(text).into_bytes();
                self.mutate_once(&mut bytes);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            other => *other = self.odd_value(),
        }
    }

    fn odd_value(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 => json!([null]),
            3 => json!({}),
            4 => json!(u64::MAX),
            5 => json!(i64::MIN),
            6 => json!(1e308),
            7 => json!(-0.0),
            8 => json!(""),
            9 => json!(self.below(1_000)),
            _ => json!(String::from_utf8_lossy(&self.awkward())),
        }
    }

    /// Deeper than any reader follows.
    fn nest(&mut self, text: &mut Vec<u8>) {
        let depth = 1 << self.below(13);
        let mut nested = b"[".repeat(depth);
        nested.append(text);
        nested.extend(b"]".repeat(depth));
        *text = nested;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_draws_one_sequence_and_another_stream_another() {
        let draw = |seed, stream| {
            let mut mutator = Mutator::new(seed, stream);
            let mut text = br#"{"name": "alice", "list": [1, 2, {"deep": true}]}"#.to_vec();
            (0..50).for_each(|_| mutator.mutate_json(&mut text));
            text
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }

    #[test]
    fn whatever_is_mutated_stays_bounded_and_nothing_panics() {
        let mut mutator = Mutator::new(7, 0);
        for _ in 0..20_000 {
            let mut text = mutator.noise(40);
            mutator.mutate(&mut text);
            mutator.mutate_json(&mut text);
            assert!(text.len() < 2_000_000);
        }
    }
}
