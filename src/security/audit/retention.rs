//! How long entries are kept. What is cut away leaves a sealed checkpoint, from which the rest of the chain is proven.

use rusqlite::{OptionalExtension, Transaction};
use serde_json::json;

use super::chain::{self, Head};
use super::entry::Attempt;
use super::log::Changed;
use super::{AuditError, AuditLog};
use crate::engine::Millis;
use crate::security::Caller;
use crate::store::StoreError;

/// The most entries that one transaction cuts away, so that nobody waits long for the database.
const AT_ONCE: i64 = 5_000;

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries that are older go.
    pub age: Millis,
    /// Of more entries than this, the oldest go.
    pub entries: u32,
}

impl AuditLog {
    /// Cuts away what is older than `retention` keeps, and writes down that it did. Answers with how many entries went.
    ///
    /// # Errors
    /// The database failed; what was cut away by then is written down.
    pub async fn cut(&self, retention: Retention) -> Result<u64, AuditError> {
        let mut gone = 0;
        loop {
            let now = self.clock.wall().as_millisecond();
            let due = self.store.read::<_, StoreError>(move |tx| last_to_go(tx, retention, now)).await?;
            let Some(cut) = due else { return Ok(gone) };
            let key = std::sync::Arc::clone(&self.key);
            let work = move |tx: &Transaction<'_>| {
                chain::set_checkpoint(tx, &key, &cut, now)?;
                let entries = tx.execute("DELETE FROM audit WHERE seq <= ?1", [cut.seq])? as u64;
                let after = json!({"through": cut.seq, "hash": chain::hex(&cut.hash), "entries": entries});
                Ok(Ok::<_, std::convert::Infallible>(Changed { value: entries, before: None, after: Some(after) }))
            };
            match self.transact(Attempt::new(Caller::SYSTEM, "audit.cut"), work).await? {
                Ok(entries) => {
                    gone += entries;
                    // The entry that tells of a cut must not be the reason for the next.
                    if entries < AT_ONCE.unsigned_abs() {
                        return Ok(gone);
                    }
                }
                Err(never) => match never {},
            }
        }
    }
}

/// The last of the entries that go next. One that is open stays, and so does the end of the log.
fn last_to_go(tx: &Transaction<'_>, retention: Retention, now: i64) -> Result<Option<Head>, StoreError> {
    let number = |sql: &str| tx.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    let Some(first) = number("SELECT min(seq) FROM audit")? else { return Ok(None) };
    let last = number("SELECT max(seq) FROM audit")?.unwrap_or(first);
    let open = number("SELECT min(seq) FROM audit_open")?.unwrap_or(last);
    let too_old = now.saturating_sub(i64::try_from(retention.age.get()).unwrap_or(i64::MAX));
    let young = "SELECT seq FROM audit WHERE at >= ?1 ORDER BY seq LIMIT 1";
    let young = tx.query_row(young, [too_old], |row| row.get(0)).optional()?.unwrap_or(last);
    let surplus = last.saturating_sub(i64::from(retention.entries));
    let through = (young - 1).max(surplus).min(open - 1).min(first + AT_ONCE - 1);
    let hash = "SELECT hash FROM audit WHERE seq = ?1";
    let hash = tx.query_row(hash, [through], |row| row.get(0)).optional()?;
    Ok(hash.map(|hash| Head { seq: through, hash }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::Timestamp;
    use crate::runtime::{Clock, TokioClock};
    use crate::security::KeyFile;
    use crate::security::audit::Conclusion;
    use crate::security::audit::verify;
    use crate::store::Store;

    const DAY: u64 = 24 * 60 * 60 * 1_000;

    async fn log() -> (AuditLog, Arc<TokioClock>, Store) {
        let store = Store::in_memory().unwrap();
        let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let key = Arc::new(KeyFile::fixed([7; 32]));
        let log = AuditLog::begin(store.clone(), key, clock.clone(), Default::default()).await.unwrap();
        (log, clock, store)
    }

    async fn fill(log: &AuditLog, entries: usize) {
        for _ in 0..entries {
            log.record(Attempt::new(Caller::SYSTEM, "test"), Conclusion::done(None, None)).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_goes_and_the_rest_is_still_proven() {
        let (log, clock, store) = log().await;
        fill(&log, 4).await;
        clock.sleep_until(Timestamp::from_millis(10 * DAY)).await;
        fill(&log, 3).await;
        let retention = Retention { age: Millis::new(5 * DAY), entries: 1_000 };
        assert_eq!(log.cut(retention).await.unwrap(), 5);
        assert_eq!(log.cut(retention).await.unwrap(), 0);
        let proven = verify(&store, Arc::clone(&log.key), vec![]).await.unwrap().unwrap();
        assert_eq!((proven.first, proven.last, proven.entries), (Some(6), 9, 4));
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_go() {
        let (log, _, store) = log().await;
        fill(&log, 9).await;
        let retention = Retention { age: Millis::new(DAY), entries: 4 };
        assert_eq!(log.cut(retention).await.unwrap(), 6);
        let proven = verify(&store, Arc::clone(&log.key), vec![]).await.unwrap().unwrap();
        assert_eq!((proven.first, proven.last), (Some(7), 11), "four, and the entry that tells of the cut");
    }

    #[tokio::test]
    async fn a_checkpoint_that_somebody_else_moved_is_found() {
        let (log, _, store) = log().await;
        fill(&log, 9).await;
        log.cut(Retention { age: Millis::new(DAY), entries: 4 }).await.unwrap();
        let forge = |tx: &Transaction<'_>| {
            tx.execute("UPDATE audit_checkpoint SET seq = 8, hash = (SELECT hash FROM audit WHERE seq = 8)", [])?;
            Ok(tx.execute("DELETE FROM audit WHERE seq <= 8", [])?)
        };
        assert_eq!(store.write::<_, StoreError>("test", forge).await.unwrap(), 2);
        let found = verify(&store, Arc::clone(&log.key), vec![]).await.unwrap();
        assert_eq!(found, Err(crate::security::audit::Fault::Checkpoint));
    }

    #[tokio::test]
    async fn the_database_itself_refuses_to_change_or_remove_an_entry() {
        let (log, _, store) = log().await;
        fill(&log, 2).await;
        for statement in ["UPDATE audit SET actor = 'user:eve' WHERE seq = 2", "DELETE FROM audit WHERE seq = 2"] {
            let refused = store.write::<_, StoreError>("test", |tx| Ok(tx.execute(statement, [])?)).await;
            assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
        }
    }
}
