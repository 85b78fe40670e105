//! What the health answer told over HTTP, held against the engine that the judge holds to the truth.

use pulse::engine::{Engine, Timestamp};
use serde_json::Value;

/// How what the health answer told differs from what the engine says, which the judge holds to the truth.
pub(crate) fn difference(told: &Value, engine: &Engine, now: Timestamp) -> Option<String> {
    if told["enabled"] != engine.settings().adaptive {
        return Some(format!("`enabled` is {}", told["enabled"]));
    }
    let rows = told["instances"].as_array()?;
    rows.iter().find_map(|row| {
        let key = row["key"].as_str()?;
        let Some(truth) = key.parse().ok().and_then(|key| engine.instance_health(&key, now)) else {
            return Some(format!("{key} is not in the fleet"));
        };
        let breaker = truth.breaker.as_ref().map_or("unknown", |breaker| breaker.state.as_str());
        let told = [
            (row["pollStatus"]["consecutiveFailures"] == truth.consecutive_failures, "failures"),
            (row["pollStatus"]["lastSuccess"].is_null() == truth.last_success.is_none(), "last success"),
            (row["breaker"]["state"] == breaker, "breaker"),
            (row["deadLetter"]["present"] == truth.dead_letter.is_some(), "dead letter"),
        ];
        told.iter().find(|(same, _)| !same).map(|(_, what)| format!("{key}: {what} is not {truth:?}, but {row}"))
    })
}
