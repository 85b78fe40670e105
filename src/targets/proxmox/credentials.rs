//! How a request proves who makes it: a token's header, or the cookie of a ticket bought with a password.

use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::form_urlencoded;

use crate::engine::{FailureKind, Millis, Timestamp};
use crate::targets::client::ClientError;
use crate::targets::fault::Fault;
use crate::targets::lenient;
use crate::targets::target::{Credentials, Secret};

/// Tickets live two hours; a new one is bought well before that.
const RENEW_AFTER: Millis = Millis::from_mins(90);

/// What a ticket holds besides letters and digits without being encoded in a cookie.
const COOKIE_SAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b':')
    .remove(b'@')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'/')
    .remove(b'+')
    .remove(b'=')
    .remove(b'!');

/// Which Proxmox product answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::targets) enum Product {
    /// Proxmox VE.
    Pve,
    /// Proxmox Backup Server.
    Pbs,
    /// Proxmox Mail Gateway.
    Pmg,
}

impl Product {
    const fn token_scheme(self) -> &'static str {
        match self {
            Self::Pve => "PVEAPIToken",
            Self::Pbs => "PBSAPIToken",
            Self::Pmg => "PMGAPIToken",
        }
    }

    const fn token_separator(self) -> char {
        match self {
            Self::Pve => '=',
            Self::Pbs | Self::Pmg => ':',
        }
    }

    const fn cookie(self) -> &'static str {
        match self {
            Self::Pve => "PVEAuthCookie",
            Self::Pbs => "PBSAuthCookie",
            Self::Pmg => "PMGAuthCookie",
        }
    }
}

/// A ticket and when it was bought.
#[derive(Clone)]
pub(super) struct Ticket {
    value: Secret,
    bought: Timestamp,
}

impl Ticket {
    pub(super) fn new(value: String, bought: Timestamp) -> Self {
        Self { value: Secret::new(value), bought }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now - self.bought >= RENEW_AFTER
    }

    pub(super) fn value(&self) -> &Secret {
        &self.value
    }

    pub(super) fn headers(&self, product: Product) -> Result<HeaderMap, Fault> {
        let value = utf8_percent_encode(self.value.expose(), COOKIE_SAFE);
        header(COOKIE, format!("{}={value}", product.cookie()))
            .map_err(|_| Fault::new(FailureKind::NotTheApi, "the ticket cannot be sent back"))
    }
}

/// What `POST /access/ticket` answers.
#[derive(Deserialize)]
pub(super) struct TicketAnswer {
    #[serde(default)]
    ticket: Option<String>,
    /// A second factor is asked for; the ticket is only good for giving it.
    #[serde(default, rename = "NeedTFA", deserialize_with = "lenient::flag")]
    need_tfa: Option<bool>,
}

impl TicketAnswer {
    pub(super) fn into_ticket(self, bought: Timestamp) -> Result<Ticket, Fault> {
        let asks_for_more = self.need_tfa == Some(true);
        match self.ticket {
            Some(value) if !value.is_empty() && !asks_for_more && !value.contains("!tfa!") => {
                Ok(Ticket::new(value, bought))
            }
            _ if asks_for_more => Err(second_factor()),
            Some(value) if value.contains("!tfa!") => Err(second_factor()),
            _ => Err(Fault::new(FailureKind::NotTheApi, "the answer holds no ticket")),
        }
    }
}

fn second_factor() -> Fault {
    Fault::new(FailureKind::Unauthorized, "the account asks for a second factor; use an API token instead")
}

/// Headers that carry a token.
pub(super) fn token_headers(product: Product, id: &str, secret: &Secret) -> Result<HeaderMap, Fault> {
    let text = format!("{}={id}{}{}", product.token_scheme(), product.token_separator(), secret.expose());
    header(AUTHORIZATION, text).map_err(|error| Fault::new(FailureKind::InvalidSettings, error.to_string()))
}

/// The body that exchanges a password for a ticket.
pub(super) fn sign_in_form(user: &str, password: &Secret) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("username", user)
        .append_pair("password", password.expose())
        .finish()
}

/// Refuses credentials that could never be sent.
pub(super) fn check(product: Product, credentials: &Credentials) -> Result<(), ClientError> {
    match credentials {
        Credentials::Token { id, secret } => {
            token_headers(product, id, secret).map(drop).map_err(|_| ClientError::Unsendable("API token"))
        }
        Credentials::Password { .. } => Ok(()),
    }
}

fn header(name: HeaderName, text: String) -> Result<HeaderMap, ClientError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| ClientError::Unsendable("API token"))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}
