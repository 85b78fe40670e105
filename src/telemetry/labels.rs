//! The labels of the metrics. Their names are a contract with dashboards and alert rules.

use prometheus_client::encoding::EncodeLabelSet;

use crate::engine::{InstanceKey, InstanceType};

/// Labels of a series of one type of instance.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct TypeLabels {
    pub(super) instance_type: &'static str,
}

/// Labels of a series of one instance.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct InstanceLabels {
    pub(super) instance_type: &'static str,
    pub(super) instance: String,
}

/// Labels of the polls of one instance that ended in one way.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) instance_type: &'static str,
    pub(super) instance: String,
    pub(super) result: &'static str,
}

/// Labels of the failures of one kind of one instance.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CategoryLabels {
    pub(super) instance_type: &'static str,
    pub(super) instance: String,
    pub(super) category: &'static str,
}

/// Labels of the dead letters of one type and reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) instance_type: &'static str,
    pub(super) reason: &'static str,
}

impl TypeLabels {
    pub(super) fn of(kind: InstanceType) -> Self {
        Self { instance_type: kind.as_str() }
    }
}

impl InstanceLabels {
    pub(super) fn of(key: &InstanceKey) -> Self {
        Self { instance_type: key.kind().as_str(), instance: key.name().to_owned() }
    }
}

impl ResultLabels {
    pub(super) fn of(key: &InstanceKey, result: &'static str) -> Self {
        Self { instance_type: key.kind().as_str(), instance: key.name().to_owned(), result }
    }
}

impl CategoryLabels {
    pub(super) fn of(key: &InstanceKey, category: &'static str) -> Self {
        Self { instance_type: key.kind().as_str(), instance: key.name().to_owned(), category }
    }
}
