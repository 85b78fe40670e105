//! The embedded database: `pulse.db` in the data folder, one writer at a time, and errors that say what to do.

mod error;
mod gate;
mod migrations;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Mutex, Semaphore};

pub use error::StoreError;
pub use gate::WriteGate;

/// The name of the database in the data folder.
pub const DATABASE: &str = "pulse.db";
/// Reads and writes that may wait for their turn; more are refused.
const MAX_WAITING: usize = 64;
/// How long another process, such as a command line, may hold the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database of one daemon. Cheap to clone.
///
/// Work runs on tokio's blocking threads, never on a thread of our own: tokio's paused clock stands still meanwhile, so
/// that a simulation on virtual time sees a write take no time.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use pulse::store::{Store, StoreError};
/// let store = Store::in_memory()?;
/// let version: u32 = store
///     .read(|tx| Ok::<_, StoreError>(tx.query_row("SELECT 1 + 1", [], |row| row.get(0))?))
///     .await?;
/// assert_eq!(version, 2);
/// # Ok::<(), StoreError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Store {
    writer: Arc<Lane>,
    reader: Arc<Lane>,
    gate: Option<Arc<dyn WriteGate>>,
    /// Where it is; none for one in memory.
    path: Option<Arc<Path>>,
}

/// One connection, and those who wait for it.
struct Lane {
    connection: Arc<Mutex<Connection>>,
    places: Semaphore,
}

impl Store {
    /// Opens the database, making it for its owner alone if it is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// The file cannot be made, read or written, is no database of ours, or a later version of Pulse wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|source| StoreError::Unusable { path: path.to_owned(), source })?;
        let mut writer = Connection::open_with_flags(path, flags())?;
        configure(&writer)?;
        // A commit is on the disk when it returns; readers never wait for a writer.
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        migrations::apply(&mut writer)?;
        let reader = Connection::open_with_flags(path, flags())?;
        configure(&reader)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self { writer: Lane::new(writer), reader: Lane::new(reader), gate: None, path: Some(path.into()) })
    }

    /// Opens a database that is there, and changes nothing of it; a daemon may be running on it.
    ///
    /// # Errors
    /// The file cannot be read, or another version of Pulse wrote it.
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open_with_flags(path, flags())?;
        configure(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        migrations::check(&connection)?;
        let lane = Lane::new(connection);
        Ok(Self { writer: Arc::clone(&lane), reader: lane, gate: None, path: Some(path.into()) })
    }

    /// A database that ends with the process, for tests and simulations.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        configure(&connection)?;
        migrations::apply(&mut connection)?;
        let lane = Lane::new(connection);
        Ok(Self { writer: Arc::clone(&lane), reader: lane, gate: None, path: None })
    }

    /// The same database by a connection of its own, for a read that takes so long that others must not wait for it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn apart(&self) -> Result<Self, StoreError> {
        self.path.as_deref().map_or_else(|| Ok(self.clone()), Self::open_to_read)
    }

    /// The same database, with somebody who may hold up or fail each write.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn WriteGate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Changes the database in one transaction, which is on the disk when this returns. `what` names the write in logs
    /// and to a [`WriteGate`]. An error of `work` undoes all that it did.
    ///
    /// Once begun, the work goes on even if the future is dropped.
    ///
    /// # Errors
    /// What `work` answers, or the database failed; nothing was changed then.
    pub async fn write<T, E>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if let Some(gate) = &self.gate {
            gate.before_write(what).await?;
        }
        let written = self.writer.work(TransactionBehavior::Immediate, work).await;
        written.inspect_err(|_: &E| tracing::debug!(what, "a write to the database was not carried out"))
    }

    /// Looks at the database as it was at one moment.
    ///
    /// # Errors
    /// What `work` answers, or the database failed.
    pub async fn read<T, E>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.reader.work(TransactionBehavior::Deferred, work).await
    }
}

