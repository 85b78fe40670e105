//! A number that changes when an instance has to be polled differently, and at no other time.

use sha2::{Digest, Sha256};

use crate::targets::{Access, Credentials, HttpCheck, ProxmoxAccess, TcpCheck, Trust};

/// The revision of what a poll depends on: the first eight bytes of a SHA-256 over every field.
pub(super) fn of(access: &Access) -> u64 {
    let mut fields = FieldHasher(Sha256::new());
    match access {
        Access::Pve(access) => fields.proxmox("pve", access),
        Access::Pbs(access) => fields.proxmox("pbs", access),
        Access::Pmg(access) => fields.proxmox("pmg", access),
        Access::Http(check) => fields.http(check),
        Access::Tcp(TcpCheck { host, port }) => {
            fields.text("tcp");
            fields.text(host);
            fields.bytes(&port.to_be_bytes());
        }
    }
    let [a, b, c, d, e, f, g, h, ..] = fields.0.finalize().0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Hashes fields each after its length, so that no two sequences of fields look the same.
struct FieldHasher(Sha256);

impl FieldHasher {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.bytes(&(count as u64).to_be_bytes());
    }

    // The patterns name every field, so that a new one cannot be forgotten here.
    fn proxmox(&mut self, kind: &str, ProxmoxAccess { members, credentials, trust }: &ProxmoxAccess) {
        self.text(kind);
        self.count(members.len());
        for member in members {
            self.text(member.as_str());
        }
        let (form, name, secret) = match credentials {
            Credentials::Token { id, secret } => ("token", id, secret),
            Credentials::Password { user, password } => ("password", user, password),
        };
        self.text(form);
        self.text(name);
        self.text(secret.expose());
        self.trust(trust);
    }

    fn http(&mut self, HttpCheck { url, method, expected_status, body_contains, trust }: &HttpCheck) {
        self.text("http");
        self.text(url.as_str());
        self.text(method);
        self.bytes(&expected_status.start().to_be_bytes());
        self.bytes(&expected_status.end().to_be_bytes());
        self.count(body_contains.iter().len());
        self.text(body_contains.as_deref().unwrap_or_default());
        self.trust(trust);
    }

    fn trust(&mut self, trust: &Trust) {
        match trust {
            Trust::System => self.text("system"),
            Trust::Authorities(certificates) => {
                self.text("authorities");
                self.count(certificates.len());
                for certificate in certificates {
                    self.bytes(certificate);
                }
            }
            Trust::Fingerprint(digest) => {
                self.text("fingerprint");
                self.bytes(digest);
            }
        }
    }
}
