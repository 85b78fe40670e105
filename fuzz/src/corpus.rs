//! Valid input to start from: at least one call for every route, a fleet of every type, all settings.

use serde_json::{Value, json};

use crate::request::Call;

/// The password of every user here, and the one that users are given.
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple-1";
pub(crate) const OTHER_PASSWORD: &str = "another-horse-battery-staple-2";
pub(crate) const PASSPHRASE: &str = "passphrase-of-an-export-3";
/// The secrets of the fleet, by instance.
pub(crate) const HOST_SECRETS: [&str; 4] = [
    "5ec2e700-0000-4000-8000-00000000a001",
    "5ec2e700-0000-4000-8000-00000000a002",
    "mail-gateway-password-a003",
    "query-token-of-a-site-a004",
];

/// A call that the router answers as it should.
pub(crate) struct Seed {
    pub(crate) call: Call,
    /// Of so many draws it is one; costly calls are rare.
    pub(crate) one_in: usize,
}

/// Valid calls: at least one for every route.
pub(crate) fn calls(setup_token: &str) -> Vec<Seed> {
    let mut seeds = reads();
    seeds.extend(management());
    seeds.extend(configuration());
    seeds.extend(accounts(setup_token));
    seeds
}

fn seed(method: &str, target: &str, body: &str) -> Seed {
    Seed { call: Call::new(method, target, body), one_in: 1 }
}

fn with(method: &str, target: &str, body: &Value) -> Seed {
    let mut seed = seed(method, target, &body.to_string());
    seed.call = seed.call.header("content-type", "application/json");
    seed
}

fn rare(one_in: usize, seed: Seed) -> Seed {
    Seed { one_in, ..seed }
}

fn reads() -> Vec<Seed> {
    let health = seed("GET", "/api/monitoring/scheduler/health", "");
    vec![
        rare(2, health),
        rare(8, seed("GET", "/api/events", "")),
        seed("GET", "/api/events/recent", ""),
        seed("GET", "/api/monitoring/overview?after=pve::rack-1&limit=10", ""),
        seed("GET", "/api/monitoring/instances/pve%3A%3Arack-1", ""),
        seed("GET", "/api/monitoring/troubles?after=http::site", ""),
        rare(6, seed("POST", "/api/audit/verify", "")),
        rare(4, seed("GET", "/", "")),
        rare(2, seed("GET", "/instances/pve%3A%3Arack-1", "")),
        rare(4, seed("GET", "/login?next=%2Fsettings%2Fsecurity", "")),
        rare(4, seed("GET", "/settings/security", "")),
        rare(4, seed("GET", "/assets/none/style.css", "")),
        seed("GET", "/api/monitoring/overview", ""),
        seed("GET", "/api/monitoring/troubles?limit=5", ""),
        seed("GET", "/api/monitoring/instances/pve%3A%3Arack-1", ""),
        seed("GET", "/api/state?key=pve::rack-1&type=pve&limit=10", ""),
        seed("GET", "/api/state?after=http::site&limit=1000", ""),
        seed("GET", "/api/system/settings", ""),
        seed("GET", "/api/config/nodes?after=pve::rack-1&limit=2", ""),
        seed("GET", "/api/config/nodes/pve%3A%3Arack-1", ""),
        rare(6, seed("GET", "/api/config/nodes/pve%3A%3Arack-1/cluster", "")),
        rare(4, seed("GET", "/api/config/history?before=900&limit=3", "")),
        rare(4, seed("GET", "/api/config/history/1?since=0", "")),
        seed("GET", "/api/config/history/2", ""),
        seed("GET", "/api/notifications", ""),
        seed("GET", "/api/updates/history", ""),
        seed("GET", "/api/security/tokens", ""),
        seed("GET", "/api/security/me", ""),
        seed("GET", "/api/security/me/sessions", ""),
        seed("GET", "/api/security/sessions", ""),
        seed("GET", "/api/security/users", ""),
        rare(3, seed("GET", "/api/audit?actor=user:alice&action=breaker.reset&outcome=done&limit=5", "")),
        rare(
            6,
            seed("GET", "/api/audit?since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z&before=500&limit=20", ""),
        ),
        rare(12, seed("GET", "/api/audit?format=jsonl&limit=30", "")),
        seed("GET", "/api/health", ""),
        seed("GET", "/api/version", ""),
        rare(12, seed("GET", "/api/openapi.json", "")),
    ]
}

