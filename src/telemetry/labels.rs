//! The labels of the metrics. Their names are a contract with dashboards and alert rules.

use crate::engine::{DeadLetterReason, InstanceKey, InstanceType};

const TYPE: &str = "instance_type";
const INSTANCE: &str = "instance";

/// Labels of a series of one type of instance.
pub(super) fn of_type(kind: InstanceType) -> [(&'static str, &'static str); 1] {
    [(TYPE, kind.as_str())]
}

/// Labels of a series of one instance.
pub(super) fn of_instance(key: &InstanceKey) -> [(&'static str, &str); 2] {
    [(TYPE, key.kind().as_str()), (INSTANCE, key.name())]
}

/// Labels of the polls of one instance that ended in one way.
pub(super) fn of_result<'a>(key: &'a InstanceKey, result: &'static str) -> [(&'static str, &'a str); 3] {
    [(TYPE, key.kind().as_str()), (INSTANCE, key.name()), ("result", result)]
}

/// Labels of the failures of one kind of one instance.
pub(super) fn of_category<'a>(key: &'a InstanceKey, category: &'static str) -> [(&'static str, &'a str); 3] {
    [(TYPE, key.kind().as_str()), (INSTANCE, key.name()), ("category", category)]
}

/// Labels of the dead letters of one type and reason.
pub(super) fn of_reason(kind: InstanceType, reason: DeadLetterReason) -> [(&'static str, &'static str); 2] {
    [(TYPE, kind.as_str()), ("reason", reason.as_str())]
}
