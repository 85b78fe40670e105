//! What is done now and then: uses and refusals are written down, ended sessions go, and the audit log is cut to its retention.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::{AuditSettings, LiveConfig};
use crate::engine::Millis;
use crate::runtime::Clock;
use crate::security::Books;
use crate::security::audit::Retention;

/// How often there is a round.
const EVERY: Millis = Millis::from_secs(60);
/// How many rounds apart the audit log is cut, unless its retention has changed.
const ROUNDS_TO_A_CUT: u64 = 60;
/// In minutes.
const DAY: u64 = 24 * 60;

/// Keeps `books` in order by the settings in force, until the daemon stops.
pub(super) async fn keep_house(books: Books, config: LiveConfig, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut rounds = 0_u64;
    let mut cut_to = None;
    while stop.run_until_cancelled(clock.sleep_until(clock.now() + EVERY)).await.is_some() {
        let kept = config.system().audit();
        if rounds.is_multiple_of(ROUNDS_TO_A_CUT) || cut_to != Some(kept) {
            match books.audit.cut(retention(kept)).await {
                Ok(_) => cut_to = Some(kept),
                Err(error) => tracing::warn!(%error, "the audit log was not cut to its retention; tried again later"),
            }
        }
        write_down(&books, false).await;
        rounds += 1;
    }
    write_down(&books, true).await;
}

fn retention(kept: AuditSettings) -> Retention {
    Retention { age: Millis::from_mins(DAY * u64::from(kept.retention_days)), entries: kept.max_entries }
}

async fn write_down(books: &Books, at_the_end: bool) {
    if let Err(error) = books.accounts.refusals().tell_the_rest(at_the_end).await {
        tracing::warn!(%error, "refusals of strangers were not written down; tried again later");
    }
    if let Err(error) = books.tokens.write_uses().await {
        tracing::warn!(%error, "the last uses of tokens were not written down; tried again later");
    }
    if let Err(error) = books.accounts.tidy_sessions().await {
        tracing::warn!(%error, "sessions that have ended were not removed; tried again later");
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::config::{Environment, SystemConfig, SystemFile};
    use crate::runtime::TokioClock;
    use crate::security::audit::{Attempt, AuditFilter, AuditLog, AuditPage, Conclusion};
    use crate::security::{Caller, HashCost, Hasher, KeyFile};
    use crate::store::Store;

    fn settings(text: &str) -> SystemConfig {
        let folder = tempfile::tempdir().unwrap();
        let file = SystemFile::new(folder.path().join("system.json"), Environment::default());
        std::fs::write(file.path(), text).unwrap();
        file.load().unwrap().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_retention_cuts_the_audit_log_at_the_next_round_and_the_rest_is_still_proven() {
        let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let any_clock: Arc<dyn Clock> = clock.clone();
        let (store, key) = (Store::in_memory().unwrap(), Arc::new(KeyFile::fixed([7; 32])));
        let audit = AuditLog::begin(store.clone(), key, any_clock.clone(), TaskTracker::new()).await.unwrap();
        let books = Books::open(store, audit.clone(), any_clock.clone(), Hasher::new(HashCost::Least)).await.unwrap();
        let (config, stop) = (LiveConfig::new(settings("{}")), CancellationToken::new());
        let keeper = TaskTracker::new();
        keeper.spawn(keep_house(books, config.clone(), any_clock, stop.clone()));
        let actions = async || {
            let entries = audit.list(AuditFilter::default(), AuditPage::After(0), 100).await.unwrap();
            entries.into_iter().map(|entry| entry.action).collect::<Vec<_>>()
        };
        let pass = async |span| clock.sleep_until(clock.now() + span).await;

        audit.record(Attempt::new(Caller::SYSTEM, "old"), Conclusion::done(None, None)).await.unwrap();
        pass(Millis::from_mins(40 * DAY)).await;
        audit.record(Attempt::new(Caller::SYSTEM, "young"), Conclusion::done(None, None)).await.unwrap();
        assert_eq!(actions().await, ["audit.begin", "old", "young"], "400 days are kept by default");

        config.accept_system(settings(r#"{"auditRetentionDays": 30}"#));
        pass(EVERY + Millis::from_secs(1)).await;
        assert_eq!(actions().await, ["young", "audit.cut"]);
        assert!(audit.verify().await.unwrap().is_ok());
        stop.cancel();
        keeper.close();
        keeper.wait().await;
    }
}
