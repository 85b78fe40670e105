//! Users, their sessions, and the ways to sign in.

mod sessions;
mod setup;
mod sign_in;
mod users;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rusqlite::Transaction;
use thiserror::Error;

use super::audit::{Attempt, AuditError, AuditLog, Changed};
use super::lockout::Lockout;
use super::password::{HashError, Hasher, UnfitPassword};
use super::random::NoRandomness;
use super::refusals::Refusals;
use crate::engine::Millis;
use crate::runtime::Clock;
use crate::store::{Store, StoreError};

pub use sessions::{Session, SessionId, SessionRecord, SessionRules};
pub use sign_in::{SignIn, SignedIn};
pub use users::{NewUser, UserName, UserRecord};

/// The users of one daemon and their sessions. Cheap to clone; finding a session takes no lock and no disk.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use pulse::{runtime::TokioClock, store::Store, targets::Secret};
/// # use pulse::security::{audit::AuditLog, HashCost, Hasher, KeyFile};
/// use pulse::security::{Accounts, Caller, NewUser, Role, SignIn};
/// # let (store, clock) = (Store::in_memory()?, Arc::new(TokioClock::start()));
/// # let key = Arc::new(KeyFile::fixed([7; 32]));
/// # let audit = AuditLog::begin(store.clone(), key, clock.clone(), Default::default()).await?;
/// let accounts = Accounts::load(store, audit, clock, Hasher::new(HashCost::Full)).await?;
/// let password = || Secret::new("four words in a row".to_owned());
/// let alice = NewUser { name: "alice".to_owned(), role: Role::Operator, password: password() };
/// accounts.add(alice, Caller::of_process(), None).await?;
/// let signed_in = accounts.sign_in(SignIn::new("alice", password())).await?;
/// let session = accounts.find_session(signed_in.cookie.expose()).expect("it was just made");
/// assert_eq!(session.role, Role::Operator);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    hasher: Hasher,
    rules: SessionRules,
    sessions: Arc<ArcSwap<sessions::Table>>,
    lockout: Arc<Mutex<Lockout>>,
    refusals: Refusals,
    /// Held from a change of the database until the table of sessions shows it.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// Why something about users or sessions was not done.
#[derive(Debug, Error)]
pub enum AccountError {
    /// What was asked for cannot be had.
    #[error(transparent)]
    Refused(#[from] AccountRefused),
    /// Too many failures.
    #[error("there were too many failures; try again in {} seconds", .wait.get().div_ceil(1_000))]
    Locked {
        /// For how long.
        wait: Millis,
    },
    /// It could not be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The password could not be checked.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The system has no randomness to give.
    #[error("{0} for a secret")]
    NoRandomness(#[from] NoRandomness),
}

/// Why what was asked for cannot be had. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccountRefused {
    /// The user or the password is wrong; which of them is not said.
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// The setup token is wrong, was used, or is too old.
    #[error(
        "the setup token is wrong, was used already, or is too old; a restart of the daemon prints another one as long \
         as there is no user, and `pulse user add` on the daemon's machine needs none"
    )]
    WrongSetupToken,
    /// The name is unfit.
    #[error(
        "the name of a user has 1 to 64 characters, each a letter from a to z, a digit, or one of . _ - @, and begins with a letter or digit"
    )]
    BadName,
    /// The password is unfit.
    #[error(transparent)]
    BadPassword(#[from] UnfitPassword),
    /// The name is taken.
    #[error("there is a user named {0} already; choose another name")]
    NameTaken(UserName),
    /// There is none.
    #[error("there is no user of this name")]
    UnknownUser,
    /// There is none.
    #[error("there is no such session; it may have ended")]
    UnknownSession,
    /// Nobody would be left.
    #[error("{0} is the last admin; make another one first")]
    LastAdmin(UserName),
    /// There are too many.
    #[error("there are {} users already; remove some first", users::MAX_USERS)]
    TooMany,
}

impl Accounts {
    /// The users and sessions in `store`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn load(
        store: Store,
        audit: AuditLog,
        clock: Arc<dyn Clock>,
        hasher: Hasher,
    ) -> Result<Self, StoreError> {
        let table = store.read(sessions::read_all).await?;
        Ok(Self {
            store,
            refusals: Refusals::new(audit.clone(), Arc::clone(&clock)),
            audit,
            clock,
            hasher,
            rules: SessionRules::default(),
            sessions: Arc::new(ArcSwap::from_pointee(table)),
            lockout: Arc::default(),
            changing: Arc::default(),
        })
    }

    /// The same with other ends of sessions.
    #[must_use]
    pub fn with_rules(mut self, rules: SessionRules) -> Self {
        self.rules = rules;
        self
    }

    /// Strangers who were turned away, here and at every other door.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Changes the database and then the table of sessions, whoever leaves meanwhile.
    async fn change<T: Send + 'static>(
        &self,
        attempt: Attempt,
        work: impl FnOnce(&Transaction<'_>) -> Result<Result<Changed<T>, AccountRefused>, StoreError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let accounts = self.clone();
        let change = async move {
            let _alone = accounts.changing.lock().await;
            let value = accounts.audit.transact(attempt, work).await??;
            accounts.reload().await.map_err(AuditError::from)?;
            Ok(value)
        };
        self.audit.to_the_end(change).await.unwrap_or(Err(AuditError::BrokeOff.into()))
    }

    /// Shows the sessions as the database has them now. Whoever calls it holds [`Self::changing`].
    async fn reload(&self) -> Result<(), StoreError> {
        let mut table = self.store.read(sessions::read_all).await?;
        for (digest, session) in self.sessions.load().iter() {
            if let Some(same) = table.get_mut(digest) {
                *same = Arc::clone(session);
            }
        }
        self.sessions.store(Arc::new(table));
        Ok(())
    }

    fn lockout(&self) -> std::sync::MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}
