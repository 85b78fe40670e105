//! Whether the version that was started is well: it answers, as itself, for some time without a break.

use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use crate::engine::Millis;
use crate::runtime::{Clock, TokioClock};

const LOOK_EVERY: Millis = Millis::new(200);
/// How long one answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long a version has to become well, and to be so.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until then it has to be well.
    pub within: Millis,
    /// For so long it has to answer without a break.
    pub steady: Millis,
}

/// Waits until the daemon behind `socket` is well and of `version`; otherwise tells what was seen last.
pub(super) async fn is_well(
    socket: &Path,
    version: &str,
    patience: Patience,
    clock: &TokioClock,
) -> Result<(), String> {
    // Fails only if a provider is there already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(ANSWERS_WITHIN).no_proxy().unix_socket(socket).build();
    let client = client.map_err(|error| error.to_string())?;
    let deadline = clock.now() + patience.within;
    let mut well_since = None;
    loop {
        let seen = look(&client, version).await;
        let now = clock.now();
        if seen.is_ok() {
            if now - *well_since.get_or_insert(now) >= patience.steady {
                return Ok(());
            }
        } else {
            well_since = None;
        }
        if now >= deadline {
            let seen = seen.err().unwrap_or_else(|| "it answered, but not for long enough".to_owned());
            return Err(format!("{version} was not well within {} s: {seen}", patience.within.as_secs_f64()));
        }
        clock.sleep_until(now + LOOK_EVERY).await;
    }
}

/// One look: the daemon says its version, and that its scheduler lives.
async fn look(client: &Client, version: &str) -> Result<(), String> {
    let get = async |path: &str| -> Result<Value, String> {
        let sent = client.get(format!("http://localhost{path}")).send().await;
        let answer = sent.map_err(|error| if error.is_timeout() { "it does not answer" } else { "nobody listens" })?;
        let status = answer.status();
        let body = answer.json().await.map_err(|_| "its answer is not Pulse's")?;
        if status.is_success() { Ok(body) } else { Err(format!("GET {path} answers {status}")) }
    };
    let found = get("/api/version").await?;
    match found["version"].as_str() {
        Some(found) if found == version => get("/api/health").await.map(drop),
        found => Err(format!("version {} answers", found.unwrap_or("unknown"))),
    }
}
