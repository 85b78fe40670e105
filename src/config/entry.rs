//! One entry of `instances.json` as it is shown and given: its secrets can be set and kept, and never be seen.

use serde::{Deserialize, Serialize, Serializer};

use super::error::Problem;
use super::json::Json;
use super::keyring::Keyring;
use super::seal::SecretPlace;
use crate::engine::{InstanceKey, InstanceType};

/// The fields of `auth` that hold a secret.
pub(super) const SECRET_FIELDS: [&str; 2] = ["secret", "password"];
/// The field of a sealed secret.
pub(super) const ENCRYPTED: &str = "encrypted";
/// What stands for a secret that is there: `{"set": true}`.
pub(super) const SET: &str = "set";

/// An instance as the API takes it: an entry of `instances.json`, in which `{"set": true}` keeps a secret as it is.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Json")]
pub struct GivenEntry(pub(super) Json);

impl GivenEntry {
    /// What it says it is, if it does.
    pub fn key(&self) -> Option<InstanceKey> {
        key_of(&self.0)
    }
}

impl TryFrom<Json> for GivenEntry {
    type Error = Problem;

    fn try_from(json: Json) -> Result<Self, Problem> {
        json.into_object().map(|entry| Self(Json::Object(entry)))
    }
}

/// An instance as the API shows it: its entry of `instances.json`, with `{"set": true}` for every secret in it.
#[derive(Clone)]
pub struct ShownEntry(Json);

impl ShownEntry {
    pub(super) fn new(entry: Json) -> Self {
        Self(masked(entry))
    }

    /// The same without the query of its address, which may hold a token of the endpoint's.
    #[must_use]
    pub fn without_query(mut self) -> Self {
        if let Some(Json::Text(url)) = self.0.get_mut("url") {
            *url = without_query(url);
        }
        self
    }
}

impl Serialize for ShownEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// An address whose query is hidden, if it has one.
pub(super) fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(address, _)| format!("{address}?…"))
}

/// What an entry says it is.
pub(super) fn key_of(entry: &Json) -> Option<InstanceKey> {
    let text = |name| match entry.get(name) {
        Some(Json::Text(text)) => Some(text),
        _ => None,
    };
    InstanceKey::new(text("type")?.parse::<InstanceType>().ok()?, text("name")?).ok()
}

/// The secrets of an entry that has any, by the name of their field.
pub(super) fn secrets_mut(entry: &mut Json) -> impl Iterator<Item = (&'static str, &mut Json)> {
    let auth = match entry.get_mut("auth") {
        Some(Json::Object(auth)) => auth.as_mut_slice(),
        _ => &mut [],
    };
    auth.iter_mut().filter_map(|(name, value)| {
        let field = SECRET_FIELDS.into_iter().find(|field| field == name)?;
        Some((field, value))
    })
}

/// Whether a value holds a secret itself, rather than telling where it is.
pub(super) fn holds_secret(value: &Json) -> bool {
    matches!(value, Json::Text(_)) || value.get(ENCRYPTED).is_some()
}

/// Whether a value asks for the secret to stay as it is.
pub(super) fn is_set(value: &Json) -> bool {
    value.get(SET) == Some(&Json::Bool(true))
}

/// The entry with `{"set": true}` for every secret in it.
pub(super) fn masked(mut entry: Json) -> Json {
    for (_, value) in secrets_mut(&mut entry) {
        if holds_secret(value) {
            *value = Json::Object(vec![(SET.to_owned(), Json::Bool(true))]);
        }
    }
    entry
}

/// The entry with its secrets in plain text, as far as they open.
pub(super) fn opened(mut entry: Json, keys: Option<&Keyring>) -> Json {
    let (Some(instance), Some(keys)) = (key_of(&entry), keys) else { return entry };
    for (field, value) in secrets_mut(&mut entry) {
        if let Some(Json::Text(sealed)) = value.get(ENCRYPTED)
            && let Ok(secret) = keys.open(SecretPlace { instance: &instance, field }, sealed)
        {
            *value = Json::Text(secret.expose().to_owned());
        }
    }
    entry
}

/// The entry with the credentials of another, and its authority unless it has a trust of its own.
pub(super) fn like(entry: Json, model: &Json) -> Json {
    let mut fields = match entry {
        Json::Object(fields) => fields,
        other => return other,
    };
    let pinned = fields.iter().any(|(name, _)| name == "tls");
    fields.retain(|(name, _)| name != "auth");
    let taken = if pinned { ["auth"].as_slice() } else { ["auth", "tls"].as_slice() };
    fields.extend(taken.iter().filter_map(|name| Some(((*name).to_owned(), model.get(name)?.clone()))));
    Json::Object(fields)
}

/// The entry with its plain secrets sealed.
pub(super) fn sealed(mut entry: Json, instance: &InstanceKey, keys: &Keyring) -> Result<Json, Problem> {
    for (field, value) in secrets_mut(&mut entry) {
        if let Json::Text(secret) = value {
            let text = keys.seal(SecretPlace { instance, field }, secret).map_err(|_| Problem::NoRandomness)?;
            zeroize::Zeroize::zeroize(secret);
            *value = Json::Object(vec![(ENCRYPTED.to_owned(), Json::Text(text))]);
        }
    }
    Ok(entry)
}

/// Whether an entry asks for any secret to stay as it is.
pub(super) fn keeps_secrets(entry: &Json) -> bool {
    let Some(Json::Object(auth)) = entry.get("auth") else { return false };
    auth.iter().any(|(name, value)| SECRET_FIELDS.contains(&name.as_str()) && !matches!(value, Json::Text(_)))
}
