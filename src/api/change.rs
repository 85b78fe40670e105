//! What all calls share that change the configuration: who does it, what the audit log tells, and why it was refused.

use std::future::Future;

use super::Api;
use super::body::Reason;
use super::problem::Problem;
use crate::config::{BundleError, EditError};
use crate::configure::{Author, ChangeError, Changed, Source};
use crate::security::Principal;
use crate::security::audit::Attempt;

/// The author of a change by a call.
pub(super) fn api_author(principal: &Principal, reason: Option<Reason>) -> Author {
    Author { by: principal.caller.clone(), source: Source::Api, reason: reason.map(Reason::into_inner) }
}

/// Has a change of the configuration done, audited before it begins and when it has ended.
pub(super) async fn carry_out(
    api: &Api,
    attempt: Attempt,
    change: impl Future<Output = Result<Changed, ChangeError>> + Send + 'static,
) -> Result<Changed, Problem> {
    Ok(api.configurator.audited(attempt, Changed::conclusion, change).await??)
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Settings(errors) => Self::refused_settings(&errors),
            ChangeError::Inventory(errors) | ChangeError::Edit(EditError::Refused(errors)) => {
                Self::refused_inventory(&errors)
            }
            ChangeError::Edit(EditError::Unknown(_)) | ChangeError::NoVersion(_) => Self::not_found(error.to_string()),
            ChangeError::Edit(EditError::Exists(_)) => {
                Self::conflict("already_exists", "There is such an instance already", error)
            }
            ChangeError::Edit(EditError::Changed(_)) => Self::changed_meanwhile(error),
            ChangeError::Edit(EditError::Broken(_)) => {
                Self::conflict("file_broken", "The file is broken as it stands", error)
            }
            ChangeError::Edit(EditError::Provided { .. }) => {
                Self::conflict("provided_by_file", "Another tool keeps the instance", error)
            }
            ChangeError::NothingToDo(_) => Self::conflict("nothing_to_do", "That is what is in force", error),
            ChangeError::Bundle(BundleError::NoResources) => Self::unavailable(error.to_string()),
            ChangeError::Bundle(_) => Self::refused(error),
            ChangeError::File(_) | ChangeError::Key(_) => {
                tracing::error!(%error, "the configuration cannot be written");
                Self::storage(error)
            }
            ChangeError::Store(error) => error.into(),
            ChangeError::Stopped(gone) => gone.into(),
            ChangeError::BrokeOff => Self::internal(),
        }
    }
}
