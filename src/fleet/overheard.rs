//! The calls that each instance's last poll made, between its end and whoever tells of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::InstanceKey;
use crate::targets::CallSaid;

/// The calls of polls that have just ended. At most one poll of each instance. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Overheard(Arc<Mutex<BTreeMap<InstanceKey, Vec<CallSaid>>>>);

impl Overheard {
    pub(super) fn keep(&self, key: InstanceKey, calls: Vec<CallSaid>) {
        self.table().insert(key, calls);
    }

    /// The calls of the poll of an instance that ended last, once.
    pub fn take(&self, key: &InstanceKey) -> Vec<CallSaid> {
        self.table().remove(key).unwrap_or_default()
    }

    /// A table is whole between any two of its calls.
    fn table(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Vec<CallSaid>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
