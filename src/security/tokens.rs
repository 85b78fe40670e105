//! API tokens: 256 random bits with a role and an end, shown once; the database keeps a SHA-256 digest.
//!
//! A slow password hash would add nothing: there is no dictionary of such tokens to try.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::audit::{Attempt, AuditError, AuditLog, Changed};
use super::principal::{Caller, Role};
use super::random::{NoRandomness, random_bytes};
use crate::runtime::Clock;
use crate::store::{Store, StoreError};
use crate::targets::Secret;

const PREFIX: &str = "pulse_";
const MAX_TOKENS: u32 = 1_000;
const MAX_NAME_CHARS: usize = 100;

/// The tokens of one daemon. Cheap to clone; looking one up takes no lock and no disk.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use pulse::{runtime::TokioClock, store::Store};
/// # use pulse::security::{audit::AuditLog, KeyFile};
/// use pulse::security::{Caller, NewToken, Role, TokenStore};
/// # let (store, clock) = (Store::in_memory()?, Arc::new(TokioClock::start()));
/// # let key = Arc::new(KeyFile::fixed([7; 32]));
/// # let audit = AuditLog::begin(store.clone(), key, clock.clone(), Default::default()).await?;
/// let tokens = TokenStore::load(store, audit, clock).await?;
/// let new = NewToken { name: "backup script".into(), role: Role::Viewer, expires_at: None };
/// let issued = tokens.create(new, Caller::of_process(), None).await?;
/// let holder = tokens.find(issued.token.expose()).expect("the token was just made");
/// assert_eq!(holder.role, Role::Viewer);
/// assert!(tokens.find("pulse_guess").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct TokenStore {
    store: Store,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    table: Arc<ArcSwap<Table>>,
    /// Held from a change of the database until the table shows it.
    changing: Arc<Mutex<()>>,
}

/// By digest. Whoever tries tokens cannot choose digests, so the time of a look-up tells them nothing.
type Table = BTreeMap<[u8; 32], Arc<Entry>>;

struct Entry {
    record: TokenRecord,
    /// When it last opened a door, in milliseconds since 1970; what the database knows of it is a little older.
    used: AtomicI64,
}

const NEVER: i64 = i64::MIN;

/// Names a token for ever, even if its name is given to another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct TokenId(pub i64);

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What it is for; no two have the same name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// From when on it opens nothing; never if not given.
    pub expires_at: Option<jiff::Timestamp>,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    /// Names it for ever.
    pub id: TokenId,
    /// What it is for.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// Who made it.
    pub created_by: String,
    /// From when on it opens nothing; `null` for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// When it was last used; `null` for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<jiff::Timestamp>,
}

/// A new token. It cannot be shown again.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token itself.
    pub token: Secret,
    /// What is kept of it.
    pub record: TokenRecord,
}

/// Why a token was not made or not revoked.
#[derive(Debug, Error)]
pub enum TokenError {
    /// What was asked for cannot be had.
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// It could not be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The system has no randomness to give.
    #[error("{0} for a token")]
    NoRandomness(#[from] NoRandomness),
}

/// Why what was asked for cannot be had. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenRefused {
    /// The name says nothing or too much.
    #[error("the name of a token has 1 to {MAX_NAME_CHARS} characters, none of them a control character")]
    BadName,
    /// It would open nothing.
    #[error("the token would expire before it could be used; give an end in the future")]
    Expired,
    /// The name is taken.
    #[error("there is a token named {0:?} already; choose another name, or revoke that one first")]
    NameTaken(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens already; revoke some first")]
    TooMany,
    /// There is none.
    #[error("there is no token named {0:?}")]
    Unknown(String),
}

impl TokenStore {
    /// The tokens in `store`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn load(store: Store, audit: AuditLog, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let table = store.read(read_all).await?;
        Ok(Self { store, audit, clock, table: Arc::new(ArcSwap::from_pointee(table)), changing: Arc::default() })
    }

