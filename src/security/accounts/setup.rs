//! The first start: a token that is printed once and makes the first admin.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{AccountError, AccountRefused, Accounts, NewUser, UserName, UserRecord, sessions, users};
use crate::engine::Millis;
use crate::security::audit::{Attempt, AuditError, Changed};
use crate::security::lockout::Knock;
use crate::security::random::random_bytes;
use crate::security::{Caller, RefusalReason, Role};
use crate::store::StoreError;
use crate::targets::Secret;

/// How long the token is good for. A restart makes another one.
const SETUP_TOKEN_LIVES: Millis = Millis::from_mins(60);
const PREFIX: &str = "setup_";

impl Accounts {
    /// Makes a setup token in the place of any that was made before.
    ///
    /// # Errors
    /// There is a user already ([`AccountRefused::WrongSetupToken`]), or it could not be written down.
    pub async fn make_setup_token(&self) -> Result<Secret, AccountError> {
        let token = Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes()?)));
        let digest = sessions::digest(token.expose());
        let lives = i64::try_from(SETUP_TOKEN_LIVES.get()).unwrap_or(i64::MAX);
        let end = self.clock.wall().as_millisecond().saturating_add(lives);
        self.change(Attempt::new(Caller::SYSTEM, "setup.offer"), move |tx| {
            if users::count(tx)? > 0 {
                return Ok(Err(AccountRefused::WrongSetupToken));
            }
            forget(tx)?;
            tx.execute("INSERT INTO setup (id, sha256, expires_at) VALUES (1, ?1, ?2)", params![digest, end])?;
            let after = json!({"expiresAt": jiff::Timestamp::from_millisecond(end).ok()});
            Ok(Ok(Changed { value: (), before: None, after: Some(after) }))
        })
        .await?;
        Ok(token)
    }

    /// Makes the first admin. The token is good for this once.
    ///
    /// # Errors
    /// The token is wrong, used or too old; the name or the password is unfit, and the token stays good; there were too
    /// many failures; or it could not be written down.
    pub async fn set_up(
        &self,
        token: &Secret,
        name: String,
        password: Secret,
        by: Caller,
    ) -> Result<UserRecord, AccountError> {
        let knock = Knock { account: None, address: by.address, familiar: false };
        let attempt = Attempt::new(by.clone(), "setup.complete");
        self.may_knock(&knock, attempt.clone()).await?;
        let (given, now) = (sessions::digest(token.expose()), self.clock.wall());
        // Looked at before a hash is made, so that guesses cost little; and again when the user is added.
        let fits = self.store.read::<_, StoreError>(move |tx| fits(tx, &given, now)).await.map_err(AuditError::from)?;
        if !fits {
            let refused = AccountRefused::WrongSetupToken;
            self.refusals.note(RefusalReason::WrongSetupToken, attempt, &refused).await?;
            return Err(refused.into());
        }
        let prepared = self.prepare(NewUser { name, role: Role::Admin, password }).await;
        self.lockout().succeeded(&knock);
        let (name, hash) = prepared?;
        self.change(attempt, move |tx| {
            if !self::fits(tx, &given, now)? {
                return Ok(Err(AccountRefused::WrongSetupToken));
            }
            forget(tx)?;
            let user = users::insert(tx, name, Role::Admin, &hash, now, by.actor.to_string())?;
            let after = json!({"user": user.name, "role": user.role});
            Ok(Ok(Changed { value: user, before: None, after: Some(after) }))
        })
        .await
    }

    async fn prepare(&self, new: NewUser) -> Result<(UserName, String), AccountError> {
        let name: UserName = new.name.parse()?;
        let hash = self.hash(&name, new.password).await?;
        Ok((name, hash))
    }
}

/// No setup token is good from now on.
pub(super) fn forget(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM setup", [])?;
    Ok(())
}

fn fits(tx: &Transaction<'_>, given: &[u8; 32], now: jiff::Timestamp) -> Result<bool, StoreError> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, i64>(1)?));
    let kept = tx.query_row("SELECT sha256, expires_at FROM setup", [], row).optional()?;
    let fits = kept.is_some_and(|(digest, end)| bool::from(digest.ct_eq(given)) && now.as_millisecond() < end);
    Ok(fits && users::count(tx)? == 0)
}
