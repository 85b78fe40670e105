//! `instances.json`: what it may hold, what each error says, and that no secret gets out.

use std::fs;
use std::time::Duration;

use pulse::config::{Instance, Problem};
use pulse::engine::Millis;
use pulse::targets::{Access, Credentials, Secret, Trust};

use super::Folder;

const AUTH: &str = r#""auth": {"tokenId": "pulse@pve!monitor", "secret": "hunter2"}"#;

fn fleet(entries: &[&str]) -> String {
    format!(r#"{{"instances": [{}]}}"#, entries.join(", "))
}

fn load_one(entry: &str) -> Instance {
    let folder = Folder::new();
    folder.write("instances.json", fleet(&[entry]));
    folder.load().unwrap_or_else(|errors| panic!("{entry}: {errors}")).instances[0].clone()
}

/// The errors of a fleet of one, without the name of the file.
fn errors_of(entry: &str) -> Vec<String> {
    let folder = Folder::new();
    folder.write("instances.json", fleet(&[entry]));
    folder.errors().iter().map(|error| error.strip_prefix("instances.json: ").unwrap().to_owned()).collect()
}

#[test]
fn every_type_is_read_in_its_documented_form() {
    let folder = Folder::with_environment(&[("RACK1_SECRET", "s-env")]);
    folder.write("token", "s-file\n");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(folder.path().join("token"), private).unwrap();
    let ca = rcgen::generate_simple_self_signed(["pbs".to_owned()]).unwrap();
    folder.write("ca.pem", ca.cert.pem());
    let digest = ["aB"; 32].join(":");
    let pve = r#"{"type": "pve", "name": "rack-1", "displayName": "Rack 1", "url": "https://10.0.0.1:8006",
        "members": ["10.0.0.2"], "auth": {"tokenId": "pulse@pve!monitor", "secret": {"env": "RACK1_SECRET"}},
        "interval": "30s", "timeout": 2.5, "enabled": false}"#;
    let pbs = r#"{"type": "pbs", "name": "backup", "url": "pbs", "tls": {"caFile": "ca.pem"},
        "auth": {"tokenId": "pulse@pbs!monitor", "secret": {"file": "token"}}}"#;
    let pmg = format!(
        r#"{{"type": "pmg", "name": "mail", "url": "pmg", "tls": {{"fingerprint": "{digest}"}},
        "auth": {{"user": "pulse@pmg", "password": "s-inline"}}}}"#
    );
    let http = r#"{"type": "http", "name": "site", "url": "https://example.org/health", "method": "get",
        "expectedStatus": "200-204", "bodyContains": "ok"}"#;
    let tcp = r#"{"type": "tcp", "name": "db", "host": "10.0.0.9", "port": 5432}"#;
    folder.write("instances.json", fleet(&[pve, pbs, &pmg, http, tcp]));

    let config = folder.load().unwrap();
    let [pve, pbs, pmg, http, tcp] = &*config.instances else { panic!("five instances") };
    assert_eq!(pve.target.key.to_string(), "pve::rack-1");
    assert_eq!(pve.target.display_name, "Rack 1");
    assert_eq!(
        (pve.enabled, pve.interval, pve.timeout),
        (false, Some(Millis::from_secs(30)), Some(Millis::new(2_500)))
    );
    let Access::Pve(access) = &pve.target.access else { panic!("a pve") };
    let members: Vec<&str> = access.members.iter().map(url::Url::as_str).collect();
    assert_eq!(members, ["https://10.0.0.1:8006/", "https://10.0.0.2:8006/"]);
    let secret = Secret::new("s-env".into());
    assert_eq!(access.credentials, Credentials::Token { id: "pulse@pve!monitor".into(), secret });
    assert_eq!(access.trust, Trust::System);

    assert_eq!(pbs.target.display_name, "backup", "the name stands in for a missing display name");
    assert_eq!((pbs.enabled, pbs.interval, pbs.timeout), (true, None, None));
    let Access::Pbs(access) = &pbs.target.access else { panic!("a pbs") };
    assert_eq!(access.members[0].as_str(), "https://pbs:8007/");
    assert!(matches!(&access.credentials, Credentials::Token { secret, .. } if secret.expose() == "s-file"));
    assert_eq!(access.trust, Trust::Authorities(vec![ca.cert.der().clone()]));

    let Access::Pmg(access) = &pmg.target.access else { panic!("a pmg") };
    assert_eq!(access.members[0].as_str(), "https://pmg:8006/");
    let password = Secret::new("s-inline".into());
    assert_eq!(access.credentials, Credentials::Password { user: "pulse@pmg".into(), password });
    assert_eq!(access.trust, Trust::Fingerprint([0xab; 32]));

    let Access::Http(check) = &http.target.access else { panic!("an http") };
    assert_eq!((check.url.as_str(), check.method.as_str()), ("https://example.org/health", "GET"));
    assert_eq!((check.expected_status.clone(), check.body_contains.as_deref()), (200..=204, Some("ok")));
    let Access::Tcp(check) = &tcp.target.access else { panic!("a tcp") };
    assert_eq!((check.host.as_str(), check.port), ("10.0.0.9", 5432));

    let shown = format!("{config:?}");
    assert!(["s-env", "s-file", "s-inline"].iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[test]
fn the_documented_example_loads() {
    let page = include_str!("../../docs/instances.md");
    let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = Folder::with_environment(&[("BACKUP_SECRET", "hunter2")]);
    for secret in ["rack-1-token", "mail-password"] {
        folder.write(secret, "hunter2");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(folder.path().join(secret), private).unwrap();
    }
    folder.write("ca.pem", rcgen::generate_simple_self_signed(["pve".to_owned()]).unwrap().cert.pem());
    folder.write("instances.json", example);
    let keys: Vec<String> = folder.load().unwrap().instances.iter().map(|it| it.target.key.to_string()).collect();
    assert_eq!(keys, ["pve::rack-1", "pbs::backup", "pmg::mail", "http::site", "tcp::db"]);
}

#[test]
fn an_expected_status_is_a_number_or_a_text_or_a_range() {
    for (written, range) in
        [("200", 200..=200), ("\"204\"", 204..=204), ("\"200-399\"", 200..=399), ("null", 200..=299)]
    {
        let entry = format!(r#"{{"type": "http", "name": "a", "url": "a", "expectedStatus": {written}}}"#);
        let Access::Http(check) = load_one(&entry).target.access else { panic!("an http") };
        assert_eq!(check.expected_status, range);
    }
}

/// Each entry has exactly one error, at the path, beginning with the text, and free of the secret.
fn expect_errors<const N: usize>(cases: [(String, &str, &str); N]) {
    for (entry, path, text) in cases {
        let errors = errors_of(&entry);
        assert_eq!(errors.len(), 1, "{entry}: {errors:?}");
        let expected = format!("instances[0]{path}: {text}");
        assert!(errors[0].starts_with(&expected), "{entry}\nexpected {expected}\n     got {}", errors[0]);
        assert!(!errors[0].contains("hunter2"), "{}", errors[0]);
    }
}

fn pve(rest: &str) -> String {
    format!(r#"{{"type": "pve", "name": "a", {rest}}}"#)
}

fn with_auth(rest: &str) -> String {
    pve(&format!("{AUTH}, {rest}"))
}

fn auth(auth: &str) -> String {
    pve(&format!(r#""url": "a", "auth": {auth}"#))
}

fn http(rest: &str) -> String {
    format!(r#"{{"type": "http", "name": "a", "url": "https://a", {rest}}}"#)
}

fn tcp(rest: &str) -> String {
    format!(r#"{{"type": "tcp", "name": "a", {rest}}}"#)
}

#[test]
fn an_entry_needs_a_type_and_a_name_and_nothing_that_its_type_does_not_have() {
    expect_errors([
        ("7".to_owned(), "", "must be an object, but is a number"),
        (r#"{"name": "a"}"#.to_owned(), ".type", "is required"),
        (r#"{"type": "esx", "name": "a"}"#.to_owned(), ".type", "must be one of http, pbs, pmg, pve, tcp"),
        (r#"{"type": "tcp", "host": "a", "port": 1}"#.to_owned(), ".name", "is required"),
        (r#"{"type": "tcp", "name": "", "host": "a", "port": 1}"#.to_owned(), ".name", "the name is empty"),
        (tcp(r#""host": "a", "port": 1, "name": "b""#), ".name", "is given more than once; keep one"),
        (http(r#""auth": {}"#), ".auth", "unknown setting; known here: type, name, "),
    ]);
}

#[test]
fn what_is_wrong_with_a_proxmox_entry_is_told_with_its_path() {
    let long = "x".repeat(201);
    expect_errors([
        (with_auth(r#""url": "a", "intervall": 5"#), ".intervall", "unknown setting; did you mean interval?"),
        (with_auth(r#""displayName": "x""#), ".url", "is required"),
        (with_auth(r#""url": "http://a""#), ".url", "must begin with https://, since"),
        (with_auth(r#""url": "https://root:hunter2@a""#), ".url", "must not hold credentials"),
        (with_auth(r#""url": "a", "members": ["b", "https://A:8006"]"#), ".members[1]", "is the same address as one"),
        (with_auth(r#""url": "a", "members": ["b", 5]"#), ".members[1]", "must be a text, but is a number"),
        (with_auth(r#""url": "a", "interval": "99ms""#), ".interval", "is 99ms, but must be from 100ms to "),
        (with_auth(r#""url": "a", "timeout": "11m""#), ".timeout", "is 11m, but must be from 100ms to 10m"),
        (with_auth(r#""url": "a", "enabled": 1"#), ".enabled", "must be true or false, but is a number"),
        (with_auth(r#""url": "a", "displayName": """#), ".displayName", "must not be empty"),
        (with_auth(r#""url": "a", "displayName": "a\u0007""#), ".displayName", "holds a control character"),
        (with_auth(&format!(r#""url": "a", "displayName": "{long}""#)), ".displayName", "holds 201 bytes; at most 200"),
    ]);
}

#[test]
fn what_is_wrong_with_sign_in_and_trust_is_told_without_the_secret() {
    expect_errors([
        (with_auth(r#""url": "a", "tls": {}"#), ".tls", "must hold either caFile or fingerprint"),
        (
            with_auth(r#""url": "a", "tls": {"fingerprint": "AB:CD"}"#),
            ".tls.fingerprint",
            "must be 64 hexadecimal digits",
        ),
        (
            with_auth(&format!(r#""url": "a", "tls": {{"fingerprint": "{}"}}"#, "é".repeat(32))),
            ".tls.fingerprint",
            "must",
        ),
        (with_auth(r#""url": "a", "tls": {"caFile": "/nowhere/ca"}"#), ".tls.caFile", "/nowhere/ca does not exist"),
        (pve(r#""url": "a""#), ".auth", "is required"),
        (auth("{}"), ".auth", "must hold either tokenId with secret, or user with password"),
        (auth(r#"{"tokenId": "a@b!c", "password": "hunter2"}"#), ".auth", "must hold either tokenId with secret"),
        (auth(r#"{"tokenId": "a@b", "secret": "hunter2"}"#), ".auth.tokenId", "must be written user@realm!token-name"),
        (
            auth(r#"{"tokenId": "a@b!c\n", "secret": "hunter2"}"#),
            ".auth.tokenId",
            "must be written user@realm!token-name",
        ),
        (
            auth(r#"{"user": "root", "password": "hunter2"}"#),
            ".auth.user",
            "must be written user@realm, as in pulse@pmg",
        ),
        (auth(r#"{"user": "a@b", "password": ""}"#), ".auth.password", "the text is empty"),
        (auth(r#"{"user": "a@b", "password": "hunter2\r\nX: y"}"#), ".auth.password", "the text holds a control"),
        (
            auth(r#"{"user": "a@b", "password": 5}"#),
            ".auth.password",
            "must be a text, {\"file\": …}, {\"env\": …} or {\"encrypted\": …}, but",
        ),
        (
            auth(r#"{"user": "a@b", "password": {}}"#),
            ".auth.password",
            "must be a text, {\"file\": …}, {\"env\": …} or {\"encrypted\": …}",
        ),
        (
            auth(r#"{"user": "a@b", "password": {"env": "NO"}}"#),
            ".auth.password.env",
            "the environment variable NO is not",
        ),
        (
            auth(r#"{"user": "a@b", "password": {"file": "/nowhere/x"}}"#),
            ".auth.password.file",
            "/nowhere/x does not exist",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_an_endpoint_is_told_with_its_path() {
    expect_errors([
        (http(r#""method": "POST""#), ".method", "must be one of GET, HEAD, OPTIONS"),
        (http(r#""expectedStatus": 600"#), ".expectedStatus", "must be a status from 100 to 599"),
        (http(r#""expectedStatus": "299-200""#), ".expectedStatus", "must be a status from 100 to 599"),
        (http(r#""bodyContains": "ok", "method": "HEAD""#), ".bodyContains", "cannot be checked with HEAD"),
        (
            r#"{"type": "http", "name": "a", "url": "ftp://a"}"#.to_owned(),
            ".url",
            "must begin with http:// or https://",
        ),
        (tcp(r#""host": "a:5", "port": 5"#), ".host", "must be a host name or an IP address"),
        (tcp(r#""host": "a", "port": 65536"#), ".port", "must be a port from 1 to 65535"),
        (tcp(r#""host": "a", "port": "5432""#), ".port", "must be a port from 1 to 65535"),
    ]);
}

#[test]
fn tls_for_an_address_without_it_is_refused() {
    let digest = "ab".repeat(32);
    let entry = format!(r#"{{"type": "http", "name": "a", "url": "http://a", "tls": {{"fingerprint": "{digest}"}}}}"#);
    assert_eq!(
        errors_of(&entry),
        ["instances[0].tls: has no meaning for an http:// address; use https:// or remove it"]
    );
}

#[test]
fn all_errors_of_all_instances_are_told_at_once() {
    let folder = Folder::new();
    let first = r#"{"type": "pve", "name": "", "url": "http://a", "auth": {"user": "x", "password": {"env": "NO"}}}"#;
    let second = r#"{"type": "esx", "name": "b\n", "interval": "1ms"}"#;
    folder.write("instances.json", format!(r#"{{"instances": [{first}, {second}], "nodes": []}}"#));
    let paths: Vec<String> = folder.errors().iter().map(|error| error.split(": ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(
        paths,
        [
            "nodes",
            "instances[0].name",
            "instances[0].url",
            "instances[0].auth.user",
            "instances[0].auth.password.env",
            "instances[1].type",
            "instances[1].name",
            "instances[1].interval",
        ]
    );
}

#[test]
fn one_name_for_two_instances_of_a_type_is_refused_with_both_places() {
    let folder = Folder::new();
    let db = r#"{"type": "tcp", "name": "db", "host": "a", "port": 1}"#;
    let other_type = r#"{"type": "http", "name": "db", "url": "a"}"#;
    folder.write("instances.json", fleet(&[db, other_type, db]));
    assert_eq!(
        folder.errors(),
        ["instances.json: instances[2].name: tcp::db is already the name of instances[0]; \
          give one of them another name"]
    );
}

#[test]
fn the_revision_follows_what_a_poll_meets_and_nothing_else() {
    let entry = |name: &str, url: &str, secret: &str, rest: &str| {
        format!(
            r#"{{"type": "pve", "name": "{name}", "url": "{url}",
            "auth": {{"tokenId": "pulse@pve!monitor", "secret": "{secret}"}}{rest}}}"#
        )
    };
    let revision = |entry: String| load_one(&entry).revision;
    let original = revision(entry("a", "10.0.0.1", "one", ""));
    assert_eq!(original, 11_350_466_169_903_766_151, "the same in every run");
    let same = r#", "displayName": "A", "interval": 60, "timeout": 5, "enabled": false"#;
    assert_eq!(revision(entry("a", "https://10.0.0.1:8006", "one", same)), original);
    let fingerprint = format!(r#", "tls": {{"fingerprint": "{}"}}"#, "ab".repeat(32));
    for changed in [
        entry("a", "10.0.0.2", "one", ""),
        entry("a", "10.0.0.1", "two", ""),
        entry("a", "10.0.0.1", "one", r#", "members": ["10.0.0.2"]"#),
        entry("a", "10.0.0.1", "one", &fingerprint),
        entry("a", "10.0.0.1", "one", "").replace("monitor", "other"),
        entry("a", "10.0.0.1", "one", "").replace(r#""type": "pve""#, r#""type": "pmg""#),
    ] {
        assert_ne!(revision(changed.clone()), original, "{changed}");
    }
}

#[test]
fn a_file_beyond_the_bounds_is_refused() {
    let folder = Folder::new();
    let file = fs::File::create(folder.path().join("instances.json")).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    let errors = folder.load().unwrap_err();
    assert_eq!(errors.iter().next().unwrap().problem, Problem::TooLarge { limit: 64 * 1024 * 1024 });
    folder.write("instances.json", format!(r#"{{"instances": [{}0]}}"#, "0,".repeat(1_000_000)));
    assert_eq!(folder.errors(), ["instances.json: instances: holds more than 1000000 entries; remove some"]);
}

#[test]
fn ten_thousand_instances_load_within_a_second_of_processor_time() {
    let folder = Folder::new();
    folder.write("ca.pem", rcgen::generate_simple_self_signed(["pve".to_owned()]).unwrap().cert.pem());
    let entries: Vec<String> = (0..10_000)
        .map(|i| {
            let host = format!("10.{}.{}.1", i / 250, i % 250);
            format!(r#"{{"type": "pve", "name": "n{i}", "url": "{host}", {AUTH}, "tls": {{"caFile": "ca.pem"}}}}"#)
        })
        .collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    folder.write("instances.json", fleet(&entries));
    let before = thread_time();
    let config = folder.load().unwrap();
    let took = thread_time() - before;
    assert_eq!(config.instances.len(), 10_000);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    println!("10,000 instances in {took:?}");
}

/// Processor time of this thread, which other programs cannot lengthen.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
