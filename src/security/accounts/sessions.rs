//! Sessions: 256 random bits in a cookie, of which the database keeps a SHA-256 digest; they end by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::{AccountError, AccountRefused, Accounts, UserName};
use crate::engine::Millis;
use crate::security::audit::{Attempt, Changed};
use crate::security::random::{NoRandomness, random_bytes};
use crate::security::{Caller, Role};
use crate::store::StoreError;
use crate::targets::Secret;

/// Sessions of one user at a time; a further one ends the one that was used longest ago.
const MAX_OF_ONE_USER: u32 = 10;
/// What is kept of the name that a browser gives itself.
const MAX_AGENT_CHARS: usize = 200;

/// When sessions end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// After this time without a call.
    pub idle: Millis,
    /// After this time in any case.
    pub longest: Millis,
}

impl Default for SessionRules {
    /// One hour and one day, as NIST SP 800-63B-4 has it.
    fn default() -> Self {
        Self { idle: Millis::from_mins(60), longest: Millis::from_mins(24 * 60) }
    }
}

impl SessionRules {
    fn ends(self, created: i64, seen: i64) -> Ends {
        let after = |at: i64, span: Millis| at.saturating_add(i64::try_from(span.get()).unwrap_or(i64::MAX));
        let longest = after(created, self.longest);
        Ends { idle: after(seen, self.idle).min(longest), longest }
    }
}

struct Ends {
    idle: i64,
    longest: i64,
}

/// Names a session for ever; it opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct SessionId(pub i64);

/// A session that is good for a call.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which one.
    pub id: SessionId,
    /// Whose.
    pub user: UserName,
    /// What they may do.
    pub role: Role,
    /// When it ends if it is not used again.
    pub idle_until: jiff::Timestamp,
    /// When it ends in any case.
    pub expires_at: jiff::Timestamp,
    csrf: String,
}

impl Session {
    /// What a page has to send along with whatever changes something: it shows that the page could read an answer of
    /// ours. Bound to this session.
    pub fn csrf_token(&self) -> &str {
        &self.csrf
    }

    /// Whether this is the token of [`Self::csrf_token`]. The time it takes tells nothing of it.
    pub fn is_csrf_token(&self, token: &str) -> bool {
        self.csrf.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// What is shown of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    /// Which one. It names the session and opens nothing.
    pub id: SessionId,
    /// Whose.
    pub user: UserName,
    /// When they signed in. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When it was last used.
    #[schema(value_type = String, format = DateTime)]
    pub last_used: jiff::Timestamp,
    /// When it ends if it is not used again.
    #[schema(value_type = String, format = DateTime)]
    pub idle_until: jiff::Timestamp,
    /// When it ends in any case.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: jiff::Timestamp,
    /// From which address they signed in.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What their browser called itself.
    pub agent: Option<String>,
}

/// By digest. Whoever tries cookies cannot choose digests, so the time of a look-up tells them nothing.
pub(super) type Table = BTreeMap<[u8; 32], Arc<Entry>>;

pub(super) struct Entry {
    id: SessionId,
    user: UserName,
    role: Role,
    address: Option<IpAddr>,
    agent: Option<String>,
    created: i64,
    /// When it was last used, in milliseconds since 1970; what the database knows of it is a little older.
    seen: AtomicI64,
    /// What the database knew of it.
    seen_by_store: i64,
}

impl Accounts {
    /// The session of this cookie; `None` if it is none of ours or has ended. Counts as a use.
    pub fn find_session(&self, cookie: &str) -> Option<Session> {
        let table = self.sessions.load();
        let entry = table.get(&digest(cookie))?;
        let now = self.clock.wall().as_millisecond();
        let ends = self.rules.ends(entry.created, entry.seen.load(Ordering::Relaxed));
        if now >= ends.idle {
            return None;
        }
        entry.seen.fetch_max(now, Ordering::Relaxed);
        Some(self.session(entry, cookie))
    }

