//! Users: their names, roles and passwords. There is always an admin left once there was one.

use std::fmt;
use std::str::FromStr;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{AccountError, AccountRefused, Accounts, sessions, setup};
use crate::security::audit::{Attempt, AuditError, Changed};
use crate::security::password::NewPassword;
use crate::security::{Caller, Role};
use crate::store::StoreError;
use crate::targets::Secret;

pub(super) const MAX_USERS: u32 = 500;
const MAX_NAME: usize = 64;

/// The name of a user: in small letters, so that nobody can pass for another by a capital.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct UserName(String);

impl UserName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = AccountRefused;

    fn from_str(text: &str) -> Result<Self, AccountRefused> {
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let fits = text.chars().all(|it| it.is_ascii_alphanumeric() || ".-_@".contains(it));
        if begins_well && fits && text.len() <= MAX_NAME {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(AccountRefused::BadName)
        }
    }
}

impl TryFrom<String> for UserName {
    type Error = AccountRefused;

    fn try_from(text: String) -> Result<Self, AccountRefused> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

/// A user to add.
#[derive(Debug)]
pub struct NewUser {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Their password.
    pub password: Secret,
}

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserRecord {
    /// Their name.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// When they were added. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// Who added them.
    pub created_by: String,
    /// When their password was last set.
    #[schema(value_type = String, format = DateTime)]
    pub password_set_at: jiff::Timestamp,
    /// When they last signed in; `null` for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_sign_in: Option<jiff::Timestamp>,
}

impl Accounts {
    /// Every user, in the order of their names.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self) -> Result<Vec<UserRecord>, AccountError> {
        let all = |tx: &Transaction<'_>| {
            let mut select = tx.prepare(&format!("SELECT {COLUMNS} FROM users ORDER BY name"))?;
            let users = select.query_map([], of_row)?.collect::<Result<Vec<_>, _>>()?;
            Ok(users)
        };
        Ok(self.store.read::<_, StoreError>(all).await.map_err(AuditError::from)?)
    }

    /// Whether there is any user.
    ///
    /// # Errors
    /// The database failed.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        self.store.read(|tx| Ok(count(tx)? == 0)).await
    }

    /// Adds a user. From then on no setup token opens anything.
    ///
    /// # Errors
    /// The name or the password is unfit, the name is taken, there are too many, or it could not be written down.
    pub async fn add(&self, new: NewUser, by: Caller, reason: Option<String>) -> Result<UserRecord, AccountError> {
        let (name, role) = (new.name.parse::<UserName>()?, new.role);
        let hash = self.hash(&name, new.password).await?;
        let (now, created_by) = (self.clock.wall(), by.actor.to_string());
        let attempt = Attempt::new(by, "user.add").on(name.as_str()).because(reason);
        self.change(attempt, move |tx| {
            if let Some(refused) = no_room_for(tx, &name)? {
                return Ok(Err(refused));
            }
            setup::forget(tx)?;
            let user = insert(tx, name, role, &hash, now, created_by)?;
            Ok(Ok(Changed { value: user, before: None, after: Some(json!({"role": role})) }))
        })
        .await
    }

    /// Sets the password of a user, whose sessions end.
    ///
    /// # Errors
    /// There is no such user, the password is unfit, or it could not be written down.
    pub async fn set_password(
        &self,
        name: &str,
        password: Secret,
        by: Caller,
        reason: Option<String>,
    ) -> Result<UserRecord, AccountError> {
        let name: UserName = name.parse().map_err(|_| AccountRefused::UnknownUser)?;
        let hash = self.hash(&name, password).await?;
        let now = self.clock.wall();
        let attempt = Attempt::new(by, "user.password").on(name.as_str()).because(reason);
        self.change(attempt, move |tx| {
            let Some(id) = id_of(tx, &name)? else { return Ok(Err(AccountRefused::UnknownUser)) };
            let ended = change_password(tx, id, &hash, now)?;
            let after = json!({"sessionsEnded": ended});
            Ok(Ok(Changed { value: record(tx, id)?, before: None, after: Some(after) }))
        })
        .await
    }

    /// Gives a user another role, and ends their sessions, which had the old one.
    ///
    /// # Errors
    /// There is no such user, they are the last admin, or it could not be written down.
    pub async fn set_role(
        &self,
        name: &str,
        role: Role,
        by: Caller,
        reason: Option<String>,
    ) -> Result<UserRecord, AccountError> {
        let name: UserName = name.parse().map_err(|_| AccountRefused::UnknownUser)?;
        let attempt = Attempt::new(by, "user.role").on(name.as_str()).because(reason);
        self.change(attempt, move |tx| {
            let Some(id) = id_of(tx, &name)? else { return Ok(Err(AccountRefused::UnknownUser)) };
            let before = record(tx, id)?;
            if before.role == role {
                return Ok(Ok(Changed { value: before, before: None, after: Some(json!({"role": role})) }));
            }
            if role != Role::Admin && is_last_admin(tx, id)? {
                return Ok(Err(AccountRefused::LastAdmin(name)));
            }
            tx.execute("UPDATE users SET role = ?2 WHERE id = ?1", params![id, role.as_str()])?;
            let ended = sessions::end_all_of(tx, id)?;
            let after = json!({"role": role, "sessionsEnded": ended});
            let before = Some(json!({"role": before.role}));
            Ok(Ok(Changed { value: record(tx, id)?, before, after: Some(after) }))
        })
        .await
    }

    /// Removes a user and ends their sessions.
    ///
    /// # Errors
    /// There is no such user, they are the last admin, or it could not be written down.
    pub async fn remove(&self, name: &str, by: Caller, reason: Option<String>) -> Result<UserRecord, AccountError> {
        let name: UserName = name.parse().map_err(|_| AccountRefused::UnknownUser)?;
        let attempt = Attempt::new(by, "user.remove").on(name.as_str()).because(reason);
        self.change(attempt, move |tx| {
            let Some(id) = id_of(tx, &name)? else { return Ok(Err(AccountRefused::UnknownUser)) };
            if is_last_admin(tx, id)? {
                return Ok(Err(AccountRefused::LastAdmin(name)));
            }
            let user = record(tx, id)?;
            let ended = sessions::end_all_of(tx, id)?;
            tx.execute("DELETE FROM users WHERE id = ?1", [id])?;
            let before = Some(json!({"role": user.role}));
            Ok(Ok(Changed { value: user, before, after: Some(json!({"sessionsEnded": ended})) }))
        })
        .await
    }

    pub(super) async fn hash(&self, name: &UserName, password: Secret) -> Result<String, AccountError> {
        let password = NewPassword::new(password, name.as_str()).map_err(AccountRefused::from)?;
        Ok(self.hasher.hash(password).await?)
    }
}

