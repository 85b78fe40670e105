//! Signing in with a password, signing out, and changing one's own password.

use std::net::IpAddr;

use rusqlite::{OptionalExtension, Transaction};
use serde_json::json;

use super::sessions::{self, Session, SessionId, SessionRecord};
use super::{AccountError, AccountRefused, Accounts, UserName, users};
use crate::engine::Millis;
use crate::security::audit::{Attempt, AuditError, Changed};
use crate::security::lockout::{Knock, Locked, network};
use crate::security::{Actor, Caller, RefusalReason};
use crate::store::StoreError;
use crate::targets::Secret;

const SIGN_IN: &str = "session.sign_in";

/// Somebody who wants to sign in.
#[derive(Debug)]
pub struct SignIn {
    /// The name that they give.
    pub name: String,
    /// The password that they give.
    pub password: Secret,
    /// Where they call from; none over the unix socket.
    pub address: Option<IpAddr>,
    /// What their browser calls itself.
    pub agent: Option<String>,
}

impl SignIn {
    /// Somebody on this machine.
    pub fn new(name: &str, password: Secret) -> Self {
        Self { name: name.to_owned(), password, address: None, agent: None }
    }
}

/// Somebody who has signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// What their browser keeps. It cannot be shown again.
    pub cookie: Secret,
    /// What it opens.
    pub session: Session,
}

/// A user as a password is checked against them.
#[derive(Clone)]
struct Found {
    id: i64,
    hash: String,
    addresses: Vec<IpAddr>,
}

impl Accounts {
    /// Opens a session for whoever knows the password. A wrong name and a wrong password are refused alike, and in the
    /// same time.
    ///
    /// # Errors
    /// It is the wrong name or password, there were too many failures, too many passwords are being checked, or it could
    /// not be written down.
    pub async fn sign_in(&self, request: SignIn) -> Result<SignedIn, AccountError> {
        let SignIn { name, password, address, agent } = request;
        let name = name.parse::<UserName>().ok();
        let stranger = Attempt::new(Caller::anonymous(address), SIGN_IN);
        let found = self.check_password(name.as_ref(), password, address, stranger).await?;
        let (Some(name), Some(found)) = (name, found) else { return Err(AccountRefused::WrongPassword.into()) };
        let by = Caller { actor: Actor::User(name.to_string()), address };
        let attempt = Attempt::new(by, SIGN_IN).on(name.as_str());
        self.open_session(attempt, found, None, address, agent).await
    }

    /// Ends a session whose user wants it so.
    ///
    /// # Errors
    /// It has ended already, or it could not be written down.
    pub async fn sign_out(&self, id: SessionId, by: Caller) -> Result<SessionRecord, AccountError> {
        self.end_session(id, None, by, "session.sign_out", None).await
    }

    /// Changes the password of the user of `session`, who has to know the one that they have. Every session of theirs
    /// ends; the answer is a new one.
    ///
    /// # Errors
    /// The old password is wrong, the new one is unfit, there were too many failures, or it could not be written down.
    pub async fn change_own_password(
        &self,
        session: &Session,
        old: Secret,
        new: Secret,
        by: Caller,
        agent: Option<String>,
    ) -> Result<SignedIn, AccountError> {
        let (name, address) = (&session.user, by.address);
        let attempt = Attempt::new(by, "user.password").on(name.as_str());
        let found = self.check_password(Some(name), old, address, attempt.clone()).await?;
        let found = found.ok_or(AccountRefused::WrongPassword)?;
        let hash = self.hash(name, new).await?;
        self.open_session(attempt, found, Some(hash), address, agent).await
    }

