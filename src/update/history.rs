//! What was installed when, and what came of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Installation, UpdateError};

/// Older records go.
const KEPT: usize = 200;

/// One update, or one way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// The version before.
    pub from: String,
    /// The version that was to run.
    pub to: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it went back.
    pub detail: Option<String>,
}

/// What came of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended, or was broken off.
    UnderWay,
    /// The new version is well, and runs.
    Applied,
    /// The new version was not well, and the one before runs again.
    WentBack,
}

impl Installation {
    /// Every update, the last one first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn updates(&self) -> Result<Vec<Record>, UpdateError> {
        let path = self.history();
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read
                .and_then(|text| Ok(serde_json::from_slice(&text)?))
                .map_err(UpdateError::file("cannot read the history of updates", path)),
        }
    }

    /// Writes down that an update begins, or how the one that began at this time ended.
    pub(super) fn note(&self, record: &Record) -> Result<(), UpdateError> {
        let mut all = self.updates()?;
        all.retain(|known| known.at != record.at);
        all.insert(0, record.clone());
        all.truncate(KEPT);
        let path = self.history();
        let written = || {
            let mut draft = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&path))?;
            draft.write_all(&serde_json::to_vec_pretty(&all)?)?;
            // The daemon shows it, and is another user.
            draft.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            draft.as_file().sync_all()?;
            draft.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        written().map_err(UpdateError::file("cannot write the history of updates", &path))
    }
}