fn management() -> Vec<Seed> {
    let reason = json!({"reason": "the disk was replaced"});
    let key = "pve%3A%3Afailing";
    let path = |rest: &str| format!("/api/monitoring/{rest}").replace("KEY", key);
    vec![
        with("POST", &path("breakers/KEY/reset"), &reason),
        with("POST", &path("breakers/tcp::db/reset"), &reason),
        seed("POST", &path("dlq/retry"), ""),
        with("POST", &path("dlq/retry?type=pve&reason=permanent_failure&olderThan=5m&dryRun=true"), &reason),
        with("POST", &path("dlq/retry"), &json!({"reason": "these", "keys": ["pve::failing", "pbs::refusing"]})),
        with("POST", &path("dlq/KEY/retry"), &reason),
        seed("POST", &path("dlq/pbs::refusing/retry"), ""),
        with("DELETE", &path("dlq/KEY"), &reason),
        seed("DELETE", &path("dlq/pbs%3A%3Arefusing"), ""),
        with("POST", &path("instances/KEY/poll"), &reason),
        seed("POST", &path("instances/pve::rack-1/poll"), ""),
        with("POST", &path("instances/pve::rack-1/pause"), &reason),
        with("POST", &path("instances/pve::rack-1/resume"), &reason),
        seed("POST", &path("instances/KEY/resume"), ""),
        seed("POST", &path("instances/pbs::refusing/resume"), ""),
    ]
}

fn configuration() -> Vec<Seed> {
    let reason = json!({"reason": "more of them"});
    let node =
        |name: &str, port: u16| json!({"instance": {"type": "tcp", "name": name, "host": "127.0.0.1", "port": port}});
    let mut fleet = fleet();
    let mut pve = fleet["instances"][0].take();
    pve["auth"]["secret"] = json!({"set": true});
    let patch = json!({"adaptivePollingBaseInterval": "11s", "pollingMaxInFlight": 64, "pvePollingInterval": null});
    vec![
        with("POST", "/api/system/settings/update", &patch),
        with("POST", "/api/system/settings/update", &all_settings()),
        with("POST", "/api/notifications/test", &json!({"channel": "chat", "reason": "is it there?"})),
        with("POST", "/api/config/nodes", &node("extra", 9)),
        with("POST", "/api/config/nodes", &node("spare", 10)),
        with("PUT", "/api/config/nodes/tcp::extra", &node("extra", 11)),
        with("PUT", "/api/config/nodes/pve%3A%3Arack-1", &json!({"instance": pve, "reason": "moved"})),
        with("DELETE", "/api/config/nodes/tcp::extra", &reason),
        seed("DELETE", "/api/config/nodes/tcp%3A%3Aspare", ""),
        rare(6, with("POST", "/api/config/nodes/pve%3A%3Arack-1/cluster", &json!({"nodes": [{"name": "rack-1-2"}]}))),
        rare(6, with("POST", "/api/config/nodes/test-connection", &json!({"key": "tcp::db"}))),
        rare(6, with("POST", "/api/config/nodes/test-connection", &node("tried", 1))),
        rare(6, with("POST", "/api/config/rollback", &json!({"version": 1, "reason": "it was better"}))),
        rare(6, with("POST", "/api/config/rollback", &json!({"reason": "back"}))),
        rare(6, with("POST", "/api/config/export", &json!({"passphrase": PASSPHRASE, "reason": "a backup"}))),
        rare(6, seed("POST", "/api/config/import?reason=again", &format!("{PASSPHRASE}\nno export at all"))),
        rare(20, with("POST", "/api/config/rekey", &reason)),
    ]
}

fn accounts(setup_token: &str) -> Vec<Seed> {
    let victim = json!({"name": "victim", "role": "operator", "password": OTHER_PASSWORD, "reason": "new here"});
    let setup =
        || with("POST", "/api/setup", &json!({"token": setup_token, "name": "first", "password": OTHER_PASSWORD}));
    let lost = json!({"reason": "a lost laptop"});
    vec![
        with(
            "POST",
            "/api/security/tokens",
            &json!({"name": "spare", "role": "viewer", "expiresAt": "2099-01-01T00:00:00Z"}),
        ),
        with("POST", "/api/security/tokens", &json!({"name": "spare 2", "role": "admin", "reason": "a script"})),
        with("DELETE", "/api/security/tokens/spare%202", &json!({"reason": "no longer used"})),
        seed("DELETE", "/api/security/tokens/spare", ""),
        // It is good only until there are users.
        setup(),
        setup(),
        setup(),
        with("POST", "/api/login", &json!({"name": "alice", "password": PASSWORD})),
        with("POST", "/api/login", &json!({"name": "nobody", "password": OTHER_PASSWORD})),
        with("POST", "/api/login", &json!({"name": OTHER_PASSWORD, "password": PASSWORD})),
        rare(4, seed("POST", "/api/logout", "")),
        with("POST", "/api/security/me/password", &json!({"currentPassword": OTHER_PASSWORD, "newPassword": PASSWORD})),
        rare(
            3,
            with("POST", "/api/security/me/password", &json!({"currentPassword": PASSWORD, "newPassword": PASSWORD})),
        ),
        rare(4, seed("DELETE", "/api/security/me/sessions/3", "")),
        with("DELETE", "/api/security/sessions/2", &lost),
        with("DELETE", "/api/security/sessions/5", &lost),
        with("DELETE", "/api/security/sessions/8", &lost),
        with("POST", "/api/security/users", &victim),
        with("PUT", "/api/security/users/victim/role", &json!({"role": "admin", "reason": "promoted"})),
        with("PUT", "/api/security/users/victim/password", &json!({"password": PASSWORD})),
        with("DELETE", "/api/security/users/victim", &json!({"reason": "left"})),
    ]
}

