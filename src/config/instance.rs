//! One entry of `instances.json`.
//!
//! The type decides which fields an entry has; a field of another type is unknown here.

use std::ops::RangeInclusive;

use url::Url;
use zeroize::Zeroizing;

use super::address;
use super::duration::span_from_json;
use super::entry::ENCRYPTED;
use super::error::{JsonErrors, Problem};
use super::instances::Instance;
use super::json::{Fields, Json, JsonPath};
use super::provided::InstanceSource;
use super::reference::{self, References};
use super::revision;
use super::seal::SecretPlace;
use crate::engine::{INTERVAL_RANGE, InstanceKey, InstanceType, MAX_NAME_BYTES, Millis, TIMEOUT_RANGE};
use crate::targets::{Access, Credentials, HttpCheck, ProxmoxAccess, Secret, Target, TcpCheck, Trust};

const MAX_MEMBERS: usize = 64;
const MAX_BODY_CONTAINS_BYTES: usize = 4 * 1024;
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// What an entry says it is, as far as that could be read.
pub(super) struct Identity {
    kind: Option<InstanceType>,
    pub(super) key: Option<InstanceKey>,
}

/// Takes type and name out of an entry.
pub(super) fn read_identity(fields: &mut Fields<'_>, errors: &mut JsonErrors<'_>) -> Identity {
    let kind = fields.require("type", errors, |json| {
        let kinds = InstanceType::ALL.map(InstanceType::as_str);
        json.into_text()?.parse::<InstanceType>().map_err(|_| Problem::NotOneOf(kinds.to_vec()))
    });
    // A name is judged even if the type is unknown, so that both are told at once.
    let any_kind = kind.unwrap_or(InstanceType::Pve);
    let key = fields.require("name", errors, |json| Ok(InstanceKey::new(any_kind, &json.into_text()?)?));
    Identity { kind, key: key.filter(|_| kind.is_some()) }
}

