//! One value for each type of instance.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use super::key::InstanceType;

/// One value for each type of instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerType<T> {
    /// The value for [`InstanceType::Http`].
    pub http: T,
    /// The value for [`InstanceType::Pbs`].
    pub pbs: T,
    /// The value for [`InstanceType::Pmg`].
    pub pmg: T,
    /// The value for [`InstanceType::Pve`].
    pub pve: T,
    /// The value for [`InstanceType::Tcp`].
    pub tcp: T,
}

impl<T> PerType<T> {
    /// The value that `make` gives for each type.
    pub fn from_fn(mut make: impl FnMut(InstanceType) -> T) -> Self {
        Self {
            http: make(InstanceType::Http),
            pbs: make(InstanceType::Pbs),
            pmg: make(InstanceType::Pmg),
            pve: make(InstanceType::Pve),
            tcp: make(InstanceType::Tcp),
        }
    }

    /// Every type with its value, in the order of [`InstanceType::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (InstanceType, &T)> {
        InstanceType::ALL.into_iter().map(|kind| (kind, &self[kind]))
    }
}

impl<T> Index<InstanceType> for PerType<T> {
    type Output = T;

    fn index(&self, kind: InstanceType) -> &T {
        match kind {
            InstanceType::Http => &self.http,
            InstanceType::Pbs => &self.pbs,
            InstanceType::Pmg => &self.pmg,
            InstanceType::Pve => &self.pve,
            InstanceType::Tcp => &self.tcp,
        }
    }
}

impl<T> IndexMut<InstanceType> for PerType<T> {
    fn index_mut(&mut self, kind: InstanceType) -> &mut T {
        match kind {
            InstanceType::Http => &mut self.http,
            InstanceType::Pbs => &mut self.pbs,
            InstanceType::Pmg => &mut self.pmg,
            InstanceType::Pve => &mut self.pve,
            InstanceType::Tcp => &mut self.tcp,
        }
    }
}
