//! From an HTTP request to its answer, with the faults that strike requests.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::api::{Answer, Call, PREFIX, Refusal};
use super::auth::Gate;
use super::clock::pause;
use super::connection::AbortHandle;
use super::fault::FaultKind;
use super::host::Host;
use super::plan::System;
use crate::engine::InstanceType;

/// The largest request body.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// A slow body comes in so many pieces.
const DRIPS: usize = 8;
/// An endless body comes in pieces of this size.
const FLOOD_PIECE_BYTES: usize = 64 * 1024;
/// The latency of an answer varies by so much in either direction.
const JITTER: f64 = 0.1;

type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// Answers the requests of one connection.
pub(super) struct Server {
    pub(super) host: Arc<Host>,
    pub(super) member: usize,
    pub(super) abort: AbortHandle,
}

impl Server {
    /// Answers a request, or fails as the member is told to. A hanging one never returns.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        let path = request.uri().path().to_owned();
        let position = self.host.counters.request(&path);
        let path = path.strip_prefix(PREFIX).unwrap_or(&path);
        let (active, now) = (self.host.members[self.member].active(), self.host.now());
        let fault = active.meet_request(now, path, self.host.noise.of("chance"));
        if active.has_a_say(path) {
            let struck = fault.is_some_and(|kind| !matches!(kind, FaultKind::Slow { .. }));
            self.host.counters.outcome(struck, now);
        }
        self.dawdle(position).await;
        Ok(match fault {
            None => self.answer(request).await,
            Some(FaultKind::Slow { delay_ms, drip_ms }) => {
                pause(Duration::from_millis(delay_ms)).await;
                drip(self.answer(request).await, Duration::from_millis(drip_ms)).await
            }
            Some(FaultKind::Status { code, retry_after_secs }) => self.failure(code, retry_after_secs),
            Some(FaultKind::BrokenJson) => json_response("{\"data\": [{\"node\": nope,,}"),
            Some(FaultKind::TruncatedJson) => truncate(self.answer(request).await).await,
            Some(FaultKind::CutBody) => self.cut(self.answer(request).await).await,
            Some(FaultKind::Html) => page(),
            Some(FaultKind::Oversized) => flood(),
            // All but the first strike before a request, and so never here.
            Some(
                FaultKind::Hang
                | FaultKind::Refuse
                | FaultKind::HangBeforeTls
                | FaultKind::CutHandshake
                | FaultKind::WrongCertificate,
            ) => pending().await,
        })
    }

    async fn dawdle(&self, position: u64) {
        let latency = self.host.plan.latency_ms;
        if latency > 0 {
            let jitter = 1.0 - JITTER + 2.0 * JITTER * self.host.noise.of("latency").fraction(position);
            pause(Duration::from_millis(latency).mul_f64(jitter)).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        if let System::Http { path, body, .. } = &self.host.plan.system {
            let is_found = request.uri().path() == path;
            let (status, body) =
                if is_found { (StatusCode::OK, body.as_str()) } else { (StatusCode::NOT_FOUND, "not found") };
            return text_response(status, "text/plain; charset=utf-8", body.to_owned());
        }
        match self.api_answer(request).await {
            Ok(data) => json_response(json!({ "data": data }).to_string()),
            Err(refusal) => self.refusal(&refusal),
        }
    }

    async fn api_answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path().strip_prefix(PREFIX).ok_or_else(|| Refusal::new(404, "no such file"))?;
        let gate = Gate::of(&self.host).ok_or_else(|| Refusal::new(404, "no such file"))?;
        if path == "/access/ticket" && head.method == Method::POST {
            let json =
                head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            let (username, password) = credentials(body, json).await?;
            return gate.sign_in(&username, &password);
        }
        let is_read = head.method == Method::GET || head.method == Method::HEAD;
        gate.admit(&head.headers, !is_read)?;
        let query = head.uri.query().unwrap_or_default();
        let call = Call { host: &self.host, member: self.member, now: self.host.now(), path, query };
        if is_read { call.answer() } else { Err(call.not_implemented(head.method.as_str())) }
    }

    fn refusal(&self, refusal: &Refusal) -> Response<AnswerBody> {
        let kind = self.host.plan.system.kind();
        let mut response = json_response(refusal.body(kind));
        *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if kind != InstanceType::Pbs
            && let Ok(reason) = ReasonPhrase::try_from(refusal.reason.as_bytes())
        {
            response.extensions_mut().insert(reason);
        }
        response
    }

    /// The status that a fault asks for, said as the host's kind says it.
    fn failure(&self, code: u16, retry_after_secs: Option<u32>) -> Response<AnswerBody> {
        let reason = match code {
            401 => "permission denied - invalid ticket",
            403 => "Permission check failed (/, Sys.Audit)",
            404 => "Not Found",
            408 => "Request Timeout",
            429 => "Too Many Requests",
            500 => "got timeout",
            503 => "Service Unavailable",
            _ => "failed on purpose",
        };
        let mut response = self.refusal(&Refusal::new(code, reason));
        if let Some(secs) = retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }

    /// Announces the whole body, sends half of it, and resets the connection.
    async fn cut(&self, response: Response<AnswerBody>) -> Response<AnswerBody> {
        let (mut head, body) = collect(response).await;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.abort.reset_on_close();
        let half = Ok(Frame::data(body.slice(..body.len() / 2)));
        let reset = stream::once(async {
            // Lets the half be flushed first.
            tokio::task::yield_now().await;
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        });
        Response::from_parts(head, StreamBody::new(stream::iter([half]).chain(reset)).boxed_unsync())
    }
}

