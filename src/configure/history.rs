//! The versions of the configuration: who changed what, when and why, and the files as they were then.
//!
//! A version keeps the text of the files that it changed; a file that it left alone is that of the versions before.

use std::net::IpAddr;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{Difference, Keyring, NO_FLEET, Snapshot};
use crate::security::Caller;
use crate::store::StoreError;

/// How many versions are kept.
const MAX_VERSIONS: i64 = 500;
/// How many bytes of text are kept; the last versions stay whatever their size.
const MAX_BYTES: i64 = 256 * 1024 * 1024;
/// How many versions stay whatever their size.
const MIN_VERSIONS: i64 = 2;

/// By which way a change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It was found when the daemon started.
    Start,
    /// A file was edited.
    File,
    /// A call of the API, from the page or a program.
    Api,
    /// An earlier version was restored.
    Rollback,
    /// An export was imported.
    Import,
}

impl Source {
    const ALL: [Self; 5] = [Self::Start, Self::File, Self::Api, Self::Rollback, Self::Import];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Api => "api",
            Self::Rollback => "rollback",
            Self::Import => "import",
        }
    }
}

/// Who changes something, by which way, and why.
#[derive(Clone, Debug)]
pub struct Author {
    /// Who, and from where.
    pub by: Caller,
    /// By which way.
    pub source: Source,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Author {
    /// Nobody known: what was found in the files.
    pub(super) const fn unknown(source: Source) -> Self {
        Self { by: Caller::SYSTEM, source, reason: None }
    }
}

/// One version of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConfigurationVersion)]
pub struct Version {
    /// Its number. The last one is in force.
    pub version: i64,
    /// When it came into force. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// Who made it; `system` for an edit of a file.
    pub by: String,
    /// The address that the call came from.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// By which way it came.
    pub source: Source,
    /// Why, in the words of who made it.
    pub reason: Option<String>,
    /// What it changed, in one line.
    pub summary: String,
}

const COLUMNS: &str = "version, at, actor, address, source, reason, summary";

fn version_of(row: &Row<'_>) -> rusqlite::Result<Version> {
    let source: String = row.get(4)?;
    let address: Option<String> = row.get(3)?;
    Ok(Version {
        version: row.get(0)?,
        at: jiff::Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
        by: row.get(2)?,
        address: address.and_then(|address| address.parse().ok()),
        source: Source::ALL.into_iter().find(|it| it.as_str() == source).unwrap_or(Source::File),
        reason: row.get(5)?,
        summary: row.get(6)?,
    })
}

#[derive(Clone, Copy)]
enum Document {
    Settings,
    Inventory,
    /// What the files of other tools held.
    Provided,
}

impl Document {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Inventory => "inventory",
            Self::Provided => "provided",
        }
    }
}