/// Reads what follows type and name.
pub(super) fn read(
    identity: Identity,
    mut fields: Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Instance> {
    let display_name = fields.read("displayName", errors, |json| short_text(json, MAX_NAME_BYTES));
    let enabled = fields.read("enabled", errors, Json::into_bool).unwrap_or(true);
    let interval = fields.read("interval", errors, |json| span_within(json, INTERVAL_RANGE));
    let timeout = fields.read("timeout", errors, |json| span_within(json, TIMEOUT_RANGE));
    // Which other fields belong here depends on the type.
    let key = identity.key.as_ref();
    let access = match identity.kind? {
        InstanceType::Pve => read_proxmox(key, &mut fields, 8006, references, errors).map(Access::Pve),
        InstanceType::Pbs => read_proxmox(key, &mut fields, 8007, references, errors).map(Access::Pbs),
        InstanceType::Pmg => read_proxmox(key, &mut fields, 8006, references, errors).map(Access::Pmg),
        InstanceType::Http => read_http(&mut fields, references, errors).map(Access::Http),
        InstanceType::Tcp => read_tcp(&mut fields, errors).map(Access::Tcp),
    };
    fields.finish(errors);
    let (key, access) = (identity.key?, access?);
    let display_name = display_name.unwrap_or_else(|| key.name().to_owned());
    let revision = revision::of(&access);
    let target = Target { key, display_name, access };
    Some(Instance { target, enabled, interval, timeout, revision, source: InstanceSource::Inventory })
}

fn read_proxmox(
    key: Option<&InstanceKey>,
    fields: &mut Fields<'_>,
    port: u16,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<ProxmoxAccess> {
    let url = fields.require("url", errors, |json| Ok(address::proxmox(&json.into_text()?, port)?));
    let others = fields.read("members", errors, |json| json.into_array_of(MAX_MEMBERS));
    let list = fields.path.field("members");
    let mut members: Vec<Url> = url.into_iter().collect();
    for (index, member) in others.unwrap_or_default().into_iter().enumerate() {
        let member = member
            .into_text()
            .and_then(|text| Ok(address::proxmox(&text, port)?))
            .and_then(|member| if members.contains(&member) { Err(Problem::SameAddress) } else { Ok(member) });
        members.extend(errors.keep(&list.item(index), member));
    }
    let credentials = read_auth(key, fields, references, errors);
    let trust = read_trust(fields, references, errors);
    Some(ProxmoxAccess { members, credentials: credentials?, trust: trust? })
}

fn read_auth(
    key: Option<&InstanceKey>,
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Credentials> {
    let path = fields.path.field("auth");
    let auth = fields.require("auth", errors, Ok)?;
    let mut auth = Fields::open(auth, &path, errors)?;
    let token = (auth.take("tokenId"), auth.take("secret"));
    let login = (auth.take("user"), auth.take("password"));
    auth.finish(errors);
    match (token, login) {
        ((Some(id), Some(secret)), (None, None)) => {
            let id = errors.keep(&path.field("tokenId"), token_id(id));
            let secret = read_secret(key, "secret", secret, &path, references, errors);
            Some(Credentials::Token { id: id?, secret: secret? })
        }
        ((None, None), (Some(user), Some(password))) => {
            let user = errors.keep(&path.field("user"), user_at_realm(user));
            let password = read_secret(key, "password", password, &path, references, errors);
            Some(Credentials::Password { user: user?, password: password? })
        }
        _ => {
            errors.add(&path, Problem::AuthForm);
            None
        }
    }
}

fn read_secret(
    key: Option<&InstanceKey>,
    field: &'static str,
    json: Json,
    auth: &JsonPath<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Secret> {
    let path = auth.field(field);
    let json = match json {
        Json::Text(text) => return errors.keep(&path, reference::secret(&Zeroizing::new(text), || "the text".into())),
        Json::Object(_) => json,
        other => {
            errors.add(&path, other.wrong_type("a text, {\"file\": …}, {\"env\": …} or {\"encrypted\": …}"));
            return None;
        }
    };
    let mut source = Fields::open(json, &path, errors)?;
    let file = source.read("file", errors, Json::into_text);
    let variable = source.read("env", errors, Json::into_text);
    let sealed = source.read(ENCRYPTED, errors, Json::into_text);
    source.finish(errors);
    match (file, variable, sealed) {
        (Some(file), None, None) => errors.keep(&path.field("file"), references.secret_of_file(&file)),
        (None, Some(variable), None) => errors.keep(&path.field("env"), references.secret_of_variable(&variable)),
        (None, None, Some(sealed)) => {
            let place = SecretPlace { instance: key?, field };
            errors.keep(&path.field(ENCRYPTED), references.open(place, &sealed))
        }
        _ => {
            errors.add(&path, Problem::SecretForm);
            None
        }
    }
}

fn read_trust(fields: &mut Fields<'_>, references: &mut References<'_>, errors: &mut JsonErrors<'_>) -> Option<Trust> {
    let path = fields.path.field("tls");
    let Some(tls) = fields.take("tls") else { return Some(Trust::System) };
    let mut tls = Fields::open(tls, &path, errors)?;
    let ca_file = tls.take("caFile");
    let fingerprint = tls.take("fingerprint");
    tls.finish(errors);
    match (ca_file, fingerprint) {
        (Some(file), None) => {
            let authorities = file.into_text().and_then(|file| Ok(references.authorities_of_file(&file)?));
            errors.keep(&path.field("caFile"), authorities).map(Trust::Authorities)
        }
        (None, Some(digest)) => errors.keep(&path.field("fingerprint"), fingerprint_of(digest)).map(Trust::Fingerprint),
        _ => {
            errors.add(&path, Problem::TlsForm);
            None
        }
    }
}

fn read_http(
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<HttpCheck> {
    let url = fields.require("url", errors, |json| Ok(address::http(&json.into_text()?)?));
    let method = fields.read("method", errors, method).unwrap_or_else(|| "GET".to_owned());
    let expected_status = fields.read("expectedStatus", errors, status_range).unwrap_or(200..=299);
    let body_contains = fields.read("bodyContains", errors, |json| match json.into_text()? {
        text if text.is_empty() => Err(Problem::Empty),
        text if text.len() > MAX_BODY_CONTAINS_BYTES => Err(Problem::TooLong(text.len(), MAX_BODY_CONTAINS_BYTES)),
        _ if method == "HEAD" => Err(Problem::BodyWithHead),
        text => Ok(text),
    });
    let trust = read_trust(fields, references, errors);
    let (url, trust) = (url?, trust?);
    if url.scheme() == "http" && trust != Trust::System {
        errors.add(&fields.path.field("tls"), Problem::TlsWithoutHttps);
    }
    Some(HttpCheck { url, method, expected_status, body_contains, trust })
}

fn read_tcp(fields: &mut Fields<'_>, errors: &mut JsonErrors<'_>) -> Option<TcpCheck> {
    let host = fields.require("host", errors, |json| address::host(&json.into_text()?).ok_or(Problem::Host));
    let port = fields.require("port", errors, |json| port(&json));
    Some(TcpCheck { host: host?, port: port? })
}

pub(super) fn port(json: &Json) -> Result<u16, Problem> {
    let number = json.as_number().and_then(serde_json::Number::as_u64);
    number.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or(Problem::Port)
}

pub(super) fn short_text(json: Json, max_bytes: usize) -> Result<String, Problem> {
    match json.into_text()? {
        text if text.is_empty() => Err(Problem::Empty),
        text if text.len() > max_bytes => Err(Problem::TooLong(text.len(), max_bytes)),
        text if text.chars().any(char::is_control) => Err(Problem::ControlCharacter),
        text => Ok(text),
    }
}

pub(super) fn span_within(json: Json, range: RangeInclusive<Millis>) -> Result<Millis, Problem> {
    let span = span_from_json(json)?;
    if range.contains(&span) {
        return Ok(span);
    }
    let (min, max) = range.into_inner();
    Err(Problem::OutOfRange { value: span.to_string(), min: min.to_string(), max: max.to_string() })
}

fn token_id(json: Json) -> Result<String, Problem> {
    let text = json.into_text()?;
    let valid = text.split_once('!').is_some_and(|(user, token)| is_user_at_realm(user) && is_word(token));
    if valid { Ok(text) } else { Err(Problem::TokenId) }
}

fn user_at_realm(json: Json) -> Result<String, Problem> {
    let text = json.into_text()?;
    if is_user_at_realm(&text) { Ok(text) } else { Err(Problem::User) }
}

/// A user's name may itself hold an `@`; the realm is what follows the last one.
fn is_user_at_realm(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, realm)| is_word(user) && is_word(realm))
}

/// Fit to stand in a header before the `=`, `:` or `!` that ends it.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '!' | '=' | ':' | '/'))
}

fn fingerprint_of(json: Json) -> Result<[u8; 32], Problem> {
    crate::targets::fingerprint_of(&json.into_text()?).ok_or(Problem::Fingerprint)
}

fn method(json: Json) -> Result<String, Problem> {
    let method = json.into_text()?.to_ascii_uppercase();
    if METHODS.contains(&method.as_str()) { Ok(method) } else { Err(Problem::NotOneOf(METHODS.to_vec())) }
}

fn status_range(json: Json) -> Result<RangeInclusive<u16>, Problem> {
    let text = match json {
        Json::Number(number) => number.to_string(),
        Json::Text(text) => text,
        other => return Err(other.wrong_type("a status such as 200, or a range such as \"200-299\"")),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match status(first).zip(status(last)) {
        Some((first, last)) if first <= last => Ok(first..=last),
        _ => Err(Problem::Status),
    }
}
