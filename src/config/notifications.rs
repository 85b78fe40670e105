//! `notifications` of `system.json`: whom to tell what, and how to reach them.
//!
//! Secrets stand in files or variables, never in `system.json` itself: that is shown, kept in the history and carried to
//! other machines as it is ([why](../../docs/decisions/0026-notifications-are-written-by-hand.md)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lettre::message::Mailbox;
use rustls_pki_types::CertificateDer;
use url::{Host, Url};

use super::address;
use super::environment::Environment;
use super::error::{ConfigErrors, JsonErrors, Problem, Source};
use super::instance::{port, short_text, span_within};
use super::json::{Fields, Json, JsonPath};
use super::reference::References;
use crate::engine::Millis;
use crate::notify::{
    Channel, MAX_TEMPLATE_BYTES, MailChannel, MailSecurity, Message, NewsKind, NotificationSettings, Route, Template,
    WebhookChannel,
};
use crate::targets::Secret;

/// Its name in `system.json`.
pub(super) const NOTIFICATIONS: &str = "notifications";
const MAX_CHANNELS: usize = 32;
const MAX_HEADERS: usize = 16;
const MAX_RECIPIENTS: usize = 32;
const MAX_NAME_BYTES: usize = 64;
const MAX_TEXT_BYTES: usize = 1024;
const DAY: Millis = Millis::from_mins(24 * 60);
const JSON: &str = "application/json";

/// Reads the entry of `system.json`, which is the file at `path`.
pub(super) fn read(
    json: Json,
    path: &Path,
    environment: &Environment,
) -> (Result<NotificationSettings, ConfigErrors>, BTreeSet<PathBuf>) {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut references = References::new(folder, environment, None);
    let mut errors = JsonErrors::new(Source::File(path));
    let settings = read_settings(json, &mut references, &mut errors).unwrap_or_default();
    (errors.or(settings), references.into_files())
}

