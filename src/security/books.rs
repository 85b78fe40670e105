//! What the database keeps of who may do what, and of what was done.

use std::sync::Arc;

use super::audit::AuditLog;
use super::{Accounts, Hasher, TokenStore};
use crate::runtime::Clock;
use crate::store::{Store, StoreError};

/// The audit log, the API tokens and the users of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Books {
    /// Where everything that changes something is written down first.
    pub audit: AuditLog,
    /// The API tokens.
    pub tokens: TokenStore,
    /// The users and their sessions.
    pub accounts: Accounts,
}

impl Books {
    /// The tokens and users in `store`, whose changes `audit` tells.
    ///
    /// # Errors
    /// The database failed.
    pub async fn open(
        store: Store,
        audit: AuditLog,
        clock: Arc<dyn Clock>,
        hasher: Hasher,
    ) -> Result<Self, StoreError> {
        let tokens = TokenStore::load(store.clone(), audit.clone(), Arc::clone(&clock)).await?;
        let accounts = Accounts::load(store, audit.clone(), clock, hasher).await?;
        Ok(Self { audit, tokens, accounts })
    }
}
