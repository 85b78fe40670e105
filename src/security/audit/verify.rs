//! Proves the chain, or names the first entry that is not as it was written.

use rusqlite::Transaction;
use serde::Serialize;
use thiserror::Error;

use super::chain::{COLUMNS, EndOfChain, Found, GENESIS, Head, Link, Sealer, find, hex};
use crate::security::KeyFile;
use crate::store::{Store, StoreError};

/// A chain without a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    /// Entries that were checked.
    pub entries: u64,
    /// The first of them; those before it were cut away by retention, under a sealed checkpoint.
    pub first: Option<i64>,
    /// The last entry. Noted elsewhere, it proves later that nothing up to here was rewritten.
    pub last: i64,
    /// The hash of the last entry, in hexadecimal.
    pub head: String,
}

/// What is wrong with the chain, at the first place where something is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The entry is not the one that was written here: altered, or from another place.
    #[error("entry {seq} is not what was written there: it was altered, or stands in another's place")]
    Altered {
        /// Which.
        seq: i64,
    },
    /// The entry follows its predecessor, but nobody with the key wrote it.
    #[error("entry {seq} was not written by this daemon: its seal is not by audit.key")]
    Forged {
        /// Which.
        seq: i64,
    },
    /// Entries are gone.
    #[error("entry {seq} is missing: {}", gone(*.seq, *.until))]
    Missing {
        /// The first.
        seq: i64,
        /// The last.
        until: i64,
    },
    /// There are entries after the last one.
    #[error("entry {seq} stands behind the end of the log: it was put there by somebody else")]
    Surplus {
        /// The first.
        seq: i64,
    },
    /// The record of the end is gone or not ours.
    #[error("the sealed record of the log's end is missing or was not written with this audit.key")]
    Head,
    /// The record of what was cut away is not ours.
    #[error("the sealed checkpoint of what retention cut away was not written with this audit.key")]
    Checkpoint,
    /// An entry that was noted elsewhere is another one here.
    #[error("entry {seq} is not the one that was noted: the log was rewritten, or replaced by an older one")]
    NotAsNoted {
        /// Which.
        seq: i64,
    },
}

impl Fault {
    /// The first entry that is wrong, if it is one of them.
    pub const fn entry(&self) -> Option<i64> {
        match self {
            Self::Altered { seq }
            | Self::Forged { seq }
            | Self::Missing { seq, .. }
            | Self::Surplus { seq }
            | Self::NotAsNoted { seq } => Some(*seq),
            Self::Head | Self::Checkpoint => None,
        }
    }
}

fn gone(seq: i64, until: i64) -> String {
    if seq == until { "it was removed".to_owned() } else { format!("it and all up to {until} were removed") }
}

/// Checks the whole log as it is at this moment. Work and time grow with its length; memory does not.
///
/// `noted` are entries whose number and hash were noted elsewhere, such as in the journal.
///
/// # Errors
/// The database failed; inside, the first fault.
pub async fn verify(
    store: &Store,
    key: std::sync::Arc<KeyFile>,
    noted: Vec<(i64, String)>,
) -> Result<Result<Proven, Fault>, StoreError> {
    store.read(move |tx| check(tx, &key, &noted)).await
}

fn check(tx: &Transaction<'_>, key: &KeyFile, noted: &[(i64, String)]) -> Result<Result<Proven, Fault>, StoreError> {
    let start = match find(tx, key, EndOfChain::Checkpoint)? {
        Found::Sealed(cut) => cut,
        Found::Missing => Head { seq: 0, hash: GENESIS },
        Found::Forged => return Ok(Err(Fault::Checkpoint)),
    };
    let mut walk = Walk { last: start, noted, entries: 0 };
    let mut select = tx.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq"))?;
    let mut rows = select.query([])?;
    let sealed_end = find(tx, key, EndOfChain::Head)?;
    while let Some(row) = rows.next()? {
        // A column of another kind than was written cannot be read, and is an alteration like any other.
        let Ok(link) = Link::of_row(row) else { return Ok(Err(Fault::Altered { seq: walk.last.seq + 1 })) };
        if let Found::Sealed(end) = &sealed_end
            && link.seq > end.seq
        {
            return Ok(Err(walk.end(end).err().unwrap_or(Fault::Surplus { seq: link.seq })));
        }
        if let Err(fault) = walk.step(key, &link) {
            return Ok(Err(fault));
        }
    }
    let Found::Sealed(end) = sealed_end else { return Ok(Err(Fault::Head)) };
    Ok(walk.end(&end).map(|()| Proven {
        entries: walk.entries,
        first: (walk.entries > 0).then_some(start.seq + 1),
        last: end.seq,
        head: hex(&end.hash),
    }))
}

