//! The tables, as steps from one schema to the next; a database says in `user_version` how many it has taken.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Every step, in order. One that was released is never changed.
const STEPS: &[&str] = &[
    include_str!("migrations/01_audit.sql"),
    include_str!("migrations/02_tokens.sql"),
    include_str!("migrations/03_accounts.sql"),
    include_str!("migrations/04_config.sql"),
    include_str!("migrations/05_provided.sql"),
];

/// Takes the steps that are missing, all or none.
pub(super) fn apply(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = taken(&transaction)?;
    for step in STEPS.iter().skip(taken) {
        transaction.execute_batch(step)?;
    }
    if taken < STEPS.len() {
        transaction.pragma_update(None, "user_version", STEPS.len() as u32)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Makes sure that no step is missing.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    if taken(connection)? < STEPS.len() { Err(StoreError::TooOld) } else { Ok(()) }
}

fn taken(connection: &Connection) -> Result<usize, StoreError> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let taken = version as usize;
    if taken > STEPS.len() { Err(StoreError::TooNew { found: taken, known: STEPS.len() }) } else { Ok(taken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_step_keeps_the_history_of_the_configuration() {
        let mut database = Connection::open_in_memory().unwrap();
        for step in &STEPS[..4] {
            database.execute_batch(step).unwrap();
        }
        database.pragma_update(None, "user_version", 4).unwrap();
        let rows = "INSERT INTO config_versions VALUES (7, 0, 'system', NULL, 'start', NULL, 'begin');
                    INSERT INTO config_texts VALUES (7, 'settings', '{}'), (7, 'inventory', '[]');";
        database.execute_batch(rows).unwrap();
        apply(&mut database).unwrap();
        check(&database).unwrap();
        database.execute("INSERT INTO config_texts VALUES (7, 'provided', '{}')", []).unwrap();
        let kept = "SELECT group_concat(document || text, ' ' ORDER BY document) FROM config_texts WHERE version = 7";
        let kept: String = database.query_row(kept, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "inventory[] provided{} settings{}");
    }
}
