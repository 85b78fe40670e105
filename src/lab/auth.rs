//! Who gets in: API tokens, passwords exchanged for tickets, and the token that protects writes.
//!
//! Tickets are stateless and signed, as Proxmox's are, so that every member of a cluster believes them. What is
//! not done: real hosts hold back each refusal for three seconds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{Answer, Refusal};
use super::clock::unix_seconds;
use super::host::Host;
use super::plan::Auth;
use crate::engine::InstanceType;

/// How long a ticket is believed, in seconds.
const TICKET_LIFETIME_SECS: u64 = 2 * 60 * 60;

/// The door of one host at one moment.
pub(super) struct Gate<'a> {
    host: &'a Host,
    auth: &'a Auth,
    /// `PVE`, `PBS` or `PMG`.
    product: &'static str,
    /// What stands between a token's name and its secret.
    separator: char,
    unix_now: u64,
}

impl<'a> Gate<'a> {
    /// The door of a Proxmox host; `None` for other endpoints.
    pub(super) fn of(host: &'a Host) -> Option<Self> {
        let (product, separator) = match host.plan.system.kind() {
            InstanceType::Pve => ("PVE", '='),
            InstanceType::Pbs => ("PBS", ':'),
            InstanceType::Pmg => ("PMG", ':'),
            InstanceType::Http | InstanceType::Tcp => return None,
        };
        let auth = host.plan.system.auth()?;
        Some(Self { host, auth, product, separator, unix_now: unix_seconds(host.now()) })
    }

    /// Answers `POST /access/ticket`.
    pub(super) fn sign_in(&self, username: &str, password: &str) -> Answer {
        let known = match self.auth {
            Auth::Password { user, password: expected, accepted } => {
                user == username && (*accepted && expected == password || self.is_ticket_of(user, password))
            }
            Auth::Token { .. } => false,
        };
        if !known {
            self.host.counters.failed_login();
            return Err(Refusal::new(401, "authentication failure"));
        }
        self.host.counters.login();
        Ok(self.ticket(username))
    }

    /// Lets a request in, or says why not. `is_write`: its method changes something.
    pub(super) fn admit(&self, headers: &HeaderMap, is_write: bool) -> Result<(), Refusal> {
        self.check(headers, is_write).inspect_err(|_| self.host.counters.failed_login())
    }

    fn check(&self, headers: &HeaderMap, is_write: bool) -> Result<(), Refusal> {
        if let Some(value) = headers.get(AUTHORIZATION) {
            let value = value.to_str().unwrap_or_default();
            return if self.is_token(value) { Ok(()) } else { Err(self.refusal("invalid token value!")) };
        }
        let Some(ticket) = self.ticket_cookie(headers) else { return Err(self.refusal("No ticket")) };
        let Auth::Password { user, .. } = self.auth else {
            return Err(self.refusal(&format!("permission denied - invalid {} ticket", self.product)));
        };
        if !self.is_ticket_of(user, &ticket) {
            return Err(self.refusal(&format!("permission denied - invalid {} ticket", self.product)));
        }
        let csrf = headers.get("CSRFPreventionToken").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if is_write && !self.is_csrf_token_of(user, csrf) {
            return Err(self.refusal("Permission denied - invalid csrf token"));
        }
        Ok(())
    }

    fn refusal(&self, reason: &str) -> Refusal {
        match self.product {
            "PBS" => Refusal::new(401, "authentication failed"),
            _ => Refusal::new(401, reason.to_owned()).without_body(),
        }
    }

    fn is_token(&self, value: &str) -> bool {
        let Auth::Token { id, secret, accepted } = self.auth else { return false };
        let given = value.strip_prefix(self.product).and_then(|rest| rest.strip_prefix("APIToken="));
        *accepted && given.is_some_and(|given| given == format!("{id}{}{secret}", self.separator))
    }

    fn ticket_cookie(&self, headers: &HeaderMap) -> Option<String> {
        let name = format!("{}AuthCookie", self.product);
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let value = cookies.flat_map(|line| line.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    fn ticket(&self, user: &str) -> Value {
        let (product, time) = (self.product, format!("{:08X}", self.unix_now));
        let mut answer = json!({
            "username": user,
            "ticket": format!("{product}:{user}:{time}::{}", self.signature("ticket", user, &time)),
            "CSRFPreventionToken": format!("{time}:{}", self.signature("csrf", user, &time)),
        });
        match product {
            "PVE" => {
                answer["cap"] = json!({"vms": {}, "storage": {}, "nodes": {"Sys.Audit": 1}, "dc": {"Sys.Audit": 1}});
            }
            "PMG" => answer["role"] = "audit".into(),
            _ => {}
        }
        answer
    }

    fn is_ticket_of(&self, user: &str, ticket: &str) -> bool {
        let rest = ticket.strip_prefix(self.product).and_then(|rest| rest.strip_prefix(':'));
        let rest = rest.and_then(|rest| rest.strip_prefix(user)).and_then(|rest| rest.strip_prefix(':'));
        let Some((time, signature)) = rest.and_then(|rest| rest.split_once("::")) else { return false };
        self.is_fresh(time) && signature == self.signature("ticket", user, time)
    }

    fn is_csrf_token_of(&self, user: &str, token: &str) -> bool {
        let Some((time, signature)) = token.split_once(':') else { return false };
        self.is_fresh(time) && signature == self.signature("csrf", user, time)
    }

    fn is_fresh(&self, hex_time: &str) -> bool {
        u64::from_str_radix(hex_time, 16)
            .is_ok_and(|issued| issued <= self.unix_now && self.unix_now - issued < TICKET_LIFETIME_SECS)
    }

    fn signature(&self, purpose: &str, user: &str, time: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.host.noise.of("signing key").number(0).to_be_bytes());
        for part in [purpose, user, time] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        STANDARD.encode(hash.finalize())
    }
}