struct Walk<'a> {
    last: Head,
    noted: &'a [(i64, String)],
    entries: u64,
}

impl Walk<'_> {
    fn step(&mut self, key: &KeyFile, link: &Link) -> Result<(), Fault> {
        let (seq, expected) = (link.seq, self.last.seq + 1);
        if seq < expected {
            return Err(Fault::Altered { seq });
        }
        if seq > expected {
            return Err(Fault::Missing { seq: expected, until: seq - 1 });
        }
        let hash = link.line.hash(seq, &self.last.hash);
        if hash[..] != link.hash[..] {
            return Err(Fault::Altered { seq });
        }
        if !Sealer(key).is_sealed(link) {
            return Err(Fault::Forged { seq });
        }
        if self.noted.iter().any(|(noted, text)| *noted == seq && !text.eq_ignore_ascii_case(&hex(&hash))) {
            return Err(Fault::NotAsNoted { seq });
        }
        self.last = Head { seq, hash };
        self.entries += 1;
        Ok(())
    }

    fn end(&self, end: &Head) -> Result<(), Fault> {
        if self.last.seq < end.seq {
            return Err(Fault::Missing { seq: self.last.seq + 1, until: end.seq });
        }
        if self.last.hash != end.hash {
            return Err(Fault::Head);
        }
        match self.noted.iter().find(|(seq, _)| *seq > end.seq) {
            Some((seq, _)) => Err(Fault::NotAsNoted { seq: *seq }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::Connection;

    use super::*;
    use crate::runtime::TokioClock;
    use crate::security::Caller;
    use crate::security::audit::{Attempt, AuditLog, Conclusion};
    use crate::store::StoreError;

    fn key() -> Arc<KeyFile> {
        Arc::new(KeyFile::fixed([7; 32]))
    }

    /// What is found after somebody got at a log of ten entries with `statements`.
    async fn found_after(statements: &str) -> Result<Proven, Fault> {
        let store = Store::in_memory().unwrap();
        let clock = Arc::new(TokioClock::start());
        let log = AuditLog::begin(store.clone(), key(), clock, Default::default()).await.unwrap();
        for number in 2..=10 {
            let attempt = Attempt::new(Caller::SYSTEM, "test").on(number.to_string());
            log.record(attempt, Conclusion::done(None, None)).await.unwrap();
        }
        let statements = format!(
            "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_cut_up_to_its_checkpoint_alone; {statements}"
        );
        store.write("test", move |tx| Ok::<_, StoreError>(Connection::execute_batch(tx, &statements)?)).await.unwrap();
        verify(&store, key(), vec![]).await.unwrap()
    }

    #[tokio::test]
    async fn the_first_bad_entry_is_named_whatever_was_done_to_the_log() {
        for (statements, fault) in [
            ("UPDATE audit SET actor = 'user:eve' WHERE seq = 5", Fault::Altered { seq: 5 }),
            ("UPDATE audit SET reason = '' WHERE seq = 5", Fault::Altered { seq: 5 }),
            ("UPDATE audit SET at = at + 1 WHERE seq IN (4, 7)", Fault::Altered { seq: 4 }),
            ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 9", Fault::Altered { seq: 9 }),
            ("UPDATE audit SET seal = zeroblob(32) WHERE seq = 9", Fault::Forged { seq: 9 }),
            ("DELETE FROM audit WHERE seq = 5", Fault::Missing { seq: 5, until: 5 }),
            ("DELETE FROM audit WHERE seq < 4", Fault::Missing { seq: 1, until: 3 }),
            ("DELETE FROM audit WHERE seq > 7", Fault::Missing { seq: 8, until: 10 }),
            ("DELETE FROM audit", Fault::Missing { seq: 1, until: 10 }),
            ("DELETE FROM audit; DELETE FROM audit_head", Fault::Head),
            ("DELETE FROM audit_head", Fault::Head),
            ("UPDATE audit_head SET seq = 9, hash = (SELECT hash FROM audit WHERE seq = 9)", Fault::Head),
            (
                "UPDATE audit SET seq = 99 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 6;
                 UPDATE audit SET seq = 6 WHERE seq = 99",
                Fault::Altered { seq: 4 },
            ),
            ("UPDATE audit SET seq = 11 WHERE seq = 3", Fault::Missing { seq: 3, until: 3 }),
            (
                "INSERT INTO audit SELECT 11, at, kind, intent, 'user:eve', address, action, key, reason, outcome,
                 detail, before, after, hash, seal FROM audit WHERE seq = 10",
                Fault::Surplus { seq: 11 },
            ),
        ] {
            assert_eq!(found_after(statements).await, Err(fault), "{statements}");
        }
        assert_eq!(found_after("").await.unwrap().entries, 10);
    }

    #[tokio::test]
    async fn whoever_rewrites_the_chain_without_the_key_is_found_at_the_first_entry_that_they_wrote() {
        let store = Store::in_memory().unwrap();
        let clock = Arc::new(TokioClock::start());
        let log = AuditLog::begin(store.clone(), key(), clock, Default::default()).await.unwrap();
        for _ in 0..5 {
            log.record(Attempt::new(Caller::SYSTEM, "test"), Conclusion::done(None, None)).await.unwrap();
        }
        let rewrite = |tx: &Transaction<'_>| {
            tx.execute_batch("DROP TRIGGER audit_is_never_changed")?;
            tx.execute("UPDATE audit SET actor = 'user:eve' WHERE seq = 3", [])?;
            let mut last =
                Head { seq: 2, hash: tx.query_row("SELECT hash FROM audit WHERE seq = 2", [], |r| r.get(0))? };
            for seq in 3..=6 {
                let sql = format!("SELECT {COLUMNS} FROM audit WHERE seq = {seq}");
                let link = tx.query_row(&sql, [], Link::of_row)?;
                last = Head { seq, hash: link.line.hash(seq, &last.hash) };
                tx.execute("UPDATE audit SET hash = ?1 WHERE seq = ?2", rusqlite::params![last.hash, seq])?;
            }
            Ok::<_, StoreError>(())
        };
        store.write("test", rewrite).await.unwrap();
        assert_eq!(verify(&store, key(), vec![]).await.unwrap(), Err(Fault::Forged { seq: 3 }));
    }

    #[tokio::test]
    async fn a_log_that_was_replaced_by_an_older_one_is_found_by_what_was_noted_elsewhere() {
        let store = Store::in_memory().unwrap();
        let clock = Arc::new(TokioClock::start());
        let log = AuditLog::begin(store.clone(), key(), clock, Default::default()).await.unwrap();
        let last = log.record(Attempt::new(Caller::SYSTEM, "test"), Conclusion::done(None, None)).await.unwrap();
        let noted = (last.seq, hex(&last.hash));
        assert!(verify(&store, key(), vec![noted.clone()]).await.unwrap().is_ok());
        for wrong in [(last.seq, "00".to_owned()), (last.seq + 1, noted.1)] {
            let seq = wrong.0;
            assert_eq!(verify(&store, key(), vec![wrong]).await.unwrap(), Err(Fault::NotAsNoted { seq }));
        }
    }
}