    /// Every token's record, in the order of their names.
    pub fn list(&self) -> Vec<TokenRecord> {
        let mut records: Vec<_> = self.table.load().values().map(|entry| entry.record()).collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// The record of the token that somebody sent; `None` if it is none of ours or has expired. Counts as a use.
    pub fn find(&self, token: &str) -> Option<TokenRecord> {
        let table = self.table.load();
        let entry = table.get(&digest(token))?;
        let now = self.clock.wall();
        if entry.record.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        entry.used.store(now.as_millisecond(), Ordering::Relaxed);
        Some(entry.record())
    }

    /// Whether the token still opens a door.
    pub fn is_valid(&self, id: TokenId) -> bool {
        let now = self.clock.wall();
        let is_it = |entry: &Arc<Entry>| entry.record.id == id && entry.record.expires_at.is_none_or(|end| end > now);
        self.table.load().values().any(is_it)
    }

    /// Makes a token. `by` is who wants it, `reason` is why.
    ///
    /// # Errors
    /// The name is unfit or taken, the end is past, there are too many, or it could not be written down.
    pub async fn create(&self, new: NewToken, by: Caller, reason: Option<String>) -> Result<IssuedToken, TokenError> {
        let token = Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes()?)));
        let (sha256, now, created_by) = (digest(token.expose()), self.clock.wall(), by.actor.to_string());
        let attempt = Attempt::new(by, "token.create").on(name_to_log(&new.name)).because(reason);
        let record = self
            .change(attempt, move |tx| {
                if let Some(refused) = refusal(tx, &new, now)? {
                    return Ok(Err(refused));
                }
                let record = insert(tx, new, &sha256, now, created_by)?;
                let after = json!({"id": record.id, "role": record.role, "expiresAt": record.expires_at});
                Ok(Ok(Changed { value: record, before: None, after: Some(after) }))
            })
            .await?;
        Ok(IssuedToken { token, record })
    }

    /// Revokes a token by its name; it opens nothing from then on.
    ///
    /// # Errors
    /// There is none of this name, or it could not be written down.
    pub async fn revoke(&self, name: &str, by: Caller, reason: Option<String>) -> Result<TokenRecord, TokenError> {
        let attempt = Attempt::new(by, "token.revoke").on(name_to_log(name)).because(reason);
        let name = name.to_owned();
        self.change(attempt, move |tx| {
            let sql = format!("DELETE FROM tokens WHERE name = ?1 RETURNING {COLUMNS}");
            let Some((_, record)) = tx.query_row(&sql, [&name], of_row).optional()? else {
                return Ok(Err(TokenRefused::Unknown(name)));
            };
            let before = json!({"id": record.id, "role": record.role, "expiresAt": record.expires_at});
            Ok(Ok(Changed { value: record, before: Some(before), after: None }))
        })
        .await
    }

    /// Writes down when tokens were last used. Nothing depends on it, so it is done now and then.
    ///
    /// # Errors
    /// The database failed.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let used: Vec<(i64, i64)> = self.table.load().values().filter_map(|entry| entry.fresh_use()).collect();
        if used.is_empty() {
            return Ok(());
        }
        let write = |tx: &Transaction<'_>| {
            let mut update = tx.prepare("UPDATE tokens SET last_used = ?2 WHERE id = ?1 AND last_used IS NOT ?2")?;
            used.into_iter().try_for_each(|(id, at)| update.execute([id, at]).map(drop)).map_err(StoreError::from)
        };
        self.store.write("tokens.uses", write).await
    }

    /// Changes the database and then the table, whoever leaves meanwhile.
    async fn change<T: Send + 'static>(
        &self,
        attempt: Attempt,
        work: impl FnOnce(&Transaction<'_>) -> Result<Result<Changed<T>, TokenRefused>, StoreError> + Send + 'static,
    ) -> Result<T, TokenError> {
        let tokens = self.clone();
        let change = async move {
            let _alone = tokens.changing.lock().await;
            let value = tokens.audit.transact(attempt, work).await??;
            let mut table = tokens.store.read(read_all).await.map_err(AuditError::from)?;
            for (digest, entry) in tokens.table.load().iter() {
                if let Some(same) = table.get_mut(digest) {
                    *same = Arc::clone(entry);
                }
            }
            tokens.table.store(Arc::new(table));
            Ok(value)
        };
        self.audit.to_the_end(change).await.unwrap_or(Err(AuditError::BrokeOff.into()))
    }
}

impl std::fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStore").finish_non_exhaustive()
    }
}

impl Entry {
    fn record(&self) -> TokenRecord {
        let used = self.used.load(Ordering::Relaxed);
        let last_used = (used != NEVER).then(|| jiff::Timestamp::from_millisecond(used).ok()).flatten();
        TokenRecord { last_used, ..self.record.clone() }
    }

