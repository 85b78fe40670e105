//! Looking at versions, and going back to one.

use std::sync::Arc;

use rusqlite::Transaction;

use super::history::{self, Author, Version};
use super::{ChangeError, Changed, Configurator, Draft};
use crate::config::{Difference, Follower, PreparedImport, Snapshot};
use crate::store::StoreError;

/// A version with what it changed and what the files held then.
#[derive(Clone, Debug)]
pub struct VersionShown {
    /// The version.
    pub version: Version,
    /// How it differs from the one before it; empty for the oldest that is kept.
    pub difference: Difference,
    /// The files.
    pub snapshot: Snapshot,
}

/// What going back to a version came to.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The version.
    pub to: i64,
    /// What that changed.
    pub changed: Changed,
    /// The instances of the files of other tools that are not as they were at that version. Those files are not ours.
    pub left_alone: Vec<String>,
}

impl Configurator {
    /// Versions from the newest on, at most `limit`, only those before `before` if that is given.
    ///
    /// # Errors
    /// The database failed.
    pub async fn versions(&self, before: Option<i64>, limit: u32) -> Result<Vec<Version>, ChangeError> {
        Ok(self.store.read(move |tx: &Transaction<'_>| history::list(tx, before, limit)).await?)
    }

    /// One version.
    ///
    /// # Errors
    /// There is none of this number, or the database failed.
    pub async fn version(&self, number: i64) -> Result<VersionShown, ChangeError> {
        let keys = self.keys().await?;
        let look = move |tx: &Transaction<'_>| {
            let version = history::find(tx, number)?.ok_or(ChangeError::NoVersion(number))?;
            let snapshot = history::snapshot(tx, number)?;
            let difference = match history::before(tx, number)? {
                Some(before) => history::snapshot(tx, before)?.difference(&snapshot, keys.as_deref()),
                None => Difference::default(),
            };
            Ok(VersionShown { version, difference, snapshot })
        };
        self.store.read(look).await
    }

    /// How version `to` differs from version `from`; the last one if `to` is not given.
    ///
    /// # Errors
    /// There is none of one of these numbers, or the database failed.
    pub async fn difference(&self, from: i64, to: Option<i64>) -> Result<Difference, ChangeError> {
        let keys = self.keys().await?;
        let look = move |tx: &Transaction<'_>| {
            for number in [Some(from), to].into_iter().flatten() {
                history::find(tx, number)?.ok_or(ChangeError::NoVersion(number))?;
            }
            let after = history::snapshot(tx, to.unwrap_or(i64::MAX))?;
            Ok(history::snapshot(tx, from)?.difference(&after, keys.as_deref()))
        };
        self.store.read(look).await
    }

    /// Goes back to a version, the one before the last if none is given. That is a new version. The files of other tools
    /// stay as they are.
    ///
    /// # Errors
    /// There is no such version, it is what is in force, or it breaks a rule by now; nothing was changed.
    pub async fn roll_back(&self, number: Option<i64>, author: Author) -> Result<RolledBack, ChangeError> {
        let lane = self.enter().await?;
        let find = move |tx: &Transaction<'_>| {
            let number = match number {
                Some(number) => number,
                None => {
                    let last = history::before(tx, i64::MAX)?.ok_or(ChangeError::NoVersion(1))?;
                    history::before(tx, last)?.ok_or(ChangeError::NoVersion(last - 1))?
                }
            };
            history::find(tx, number)?.ok_or(ChangeError::NoVersion(number))?;
            Ok((number, history::snapshot(tx, number)?, history::snapshot(tx, i64::MAX)?))
        };
        let (number, mut wanted, now) = self.store.read::<_, ChangeError>(find).await?;
        let look = |follower: &mut Follower| {
            let broken = follower.refused_inventory().is_some() || follower.refused_settings().is_some();
            Ok((follower.keys().cloned(), broken))
        };
        let (keys, broken) = lane.blocking(look).await?;
        let then = Snapshot { provided: wanted.provided.take(), ..wanted.clone() };
        wanted.provided.clone_from(&now.provided);
        // Going back is also the way out of a broken edit.
        if !broken && now.difference(&wanted, keys.as_deref()).is_empty() {
            return Err(ChangeError::NothingToDo(number));
        }
        let wanted = Arc::new(wanted);
        let changed = lane.change(move |follower| restore(follower, &wanted), author).await?;
        let now = self.store.read::<_, StoreError>(|tx| history::snapshot(tx, i64::MAX)).await?;
        let left_alone = now.provided_difference(&then, keys.as_deref()).into_iter().map(|it| it.key).collect();
        Ok(RolledBack { to: number, changed, left_alone })
    }
}

fn restore(follower: &mut Follower, wanted: &Snapshot) -> Result<Draft, ChangeError> {
    let settings = wanted.settings.clone().unwrap_or_else(|| "{}\n".to_owned()).into_bytes();
    let settings = follower.system_file().prepare_content(settings).map_err(ChangeError::Settings)?;
    let inventory = wanted.inventory.as_deref().unwrap_or("{\"instances\": []}\n");
    let inventory = follower.prepare_inventory(inventory.as_bytes(), settings.config());
    let inventory = inventory.map_err(ChangeError::Inventory)?;
    Ok(Draft::Both(Box::new(PreparedImport::of_files(settings, inventory))))
}