    /// Whether the session is still good for calls. Does not count as a use.
    pub fn is_session_valid(&self, id: SessionId) -> bool {
        let now = self.clock.wall().as_millisecond();
        let ends = |entry: &Entry| self.rules.ends(entry.created, entry.seen.load(Ordering::Relaxed));
        self.sessions.load().values().any(|entry| entry.id == id && now < ends(entry).idle)
    }

    /// The sessions that are good for calls: of one user, or of all. The one used last comes first.
    pub fn list_sessions(&self, of: Option<&UserName>) -> Vec<SessionRecord> {
        let now = self.clock.wall();
        let table = self.sessions.load();
        let wanted = table.values().filter(|entry| of.is_none_or(|user| *user == entry.user));
        let mut records: Vec<_> =
            wanted.map(|entry| entry.record(self.rules)).filter(|record| record.idle_until > now).collect();
        records.sort_by(|a, b| b.last_used.cmp(&a.last_used).then(a.id.cmp(&b.id)));
        records
    }

    /// Ends a session; `of` is whose it has to be.
    ///
    /// # Errors
    /// There is none, or it could not be written down.
    pub async fn end_session(
        &self,
        id: SessionId,
        of: Option<&UserName>,
        by: Caller,
        action: &'static str,
        reason: Option<String>,
    ) -> Result<SessionRecord, AccountError> {
        let known = self.list_sessions(of).into_iter().find(|record| record.id == id);
        let mut attempt = Attempt::new(by, action).because(reason);
        attempt.key = known.as_ref().map(|record| record.user.to_string());
        self.change(attempt, move |tx| {
            let Some(record) = known else { return Ok(Err(AccountRefused::UnknownSession)) };
            match tx.execute("DELETE FROM sessions WHERE id = ?1", [id.0])? {
                0 => Ok(Err(AccountRefused::UnknownSession)),
                _ => Ok(Ok(Changed { value: record, before: Some(json!({"session": id})), after: None })),
            }
        })
        .await
    }

    /// Removes sessions that have ended from the database, and writes down when the others were last used. Nothing
    /// depends on it, so it is done now and then.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tidy_sessions(&self) -> Result<(), StoreError> {
        let _alone = self.changing.lock().await;
        let now = self.clock.wall().as_millisecond();
        let (mut ended, mut used) = (Vec::new(), Vec::new());
        for entry in self.sessions.load().values() {
            let seen = entry.seen.load(Ordering::Relaxed);
            if now >= self.rules.ends(entry.created, seen).idle {
                ended.push(entry.id.0);
            } else if seen != entry.seen_by_store {
                used.push((entry.id.0, seen));
            }
        }
        if ended.is_empty() && used.is_empty() {
            return Ok(());
        }
        let write = |tx: &Transaction<'_>| {
            let mut delete = tx.prepare("DELETE FROM sessions WHERE id = ?1")?;
            ended.into_iter().try_for_each(|id| delete.execute([id]).map(drop))?;
            let mut update = tx.prepare("UPDATE sessions SET last_used = ?2 WHERE id = ?1 AND last_used <> ?2")?;
            used.into_iter().try_for_each(|(id, at)| update.execute([id, at]).map(drop)).map_err(StoreError::from)
        };
        self.store.write("sessions.tidy", write).await?;
        self.reload().await
    }

    fn session(&self, entry: &Entry, cookie: &str) -> Session {
        let ends = self.rules.ends(entry.created, entry.seen.load(Ordering::Relaxed));
        Session {
            id: entry.id,
            user: entry.user.clone(),
            role: entry.role,
            idle_until: time(ends.idle),
            expires_at: time(ends.longest),
            csrf: csrf_token(cookie),
        }
    }
}

