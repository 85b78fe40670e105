//! The tables, as steps from one schema to the next; a database says in `user_version` how many it has taken.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Every step, in order. One that was released is never changed.
const STEPS: &[&str] = &[
    include_str!("migrations/01_audit.sql"),
    include_str!("migrations/02_tokens.sql"),
    include_str!("migrations/03_accounts.sql"),
    include_str!("migrations/04_config.sql"),
];

/// Takes the steps that are missing, all or none.
pub(super) fn apply(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for step in STEPS.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    if found < known {
        transaction.pragma_update(None, "user_version", known)?;
    }
    transaction.commit()?;
    Ok(())
}
