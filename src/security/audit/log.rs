//! Writing the log: what is over, what changes the database, and what changes the world.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::AuditError;
use super::chain::{self, EndOfChain, Found, GENESIS, Head, Line};
use super::entry::{Attempt, Conclusion, Kind, Outcome};
use super::verify::{Fault, Proven, verify};
use crate::engine::Millis;
use crate::runtime::Clock;
use crate::security::{Caller, KeyFile};
use crate::store::{Store, StoreError};

/// The name of the key file in the data folder.
pub const AUDIT_KEY: &str = "audit.key";
/// How long a caller waits for the log before they are told that it hangs, and, once their call is carried out, before
/// they are told so although its outcome is yet to be written.
const PATIENCE: Millis = Millis::from_secs(10);

/// The audit log of one daemon. Cheap to clone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use std::sync::Arc;
/// use pulse::security::audit::{Attempt, AuditFilter, AuditLog, Conclusion, verify};
/// use pulse::security::{Caller, KeyFile};
/// # use pulse::{runtime::TokioClock, store::Store};
/// # let (store, clock) = (Store::in_memory()?, Arc::new(TokioClock::start()));
/// let key = Arc::new(KeyFile::fixed([7; 32]));
/// let log = AuditLog::begin(store.clone(), key.clone(), clock, Default::default()).await?;
/// let attempt = Attempt::new(Caller::SYSTEM, "door.open").on("front");
/// let opened = log.carry_out(attempt, async { ("open", Conclusion::done(None, None)) }).await?;
/// assert_eq!(opened, "open");
/// assert_eq!(verify(&store, key, vec![]).await?.unwrap().last, 3, "the beginning, the intent, the outcome");
/// # Ok::<(), pulse::security::audit::AuditError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct AuditLog {
    pub(super) store: Store,
    pub(super) key: Arc<KeyFile>,
    pub(super) clock: Arc<dyn Clock>,
    /// Outcomes of what was carried out that the disk did not take. They go before the next entry.
    owed: Arc<Mutex<Vec<Line>>>,
    tasks: TaskTracker,
}

/// A change of the database, with what the log tells of it.
#[derive(Debug)]
pub struct Changed<T> {
    /// What the caller is told.
    pub value: T,
    /// The state before.
    pub before: Option<Value>,
    /// The state after.
    pub after: Option<Value>,
}

impl AuditLog {
    /// The log in `store`, sealed with `audit.key` of the data folder, which is made if the log is yet to begin.
    ///
    /// `tasks` are those that the daemon waits for at its end.
    ///
    /// # Errors
    /// The key or the database cannot be used, or they do not fit together.
    pub async fn open(
        store: Store,
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Result<Self, AuditError> {
        let path = data_dir.join(AUDIT_KEY);
        let began = |tx: &Transaction<'_>| Ok(tx.query_row("SELECT 1 FROM audit_head", [], |_| Ok(())).optional()?);
        let began = store.read::<_, StoreError>(began).await?.is_some();
        let key = match path.try_exists() {
            Ok(false) if !began => KeyFile::make(&path)?,
            _ => KeyFile::read(&path)?,
        };
        Self::begin(store, Arc::new(key), clock, tasks).await
    }

    /// The log in `store`, sealed with `key`. Writes the first entry if there is none, and gives intents that the last
    /// run left without an outcome the outcome *unknown*.
    ///
    /// # Errors
    /// The log was not sealed with this key.
    pub async fn begin(
        store: Store,
        key: Arc<KeyFile>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Result<Self, AuditError> {
        let log = Self { store, key, clock, owed: Arc::default(), tasks };
        let key = Arc::clone(&log.key);
        let look = move |tx: &Transaction<'_>| {
            let head = chain::find(tx, &key, EndOfChain::Head)?;
            let rows: bool = tx.query_row("SELECT EXISTS (SELECT 1 FROM audit)", [], |row| row.get(0))?;
            let mut open = tx.prepare(
                "SELECT seq, actor, address, action, key, reason FROM audit_open JOIN audit USING (seq) ORDER BY seq",
            )?;
            let open: Vec<Line> = open.query_map([], line_of_intent)?.collect::<Result<_, _>>()?;
            Ok::<_, StoreError>((head, rows, open))
        };
        match log.store.read(look).await? {
            (Found::Sealed(_), _, open) => log.close_open_intents(open).await,
            (Found::Missing, false, _) => log.write_first_entry().await?,
            _ => return Err(AuditError::HeadBroken),
        }
        Ok(log)
    }

    /// Proves the log as it is at this moment, beside whatever else reads it. Takes seconds for a million entries.
    ///
    /// # Errors
    /// The database failed; inside, the first fault.
    pub async fn verify(&self) -> Result<Result<Proven, Fault>, StoreError> {
        verify(&self.store.apart()?, Arc::clone(&self.key), Vec::new()).await
    }

    async fn write_first_entry(&self) -> Result<(), AuditError> {
        let line =
            self.line(&Attempt::new(Caller::SYSTEM, "audit.begin"), Kind::Event, Some(Conclusion::done(None, None)));
        let key = Arc::clone(&self.key);
        let head = self.store.write("audit.begin", move |tx| {
            chain::set_head(tx, &key, &Head { seq: 0, hash: GENESIS })?;
            chain::append(tx, &key, &line).map(|head| (head, line))
        });
        let (head, line) = head.await?;
        tell(&head, &line);
        Ok(())
    }

    async fn close_open_intents(&self, open: Vec<Line>) {
        if open.is_empty() {
            return;
        }
        let Conclusion { outcome, detail, .. } = Conclusion::unknown();
        for intent in open {
            let (outcome, detail) = (Some(outcome.as_str().to_owned()), detail.clone());
            self.owe(Line { at: self.clock.wall().as_millisecond(), outcome, detail, ..intent });
        }
        if let Err(error) = self.settle().await {
            tracing::warn!(%error, "outcomes of the last run are yet to be written to the audit log");
        }
    }

    /// Writes down something that is over, or that was refused.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn record(&self, attempt: Attempt, conclusion: Conclusion) -> Result<Head, AuditError> {
        let line = self.line(&attempt, Kind::Event, Some(conclusion));
        self.write("audit.event", move |_| Ok((line, ()))).await.map(|(head, ())| head)
    }

