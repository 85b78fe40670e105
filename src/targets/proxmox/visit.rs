//! One poll's visit to one member: the calls it makes, signed in, within the poll's time.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use jiff::fmt::rfc2822;
use serde::de::DeserializeOwned;
use url::Url;

use super::answer::Envelope;
use super::client::ProxmoxClient;
use super::credentials::{self, TicketAnswer};
use crate::engine::{FailureKind, Millis, Timestamp};
use crate::runtime::PollCost;
use crate::targets::deadline::Deadline;
use crate::targets::fault::{CallFailure, FailedCall, Fault};
use crate::targets::net::{Answer, Ask, BodyLimit};
use crate::targets::target::Credentials;

/// The longest answer of an ordinary call.
const ORDINARY: usize = 1024 * 1024;
/// The longest answer of a call that lists a whole cluster.
pub(super) const BULK: usize = 32 * 1024 * 1024;
/// The longest rest a host may ask for with `Retry-After`.
const LONGEST_REST: Millis = Millis::from_mins(24 * 60);

/// The calls of one poll to one member.
pub(super) struct Visit<'a> {
    client: &'a ProxmoxClient,
    member: &'a Url,
    deadline: Deadline<'a>,
    cost: &'a mut PollCost,
    /// A password is given at most once a poll.
    signed_in: bool,
    failed_calls: Vec<FailedCall>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        client: &'a ProxmoxClient,
        member: &'a Url,
        deadline: Deadline<'a>,
        cost: &'a mut PollCost,
    ) -> Self {
        Self { client, member, deadline, cost, signed_in: false, failed_calls: Vec::new() }
    }

    /// The member that is visited.
    pub(super) fn member(&self) -> &Url {
        self.member
    }

    pub(super) fn now(&self) -> Timestamp {
        self.deadline.now()
    }

    /// Whether there is time left for a call that may fail.
    pub(super) fn has_time_to_spare(&self) -> bool {
        self.deadline.has_a_fifth_left()
    }

    /// A call whose answer is at most a mebibyte.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, CallFailure> {
        self.get_within(path, ORDINARY, self.deadline).await
    }

    /// A call that lists a whole cluster.
    pub(super) async fn get_bulk<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, CallFailure> {
        self.get_within(path, BULK, self.deadline).await
    }

    /// A call that may take at most `span`.
    pub(super) async fn get_soon<T: DeserializeOwned>(&mut self, path: &str, span: Millis) -> Result<T, CallFailure> {
        self.get_within(path, ORDINARY, self.deadline.at_most(span)).await
    }

    /// A call that may take half of the time left, so that it cannot cost the poll.
    pub(super) async fn get_optional<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, CallFailure> {
        self.get_soon(path, self.deadline.remaining().scaled(0.5)).await
    }

    /// A call that must not fail, except that it may be forbidden.
    pub(super) async fn get_unless_forbidden<T: DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> Result<Option<T>, CallFailure> {
        match self.get(path).await {
            Ok(data) => Ok(Some(data)),
            Err(failure) if failure.kind() == FailureKind::Forbidden => {
                self.note(FailedCall::from(&failure));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Notes a call that failed without failing the poll.
    pub(super) fn note(&mut self, failed: FailedCall) {
        self.failed_calls.push(failed);
    }

    pub(super) fn take_failed_calls(&mut self) -> Vec<FailedCall> {
        std::mem::take(&mut self.failed_calls)
    }

    async fn get_within<T: DeserializeOwned>(
        &mut self,
        path: &str,
        limit: usize,
        deadline: Deadline<'_>,
    ) -> Result<T, CallFailure> {
        let call = self.name("GET", path);
        let answer = match self.attempt(path, limit, deadline).await? {
            // A ticket may end early, for instance when the host was reinstalled: sign in once and try again.
            Ok(answer) if answer.status == 401 && self.may_sign_in() => {
                self.client.drop_ticket();
                self.attempt(path, limit, deadline).await?
            }
            attempt => attempt,
        };
        let answer = answer.map_err(|fault| fault.during(&call))?;
        if let Some(fault) = self.status_fault(&answer) {
            let refused = fault.kind == FailureKind::Unauthorized;
            let failure = fault.during(&call);
            return Err(if refused { failure.advising(self.client.sign_in_advice()) } else { failure });
        }
        decode(&answer).map_err(|fault| fault.during(&call))
    }

    /// One request, signed in first if that is due. The outer error is the sign-in's.
    async fn attempt(
        &mut self,
        path: &str,
        limit: usize,
        deadline: Deadline<'_>,
    ) -> Result<Result<Answer, Fault>, CallFailure> {
        let headers = self.authorization(deadline).await?;
        let url = self.url(path);
        Ok(self.ask(Method::GET, &url, headers, Bytes::new(), limit, deadline).await)
    }

    async fn authorization(&mut self, deadline: Deadline<'_>) -> Result<HeaderMap, CallFailure> {
        let product = self.client.product();
        let headers = match self.client.credentials() {
            Credentials::Token { id, secret } => credentials::token_headers(product, id, secret),
            Credentials::Password { user, password } => {
                let ticket = match self.client.ticket(self.now()) {
                    Some(ticket) => ticket,
                    None => {
                        let form = credentials::sign_in_form(user, password);
                        self.sign_in(form, deadline).await?
                    }
                };
                ticket.headers(product)
            }
        };
        headers.map_err(|fault| fault.during("signing in"))
    }

    async fn sign_in(&mut self, form: String, deadline: Deadline<'_>) -> Result<credentials::Ticket, CallFailure> {
        let path = "/access/ticket";
        let call = self.name("POST", path);
        self.signed_in = true;
        self.cost.sign_ins += 1;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        let url = self.url(path);
        let asked = self.now();
        let answer = self
            .ask(Method::POST, &url, headers, form.into(), ORDINARY, deadline)
            .await
            .map_err(|fault| fault.during(&call))?;
        if let Some(fault) = self.status_fault(&answer) {
            return Err(fault.during(call).advising("check the user, its realm and the password"));
        }
        let ticket = decode::<TicketAnswer>(&answer)
            .and_then(|answer| answer.into_ticket(asked))
            .map_err(|fault| fault.during(call))?;
        self.client.keep_ticket(ticket.clone());
        Ok(ticket)
    }

    async fn ask(
        &mut self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
        limit: usize,
        deadline: Deadline<'_>,
    ) -> Result<Answer, Fault> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let ask = Ask { method, url, headers, body, limit: BodyLimit::Whole(limit) };
        self.client.wire().ask(&ask, deadline, self.cost).await
    }

    fn may_sign_in(&self) -> bool {
        !self.signed_in && matches!(self.client.credentials(), Credentials::Password { .. })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.member.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("/api2/json{path}"));
        url.set_query(query);
        url
    }

    fn name(&self, method: &str, path: &str) -> String {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        format!("{method} {path} on {}", self.member.origin().ascii_serialization())
    }

    /// What is wrong with an answer by its status; a Proxmox API never redirects.
    fn status_fault(&self, answer: &Answer) -> Option<Fault> {
        let kind = match answer.status {
            200..300 => return None,
            status => FailureKind::of_status(status).unwrap_or(FailureKind::NotTheApi),
        };
        let mut problem = answer.status.to_string();
        if !answer.reason.is_empty() && !self.client.is_told_in(&answer.reason) {
            problem = format!("{problem} {}", answer.reason);
        }
        let rests = matches!(answer.status, 429 | 503);
        Some(Fault { retry_after: rests.then(|| retry_after(&answer.headers)).flatten(), ..Fault::new(kind, problem) })
    }
}

