//! What the three Proxmox APIs have in common: routing, the envelope, and how a refusal is said.

use std::borrow::Cow;

use serde_json::{Value, json};
use url::form_urlencoded;

use super::host::Host;
use super::{pbs, pmg, pve};
use crate::engine::{InstanceType, Timestamp};

/// Where the JSON API begins.
pub(super) const PREFIX: &str = "/api2/json";

/// The data of an answer, without its envelope.
pub(super) type Answer = Result<Value, Refusal>;

/// An error as the API says it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The reason phrase of pve and pmg; the body of pbs.
    pub(super) reason: Cow<'static, str>,
    /// What is wrong with which parameter.
    errors: Option<Value>,
    has_body: bool,
}

/// One call, as far as its answer depends on it.
pub(super) struct Call<'a> {
    pub(super) host: &'a Host,
    /// The member that was called.
    pub(super) member: usize,
    pub(super) now: Timestamp,
    /// The path without `/api2/json`.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into(), errors: None, has_body: true }
    }

    /// The refusal of a parameter's value.
    pub(super) fn of_parameter(name: &str, why: String) -> Self {
        let errors = Some(json!({ name: why }));
        Self { errors, ..Self::new(400, "Parameter verification failed.") }
    }

    /// Said by the status line alone, as pve and pmg turn away who is not signed in.
    pub(super) fn without_body(self) -> Self {
        Self { has_body: false, ..self }
    }

    /// The body that a host of `kind` sends along.
    pub(super) fn body(&self, kind: InstanceType) -> String {
        match kind {
            _ if !self.has_body => String::new(),
            InstanceType::Pbs => self.reason.clone().into_owned(),
            _ => {
                let mut body = json!({"data": null, "message": format!("{}\n", self.reason)});
                if let Some(errors) = &self.errors {
                    body["errors"] = errors.clone();
                }
                body.to_string()
            }
        }
    }
}

impl Call<'_> {
    /// The answer to a `GET`, once the caller is let in.
    pub(super) fn answer(&self) -> Answer {
        let segments: Vec<&str> = self.path.split('/').skip(1).collect();
        let answer = match self.host.plan.system.kind() {
            InstanceType::Pve => pve::answer(self, &segments),
            InstanceType::Pbs => pbs::answer(self, &segments),
            InstanceType::Pmg => pmg::answer(self, &segments),
            InstanceType::Http | InstanceType::Tcp => None,
        };
        answer.unwrap_or_else(|| Err(self.not_implemented("GET")))
    }

    /// The refusal of a method that the path does not know.
    pub(super) fn not_implemented(&self, method: &str) -> Refusal {
        match self.host.plan.system.kind() {
            InstanceType::Pbs => Refusal::new(404, format!("Path '{PREFIX}{}' not found.", self.path)),
            _ => Refusal::new(501, format!("Method '{method} {}' not implemented", self.path)),
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes()).find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    /// The member behind `node`, which may be written `localhost`.
    pub(super) fn node_index(&self, node: &str) -> Result<usize, Refusal> {
        let index = match node {
            "localhost" => Some(self.member),
            name => (0..self.host.members.len()).find(|&index| self.host.node(index) == name),
        };
        let Some(index) = index else {
            let reason = format!(
                "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
            );
            return Err(Refusal::new(500, reason));
        };
        if index != self.member && !self.host.members[index].is_online(self.now) {
            return Err(Refusal::new(595, "No route to host"));
        }
        Ok(index)
    }
}
