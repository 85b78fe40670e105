//! The secrets that a run knows, and whether a text tells one of them.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// Secrets that were issued while it ran are kept up to this number; the oldest are forgotten.
const MAX_ISSUED: usize = 200;
/// Shorter ones are found by chance.
const SHORTEST: usize = 12;

/// What a run knows that nobody else may be told.
pub(crate) struct Secrets {
    fixed: Vec<Known>,
    issued: Vec<Known>,
    finder: Option<AhoCorasick>,
}

struct Known {
    what: &'static str,
    text: Vec<u8>,
    place: Place,
}

/// Where a secret may not be told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere.
    Anywhere,
    /// In no log; an answer to its owner may hold it.
    Logs,
}

impl Secrets {
    pub(crate) fn new() -> Self {
        let mut secrets = Self { fixed: Vec::new(), issued: Vec::new(), finder: None };
        secrets.keep("a password's hash", b"$argon2id$v=");
        secrets
    }

    /// Keeps a secret for the whole run.
    pub(crate) fn keep(&mut self, what: &'static str, text: impl AsRef<[u8]>) {
        self.fixed.push(Known { what, text: text.as_ref().to_vec(), place: Place::Anywhere });
        self.finder = None;
    }

    /// Keeps a secret that was issued by an answer.
    pub(crate) fn issue(&mut self, what: &'static str, text: impl AsRef<[u8]>, place: Place) {
        let text = text.as_ref();
        if text.len() < SHORTEST || self.issued.iter().any(|known| known.text == text) {
            return;
        }
        if self.issued.len() == MAX_ISSUED {
            self.issued.remove(0);
        }
        self.issued.push(Known { what, text: text.to_vec(), place });
        self.finder = None;
    }

    /// The secret that `text` tells, if it tells one that may not be told at `place`.
    pub(crate) fn told(&mut self, text: &[u8], place: Place) -> Option<&'static str> {
        let Self { fixed, issued, finder } = self;
        let all = || fixed.iter().chain(issued.iter());
        let finder = match finder {
            Some(finder) => finder,
            None => {
                // Built anew with each secret, so what is quick to build is the quickest in all.
                let mut builder = AhoCorasick::builder();
                // Only lists of gigabytes cannot be built.
                finder.insert(
                    builder.kind(Some(AhoCorasickKind::NoncontiguousNFA)).build(all().map(|known| &known.text)).ok()?,
                )
            }
        };
        let found = finder.find_overlapping_iter(text).map(|found| found.pattern().as_usize());
        let mut found = found.filter_map(|number| all().nth(number));
        found.find(|known| place == Place::Logs || known.place == Place::Anywhere).map(|known| known.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_where_it_may_not_be() {
        let mut secrets = Secrets::new();
        secrets.keep("the password", "four words in a row");
        secrets.issue("a CSRF token", "csrf-0123456789", Place::Logs);
        assert_eq!(secrets.told(b"... four words in a row ...", Place::Anywhere), Some("the password"));
        assert_eq!(secrets.told(b"nothing of the kind", Place::Anywhere), None);
        assert_eq!(secrets.told(b"csrf-0123456789", Place::Anywhere), None);
        assert_eq!(secrets.told(b"csrf-0123456789", Place::Logs), Some("a CSRF token"));
    }
}