    /// Changes the database and writes down that it was done, both or neither. A refusal undoes what `work` did and is
    /// written down too.
    ///
    /// # Errors
    /// The database failed, and nothing was changed; inside, the refusal.
    pub async fn transact<T, R>(
        &self,
        attempt: Attempt,
        work: impl FnOnce(&Transaction<'_>) -> Result<Result<Changed<T>, R>, StoreError> + Send + 'static,
    ) -> Result<Result<T, R>, AuditError>
    where
        T: Send + 'static,
        R: std::fmt::Display + Send + 'static,
    {
        let at = self.clock.wall().as_millisecond();
        let written = self.write("audit.transact", move |tx| {
            tx.execute_batch("SAVEPOINT work").map_err(StoreError::from)?;
            let (answer, conclusion) = match work(tx)? {
                Ok(Changed { value, before, after }) => (Ok(value), Conclusion::done(before, after)),
                Err(refusal) => {
                    tx.execute_batch("ROLLBACK TO work").map_err(StoreError::from)?;
                    let conclusion = Conclusion::refused(&refusal);
                    (Err(refusal), conclusion)
                }
            };
            tx.execute_batch("RELEASE work").map_err(StoreError::from)?;
            Ok((line(at, &attempt, Kind::Event, Some(conclusion)), answer))
        });
        written.await.map(|(_, answer)| answer)
    }

    /// Writes the intent, has `effect` done, and writes its outcome, in this order. If the intent cannot be written in
    /// time, or whoever asked has left by then, the effect is not begun.
    ///
    /// Once begun it is seen through, whoever leaves. An outcome that the disk does not take is kept and goes before the
    /// next entry; until then nothing further is carried out.
    ///
    /// # Errors
    /// The intent could not be written, and nothing was done; or the effect itself broke off.
    pub async fn carry_out<T: Send + 'static>(
        &self,
        attempt: Attempt,
        effect: impl Future<Output = (T, Conclusion)> + Send + 'static,
    ) -> Result<T, AuditError> {
        let (reply, answer) = oneshot::channel();
        let log = self.clone();
        self.tasks.spawn(async move { log.see_through(attempt, effect, reply).await });
        answer.await.unwrap_or(Err(AuditError::BrokeOff))
    }