    /// Its number and last use, if the database did not know it when the table was read.
    fn fresh_use(&self) -> Option<(i64, i64)> {
        let used = self.used.load(Ordering::Relaxed);
        let known = self.record.last_used.map_or(NEVER, jiff::Timestamp::as_millisecond);
        (used != known).then_some((self.record.id.0, used))
    }
}

const COLUMNS: &str = "sha256, id, name, role, created_at, created_by, expires_at, last_used";

fn read_all(tx: &Transaction<'_>) -> Result<Table, StoreError> {
    let mut select = tx.prepare(&format!("SELECT {COLUMNS} FROM tokens"))?;
    let entries = select.query_map([], of_row)?.map(|row| {
        row.map(|(digest, record)| {
            let used = AtomicI64::new(record.last_used.map_or(NEVER, jiff::Timestamp::as_millisecond));
            (digest, Arc::new(Entry { record, used }))
        })
    });
    Ok(entries.collect::<Result<_, _>>()?)
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<([u8; 32], TokenRecord)> {
    let time = |at: i64| jiff::Timestamp::from_millisecond(at).unwrap_or_default();
    let role: String = row.get(3)?;
    let record = TokenRecord {
        id: TokenId(row.get(1)?),
        name: row.get(2)?,
        // A role that we do not know must not open more than the least.
        role: role.parse().unwrap_or(Role::Viewer),
        created_at: time(row.get(4)?),
        created_by: row.get(5)?,
        expires_at: row.get::<_, Option<i64>>(6)?.map(time),
        last_used: row.get::<_, Option<i64>>(7)?.map(time),
    };
    Ok((row.get(0)?, record))
}

fn refusal(tx: &Transaction<'_>, new: &NewToken, now: jiff::Timestamp) -> Result<Option<TokenRefused>, StoreError> {
    let name = &new.name;
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Ok(Some(TokenRefused::BadName));
    }
    if new.expires_at.is_some_and(|end| end <= now) {
        return Ok(Some(TokenRefused::Expired));
    }
    let taken = tx.query_row("SELECT 1 FROM tokens WHERE name = ?1", [name], |_| Ok(())).optional()?;
    if taken.is_some() {
        return Ok(Some(TokenRefused::NameTaken(name.clone())));
    }
    let count: u32 = tx.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?;
    Ok((count >= MAX_TOKENS).then_some(TokenRefused::TooMany))
}

fn insert(
    tx: &Transaction<'_>,
    new: NewToken,
    sha256: &[u8; 32],
    now: jiff::Timestamp,
    created_by: String,
) -> Result<TokenRecord, StoreError> {
    let sql =
        "INSERT INTO tokens (name, role, sha256, created_at, created_by, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (created_at, expires_at) = (now.as_millisecond(), new.expires_at.map(jiff::Timestamp::as_millisecond));
    tx.execute(sql, params![new.name, new.role.as_str(), sha256, created_at, created_by, expires_at])?;
    let NewToken { name, role, expires_at } = new;
    let id = TokenId(tx.last_insert_rowid());
    Ok(TokenRecord { id, name, role, created_at: now, created_by, expires_at, last_used: None })
}

