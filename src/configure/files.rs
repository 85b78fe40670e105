//! Edits of the files: what is valid is followed, what is not is told and kept out.

use tokio_util::sync::CancellationToken;

use super::{ChangeError, Configurator, Source, lock};
use crate::config::{Look, LookAtFiles, Looked, watch_files};

impl Configurator {
    /// Takes over what the files hold: encrypts secrets in plain text, ends a change of key that was broken off, and
    /// keeps as a version what changed while the daemon did not run.
    pub async fn begin(&self) {
        let lane = self.enter_blindly().await;
        if let Err(error) = lane.catch_up(Source::Start).await {
            tracing::error!(%error, "the files of the configuration could not be looked at");
        }
        if let Err(error) = lane.complete_rekey().await {
            tracing::error!(%error, "a change of secrets.key is yet to be completed; run `pulse config rekey`");
        }
    }

    /// Follows edits of the files until `stop` is cancelled.
    pub async fn follow_edits(self, stop: CancellationToken) {
        let data_dir = lock(&self.follower).data_dir().clone();
        watch_files(&data_dir, &mut Eyes(self), stop).await;
    }
}

struct Eyes(Configurator);

impl LookAtFiles for Eyes {
    async fn look(&mut self, look: Look) -> Looked {
        let lane = self.0.enter_blindly().await;
        let looked = match look {
            Look::Compare => lane.blocking(|follower| Ok(follower.differs())).await,
            Look::Read => lane.catch_up(Source::File).await.map(|()| false),
        };
        match looked {
            Ok(true) => Looked::Again,
            Ok(false) => Looked::At(lock(&self.0.follower).files()),
            Err(ChangeError::Stopped(_)) => Looked::Enough,
            Err(error) => {
                tracing::error!(%error, "the files of the configuration could not be looked at");
                Looked::At(lock(&self.0.follower).files())
            }
        }
    }
}