/// `instances.json` with every type and every field, on loopback alone.
pub(crate) fn fleet() -> Value {
    let pve = |name: &str, secret: &str| {
        json!({
            "type": "pve", "name": name, "displayName": "Rack 1", "url": "https://127.0.0.1:1", "members": ["127.0.0.2:1"],
            "auth": {"tokenId": "pulse@pve!monitor", "secret": secret}, "interval": "30s", "timeout": 5, "enabled": true,
        })
    };
    let fingerprint = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF".repeat(2).replace("FF00", "FF:00");
    let [one, two, three, four] = HOST_SECRETS;
    json!({"instances": [
        pve("rack-1", one),
        pve("failing", one),
        {
            "type": "pbs", "name": "refusing", "url": "127.0.0.1:1", "auth": {"tokenId": "pulse@pbs!m", "secret": two},
            "tls": {"fingerprint": fingerprint},
        },
        {"type": "pmg", "name": "mail", "url": "127.0.0.1:1", "auth": {"user": "pulse@pmg", "password": three}},
        {
            "type": "http", "name": "site", "url": format!("http://127.0.0.1:1/up?token={four}"), "method": "GET",
            "expectedStatus": "200-299", "bodyContains": "ok", "interval": 60,
        },
        {"type": "tcp", "name": "db", "host": "127.0.0.1", "port": 1},
    ]})
}

/// `system.json` with every setting.
pub(crate) fn all_settings() -> Value {
    let defaults = pulse::config::settings_markdown();
    let mut settings = serde_json::Map::new();
    for line in defaults.lines() {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if let [_, name, _, default, ..] = cells[..]
            && pulse::config::SETTINGS.iter().any(|setting| setting.name == name)
        {
            let value = default.parse::<u64>().map(Value::from).or_else(|_| default.parse::<bool>().map(Value::from));
            settings.insert(name.to_owned(), value.unwrap_or_else(|_| default.into()));
        }
    }
    settings.into()
}

/// The same with files of targets, whose instances share every field that they may.
pub(crate) fn settings_with_discovery() -> Value {
    let mut settings = all_settings();
    let http = json!({"paths": ["targets/*.json", "targets.json", "targets/*.yml"], "type": "http", "enabled": false, "interval": "1h",
        "timeout": "5s", "method": "GET", "expectedStatus": "200-299", "bodyContains": "ok"});
    settings["discovery"] = json!({"files": [http]});
    settings
}

/// A file of another tool in the form of `instances.json`, beside [`fleet`].
pub(crate) fn fragment() -> Value {
    let mut fleet = fleet();
    for instance in fleet["instances"].as_array_mut().into_iter().flatten() {
        instance["name"] = format!("{}-elsewhere", instance["name"].as_str().unwrap_or_default()).into();
    }
    fleet
}

/// A file of targets as people write it, beside [`targets`].
pub(crate) const TARGETS_IN_YAML: &str = "\
# the second floor
- targets:
    - https://127.0.0.1:9/second # and what is behind it
    - 'http://[::1]:9/second'
  labels: &common
    __pulse_enabled: false
    __pulse_interval: 30s
    __pulse_expected_status: 200-299
    job: endpoints
- targets: [127.0.0.1:10, \"127.0.0.1:11\"]
  labels:
    <<: *common
    __pulse_body_contains: |-
      all is well
    __meta_site: ~
- {targets: [], labels: *common}
";

/// A file of targets, with every label.
pub(crate) fn targets() -> Value {
    let labels = json!({"job": "endpoints", "__meta_site": "x", "__pulse_name": "one", "__pulse_display_name": "One",
        "__pulse_type": "http", "__pulse_enabled": "false", "__pulse_interval": "30s", "__pulse_timeout": "1s",
        "__pulse_method": "OPTIONS", "__pulse_expected_status": "204", "__pulse_body_contains": "up",
        "__pulse_fingerprint": "ab".repeat(32)});
    json!([{"targets": ["https://127.0.0.1:9/"], "labels": labels}, {"targets": ["127.0.0.1:9", "http://[::1]:9/"]}])
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use pulse::api::ROUTES;

    use super::*;

    #[test]
    fn every_route_has_a_call_to_start_from() {
        let calls: Vec<(Vec<u8>, String)> = calls("setup_token")
            .into_iter()
            .map(|seed| (seed.call.method, String::from_utf8(seed.call.target).unwrap()))
            .collect();
        for route in ROUTES {
            let fits = |(method, target): &(Vec<u8>, String)| {
                let (path, parts) = (target.split('?').next().unwrap(), route.path.split('/'));
                let same = path.split('/').count() == parts.clone().count()
                    && parts.zip(path.split('/')).all(|(part, given)| part.starts_with('{') || part == given);
                same && Method::from_bytes(method).unwrap() == route.method
            };
            assert!(calls.iter().any(fits), "{route:?}");
        }
    }

    #[test]
    fn every_setting_is_given() {
        assert_eq!(all_settings().as_object().unwrap().len(), pulse::config::SETTINGS.len());
    }
}
