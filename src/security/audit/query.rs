//! Reading the log: filters and pages, the newest first.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Transaction, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::AuditLog;
use super::chain::{COLUMNS, Link, hex};
use crate::store::StoreError;

/// Which entries to read. What is not given does not matter.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// By whom, as in `user:alice`.
    pub actor: Option<String>,
    /// What, as in `breaker.reset`; one that ends with a dot, as in `breaker.`, stands for all that begin so.
    pub action: Option<String>,
    /// On what.
    pub key: Option<String>,
    /// What came of it, by name.
    pub outcome: Option<String>,
    /// At this time or later.
    pub since: Option<jiff::Timestamp>,
    /// Before this time.
    pub until: Option<jiff::Timestamp>,
    /// Whether to list intents beside their outcomes.
    pub intents: bool,
}

/// Which part of what a filter lets through.
#[derive(Clone, Copy, Debug)]
pub enum AuditPage {
    /// The newest ones before this entry, the newest first.
    Before(i64),
    /// The oldest ones after this entry, the oldest first.
    After(i64),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number. They have no gaps.
    pub seq: i64,
    /// When. RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// `event`, `intent` or `outcome`.
    pub kind: String,
    /// Of which intent this is the outcome.
    pub intent: Option<i64>,
    /// Who: `user:…`, `token:…`, `local:…`, `anonymous` or `system`.
    pub actor: String,
    /// From which address.
    pub address: Option<String>,
    /// What.
    pub action: String,
    /// On what.
    pub key: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// `done`, `refused`, `failed` or `unknown`; `null` for an intent.
    pub outcome: Option<String>,
    /// Why it was refused or failed.
    pub detail: Option<String>,
    /// The state before.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The state after.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
    /// The hash over the entry and the hash before it, in hexadecimal.
    pub hash: String,
}

impl AuditLog {
    /// At most `limit` entries.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self, filter: AuditFilter, page: AuditPage, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.read(move |tx| select(tx, &filter, page, limit)).await
    }
}

fn select(
    tx: &Transaction<'_>,
    filter: &AuditFilter,
    page: AuditPage,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut conditions = Vec::new();
    let mut values: Vec<SqlValue> = Vec::new();
    let mut also = |condition: &str, value: SqlValue| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("?{}", values.len())));
    };
    let order = match page {
        AuditPage::Before(seq) => {
            also("seq < ?", seq.into());
            "DESC"
        }
        AuditPage::After(seq) => {
            also("seq > ?", seq.into());
            "ASC"
        }
    };
    let text = |text: &String| SqlValue::from(text.clone());
    if let Some(actor) = &filter.actor {
        also("actor = ?", text(actor));
    }
    match &filter.action {
        Some(family) if family.ends_with('.') => also("substr(action, 1, length(?)) = ?", text(family)),
        Some(action) => also("action = ?", text(action)),
        None => {}
    }
    if let Some(key) = &filter.key {
        also("key = ?", text(key));
    }
    if let Some(outcome) = &filter.outcome {
        also("outcome = ?", text(outcome));
    }
    if let Some(since) = filter.since {
        also("at >= ?", since.as_millisecond().into());
    }
    if let Some(until) = filter.until {
        also("at < ?", until.as_millisecond().into());
    }
    if !filter.intents {
        // An intent is shown until it has its outcome.
        conditions.push("(kind <> 'intent' OR seq IN (SELECT seq FROM audit_open))".to_owned());
    }
    let sql =
        format!("SELECT {COLUMNS} FROM audit WHERE {} ORDER BY seq {order} LIMIT {limit}", conditions.join(" AND "));
    let mut select = tx.prepare_cached(&sql)?;
    let entries = select.query_map(params_from_iter(values), |row| Link::of_row(row).map(entry))?;
    Ok(entries.collect::<Result<_, _>>()?)
}

fn entry(link: Link) -> AuditEntry {
    let Link { seq, line, hash, .. } = link;
    // What cannot be read as it was written is shown as it stands; `verify` is what finds the fault.
    let json = |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    AuditEntry {
        seq,
        at: jiff::Timestamp::from_millisecond(line.at).unwrap_or_default(),
        kind: line.kind,
        intent: line.intent,
        actor: line.actor,
        address: line.address,
        action: line.action,
        key: line.key,
        reason: line.reason,
        outcome: line.outcome,
        detail: line.detail,
        before: json(line.before),
        after: json(line.after),
        hash: hex(&hash),
    }
}
