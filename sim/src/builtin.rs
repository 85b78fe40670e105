//! The scenarios that come with the simulator.

use crate::scenario::Scenario;

/// Name and text of each built-in scenario. `swarm` is not among them: every seed makes its own.
pub const BUILTIN: [(&str, &str); 8] = [
    ("integration", include_str!("../scenarios/integration.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("thundering-herd", include_str!("../scenarios/thundering-herd.toml")),
    ("credential-rotation", include_str!("../scenarios/credential-rotation.toml")),
    ("flapping", include_str!("../scenarios/flapping.toml")),
    ("slow-host", include_str!("../scenarios/slow-host.toml")),
    ("mass-outage", include_str!("../scenarios/mass-outage.toml")),
    ("inventory-churn", include_str!("../scenarios/inventory-churn.toml")),
];

/// The built-in scenario of this name.
pub fn builtin(name: &str) -> Option<Scenario> {
    let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
    Some(Scenario::parse(text, name.as_ref()).expect("a test parses every built-in scenario"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_valid_and_named_as_its_file() {
        for (name, _) in BUILTIN {
            assert_eq!(builtin(name).unwrap().name, name);
        }
    }
}
