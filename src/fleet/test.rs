//! Trying an instance that need not be in the fleet: one real poll, told call by call.

use std::sync::Arc;

use serde::Serialize;
use url::Url;

use super::Fleet;
use crate::config::Instance;
use crate::engine::{Failure, FailureKind, Millis, Outcome};
use crate::targets::{Access, CallSaid, Client, Connector, DownCategory, Reading, observed_fingerprint};

/// How many instances may be tried at once.
pub(super) const TESTS_AT_ONCE: usize = 4;
/// The longest that a poll may take here, whatever the instance's own timeout.
const LONGEST: Millis = Millis::from_secs(15);
/// How long looking at a certificate may take.
const LOOK_AT_CERTIFICATE: Millis = Millis::from_secs(5);

/// What came of trying an instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionTest {
    /// Whether a poll would succeed, and an endpoint is up.
    pub success: bool,
    /// How long it took.
    pub took: Millis,
    /// Each call that was made, in order.
    pub calls: Vec<CallSaid>,
    /// What a poll would have read.
    pub reading: Option<Arc<Reading>>,
    /// Why it did not succeed.
    pub failure: Option<TestFailure>,
    /// The SHA-256 fingerprint of the certificate that was seen and is not trusted, for comparing it and pinning it.
    pub untrusted_fingerprint: Option<String>,
}

/// Why an instance that was tried did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestFailure {
    /// The kind of failure, as in the health answer.
    pub category: String,
    /// What happened and what to do, free of secrets.
    pub message: String,
}

impl Fleet {
    /// Polls an instance once through a client of its own, within `timeout` or what it says itself. `None` if too many
    /// are being tried already.
    pub async fn test(&self, instance: Instance, timeout: Millis) -> Option<ConnectionTest> {
        let _place = self.tests.try_acquire().ok()?;
        let clock = &self.clock;
        let now = || clock.now();
        let begun = now();
        let budget = instance.timeout.unwrap_or(timeout).min(LONGEST);
        let url = address(&instance.target.access).cloned();
        let connector = Arc::new(Connector::with_journal());
        let (outcome, reading) = match Client::new(instance.target, &connector) {
            Ok(client) => {
                let report = client.poll(&now, budget).await;
                (report.outcome, report.reading)
            }
            Err(error) => (Outcome::Failure(Failure::from(error)), None),
        };
        let failure = failure_of(&outcome, reading.as_deref());
        let distrusted = failure.as_ref().is_some_and(|(kind, _)| {
            matches!(kind, Some(FailureKind::CertificateUntrusted | FailureKind::FingerprintMismatch))
        });
        let fingerprint = match url.filter(|_| distrusted) {
            Some(url) => observed_fingerprint(&url, &connector, &now, LOOK_AT_CERTIFICATE).await.ok(),
            None => None,
        };
        Some(ConnectionTest {
            success: failure.is_none(),
            took: now() - begun,
            calls: connector.calls(),
            reading,
            failure: failure.map(|(_, failure)| failure),
            untrusted_fingerprint: fingerprint.map(|digest| digest.map(|byte| format!("{byte:02X}")).join(":")),
        })
    }
}

/// Why a poll did not succeed, or what it read is down.
fn failure_of(outcome: &Outcome, reading: Option<&Reading>) -> Option<(Option<FailureKind>, TestFailure)> {
    if let Outcome::Failure(failure) = outcome {
        let told = TestFailure { category: failure.kind.as_str().to_owned(), message: failure.message.to_string() };
        return Some((Some(failure.kind), told));
    }
    let reason = match reading? {
        Reading::Http(reading) => reading.reason.as_ref()?,
        Reading::Tcp(reading) => reading.reason.as_ref()?,
        Reading::Pve(_) | Reading::Pbs(_) | Reading::Pmg(_) => return None,
    };
    let kind = match reason.category {
        DownCategory::Failed(kind) => Some(kind),
        _ => None,
    };
    Some((kind, TestFailure { category: reason.category.as_str().to_owned(), message: reason.message.clone() }))
}

fn address(access: &Access) -> Option<&Url> {
    match access {
        Access::Pve(access) | Access::Pbs(access) | Access::Pmg(access) => access.members.first(),
        Access::Http(check) => Some(&check.url).filter(|url| url.scheme() == "https"),
        Access::Tcp(_) => None,
    }
}
