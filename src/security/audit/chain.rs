//! The chain: each entry's hash covers all of it and the hash before it, and a seal by the daemon's key covers the hash.
//!
//! The hashes can be followed by anybody who has an export; the seals show that nobody without the key wrote an entry.

use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};

use super::AuditError;
use super::entry::Kind;
use crate::security::KeyFile;
use crate::store::StoreError;

/// What is hashed before the first entry, so that no hash of another purpose fits.
const ENTRY: &[u8] = b"pulse audit entry 1\n";
const ENTRY_SEAL: &[u8] = b"pulse audit seal 1\n";
const HEAD_SEAL: &[u8] = b"pulse audit head 1\n";
const CHECKPOINT_SEAL: &[u8] = b"pulse audit checkpoint 1\n";

pub(super) const COLUMNS: &str =
    "seq, at, kind, intent, actor, address, action, key, reason, outcome, detail, before, after, hash, seal";

/// A SHA-256 digest, or a seal, which is as long.
pub(super) type Hash = [u8; 32];

/// The hash before the first entry.
pub(super) const GENESIS: Hash = [0; 32];

/// An entry as it stands in its row; everything but its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: i64,
    pub(super) kind: String,
    pub(super) intent: Option<i64>,
    pub(super) actor: String,
    pub(super) address: Option<String>,
    pub(super) action: String,
    pub(super) key: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// A row as it was found.
pub(super) struct Link {
    pub(super) seq: i64,
    pub(super) line: Line,
    pub(super) hash: Vec<u8>,
    pub(super) seal: Vec<u8>,
}

/// The end of the chain: its last entry and that entry's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 if there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Line {
    pub(super) fn hash(&self, seq: i64, previous: &Hash) -> Hash {
        let mut hash = Sha256::new();
        hash.update(ENTRY);
        hash.update(previous);
        hash.update(seq.to_be_bytes());
        hash.update(self.at.to_be_bytes());
        let intent = self.intent.map(|seq| seq.to_string());
        let fields = [
            Some(&self.kind),
            intent.as_ref(),
            Some(&self.actor),
            self.address.as_ref(),
            Some(&self.action),
            self.key.as_ref(),
            self.reason.as_ref(),
            self.outcome.as_ref(),
            self.detail.as_ref(),
            self.before.as_ref(),
            self.after.as_ref(),
        ];
        for field in fields {
            match field {
                None => hash.update([0]),
                // The length keeps a field from lending its end to the next one.
                Some(text) => {
                    hash.update([1]);
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text.as_bytes());
                }
            }
        }
        hash.finalize().into()
    }
}

impl Link {
    pub(super) fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let line = Line {
            at: row.get(1)?,
            kind: row.get(2)?,
            intent: row.get(3)?,
            actor: row.get(4)?,
            address: row.get(5)?,
            action: row.get(6)?,
            key: row.get(7)?,
            reason: row.get(8)?,
            outcome: row.get(9)?,
            detail: row.get(10)?,
            before: row.get(11)?,
            after: row.get(12)?,
        };
        Ok(Self { seq: row.get(0)?, line, hash: row.get(13)?, seal: row.get(14)? })
    }
}

/// Seals what only the holder of the key may have written.
pub(super) struct Sealer<'a>(pub(super) &'a KeyFile);

impl Sealer<'_> {
    fn mac(&self, purpose: &[u8], seq: i64, hash: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.bytes());
        let mut mac = mac.expect("HMAC takes keys of every length");
        mac.update(purpose);
        mac.update(&seq.to_be_bytes());
        mac.update(hash);
        mac
    }

    pub(super) fn is_sealed(&self, link: &Link) -> bool {
        self.mac(ENTRY_SEAL, link.seq, &link.hash).verify_slice(&link.seal).is_ok()
    }

    fn entry(&self, seq: i64, hash: &Hash) -> Hash {
        self.mac(ENTRY_SEAL, seq, hash).finalize().into_bytes().into()
    }

    fn end(&self, table: EndOfChain, head: &Head) -> Hash {
        self.mac(table.purpose(), head.seq, &head.hash).finalize().into_bytes().into()
    }
}

