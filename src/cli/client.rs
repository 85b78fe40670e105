//! How a command reaches a running daemon: by its socket on this machine, or by `--url` on another.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{DataDirOption, Failed, runtime};
use crate::config::{Environment, SOCKET, read_authorities};
use crate::targets::{Connector, Secret, Trust, fingerprint_of, tls_problem};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_TOKEN_BYTES: u64 = 4096;
const JSON: &str = "application/json";
/// The media type of what is no text.
pub(super) const BYTES: &str = "application/octet-stream";

/// The SHA-256 digest of a certificate.
#[derive(Clone, Copy, Debug)]
struct Fingerprint([u8; 32]);

fn parse_fingerprint(text: &str) -> Result<Fingerprint, &'static str> {
    fingerprint_of(text).map(Fingerprint).ok_or("a fingerprint has 64 hexadecimal digits, with or without colons")
}

/// Which daemon to talk to.
#[derive(Clone, Debug, Args)]
pub(super) struct DaemonOption {
    /// A daemon elsewhere, such as https://pulse.example:7655; without it, the one on this machine.
    #[arg(long, value_name = "URL", requires = "token_file")]
    url: Option<Url>,

    /// The file that holds the token for --url.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    /// The PEM file of the authorities, or of the certificate itself, that --url is believed by instead of the system's.
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "fingerprint")]
    ca_file: Option<PathBuf>,

    /// The SHA-256 fingerprint of the certificate that --url is believed by, whatever its name or issuer.
    #[arg(long, value_name = "SHA256", requires = "url", value_parser = parse_fingerprint)]
    fingerprint: Option<Fingerprint>,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl DaemonOption {
    /// The daemon on this machine.
    pub(super) fn here(data_dir: &DataDirOption) -> Self {
        Self { url: None, token_file: None, ca_file: None, fingerprint: None, data_dir: data_dir.clone() }
    }

    /// Asks the daemon for something.
    pub(super) fn get<T: DeserializeOwned>(&self, environment: &Environment, path: &str) -> Result<T, Failed> {
        self.send(environment, Method::GET, path, None)
    }

    /// Has the daemon do something.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failed> {
        let body = body.map(|body| (JSON, body.to_string().into_bytes()));
        let answer = self.send_bytes(environment, method, path, body)?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failed::daemon(format!("the answer is not the one expected of a daemon: {error}")))
    }

    /// Has the daemon do something with bytes of a media type, and gives the bytes of its answer.
    pub(super) fn send_bytes(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Vec<u8>, Failed> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let answer = self.request(environment, method, path, body).await?;
            let body = answer.bytes().await.map_err(|error| self.unreachable(environment, &error))?;
            Ok(body.to_vec())
        })
    }

    /// Prints what the daemon answers, as it comes.
    pub(super) fn print(&self, environment: &Environment, path: &str) -> Result<(), Failed> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut answer = self.request(environment, Method::GET, path, None).await?;
            while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(environment, &error))? {
                match std::io::stdout().write_all(&chunk) {
                    // Whoever closes the pipe early, as `head` does, has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(Failed::because)?,
                }
            }
            Ok(())
        })
    }

    /// The daemon's answer, which is no refusal; its body is yet to be read.
    async fn request(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Response, Failed> {
        let (client, base, token) = self.client(environment)?;
        let mut request = client.request(method, base.join(path).map_err(Failed::because)?);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        if let Some((media_type, body)) = body {
            request = request.header(CONTENT_TYPE, media_type).body(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(environment, &error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|error| self.unreachable(environment, &error))?;
        Err(refused(status.as_u16(), &body))
    }

    /// Whether there is a daemon to talk to: one elsewhere is taken for granted, one here has to hold its socket.
    pub(super) fn is_there(&self, environment: &Environment) -> Result<bool, Failed> {
        if self.url.is_some() {
            return Ok(true);
        }
        match std::os::unix::net::UnixStream::connect(self.socket(environment)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Failed::daemon(format!(
                "the daemon's socket cannot be used: {error}; run this as the daemon's user"
            ))),
            Err(_) => Ok(false),
        }
    }

    /// The data folder of the daemon on this machine.
    pub(super) fn data_dir(&self, environment: &Environment) -> Result<PathBuf, Failed> {
        self.data_dir.choose(environment).map_err(Failed::configuration)
    }

    fn client(&self, environment: &Environment) -> Result<(reqwest::Client, Url, Option<Secret>), Failed> {
        // Fails only if a provider is there already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().timeout(PATIENCE).no_proxy();
        let (builder, base, token) = match (&self.url, &self.token_file) {
            (Some(url), Some(file)) => (self.trusting(builder)?, url.clone(), Some(read_token(file)?)),
            _ => {
                let base = Url::parse("http://localhost/").map_err(Failed::because)?;
                (builder.unix_socket(self.socket(environment)?), base, None)
            }
        };
        Ok((builder.build().map_err(Failed::because)?, base, token))
    }

    /// The same client, believing what was named.
    fn trusting(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, Failed> {
        let trust = match (&self.ca_file, self.fingerprint) {
            (Some(file), _) => Trust::Authorities(read_authorities(file).map_err(Failed::because)?),
            (None, Some(Fingerprint(digest))) => Trust::Fingerprint(digest),
            (None, None) => return Ok(builder),
        };
        if self.url.as_ref().is_some_and(|url| url.scheme() != "https") {
            return Err(Failed::because("there is no certificate without TLS; write --url as https://…"));
        }
        let config = Connector::default().client_config(&trust).map_err(Failed::because)?;
        Ok(builder.tls_backend_preconfigured(Arc::unwrap_or_clone(config)))
    }

    fn socket(&self, environment: &Environment) -> Result<PathBuf, Failed> {
        Ok(self.data_dir(environment)?.join(SOCKET))
    }

    fn unreachable(&self, environment: &Environment, error: &reqwest::Error) -> Failed {
        if let (Some(url), Some(problem)) = (&self.url, tls_problem(error)) {
            let way = "name its authority with --ca-file, or its certificate with --fingerprint";
            return Failed::daemon(format!("the daemon at {url} is not believed: {problem}; {way}"));
        }
        let reason = innermost(error);
        match (&self.url, self.socket(environment)) {
            (Some(url), _) => Failed::daemon(format!("no daemon answers at {url}: {reason}; check the address")),
            (None, Ok(socket)) => Failed::daemon(format!(
                "no daemon answers at {}: {reason}; start one with `pulse serve`, or name another with --data-dir or --url",
                socket.display()
            )),
            (None, Err(failed)) => failed,
        }
    }
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn refused(status: u16, body: &[u8]) -> Failed {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    match (text("title"), text("detail")) {
        (title, detail) if !title.is_empty() => {
            let reasons = problem.get("errors").and_then(Value::as_array).into_iter().flatten();
            let reasons = reasons.map(|reason| {
                let text = |name: &str| reason.get(name).and_then(Value::as_str).unwrap_or_default();
                format!("\n  {}: {}", text("at"), text("detail"))
            });
            Failed::daemon(format!("{title} ({status}): {detail}{}", reasons.collect::<String>()))
        }
        _ => Failed::daemon(format!("the daemon answered with status {status}")),
    }
}

fn read_token(file: &Path) -> Result<Secret, Failed> {
    let failed = |error| Failed::because(format!("cannot read the token in {}: {error}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file).map_err(failed)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text.trim().to_owned()))
}
