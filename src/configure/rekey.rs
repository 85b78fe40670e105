//! A new key for the secrets of instances, in steps of which any may be the last before a crash.

use std::sync::Arc;

use rusqlite::Transaction;

use super::{ChangeError, Configurator, Lane, history};
use crate::config::{EditError, Keyring};
use crate::store::StoreError;

impl Configurator {
    /// Makes a new key, encrypts every secret with it, in the file and in the history, and forgets the old one.
    ///
    /// # Errors
    /// `instances.json` is broken or cannot be written, or the database failed. Both keys are kept then, everything can
    /// be read, and the change is gone on with the next time.
    pub async fn rekey(&self) -> Result<(), ChangeError> {
        let lane = self.enter().await?;
        lane.begin_rekey().await?;
        lane.complete_rekey().await
    }
}

impl Lane<'_> {
    async fn begin_rekey(&self) -> Result<(), ChangeError> {
        self.blocking(|follower| {
            if let Some(errors) = follower.refused_inventory() {
                return Err(EditError::Broken(errors.clone()).into());
            }
            let folder = follower.data_dir().path().to_owned();
            let keys = Keyring::read_or_make(&folder)?.begin_change()?;
            follower.use_keys(Arc::new(keys));
            Ok(())
        })
        .await
    }

    /// Ends a change of key, if one is under way.
    pub(super) async fn complete_rekey(&self) -> Result<(), ChangeError> {
        let sealed = self.blocking(|follower| {
            let Some(keys) = follower.keys().filter(|keys| keys.is_changing()).cloned() else { return Ok(None) };
            if let Some(errors) = follower.refused_inventory() {
                return Err(EditError::Broken(errors.clone()).into());
            }
            follower.seal_inventory().map_err(ChangeError::File)?;
            Ok(Some(keys))
        });
        let Some(keys) = sealed.await? else { return Ok(()) };
        let in_history = Arc::clone(&keys);
        let reseal = move |tx: &Transaction<'_>| history::reseal(tx, &in_history);
        self.configurator.store.write::<_, StoreError>("config.rekey", reseal).await?;
        self.blocking(move |follower| {
            let keys = Keyring::read_or_make(follower.data_dir().path())?.complete_change()?;
            follower.use_keys(Arc::new(keys));
            Ok(())
        })
        .await
    }
}
