//! Work on the data folder of a daemon that does not run.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{Failed, runtime};
use crate::config::{DataDir, Environment, Follower, Keyring, LiveConfig, SystemConfig};
use crate::configure::{Configurator, Followers};
use crate::runtime::{Clock, TokioClock};
use crate::security::audit::AuditLog;
use crate::security::{Accounts, Books, HashCost, Hasher, TokenStore};
use crate::store::{DATABASE, Store};

/// What there is to work with.
pub(super) struct Offline {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tokens: TokenStore,
    pub(super) accounts: Accounts,
    store: Store,
    audit: AuditLog,
    folder: DataDir,
}

impl Offline {
    /// Has `work` done on the database of `folder`, which is made if it is not there.
    pub(super) fn run<T>(folder: PathBuf, work: impl AsyncFnOnce(Self) -> Result<T, Failed>) -> Result<T, Failed> {
        let folder = DataDir::open(&folder).map_err(Failed::configuration)?;
        refuse_strangers(&folder)?;
        let runtime = runtime()?;
        runtime.block_on(async {
            let store = Store::open(&folder.path().join(DATABASE)).map_err(Failed::because)?;
            let clock: Arc<dyn Clock> = Arc::new(TokioClock::start());
            let tasks = TaskTracker::new();
            let audit =
                AuditLog::open(store.clone(), folder.path(), clock.clone(), tasks).await.map_err(Failed::because)?;
            let books = Books::open(store.clone(), audit, clock.clone(), Hasher::new(HashCost::Full)).await;
            let Books { audit, tokens, accounts } = books.map_err(Failed::because)?;
            work(Self { clock, tokens, accounts, store, audit, folder }).await
        })
    }

    /// What changes the configuration, with no scheduler to follow it. It needs no valid configuration.
    pub(super) fn configurator(self, environment: &Environment) -> Result<Configurator, Failed> {
        let keys = Keyring::read_or_make(self.folder.path()).map_err(Failed::because)?;
        let follower = Follower::unread(self.folder, environment, Arc::new(keys));
        let followers = Followers { live: LiveConfig::new(SystemConfig::default()), scheduler: None };
        Ok(Configurator::new(follower, followers, self.store, self.clock, self.audit))
    }
}

/// Files that root makes here could not be read by the daemon.
pub(super) fn refuse_strangers(folder: &DataDir) -> Result<(), Failed> {
    let owner = folder.path().metadata().map_err(Failed::because)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let account = crate::security::account_name(owner);
    Err(Failed::because(format!(
        "no daemon runs, and its data folder {} belongs to {account}: run this as {account}, as in `sudo -u {account} pulse …`",
        folder.path().display()
    )))
}