    /// Runs `work` to its end even if whoever waits for it leaves; the daemon waits for it when it stops. `None` if it
    /// panicked.
    pub async fn to_the_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.tasks.spawn(work).await.ok()
    }

    async fn see_through<T>(
        self,
        attempt: Attempt,
        effect: impl Future<Output = (T, Conclusion)> + Send,
        reply: oneshot::Sender<Result<T, AuditError>>,
    ) {
        let line = self.line(&attempt, Kind::Intent, None);
        let intent = match self.write("audit.intent", move |_| Ok((line, ()))).await {
            Ok((head, ())) => head.seq,
            // Whoever asked may be gone by now.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (answer, conclusion) = if reply.is_closed() {
            (Err(AuditError::TooSlow), Conclusion::refused("whoever asked had left before it was begun"))
        } else {
            match AssertUnwindSafe(effect).catch_unwind().await {
                Ok((value, conclusion)) => (Ok(value), conclusion),
                Err(_) => (Err(AuditError::BrokeOff), Conclusion::failed("it broke; the daemon's log tells more")),
            }
        };
        self.owe(Line { intent: Some(intent), ..self.line(&attempt, Kind::Outcome, Some(conclusion)) });
        let mut settled = std::pin::pin!(self.settle());
        let in_time = tokio::select! {
            biased;
            settled = settled.as_mut() => Some(settled),
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => None,
        };
        let _ = reply.send(answer);
        let settled = match in_time {
            Some(settled) => settled,
            None => settled.await,
        };
        if let Err(error) = settled {
            tracing::error!(%error, intent, "the outcome of a call is yet to be written to the audit log");
        }
    }

    /// Adds the entry that `work` answers with, in the transaction of its changes. Whoever waits gives up after a
    /// while, and then nothing is changed even if the disk comes back.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<(Line, T), AuditError> + Send + 'static,
    ) -> Result<(Head, T), AuditError> {
        let log = self.clone();
        let decided = Arc::new(AtomicBool::new(false));
        let by_the_writer = Arc::clone(&decided);
        let mut written = std::pin::pin!(self.store.write(what, move |tx| {
            let mut entries = log.append_owed(tx)?;
            let (line, value) = work(tx)?;
            let head = chain::append(tx, &log.key, &line)?;
            entries.push((head, line));
            if by_the_writer.swap(true, Ordering::SeqCst) {
                return Err(AuditError::TooSlow);
            }
            Ok((entries, head, value))
        }));
        let done = tokio::select! {
            biased;
            done = written.as_mut() => done,
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => match decided.swap(true, Ordering::SeqCst) {
                // It is being committed, and only the disk knows how that ends.
                true => written.await,
                false => Err(AuditError::TooSlow),
            },
        };
        let (entries, head, value) = done?;
        self.written(&entries);
        Ok((head, value))
    }

    fn owe(&self, outcome: Line) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    }

    /// Writes the outcomes that are owed.
    async fn settle(&self) -> Result<(), AuditError> {
        let log = self.clone();
        let entries = self.store.write("audit.outcome", move |tx| log.append_owed(tx)).await?;
        self.written(&entries);
        Ok(())
    }

    /// Adds the outcomes that are owed. They stay so until [`Self::written`] knows that they are on the disk; an intent
    /// that has its outcome already is passed over.
    fn append_owed(&self, tx: &Transaction<'_>) -> Result<Vec<(Head, Line)>, AuditError> {
        let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut entries = Vec::with_capacity(owed.len() + 1);
        for line in owed {
            let closed =
                tx.execute("DELETE FROM audit_open WHERE seq = ?1", [line.intent]).map_err(StoreError::from)?;
            if closed == 1 {
                entries.push((chain::append(tx, &self.key, &line)?, line));
            }
        }
        Ok(entries)
    }

    /// These entries are on the disk.
    fn written(&self, entries: &[(Head, Line)]) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.retain(|line| !entries.iter().any(|(_, entry)| entry.intent.is_some() && entry.intent == line.intent));
        drop(owed);
        for (head, line) in entries {
            tell(head, line);
        }
    }

    fn line(&self, attempt: &Attempt, kind: Kind, conclusion: Option<Conclusion>) -> Line {
        line(self.clock.wall().as_millisecond(), attempt, kind, conclusion)
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").finish_non_exhaustive()
    }
}

fn line(at: i64, attempt: &Attempt, kind: Kind, conclusion: Option<Conclusion>) -> Line {
    let text = |value: Value| value.to_string();
    let (outcome, detail, before, after) = match conclusion {
        Some(Conclusion { outcome, detail, before, after }) => (Some(outcome), detail, before, after),
        None => (None, None, None, None),
    };
    Line {
        at,
        kind: kind.as_str().to_owned(),
        intent: None,
        actor: attempt.by.actor.to_string(),
        address: attempt.by.address.map(|address| address.to_string()),
        action: attempt.action.to_owned(),
        key: attempt.key.clone(),
        reason: attempt.reason.clone(),
        outcome: outcome.map(|outcome| Outcome::as_str(outcome).to_owned()),
        detail,
        before: before.map(text),
        after: after.map(text),
    }
}

