//! The change hash: the first eight bytes of a SHA-256 over the parts of a reading that are not counters or gauges.
//!
//! Every part is written with its length, so that neighbours cannot run together. Lists are sorted by the reading.

use sha2::{Digest as _, Sha256};

use crate::engine::ChangeHash;

/// Collects the parts of a reading that count as a change.
#[derive(Default)]
pub(super) struct ChangeDigest(Sha256);

impl ChangeDigest {
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        self.0.update(text);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    pub(super) fn flag(&mut self, flag: bool) -> &mut Self {
        self.number(u64::from(flag))
    }

    pub(super) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.flag(true).text(text),
            None => self.flag(false),
        }
    }

    pub(super) fn optional_number(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.flag(true).number(number),
            None => self.flag(false),
        }
    }

    pub(super) fn list<'t, T: 't>(
        &mut self,
        entries: impl IntoIterator<Item = &'t T, IntoIter: ExactSizeIterator>,
        mut write: impl FnMut(&mut Self, &T),
    ) -> &mut Self {
        let entries = entries.into_iter();
        self.number(entries.len() as u64);
        for entry in entries {
            write(self, entry);
        }
        self
    }

    pub(super) fn finish(self) -> ChangeHash {
        let digest: [u8; 32] = self.0.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        ChangeHash(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(write: impl FnOnce(&mut ChangeDigest)) -> ChangeHash {
        let mut digest = ChangeDigest::default();
        write(&mut digest);
        digest.finish()
    }

    #[test]
    fn the_hash_is_the_same_in_every_process_and_release() {
        // SHA-256 of the eight-byte length 3 and "abc".
        assert_eq!(hash(|d| _ = d.text("abc")), ChangeHash(0xc349_4ca1_a2cf_8eeb));
    }

    #[test]
    fn neighbours_do_not_run_together() {
        assert_ne!(hash(|d| _ = d.text("ab").text("c")), hash(|d| _ = d.text("a").text("bc")));
        assert_ne!(hash(|d| _ = d.optional(None)), hash(|d| _ = d.optional(Some(""))));
        assert_ne!(
            hash(|d| _ = d.list(&[1_u64], |d, n| _ = d.number(*n))),
            hash(|d| _ = d.list(&[0; 0], |_, _: &u64| ()))
        );
    }
}