/// The user and password in the body of a sign-in.
async fn credentials<B>(body: B, is_json: bool) -> Result<(String, String), Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    let body = body.map_err(|_| Refusal::new(413, "Request Entity Too Large"))?.to_bytes();
    let field = |name: &str| -> Result<String, Refusal> {
        let value = if is_json {
            let fields: Value = serde_json::from_slice(&body).unwrap_or_default();
            fields[name].as_str().map(str::to_owned)
        } else {
            form_urlencoded::parse(&body).find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        value.ok_or_else(|| Refusal::of_parameter(name, "property is missing and it is not optional".to_owned()))
    };
    Ok((field("username")?, field("password")?))
}

fn json_response(body: impl Into<Bytes>) -> Response<AnswerBody> {
    text_response(StatusCode::OK, "application/json;charset=UTF-8", body)
}

fn text_response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn page() -> Response<AnswerBody> {
    let page = "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>";
    text_response(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// A body that begins as JSON does and goes on for ever.
fn flood() -> Response<AnswerBody> {
    let start = Bytes::from_static(b"{\"data\":[\"");
    let piece = Bytes::from(vec![b'x'; FLOOD_PIECE_BYTES]);
    let pieces = stream::once(async { start }).chain(stream::repeat(piece)).map(|piece| Ok(Frame::data(piece)));
    json_response("").map(|_| StreamBody::new(pieces).boxed_unsync())
}

async fn truncate(response: Response<AnswerBody>) -> Response<AnswerBody> {
    let (head, body) = collect(response).await;
    let half = Full::new(body.slice(..body.len() / 2)).map_err(|never| match never {});
    Response::from_parts(head, half.boxed_unsync())
}

async fn drip(response: Response<AnswerBody>, gap: Duration) -> Response<AnswerBody> {
    let (mut head, body) = collect(response).await;
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let size = body.len().div_ceil(DRIPS).max(1);
    let pieces = stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        pause(gap).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(Frame::data(piece)), rest))
    });
    Response::from_parts(head, StreamBody::new(pieces).boxed_unsync())
}

/// Takes apart an answer that is all in memory.
async fn collect(response: Response<AnswerBody>) -> (hyper::http::response::Parts, Bytes) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    (head, body)
}
