//! How a command reaches a running daemon: by its socket on this machine, or by `--url` on another.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use url::Url;

use super::{DataDirOption, Failed};
use crate::config::Environment;
use crate::daemon::SOCKET;
use crate::targets::Secret;

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_TOKEN_BYTES: u64 = 4096;

/// Which daemon to talk to.
#[derive(Clone, Debug, Args)]
pub(super) struct DaemonOption {
    /// A daemon elsewhere, such as http://pulse.example:7655; without it, the one on this machine.
    #[arg(long, value_name = "URL", requires = "token_file")]
    url: Option<Url>,

    /// The file that holds the token for --url.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    data_dir: DataDirOption,
}

impl DaemonOption {
    /// Asks the daemon for something.
    pub(super) fn get<T: DeserializeOwned>(&self, environment: &Environment, path: &str) -> Result<T, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
        runtime.block_on(async {
            let (client, base, token) = self.client(environment)?;
            let url = base.join(path).map_err(Failed::because)?;
            let mut request = client.get(url);
            if let Some(token) = token {
                request = request.bearer_auth(token.expose());
            }
            let answer = request.send().await.map_err(|error| self.unreachable(environment, &error))?;
            let status = answer.status();
            let body = answer.bytes().await.map_err(|error| self.unreachable(environment, &error))?;
            if !status.is_success() {
                return Err(refused(status.as_u16(), &body));
            }
            serde_json::from_slice(&body)
                .map_err(|error| Failed::daemon(format!("the answer is not the one expected of a daemon: {error}")))
        })
    }

    fn client(&self, environment: &Environment) -> Result<(reqwest::Client, Url, Option<Secret>), Failed> {
        // Fails only if a provider is there already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().timeout(PATIENCE).no_proxy();
        let (builder, base, token) = match (&self.url, &self.token_file) {
            (Some(url), Some(file)) => (builder, url.clone(), Some(read_token(file)?)),
            _ => {
                let base = Url::parse("http://localhost/").map_err(Failed::because)?;
                (builder.unix_socket(self.socket(environment)?), base, None)
            }
        };
        Ok((builder.build().map_err(Failed::because)?, base, token))
    }

    fn socket(&self, environment: &Environment) -> Result<PathBuf, Failed> {
        Ok(self.data_dir.choose(environment).map_err(Failed::configuration)?.join(SOCKET))
    }

    fn unreachable(&self, environment: &Environment, error: &reqwest::Error) -> Failed {
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
        (title, detail) if !title.is_empty() => Failed::daemon(format!("{title} ({status}): {detail}")),
        _ => Failed::daemon(format!("the daemon answered with status {status}")),
    }
}

fn read_token(file: &Path) -> Result<Secret, Failed> {
    let failed = |error| Failed::because(format!("cannot read the token in {}: {error}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file).map_err(failed)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text.trim().to_owned()))
}