/// One of the two ends of the chain that have a sealed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOfChain {
    /// The last entry.
    Head,
    /// The last entry that was cut away.
    Checkpoint,
}

impl EndOfChain {
    const fn purpose(self) -> &'static [u8] {
        match self {
            Self::Head => HEAD_SEAL,
            Self::Checkpoint => CHECKPOINT_SEAL,
        }
    }

    const fn select(self) -> &'static str {
        match self {
            Self::Head => "SELECT seq, hash, seal FROM audit_head",
            Self::Checkpoint => "SELECT seq, hash, seal FROM audit_checkpoint",
        }
    }
}

/// What a record of an end of the chain was found to be.
pub(super) enum Found {
    Missing,
    Sealed(Head),
    /// It is there, and nobody with the key wrote it.
    Forged,
}

/// Reads the record of one end of the chain.
pub(super) fn find(tx: &Transaction<'_>, key: &KeyFile, end: EndOfChain) -> Result<Found, StoreError> {
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?));
    let Some((seq, hash, seal)) = tx.query_row(end.select(), [], row).optional()? else { return Ok(Found::Missing) };
    let sealed = Sealer(key).mac(end.purpose(), seq, &hash).verify_slice(&seal).is_ok();
    Ok(match (sealed, Hash::try_from(hash)) {
        (true, Ok(hash)) => Found::Sealed(Head { seq, hash }),
        _ => Found::Forged,
    })
}

/// Adds an entry behind the head. The head, not the last row, says where: a tail that was cut off leaves a gap for ever.
pub(super) fn append(tx: &Transaction<'_>, key: &KeyFile, line: &Line) -> Result<Head, AuditError> {
    let Found::Sealed(head) = find(tx, key, EndOfChain::Head)? else { return Err(AuditError::HeadBroken) };
    let seq = head.seq + 1;
    let hash = line.hash(seq, &head.hash);
    let seal = Sealer(key).entry(seq, &hash);
    tx.prepare_cached(&format!(
        "INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    ))
    .and_then(|mut insert| {
        insert.execute(params![
            seq,
            line.at,
            line.kind,
            line.intent,
            line.actor,
            line.address,
            line.action,
            line.key,
            line.reason,
            line.outcome,
            line.detail,
            line.before,
            line.after,
            hash,
            seal,
        ])
    })
    .map_err(StoreError::from)?;
    let head = Head { seq, hash };
    set_head(tx, key, &head)?;
    if line.kind == Kind::Intent.as_str() {
        tx.execute("INSERT INTO audit_open VALUES (?1)", [seq]).map_err(StoreError::from)?;
    }
    Ok(head)
}

/// Writes the record of the last entry.
pub(super) fn set_head(tx: &Transaction<'_>, key: &KeyFile, head: &Head) -> Result<(), StoreError> {
    let seal = Sealer(key).end(EndOfChain::Head, head);
    let sql = "INSERT INTO audit_head VALUES (1, ?1, ?2, ?3)
               ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, seal = excluded.seal";
    tx.execute(sql, params![head.seq, head.hash, seal])?;
    Ok(())
}

/// Writes the record of the last entry that is cut away.
pub(super) fn set_checkpoint(tx: &Transaction<'_>, key: &KeyFile, cut: &Head, at: i64) -> Result<(), StoreError> {
    let seal = Sealer(key).end(EndOfChain::Checkpoint, cut);
    let sql = "INSERT INTO audit_checkpoint VALUES (1, ?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
               SET seq = excluded.seq, at = excluded.at, hash = excluded.hash, seal = excluded.seal";
    tx.execute(sql, params![cut.seq, at, cut.hash, seal])?;
    Ok(())
}

/// A hash as people write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