const COLUMNS: &str = "name, role, created_at, created_by, password_set_at, last_sign_in";

fn of_row(row: &Row<'_>) -> rusqlite::Result<UserRecord> {
    let time = |at: i64| jiff::Timestamp::from_millisecond(at).unwrap_or_default();
    let role: String = row.get(1)?;
    Ok(UserRecord {
        name: UserName(row.get(0)?),
        // A role that we do not know must not open more than the least.
        role: role.parse().unwrap_or(Role::Viewer),
        created_at: time(row.get(2)?),
        created_by: row.get(3)?,
        password_set_at: time(row.get(4)?),
        last_sign_in: row.get::<_, Option<i64>>(5)?.map(time),
    })
}

pub(super) fn record(tx: &Transaction<'_>, id: i64) -> Result<UserRecord, StoreError> {
    Ok(tx.query_row(&format!("SELECT {COLUMNS} FROM users WHERE id = ?1"), [id], of_row)?)
}

pub(super) fn id_of(tx: &Transaction<'_>, name: &UserName) -> Result<Option<i64>, StoreError> {
    Ok(tx.query_row("SELECT id FROM users WHERE name = ?1", [name.as_str()], |row| row.get(0)).optional()?)
}

pub(super) fn count(tx: &Transaction<'_>) -> Result<u32, StoreError> {
    Ok(tx.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?)
}

pub(super) fn no_room_for(tx: &Transaction<'_>, name: &UserName) -> Result<Option<AccountRefused>, StoreError> {
    if id_of(tx, name)?.is_some() {
        return Ok(Some(AccountRefused::NameTaken(name.clone())));
    }
    Ok((count(tx)? >= MAX_USERS).then_some(AccountRefused::TooMany))
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    name: UserName,
    role: Role,
    hash: &str,
    now: jiff::Timestamp,
    created_by: String,
) -> Result<UserRecord, StoreError> {
    let sql = "INSERT INTO users (name, role, password, password_set_at, created_at, created_by)
               VALUES (?1, ?2, ?3, ?4, ?4, ?5)";
    tx.execute(sql, params![name.as_str(), role.as_str(), hash, now.as_millisecond(), created_by])?;
    Ok(UserRecord { name, role, created_at: now, created_by, password_set_at: now, last_sign_in: None })
}

/// Sets a password and ends every session of its user; answers how many.
pub(super) fn change_password(
    tx: &Transaction<'_>,
    id: i64,
    hash: &str,
    now: jiff::Timestamp,
) -> Result<usize, StoreError> {
    let sql = "UPDATE users SET password = ?2, password_set_at = ?3 WHERE id = ?1";
    tx.execute(sql, params![id, hash, now.as_millisecond()])?;
    sessions::end_all_of(tx, id)
}

fn is_last_admin(tx: &Transaction<'_>, id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT role = 'admin' AND NOT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND id <> ?1)
               FROM users WHERE id = ?1";
    Ok(tx.query_row(sql, [id], |row| row.get(0))?)
}