/// A part of a path that came from a host, if it is a plain name.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn decode<T: DeserializeOwned>(answer: &Answer) -> Result<T, Fault> {
    serde_json::from_slice::<Envelope<T>>(&answer.body).map(|envelope| envelope.data).map_err(|error| {
        if error.is_eof() && !answer.delimited {
            return Fault::new(FailureKind::Reset, "the connection was cut in the middle of the answer");
        }
        Fault::new(FailureKind::NotTheApi, "the answer is not what the API answers")
    })
}

/// How long the host asks to be left alone. A date is measured against the answer's own date.
fn retry_after(headers: &HeaderMap) -> Option<Millis> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = match text.parse::<u64>() {
        Ok(seconds) => Millis::from_secs(seconds),
        Err(_) => {
            let until = rfc2822::parse(text).ok()?.timestamp();
            let sent = rfc2822::parse(headers.get(DATE)?.to_str().ok()?).ok()?.timestamp();
            Millis::from_secs(u64::try_from(until.duration_since(sent).as_secs()).unwrap_or(0))
        }
    };
    Some(rest.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(retry: &str, date: Option<&str>) -> Option<Millis> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(retry).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        }
        retry_after(&headers)
    }

    #[test]
    fn a_rest_is_read_in_seconds_or_as_a_date_and_is_bounded() {
        assert_eq!(rest("120", None), Some(Millis::from_secs(120)));
        assert_eq!(rest("99999999999999999999", None), None);
        assert_eq!(rest("9999999999", None), Some(LONGEST_REST));
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(rest("Wed, 21 Oct 2015 07:29:30 GMT", date), Some(Millis::from_secs(90)));
        assert_eq!(rest("Wed, 21 Oct 2015 07:00:00 GMT", date), Some(Millis::ZERO));
        assert_eq!(rest("Wed, 21 Oct 2015 07:29:30 GMT", None), None);
        assert_eq!(rest("soon", date), None);
    }

    #[test]
    fn a_name_that_could_leave_its_place_in_the_path_is_not_plain() {
        assert!(is_plain_name("pve-1.example"));
        for name in ["", "..", "a/b", "a?b", "a%2f", "a b", "ä"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