/// The outcome that an intent is owed, still without saying what it was.
fn line_of_intent(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        at: 0,
        kind: Kind::Outcome.as_str().to_owned(),
        intent: row.get(0)?,
        actor: row.get(1)?,
        address: row.get(2)?,
        action: row.get(3)?,
        key: row.get(4)?,
        reason: row.get(5)?,
        outcome: None,
        detail: None,
        before: None,
        after: None,
    })
}

/// The log line of an entry. Its number and hash, kept elsewhere, prove later that the log was not rewritten.
fn tell(head: &Head, line: &Line) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    tracing::info!(
        target: "pulse::audit",
        seq = head.seq,
        hash = %chain::hex(&head.hash),
        kind = %line.kind,
        actor = %line.actor,
        address = %text(&line.address),
        action = %line.action,
        key = %text(&line.key),
        outcome = %text(&line.outcome),
        "audit"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::future::BoxFuture;

    use super::*;
    use crate::runtime::TokioClock;
    use crate::security::Actor;
    use crate::security::audit::{Proven, verify};
    use crate::store::WriteGate;

    fn key() -> Arc<KeyFile> {
        Arc::new(KeyFile::fixed([7; 32]))
    }

    fn clock() -> Arc<dyn Clock> {
        Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()))
    }

    async fn log(store: &Store) -> AuditLog {
        AuditLog::begin(store.clone(), key(), clock(), TaskTracker::new()).await.unwrap()
    }

    fn attempt() -> Attempt {
        let alice = Caller { actor: Actor::User("alice".into()), address: Some([10, 0, 0, 1].into()) };
        Attempt::new(alice, "breaker.reset").on("pve::a").because(Some("mended".into()))
    }

    async fn proven(store: &Store) -> Proven {
        verify(store, key(), vec![]).await.unwrap().unwrap()
    }

    async fn outcomes(store: &Store) -> Vec<Option<String>> {
        let all = |tx: &Transaction<'_>| {
            let mut select = tx.prepare("SELECT outcome FROM audit WHERE seq > 1 ORDER BY seq")?;
            Ok(select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        store.read::<_, StoreError>(all).await.unwrap()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// Fails, or holds up for ever, the writes from `from` on, until it is opened.
    struct Disk {
        what: &'static str,
        hangs: bool,
        open: AtomicBool,
        met: AtomicUsize,
    }

    impl Disk {
        fn shut(what: &'static str, hangs: bool) -> Arc<Self> {
            Arc::new(Self { what, hangs, open: AtomicBool::new(false), met: AtomicUsize::new(0) })
        }
    }

    impl WriteGate for Disk {
        fn before_write(&self, what: &'static str) -> BoxFuture<'static, Result<(), StoreError>> {
            if self.open.load(Ordering::SeqCst) || what != self.what {
                return Box::pin(async { Ok(()) });
            }
            self.met.fetch_add(1, Ordering::SeqCst);
            if self.hangs { Box::pin(std::future::pending()) } else { Box::pin(async { Err(StoreError::Full) }) }
        }
    }

    #[tokio::test]
    async fn an_action_is_an_intent_and_then_its_outcome_with_the_state_before_and_after() {
        let store = Store::in_memory().unwrap();
        let log = log(&store).await;
        let looked = store.clone();
        let effect = async move {
            assert_eq!(outcomes(&looked).await, [None], "the intent is there before anything is done");
            (5, Conclusion::done(Some("open".into()), Some("closed".into())))
        };
        assert_eq!(log.carry_out(attempt(), effect).await.unwrap(), 5);
        assert_eq!(outcomes(&store).await, [None, some("done")]);
        assert_eq!(proven(&store).await.last, 3);
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_done() {
        let store = Store::in_memory().unwrap();
        log(&store).await;
        let disk = Disk::shut("audit.intent", false);
        let log = log(&store.clone().with_gate(disk.clone())).await;
        let effect = async { panic!("it must not be begun") };
        let refused = log.carry_out::<()>(attempt(), effect).await;
        assert!(matches!(refused, Err(AuditError::Store(StoreError::Full))));
        disk.open.store(true, Ordering::SeqCst);
        log.carry_out(attempt(), async { ((), Conclusion::done(None, None)) }).await.unwrap();
        assert_eq!(outcomes(&store).await, [None, some("done")], "and it goes on without a restart");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_given_up_in_time_and_nothing_is_done_when_it_comes_back() {
        let store = Store::in_memory().unwrap();
        log(&store).await;
        let log = log(&store.clone().with_gate(Disk::shut("audit.intent", true))).await;
        let effect = async { panic!("it must not be begun") };
        let began = log.clock.now();
        assert!(matches!(log.carry_out::<()>(attempt(), effect).await, Err(AuditError::TooSlow)));
        assert_eq!(log.clock.now(), began + PATIENCE);
        assert!(outcomes(&store).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_that_the_disk_does_not_take_goes_before_the_next_entry() {
        for hangs in [false, true] {
            let store = Store::in_memory().unwrap();
            log(&store).await;
            let disk = Disk::shut("audit.outcome", hangs);
            let log = log(&store.clone().with_gate(disk.clone())).await;
            let done = async { ("first", Conclusion::done(None, None)) };
            assert_eq!(
                log.carry_out(attempt(), done).await.unwrap(),
                "first",
                "it was done, and its intent is written"
            );
            assert_eq!(outcomes(&store).await, [None]);
            log.record(attempt(), Conclusion::refused("no")).await.unwrap();
            assert_eq!(outcomes(&store).await, [None, some("done"), some("refused")]);
            assert_eq!(proven(&store).await.last, 4);
        }
    }

    #[tokio::test]
    async fn an_intent_that_the_last_run_left_open_is_closed_as_unknown() {
        let store = Store::in_memory().unwrap();
        let first = log(&store).await;
        let line = first.line(&attempt(), Kind::Intent, None);
        first.write("audit.intent", move |_| Ok((line, ()))).await.unwrap();
        log(&store).await;
        assert_eq!(outcomes(&store).await, [None, some("unknown")]);
        log(&store).await;
        assert_eq!(proven(&store).await.last, 3, "and only once");
    }

    #[tokio::test]
    async fn a_call_that_breaks_is_told_as_failed() {
        let store = Store::in_memory().unwrap();
        let log = log(&store).await;
        let broken = log.carry_out::<()>(attempt(), async { panic!("as planned") }).await;
        assert!(matches!(broken, Err(AuditError::BrokeOff)));
        assert_eq!(outcomes(&store).await, [None, some("failed")]);
    }

    #[tokio::test]
    async fn a_change_of_the_database_and_its_entry_are_both_there_or_neither() {
        let store = Store::in_memory().unwrap();
        let log = log(&store).await;
        let insert =
            |tx: &Transaction<'_>| tx.execute("INSERT INTO audit_open VALUES (99)", []).map_err(StoreError::from);
        let refused = log.transact::<(), _>(attempt(), move |tx| insert(tx).map(|_| Err("taken"))).await.unwrap();
        assert_eq!(refused, Err("taken"));
        assert_eq!(outcomes(&store).await, [some("refused")]);
        let broken = log.transact::<(), &str>(attempt(), move |tx| insert(tx).and(Err(StoreError::Full))).await;
        assert!(matches!(broken, Err(AuditError::Store(StoreError::Full))));
        let changed = Changed { value: 1, before: None, after: None };
        let changed = move |tx: &Transaction<'_>| insert(tx).map(|_| Ok(changed));
        assert_eq!(log.transact::<_, &str>(attempt(), changed).await.unwrap(), Ok(1));
        assert_eq!(outcomes(&store).await, [some("refused"), some("done")]);
        let open = |tx: &Transaction<'_>| Ok(tx.query_row("SELECT count(*) FROM audit_open", [], |row| row.get(0))?);
        assert_eq!(store.read::<i64, StoreError>(open).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_log_is_not_continued_with_another_key() {
        let store = Store::in_memory().unwrap();
        log(&store).await;
        let other = Arc::new(KeyFile::fixed([8; 32]));
        let refused = AuditLog::begin(store, other, clock(), TaskTracker::new()).await;
        assert!(matches!(refused, Err(AuditError::HeadBroken)));
    }

    #[tokio::test]
    async fn a_key_that_is_gone_is_not_replaced_while_there_is_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_memory().unwrap();
        AuditLog::open(store.clone(), folder.path(), clock(), TaskTracker::new()).await.unwrap();
        std::fs::remove_file(folder.path().join(AUDIT_KEY)).unwrap();
        let refused = AuditLog::open(store, folder.path(), clock(), TaskTracker::new()).await;
        assert!(matches!(refused, Err(AuditError::Key(_))));
        assert!(!folder.path().join(AUDIT_KEY).exists());
    }
}