/// An unfit name must not fill the log.
fn name_to_log(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Timestamp;
    use crate::runtime::TokioClock;
    use crate::security::KeyFile;
    use crate::security::audit::{AuditFilter, AuditPage};

    struct World {
        store: Store,
        audit: AuditLog,
        clock: Arc<TokioClock>,
    }

    impl World {
        async fn new() -> Self {
            let store = Store::in_memory().unwrap();
            let clock = Arc::new(TokioClock::start_at("2026-01-01T00:00:00Z".parse().unwrap()));
            let key = Arc::new(KeyFile::fixed([7; 32]));
            let audit = AuditLog::begin(store.clone(), key, clock.clone(), Default::default()).await.unwrap();
            Self { store, audit, clock }
        }

        async fn tokens(&self) -> TokenStore {
            TokenStore::load(self.store.clone(), self.audit.clone(), self.clock.clone()).await.unwrap()
        }

        async fn log(&self) -> Vec<(String, Option<String>)> {
            let filter = AuditFilter { action: Some("token.".into()), ..AuditFilter::default() };
            let entries = self.audit.list(filter, AuditPage::After(0), 100).await.unwrap();
            entries.into_iter().map(|entry| (entry.action, entry.outcome)).collect()
        }
    }

    fn new(name: &str) -> NewToken {
        NewToken { name: name.to_owned(), role: Role::Operator, expires_at: None }
    }

    #[tokio::test]
    async fn a_token_is_kept_as_a_digest_and_found_by_itself_after_a_restart() {
        let world = World::new().await;
        let tokens = world.tokens().await;
        let first = tokens.create(new("a"), Caller::SYSTEM, None).await.unwrap();
        let second = tokens.create(new("b"), Caller::SYSTEM, None).await.unwrap();
        assert_ne!(first.token.expose(), second.token.expose());
        let text = |tx: &Transaction<'_>| {
            Ok(tx.query_row("SELECT group_concat(quote(sha256) || name) FROM tokens", [], |row| row.get(0))?)
        };
        let kept: String = world.store.read::<_, StoreError>(text).await.unwrap();
        assert!(!kept.contains(&first.token.expose()[PREFIX.len()..]));
        for tokens in [tokens, world.tokens().await] {
            assert_eq!(tokens.find(first.token.expose()).unwrap().name, "a");
            assert_eq!(tokens.find(second.token.expose()).unwrap().name, "b");
            assert!(tokens.find("").is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_opens_nothing_once_it_has_expired_or_is_revoked() {
        let world = World::new().await;
        let tokens = world.tokens().await;
        let end = Some("2026-01-01T01:00:00Z".parse().unwrap());
        let short = tokens.create(NewToken { expires_at: end, ..new("short") }, Caller::SYSTEM, None).await.unwrap();
        let long = tokens.create(new("long"), Caller::SYSTEM, None).await.unwrap();
        world.clock.sleep_until(Timestamp::from_millis(3_599_999)).await;
        assert!(tokens.find(short.token.expose()).is_some() && tokens.is_valid(short.record.id));
        world.clock.sleep_until(Timestamp::from_millis(3_600_000)).await;
        assert!(tokens.find(short.token.expose()).is_none() && !tokens.is_valid(short.record.id));
        assert!(tokens.find(long.token.expose()).is_some());
        tokens.revoke("long", Caller::SYSTEM, Some("leaked".into())).await.unwrap();
        assert!(tokens.find(long.token.expose()).is_none() && !tokens.is_valid(long.record.id));
        assert_eq!(tokens.list().len(), 1);
    }

    #[tokio::test]
    async fn what_is_refused_changes_nothing_and_is_in_the_log() {
        let world = World::new().await;
        let tokens = world.tokens().await;
        let refused = async |new: NewToken| match tokens.create(new, Caller::SYSTEM, None).await {
            Err(TokenError::Refused(refused)) => refused,
            other => panic!("{other:?}"),
        };
        for name in ["", "a\nb", &"x".repeat(101)] {
            assert_eq!(refused(new(name)).await, TokenRefused::BadName);
        }
        let past = Some("2025-12-31T23:59:59Z".parse().unwrap());
        assert_eq!(refused(NewToken { expires_at: past, ..new("a") }).await, TokenRefused::Expired);
        tokens.create(new("a"), Caller::SYSTEM, None).await.unwrap();
        assert_eq!(refused(new("a")).await, TokenRefused::NameTaken("a".into()));
        let unknown = tokens.revoke("b", Caller::SYSTEM, None).await;
        assert!(matches!(unknown, Err(TokenError::Refused(TokenRefused::Unknown(_)))));
        assert_eq!(tokens.list().len(), 1);
        let outcomes: Vec<_> = world.log().await.into_iter().filter_map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, ["refused", "refused", "refused", "refused", "done", "refused", "refused"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_use_is_known_at_once_and_written_down_when_asked() {
        let world = World::new().await;
        let tokens = world.tokens().await;
        let issued = tokens.create(new("a"), Caller::SYSTEM, None).await.unwrap();
        assert_eq!(tokens.list()[0].last_used, None);
        world.clock.sleep_until(Timestamp::from_millis(60_000)).await;
        tokens.find(issued.token.expose()).unwrap();
        let used = Some("2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(tokens.list()[0].last_used, used);
        assert_eq!(world.tokens().await.list()[0].last_used, None);
        tokens.create(new("b"), Caller::SYSTEM, None).await.unwrap();
        tokens.write_uses().await.unwrap();
        assert_eq!(world.tokens().await.list()[0].last_used, used, "a change of the table has not forgotten it");
    }
}