fn read_settings(
    json: Json,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<NotificationSettings> {
    let path = JsonPath::Root.field(NOTIFICATIONS);
    let mut fields = Fields::open(json, &path, errors)?;
    let defaults = NotificationSettings::default();
    let mut span =
        |name, range, otherwise| fields.read(name, errors, |json| span_within(json, range)).unwrap_or(otherwise);
    let short = Millis::new(100);
    let group_window = span("groupWindow", Millis::ZERO..=Millis::from_mins(60), defaults.group_window);
    let quiet_period = span("quietPeriod", Millis::ZERO..=DAY, defaults.quiet_period);
    let retry_initial = span("retryInitial", short..=DAY, defaults.retry_initial);
    let retry_max = span("retryMax", short..=DAY, defaults.retry_max);
    let give_up_after = span("giveUpAfter", Millis::ZERO..=Millis::from_mins(7 * 24 * 60), defaults.give_up_after);
    if retry_initial > retry_max {
        errors.add(
            &path.field("retryInitial"),
            Problem::Rule(format!("is {retry_initial}, more than retryMax ({retry_max})")),
        );
    }
    let list = fields.read("channels", errors, |json| json.into_array_of(MAX_CHANNELS));
    let place = path.field("channels");
    let mut channels: Vec<Arc<Channel>> = Vec::new();
    for (index, item) in list.unwrap_or_default().into_iter().enumerate() {
        let item_path = place.item(index);
        let Some(channel) = read_channel(item, &item_path, references, errors) else { continue };
        if channels.iter().any(|other| other.name == channel.name) {
            errors.add(
                &item_path.field("name"),
                Problem::Rule("is the name of a channel before it; give another".to_owned()),
            );
        }
        channels.push(Arc::new(channel));
    }
    fields.finish(errors);
    Some(NotificationSettings { group_window, quiet_period, retry_initial, retry_max, give_up_after, channels })
}

fn read_channel(
    json: Json,
    path: &JsonPath<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Channel> {
    let mut fields = Fields::open(json, path, errors)?;
    let kind = fields.require("type", errors, |json| match json.into_text()?.as_str() {
        "webhook" => Ok(true),
        "mail" => Ok(false),
        _ => Err(Problem::NotOneOf(vec!["webhook", "mail"])),
    });
    let name = fields.require("name", errors, |json| short_text(json, MAX_NAME_BYTES).and_then(plain_name));
    let kinds = fields.read("events", errors, news_kinds).unwrap_or_else(|| NewsKind::ALL.into());
    let route = if kind? {
        read_webhook(&mut fields, references, errors).map(Route::Webhook)
    } else {
        read_mail(&mut fields, references, errors).map(Route::Mail)
    };
    fields.finish(errors);
    Some(Channel { name: name?.into(), kinds, route: route? })
}

fn read_webhook(
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<WebhookChannel> {
    let path = fields.path.field("url");
    let (url, secret_url) = match fields.require("url", errors, Ok)? {
        Json::Text(text) => (Some(text), false),
        json => (read_secret(json, &path, references, errors).map(|url| url.expose().to_owned()), true),
    };
    let url: Option<Url> = url.and_then(|text| errors.keep(&path, address::http(&text)));
    let headers = read_headers(fields, references, errors);
    let content_type = fields.read("contentType", errors, |json| short_text(json, MAX_TEXT_BYTES));
    let content_type = content_type.unwrap_or_else(|| JSON.to_owned());
    let template = read_template(fields, &content_type, references, errors);
    let authorities = read_authorities(fields, references, errors);
    let url = url?;
    if url.scheme() == "http" && (secret_url || !headers.is_empty()) && !is_this_machine(&url) {
        let problem = "must begin with https://, since its secrets would be sent in clear".to_owned();
        errors.add(&path, Problem::Rule(problem));
    }
    Some(WebhookChannel { url, headers, content_type, template, authorities })
}

fn read_headers(
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Vec<(String, Secret)> {
    let path = fields.path.field("headers");
    let given = fields.read("headers", errors, |json| {
        let headers = json.into_object()?;
        if headers.len() > MAX_HEADERS { Err(Problem::TooMany(MAX_HEADERS)) } else { Ok(headers) }
    });
    let mut headers = Vec::new();
    for (name, value) in given.unwrap_or_default() {
        let place = path.field(&name);
        if reqwest::header::HeaderName::try_from(&name).is_err() {
            errors.add(&place, Problem::Rule("is not the name of a header".to_owned()));
        }
        if let Some(secret) = read_secret(value, &place, references, errors) {
            headers.push((name.clone(), secret));
        }
    }
    headers
}

/// A template in place, or in a file; tried with a message, so that a misspelt name is told now and not in an outage.
fn read_template(
    fields: &mut Fields<'_>,
    content_type: &str,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Template> {
    let path = fields.path.field("template");
    let source = match fields.take("template")? {
        Json::Text(text) if text.len() > MAX_TEMPLATE_BYTES => {
            errors.add(&path, Problem::TooLong(text.len(), MAX_TEMPLATE_BYTES));
            return None;
        }
        Json::Text(text) => text,
        json => {
            let mut source = Fields::open(json, &path, errors)?;
            let file = source.require("file", errors, Json::into_text);
            source.finish(errors);
            errors.keep(&path.field("file"), references.text_of_file(&file?))?
        }
    };
    let tried = Template::new(&source).and_then(|template| {
        let bodies: Result<Vec<String>, _> =
            Message::samples().iter().map(|message| template.render(message)).collect();
        bodies.map(|bodies| (template, bodies))
    });
    let (template, bodies) = errors.keep(&path, tried.map_err(|error| Problem::Rule(error.to_string())))?;
    let is_json = |body: &String| serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
    if content_type.starts_with(JSON) && !bodies.iter().all(is_json) {
        let problem = "does not make JSON; put texts in by {{ … | tojson }}, or give another contentType".to_owned();
        errors.add(&path, Problem::Rule(problem));
    }
    Some(template)
}

fn read_mail(
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<MailChannel> {
    let host = fields.require("host", errors, |json| address::host(&json.into_text()?).ok_or(Problem::Host));
    let security = fields.read("security", errors, |json| match json.into_text()?.as_str() {
        "tls" => Ok(MailSecurity::Tls),
        "starttls" => Ok(MailSecurity::StartTls),
        "none" => Ok(MailSecurity::None),
        _ => Err(Problem::NotOneOf(vec!["tls", "starttls", "none"])),
    });
    let security = security.unwrap_or(MailSecurity::StartTls);
    let usual = match security {
        MailSecurity::Tls => 465,
        MailSecurity::StartTls => 587,
        MailSecurity::None => 25,
    };
    let port = fields.read("port", errors, |json| port(&json)).unwrap_or(usual);
    let user = fields.read("user", errors, |json| short_text(json, MAX_TEXT_BYTES));
    let path = fields.path.field("password");
    let password = fields.take("password").and_then(|json| read_secret(json, &path, references, errors));
    if user.is_some() != password.is_some() {
        errors.add(&path, Problem::Rule("and user belong together; give both or neither".to_owned()));
    }
    if security == MailSecurity::None && password.is_some() && !host.as_deref().is_some_and(is_loopback) {
        let problem = "would be sent in clear; choose starttls or tls as security".to_owned();
        errors.add(&path, Problem::Rule(problem));
    }
    let from = fields.require("from", errors, mailbox);
    let list = fields.path.field("to");
    let given = fields.require("to", errors, |json| match json.into_array_of(MAX_RECIPIENTS)? {
        empty if empty.is_empty() => Err(Problem::Empty),
        given => Ok(given),
    });
    let mut to = Vec::new();
    for (index, item) in given?.into_iter().enumerate() {
        to.extend(errors.keep(&list.item(index), mailbox(item)));
    }
    let authorities = read_authorities(fields, references, errors);
    let credentials = user.zip(password);
    Some(MailChannel { host: host?, port, security, credentials, from: from?, to, authorities })
}

fn read_authorities(
    fields: &mut Fields<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    fields.read("caFile", errors, |json| Ok(references.authorities_of_file(&json.into_text()?)?))
}

fn read_secret(
    json: Json,
    path: &JsonPath<'_>,
    references: &mut References<'_>,
    errors: &mut JsonErrors<'_>,
) -> Option<Secret> {
    let problem =
        || Problem::Rule("must be {\"file\": …} or {\"env\": …}; secrets do not stand in system.json".to_owned());
    if !matches!(json, Json::Object(_)) {
        errors.add(path, problem());
        return None;
    }
    let mut source = Fields::open(json, path, errors)?;
    let file = source.read("file", errors, Json::into_text);
    let variable = source.read("env", errors, Json::into_text);
    source.finish(errors);
    match (file, variable) {
        (Some(file), None) => errors.keep(&path.field("file"), references.secret_of_file(&file)),
        (None, Some(variable)) => errors.keep(&path.field("env"), references.secret_of_variable(&variable)),
        _ => {
            errors.add(path, problem());
            None
        }
    }
}

fn news_kinds(json: Json) -> Result<BTreeSet<NewsKind>, Problem> {
    let names = NewsKind::ALL.map(NewsKind::as_str);
    let kind = |json: Json| NewsKind::named(&json.into_text()?).ok_or_else(|| Problem::NotOneOf(names.to_vec()));
    let kinds: BTreeSet<NewsKind> = json.into_array()?.into_iter().map(kind).collect::<Result<_, _>>()?;
    if kinds.is_empty() { Err(Problem::Empty) } else { Ok(kinds) }
}

/// Fit for a label, a header and the left side of a message's name.
fn plain_name(name: String) -> Result<String, Problem> {
    let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    let problem = || Problem::Rule("must be made of letters, digits, `-`, `_` and `.`".to_owned());
    if plain { Ok(name) } else { Err(problem()) }
}

fn mailbox(json: Json) -> Result<Mailbox, Problem> {
    let text = short_text(json, MAX_TEXT_BYTES)?;
    text.parse()
        .map_err(|_| Problem::Rule("must be an address, as in ops@example.org or Ops <ops@example.org>".to_owned()))
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
