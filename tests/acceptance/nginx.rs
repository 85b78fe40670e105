//! An nginx of Debian as a private instance on loopback, with a certificate signed by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::installed::{found, provided, until_connectable};
use super::support::{Program, free_address};

pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    /// Its certificate, and what pins that.
    pub(crate) certificate: String,
    pub(crate) fingerprint: String,
    _program: Program,
    _folder: TempDir,
}

impl Nginx {
    /// Starts one with the server that `server` makes of an address and of directives for the certificate; `None` if
    /// there is no nginx.
    pub(crate) async fn start(server: impl FnOnce(SocketAddr, &str) -> String) -> Option<Self> {
        let program = provided("nginx-light", program).await?;
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let certified = rcgen::generate_simple_self_signed([address.ip().to_string()]).unwrap();
        std::fs::write(folder.path().join("certificate.pem"), certified.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|module| format!("{module}_temp_path {module};"))
            .join(" ");
        let server = server(address, "ssl_certificate certificate.pem; ssl_certificate_key key.pem;");
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
            http {{ access_log off; {temporary} {server} }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(file);
        let program = Program::start(&mut command, folder.path());
        until_connectable("nginx", address).await;
        let digest = Sha256::digest(certified.cert.der());
        let fingerprint = digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        let certificate = certified.cert.pem();
        Some(Self { address, certificate, fingerprint, _program: program, _folder: folder })
    }
}

fn program() -> Option<PathBuf> {
    found(["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from))
}