/// Copies the database into the new file `target` as it is at this moment. A daemon may be writing to it meanwhile.
///
/// # Errors
/// The file cannot be read, or the copy cannot be written.
pub fn snapshot(path: &Path, target: &Path) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Unusable { path: target.to_owned(), source };
    let name = target.to_str().ok_or_else(|| unusable(std::io::ErrorKind::InvalidInput.into()))?;
    let connection = Connection::open_with_flags(path, flags())?;
    configure(&connection)?;
    make_private(target).map_err(unusable)?;
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Lane {
    fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self { connection: Arc::new(Mutex::new(connection)), places: Semaphore::new(MAX_WAITING) })
    }

    async fn work<T, E>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _place = self.places.try_acquire().map_err(|_| StoreError::Overloaded)?;
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let transaction = connection.transaction_with_behavior(behavior).map_err(StoreError::from)?;
            let value = work(&transaction)?;
            transaction.commit().map_err(StoreError::from)?;
            Ok(value)
        });
        done.await.unwrap_or_else(|_| Err(StoreError::Interrupted.into()))
    }
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// SQLite gives its other files the mode of the database.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use futures::future::BoxFuture;

    use super::*;

    async fn count(store: &Store) -> i64 {
        let count = |tx: &Transaction<'_>| Ok(tx.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?);
        store.read::<_, StoreError>(count).await.unwrap()
    }

    async fn with_notes(store: Store) -> Store {
        let make = |tx: &Transaction<'_>| Ok(tx.execute_batch("CREATE TABLE notes (text TEXT) STRICT")?);
        store.write::<_, StoreError>("test", make).await.unwrap();
        store
    }

    fn note(tx: &Transaction<'_>) -> Result<(), StoreError> {
        tx.execute("INSERT INTO notes VALUES ('x')", [])?;
        Ok(())
    }

    #[tokio::test]
    async fn the_files_are_their_owners_alone_and_what_was_written_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let store = with_notes(Store::open(&path).unwrap()).await;
        store.write("test", note).await.unwrap();
        for name in [DATABASE, "pulse.db-wal", "pulse.db-shm"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        drop(store);
        assert_eq!(count(&Store::open(&path).unwrap()).await, 1);
    }

    #[tokio::test]
    async fn an_error_undoes_the_whole_write() {
        let store = with_notes(Store::in_memory().unwrap()).await;
        let refused = store.write("test", |tx| note(tx).and(Err::<(), _>(StoreError::Overloaded))).await;
        assert!(matches!(refused, Err(StoreError::Overloaded)));
        assert_eq!(count(&store).await, 0);
    }

    #[tokio::test]
    async fn work_that_panics_changes_nothing_and_hurts_nobody_else() {
        let store = with_notes(Store::in_memory().unwrap()).await;
        let broken = store.write("test", |tx| {
            note(tx)?;
            assert!(!tx.is_autocommit(), "inside a transaction");
            panic!("as planned");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok::<(), StoreError>(())
        });
        assert!(matches!(broken.await, Err(StoreError::Interrupted)));
        store.write("test", note).await.unwrap();
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let text = "this is my diary, and no database at all".repeat(50);
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::NotOurs)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_database_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 9_999).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew { found: 9_999, .. })));
    }

    struct Full;

    impl WriteGate for Full {
        fn before_write(&self, what: &'static str) -> BoxFuture<'static, Result<(), StoreError>> {
            Box::pin(async move { if what == "test" { Err(StoreError::Full) } else { Ok(()) } })
        }
    }

    #[tokio::test]
    async fn a_gate_fails_the_writes_that_it_names_and_no_read() {
        let store = with_notes(Store::in_memory().unwrap()).await.with_gate(Arc::new(Full));
        assert!(matches!(store.write("test", note).await, Err(StoreError::Full)));
        store.write("other", note).await.unwrap();
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_stands_still_while_the_database_works() {
        let store = with_notes(Store::in_memory().unwrap()).await;
        let clock = crate::runtime::TokioClock::start();
        let alarm = crate::runtime::Clock::sleep_until(&clock, crate::engine::Timestamp::from_millis(1));
        let work = store.write("test", |tx| {
            let busy: i64 = tx.query_row(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT sum(i) FROM n",
                [],
                |row| row.get(0),
            )?;
            note(tx).map(|()| busy)
        });
        tokio::select! {
            biased;
            () = alarm => panic!("time passed while the database worked"),
            busy = work => assert_eq!(busy.unwrap(), 200_010_000),
        }
    }
}
