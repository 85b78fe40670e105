//! What a client needs to poll the fleet, as values and as the content of `instances.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::host::Host;
use super::plan::{Auth, System};
use crate::engine::InstanceType;

/// One host of a running lab, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabHost {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InstanceType,
    /// Where each member answers: `https://127.1.0.1:40001`, with the checked path for `http` hosts, and as
    /// `tcp://…` for `tcp` ones.
    pub urls: Vec<String>,
    /// How to sign in; `None` where there is nothing to sign in to.
    pub auth: Option<Auth>,
    /// SHA-256 of the certificate as `AA:BB:…`; `None` for hosts without TLS.
    pub fingerprint: Option<String>,
    /// What an `http` host answers when it is up.
    pub body: Option<String>,
}

impl LabHost {
    pub(super) fn of(host: &Host) -> Self {
        let (scheme, path) = match &host.plan.system {
            System::Http { tls: false, path, .. } => ("http", path.as_str()),
            System::Http { path, .. } => ("https", path.as_str()),
            System::Tcp => ("tcp", ""),
            System::Pve { .. } | System::Pbs { .. } | System::Pmg { .. } => ("https", ""),
        };
        Self {
            name: host.plan.name.clone(),
            kind: host.plan.system.kind(),
            urls: host.members.iter().map(|member| format!("{scheme}://{}{path}", member.address)).collect(),
            auth: host.plan.system.auth().cloned(),
            fingerprint: host.plan.system.is_encrypted().then(|| host.identity.fingerprint.to_string()),
            body: match &host.plan.system {
                System::Http { body, .. } => Some(body.clone()),
                _ => None,
            },
        }
    }

    fn instance(&self, authority_file: Option<&Path>) -> Value {
        let mut instance = json!({"type": self.kind, "name": self.name, "displayName": self.display_name()});
        match self.kind {
            InstanceType::Tcp => {
                let address = self.urls[0].trim_start_matches("tcp://");
                let (host, port) = address.split_once(':').unwrap_or((address, ""));
                instance["host"] = host.into();
                instance["port"] = port.parse::<u16>().unwrap_or_default().into();
            }
            InstanceType::Http => {
                instance["url"] = self.urls[0].clone().into();
                instance["method"] = "GET".into();
                instance["expectedStatus"] = "200-299".into();
                instance["bodyContains"] = self.body.clone().into();
            }
            InstanceType::Pve | InstanceType::Pbs | InstanceType::Pmg => {
                instance["url"] = self.urls[0].clone().into();
                if self.urls.len() > 1 {
                    instance["members"] = self.urls[1..].into();
                }
            }
        }
        if let Some(auth) = &self.auth {
            instance["auth"] = match auth {
                Auth::Token { id, secret, .. } => json!({"tokenId": id, "secret": secret}),
                Auth::Password { user, password, .. } => json!({"user": user, "password": password}),
            };
        }
        if let Some(fingerprint) = &self.fingerprint {
            instance["tls"] = match authority_file {
                Some(path) => json!({"caFile": path}),
                None => json!({"fingerprint": fingerprint}),
            };
        }
        instance
    }

    /// `branch-north` becomes `Branch north`.
    fn display_name(&self) -> String {
        let mut name = self.name.replace('-', " ");
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        name
    }
}

pub(super) fn instances_json(hosts: impl Iterator<Item = LabHost>, authority_file: Option<&Path>) -> Value {
    json!({"instances": hosts.map(|host| host.instance(authority_file)).collect::<Vec<_>>()})
}