impl Entry {
    fn record(&self, rules: SessionRules) -> SessionRecord {
        let seen = self.seen.load(Ordering::Relaxed);
        let ends = rules.ends(self.created, seen);
        SessionRecord {
            id: self.id,
            user: self.user.clone(),
            created_at: time(self.created),
            last_used: time(seen),
            idle_until: time(ends.idle),
            expires_at: time(ends.longest),
            address: self.address,
            agent: self.agent.clone(),
        }
    }
}

fn time(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
}

const COLUMNS: &str = "sha256, sessions.id, name, role, address, agent, sessions.created_at, last_used";

pub(super) fn read_all(tx: &Transaction<'_>) -> Result<Table, StoreError> {
    let mut select = tx.prepare(&format!("SELECT {COLUMNS} FROM sessions JOIN users ON users.id = user_id"))?;
    let entries = select.query_map([], of_row)?;
    Ok(entries.collect::<Result<_, _>>()?)
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<([u8; 32], Arc<Entry>)> {
    let (name, role): (String, String) = (row.get(2)?, row.get(3)?);
    let seen: i64 = row.get(7)?;
    let entry = Entry {
        id: SessionId(row.get(1)?),
        user: name.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
        // A role that we do not know must not open more than the least.
        role: role.parse().unwrap_or(Role::Viewer),
        address: row.get::<_, Option<String>>(4)?.and_then(|address| address.parse().ok()),
        agent: row.get(5)?,
        created: row.get(6)?,
        seen: AtomicI64::new(seen),
        seen_by_store: seen,
    };
    Ok((row.get(0)?, Arc::new(entry)))
}

/// A new session's cookie.
pub(super) fn new_cookie() -> Result<Secret, NoRandomness> {
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random_bytes()?)))
}

/// Adds a session; if the user has too many, the one that was used longest ago ends.
pub(super) fn insert(
    tx: &Transaction<'_>,
    user_id: i64,
    cookie_digest: &[u8; 32],
    address: Option<IpAddr>,
    agent: Option<&str>,
    now: jiff::Timestamp,
) -> Result<SessionId, StoreError> {
    let agent: Option<String> =
        agent.map(|agent| agent.chars().filter(|it| !it.is_control()).take(MAX_AGENT_CHARS).collect());
    let address = address.map(|address| address.to_string());
    tx.execute(
        "INSERT INTO sessions (user_id, sha256, created_at, last_used, address, agent) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
        params![user_id, cookie_digest, now.as_millisecond(), address, agent],
    )?;
    let id = SessionId(tx.last_insert_rowid());
    tx.execute(
        "DELETE FROM sessions WHERE user_id = ?1 AND id NOT IN
         (SELECT id FROM sessions WHERE user_id = ?1 ORDER BY id = ?2 DESC, last_used DESC, id DESC LIMIT ?3)",
        params![user_id, id.0, MAX_OF_ONE_USER],
    )?;
    Ok(id)
}

/// Ends every session of a user; answers how many.
pub(super) fn end_all_of(tx: &Transaction<'_>, user_id: i64) -> Result<usize, StoreError> {
    Ok(tx.execute("DELETE FROM sessions WHERE user_id = ?1", [user_id])?)
}

/// The addresses that a user signed in from: the last one, and those of their sessions.
pub(super) fn addresses_of(tx: &Transaction<'_>, user_id: i64) -> Result<Vec<IpAddr>, StoreError> {
    let mut select = tx.prepare(
        "SELECT address FROM sessions WHERE user_id = ?1 UNION SELECT last_address FROM users WHERE id = ?1",
    )?;
    let found = select.query_map([user_id], |row| row.get::<_, Option<String>>(0))?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().filter_map(|address| address.parse().ok()).collect())
}

pub(super) fn digest(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie.as_bytes()).into()
}

/// Only who has the cookie can work it out, and from it nobody can work out the cookie.
fn csrf_token(cookie: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(cookie.as_bytes()).expect("a key may have any length");
    mac.update(b"csrf token");
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}