/// Versions from the newest on, at most `limit`, only those before `before` if that is given.
pub(super) fn list(tx: &Transaction<'_>, before: Option<i64>, limit: u32) -> Result<Vec<Version>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM config_versions WHERE version < ?1 ORDER BY version DESC LIMIT ?2");
    let mut query = tx.prepare_cached(&sql)?;
    let rows = query.query_map(params![before.unwrap_or(i64::MAX), limit], version_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One version.
pub(super) fn find(tx: &Transaction<'_>, version: i64) -> Result<Option<Version>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM config_versions WHERE version = ?1");
    Ok(tx.query_row(&sql, [version], version_of).optional()?)
}

/// The number of the last version before `version`.
pub(super) fn before(tx: &Transaction<'_>, version: i64) -> Result<Option<i64>, StoreError> {
    Ok(tx.query_row("SELECT max(version) FROM config_versions WHERE version < ?1", [version], |row| row.get(0))?)
}

/// The files as they were at a version.
pub(super) fn snapshot(tx: &Transaction<'_>, version: i64) -> Result<Snapshot, StoreError> {
    let text = |document: Document| {
        let sql = "SELECT text FROM config_texts WHERE document = ?1 AND version <= ?2 ORDER BY version DESC LIMIT 1";
        tx.query_row(sql, params![document.as_str(), version], |row| row.get(0)).optional()
    };
    // Before other tools provided anything, nothing of it was kept.
    let provided = text(Document::Provided)?.unwrap_or_else(|| NO_FLEET.to_owned());
    Ok(Snapshot {
        settings: text(Document::Settings)?,
        inventory: text(Document::Inventory)?,
        provided: Some(provided),
    })
}

/// Keeps a version, unless it differs from the last one in nothing that matters; then there is only the difference.
pub(super) fn keep(
    tx: &Transaction<'_>,
    at: jiff::Timestamp,
    author: &Author,
    now: &Snapshot,
    keys: Option<&Keyring>,
) -> Result<(Option<i64>, Difference), StoreError> {
    let last = snapshot(tx, i64::MAX)?;
    let difference = last.difference(now, keys);
    let is_new = |last: &Option<String>, now: &Option<String>| last.is_none() && now.is_some();
    let first = is_new(&last.settings, &now.settings) || is_new(&last.inventory, &now.inventory);
    if difference.is_empty() && !first {
        return Ok((None, difference));
    }
    let summary = if difference.is_empty() { "the first version known".to_owned() } else { difference.summary() };
    let sql =
        "INSERT INTO config_versions (at, actor, address, source, reason, summary) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    tx.execute(
        sql,
        params![
            at.as_millisecond(),
            author.by.actor.to_string(),
            author.by.address.map(|address| address.to_string()),
            author.source.as_str(),
            author.reason,
            summary,
        ],
    )?;
    let version = tx.last_insert_rowid();
    // The text is ours, and differs at each reading if there are secrets in it.
    let provided = &now.provided.clone().filter(|_| !last.provided_difference(now, keys).is_empty());
    let documents = [
        (Document::Settings, &last.settings, &now.settings),
        (Document::Inventory, &last.inventory, &now.inventory),
        (Document::Provided, &last.provided, provided),
    ];
    for (document, last, now) in documents {
        if let Some(text) = now
            && now != last
        {
            let sql = "INSERT INTO config_texts (version, document, text) VALUES (?1, ?2, ?3)";
            tx.execute(sql, params![version, document.as_str(), text])?;
        }
    }
    prune(tx)?;
    Ok((Some(version), difference))
}

/// Forgets the oldest versions beyond what is to be kept. What the next one still needs of them goes over to it.
fn prune(tx: &Transaction<'_>) -> Result<(), StoreError> {
    loop {
        let sql = "SELECT count(*), min(version), (SELECT coalesce(sum(length(text)), 0) FROM config_texts) FROM config_versions";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (count, oldest, bytes): (i64, Option<i64>, i64) = tx.query_row(sql, [], row)?;
        let Some(oldest) = oldest.filter(|_| count > MAX_VERSIONS || (bytes > MAX_BYTES && count > MIN_VERSIONS))
        else {
            return Ok(());
        };
        let sql = "UPDATE config_texts AS old
                   SET version = (SELECT min(version) FROM config_versions WHERE version > ?1)
                   WHERE version = ?1 AND NOT EXISTS (
                       SELECT 1 FROM config_texts WHERE document = old.document
                       AND version = (SELECT min(version) FROM config_versions WHERE version > ?1))";
        tx.execute(sql, [oldest])?;
        tx.execute("DELETE FROM config_texts WHERE version = ?1", [oldest])?;
        tx.execute("DELETE FROM config_versions WHERE version = ?1", [oldest])?;
    }
}

/// Encrypts the secrets of every version with the current key.
pub(super) fn reseal(tx: &Transaction<'_>, keys: &Keyring) -> Result<(), StoreError> {
    let mut query = tx.prepare("SELECT version, document FROM config_texts WHERE document <> 'settings'")?;
    let found = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(i64, String)> = found.collect::<Result<_, _>>()?;
    for (version, document) in found {
        let sql = "SELECT text FROM config_texts WHERE version = ?1 AND document = ?2";
        let text: String = tx.query_row(sql, params![version, document], |row| row.get(0))?;
        if let Some(text) = keys.resealed(&text) {
            let sql = "UPDATE config_texts SET text = ?3 WHERE version = ?1 AND document = ?2";
            tx.execute(sql, params![version, document, text])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn snapshot_of(settings: &str, instances: &str) -> Snapshot {
        Snapshot {
            settings: Some(settings.to_owned()),
            inventory: Some(format!("{{\"instances\":[{instances}]}}")),
            provided: Some(NO_FLEET.to_owned()),
        }
    }

    fn at() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn author(reason: &str) -> Author {
        Author { reason: Some(reason.to_owned()), ..Author::unknown(Source::Api) }
    }

    #[tokio::test]
    async fn a_version_keeps_what_it_changed_and_one_that_changes_nothing_is_none() {
        let store = Store::in_memory().unwrap();
        let done = store.write("test", |tx| {
            let tcp = r#"{"type":"tcp","name":"a"}"#;
            let (first, _) = keep(tx, at(), &author("begin"), &snapshot_of("{}", ""), None)?;
            let (second, difference) = keep(tx, at(), &author("add"), &snapshot_of("{}", tcp), None)?;
            assert_eq!(difference.summary(), "added: tcp::a");
            let (none, _) = keep(tx, at(), &author("again"), &snapshot_of("{ }", &tcp.replace(':', " : ")), None)?;
            let (third, _) = keep(tx, at(), &author("set"), &snapshot_of(r#"{"a":1}"#, tcp), None)?;
            assert_eq!((first, second, none, third), (Some(1), Some(2), None, Some(3)));
            assert_eq!(snapshot(tx, 1)?, snapshot_of("{}", ""));
            assert_eq!(snapshot(tx, 2)?, snapshot_of("{}", tcp));
            assert_eq!(snapshot(tx, 3)?, snapshot_of(r#"{"a":1}"#, tcp));
            let rows: i64 = tx.query_row("SELECT count(*) FROM config_texts", [], |row| row.get(0))?;
            assert_eq!(rows, 4, "what did not change is not kept again");
            let listed = list(tx, None, 2)?;
            assert_eq!(listed.iter().map(|it| it.version).collect::<Vec<_>>(), [3, 2]);
            assert_eq!(listed[0].reason.as_deref(), Some("set"));
            assert_eq!(list(tx, Some(2), 9)?.len(), 1);
            Ok::<_, StoreError>(())
        });
        done.await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_versions_go_and_what_the_next_one_needs_of_them_stays() {
        let store = Store::in_memory().unwrap();
        let done = store.write("test", |tx| {
            let tcp = r#"{"type":"tcp","name":"a"}"#;
            for number in 0..MAX_VERSIONS + 3 {
                keep(tx, at(), &author("set"), &snapshot_of(&format!("{{\"a\":{number}}}"), tcp), None)?;
            }
            let versions: i64 = tx.query_row("SELECT count(*) FROM config_versions", [], |row| row.get(0))?;
            assert_eq!(versions, MAX_VERSIONS);
            assert_eq!(find(tx, 3)?, None);
            assert_eq!(snapshot(tx, 4)?, snapshot_of("{\"a\":3}", tcp));
            assert_eq!(before(tx, 4)?, None);
            Ok::<_, StoreError>(())
        });
        done.await.unwrap();
    }
}
