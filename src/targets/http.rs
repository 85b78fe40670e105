//! An HTTP endpoint: up if it answers with an expected status and, if wanted, an expected text.
//!
//! An endpoint that is down is a result. A poll fails only if this machine cannot open a socket.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use url::Url;

use super::client::ClientError;
use super::deadline::Deadline;
use super::digest::ChangeDigest;
use super::fault::{CallFailure, Fault, MAX_MESSAGE_CHARS, plain};
use super::net::{Answer, Ask, BodyLimit, Connector, Wire};
use super::reading::{DownCategory, DownReason};
use super::target::{HttpCheck, without_credentials};
use crate::engine::{FailureKind, Millis};
use crate::runtime::PollCost;

/// Redirects followed before the endpoint counts as down.
const MAX_REDIRECTS: usize = 5;
/// Bytes searched for the expected text.
const SEARCHED_BYTES: usize = 1024 * 1024;
/// Bytes read of a body that nobody wants, so that the connection can be kept.
const SKIPPED_BYTES: usize = 64 * 1024;

/// Whether an HTTP endpoint answers as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpReading {
    /// Whether it answered as expected.
    pub up: bool,
    /// The status of the last answer, if there was one.
    pub status: Option<u16>,
    /// From the first step to the end of the last answer, in milliseconds.
    pub latency: Millis,
    /// Why it is down; `None` if it is up.
    pub reason: Option<DownReason>,
}

impl HttpReading {
    pub(super) fn write_changes(&self, digest: &mut ChangeDigest) {
        digest
            .flag(self.up)
            .optional_number(self.status.map(u64::from))
            .optional(self.reason.as_ref().map(|reason| reason.category.as_str()));
    }
}

/// Checks one HTTP endpoint.
pub(super) struct HttpClient {
    url: Url,
    method: Method,
    expected_status: RangeInclusive<u16>,
    body_contains: Option<String>,
    authorization: Option<HeaderValue>,
    wire: Wire,
}

/// What an answer says about the endpoint.
enum Verdict {
    Up,
    Down(DownCategory, String),
    Elsewhere(Url),
}

impl HttpClient {
    pub(super) fn new(check: HttpCheck, connector: &Arc<Connector>) -> Result<Self, ClientError> {
        if !is_http(&check.url) {
            return Err(ClientError::NotHttp(without_credentials(&check.url)));
        }
        let method = match check.method.to_ascii_uppercase().as_str() {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            "OPTIONS" => Method::OPTIONS,
            _ => return Err(ClientError::UnsafeMethod(plain(&check.method, 20))),
        };
        let config = connector.client_config(&check.trust)?;
        Ok(Self {
            authorization: basic_authorization(&check.url)?,
            url: check.url,
            method,
            expected_status: check.expected_status,
            body_contains: check.body_contains,
            wire: Wire::new(Arc::clone(connector), config),
        })
    }

    pub(super) async fn poll(&self, deadline: Deadline<'_>, cost: &mut PollCost) -> Result<HttpReading, CallFailure> {
        let start = deadline.now();
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answered = self.ask(&url, deadline, cost).await;
            let latency = deadline.now() - start;
            let call = || format!("{} {}", self.method, without_credentials(&url));
            let answer = match answered {
                Ok(answer) => answer,
                Err(fault) => {
                    self.wire.rest(false);
                    return unreachable(fault.during(call()), latency);
                }
            };
            let status = Some(answer.status);
            match self.judge(&url, &answer) {
                Verdict::Elsewhere(next) => url = next,
                Verdict::Up => {
                    self.wire.rest(true);
                    return Ok(HttpReading { up: true, status, latency, reason: None });
                }
                Verdict::Down(category, problem) => {
                    self.wire.rest(true);
                    let message = plain(&format!("{}: {problem}", call()), MAX_MESSAGE_CHARS);
                    return Ok(HttpReading {
                        up: false,
                        status,
                        latency,
                        reason: Some(DownReason { category, message }),
                    });
                }
            }
        }
        self.wire.rest(false);
        let problem = format!("sent on more than {MAX_REDIRECTS} times");
        let message =
            plain(&format!("{} {}: {problem}", self.method, without_credentials(&self.url)), MAX_MESSAGE_CHARS);
        let reason = DownReason { category: DownCategory::TooManyRedirects, message };
        Ok(HttpReading { up: false, status: None, latency: deadline.now() - start, reason: Some(reason) })
    }

    async fn ask(&self, url: &Url, deadline: Deadline<'_>, cost: &mut PollCost) -> Result<Answer, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(authorization) = &self.authorization
            && url.origin() == self.url.origin()
        {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let most = if self.body_contains.is_some() { SEARCHED_BYTES } else { SKIPPED_BYTES };
        let ask = Ask { method: self.method.clone(), url, headers, body: Bytes::new(), limit: BodyLimit::Prefix(most) };
        self.wire.ask(&ask, deadline, cost).await
    }

    fn judge(&self, url: &Url, answer: &Answer) -> Verdict {
        if !self.expected_status.contains(&answer.status) {
            if let Some(next) = redirect(url, answer) {
                return Verdict::Elsewhere(next);
            }
            let (from, to) = (self.expected_status.start(), self.expected_status.end());
            let problem = format!("answered {}, expected {from} to {to}", answer.status);
            return Verdict::Down(DownCategory::UnexpectedStatus, problem);
        }
        match &self.body_contains {
            Some(text) if !contains(&answer.body, text.as_bytes()) => {
                let problem = "the expected text is not in the first MiB of the body".to_owned();
                Verdict::Down(DownCategory::BodyMismatch, problem)
            }
            _ => Verdict::Up,
        }
    }
}

fn unreachable(failure: CallFailure, latency: Millis) -> Result<HttpReading, CallFailure> {
    if failure.kind() == FailureKind::Internal {
        return Err(failure);
    }
    let reason = DownReason { category: DownCategory::Failed(failure.kind()), message: failure.message() };
    Ok(HttpReading { up: false, status: None, latency, reason: Some(reason) })
}

fn redirect(url: &Url, answer: &Answer) -> Option<Url> {
    if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let next = url.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    is_http(&next).then_some(next)
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// The `user:password@` of an address as a header. It never travels in the request's target.
fn basic_authorization(url: &Url) -> Result<Option<HeaderValue>, ClientError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|_| ClientError::Unsendable("user or password"))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}