    /// The user of this name if this is their password. What is refused is written down as the refusal of `attempt`.
    async fn check_password(
        &self,
        name: Option<&UserName>,
        password: Secret,
        address: Option<IpAddr>,
        attempt: Attempt,
    ) -> Result<Option<Found>, AccountError> {
        let found = self.find(name.cloned()).await?;
        let familiar = |found: &Found| {
            address.is_none_or(|address| found.addresses.iter().any(|other| network(*other) == network(address)))
        };
        // What cannot be a name counts as one, and is not written down: it may be a password in the wrong field.
        let account = Some(name.map_or_else(String::new, UserName::to_string));
        let knock = Knock { account, address, familiar: found.as_ref().is_some_and(familiar) };
        let attempt = match (&attempt.key, name, &found) {
            (None, Some(name), Some(_)) => attempt.on(name.as_str()),
            _ => attempt,
        };
        self.may_knock(&knock, attempt.clone()).await?;
        let right = self.hasher.verify(password, found.as_ref().map(|found| found.hash.clone())).await;
        let right = right.inspect_err(|_| self.lockout().withdrawn(&knock))?;
        if right {
            self.lockout().succeeded(&knock);
            return Ok(found);
        }
        self.refusals.note(RefusalReason::WrongPassword, attempt, "wrong user name or password").await?;
        Ok(None)
    }

    /// Lets somebody try a secret, which counts as a failure until it is known to be none. Whoever is told to wait is
    /// written down once, not each time that they knock.
    pub(super) async fn may_knock(&self, knock: &Knock, attempt: Attempt) -> Result<(), AccountError> {
        let now = self.clock.now();
        let begun = self.lockout().begin(knock, now);
        let Err(Locked { until, first_told }) = begun else { return Ok(()) };
        let wait: Millis = until - now;
        if first_told {
            let detail = format!("locked for {} seconds after too many failures", wait.get().div_ceil(1_000));
            self.refusals.note(RefusalReason::Locked, attempt, detail).await?;
        }
        Err(AccountError::Locked { wait })
    }

    async fn find(&self, name: Option<UserName>) -> Result<Option<Found>, AccountError> {
        // Asked even for a name that cannot be one, so that it takes as long.
        let name = name.map_or_else(String::new, |name| name.to_string());
        let find = move |tx: &Transaction<'_>| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
            let found = tx.query_row("SELECT id, password FROM users WHERE name = ?1", [name], row).optional()?;
            let found =
                found.map(|(id, hash)| sessions::addresses_of(tx, id).map(|addresses| Found { id, hash, addresses }));
            found.transpose()
        };
        Ok(self.store.read::<_, StoreError>(find).await.map_err(AuditError::from)?)
    }

    /// Opens a session of a user whose password was right, unless they were removed or got another one meanwhile. With
    /// a new password, it is set first and every other session ends.
    async fn open_session(
        &self,
        attempt: Attempt,
        user: Found,
        new_hash: Option<String>,
        address: Option<IpAddr>,
        agent: Option<String>,
    ) -> Result<SignedIn, AccountError> {
        let cookie = sessions::new_cookie()?;
        let (digest, now) = (sessions::digest(cookie.expose()), self.clock.wall());
        self.change(attempt, move |tx| {
            let hash = tx.query_row("SELECT password FROM users WHERE id = ?1", [user.id], |row| row.get(0));
            if hash.optional()? != Some(user.hash) {
                return Ok(Err(AccountRefused::WrongPassword));
            }
            let ended = match new_hash {
                Some(hash) => Some(users::change_password(tx, user.id, &hash, now)?),
                None => None,
            };
            let id = sessions::insert(tx, user.id, &digest, address, agent.as_deref(), now)?;
            let sql = "UPDATE users SET last_sign_in = ?2, last_address = coalesce(?3, last_address) WHERE id = ?1";
            let text = address.map(|address| address.to_string());
            tx.execute(sql, rusqlite::params![user.id, now.as_millisecond(), text])?;
            let after = match ended {
                Some(ended) => json!({"session": id, "sessionsEnded": ended}),
                None => json!({"session": id}),
            };
            Ok(Ok(Changed { value: (), before: None, after: Some(after) }))
        })
        .await?;
        let session = self.find_session(cookie.expose()).ok_or(AccountRefused::WrongPassword)?;
        Ok(SignedIn { cookie, session })
    }
}
