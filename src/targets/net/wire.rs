//! One instance's way to its host: at most one connection kept alive, and the habit of the host towards idle ones.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use rustls::ClientConfig;
use url::{Origin, Position, Url};

use super::connector::{CallSaid, Connector, Stream};
use super::http1::{self, Answer, BodyLimit};
use crate::engine::FailureKind;
use crate::runtime::PollCost;
use crate::targets::deadline::Deadline;
use crate::targets::fault::Fault;
use crate::targets::target::without_credentials;

/// Idle connections found closed in a row before the instance stops keeping them open for nothing.
const PATIENCE: u8 = 2;
/// Polls without a kept connection before the host is given another chance.
const RECONSIDER: u8 = 100;

const PULSE: HeaderValue = HeaderValue::from_static(concat!("pulse/", env!("CARGO_PKG_VERSION")));

/// One request.
pub(in crate::targets) struct Ask<'a> {
    pub(in crate::targets) method: Method,
    pub(in crate::targets) url: &'a Url,
    pub(in crate::targets) headers: HeaderMap,
    pub(in crate::targets) body: Bytes,
    pub(in crate::targets) limit: BodyLimit,
}

/// Makes the requests of one instance.
///
/// A request takes the kept connection out and puts it back after the last byte of the answer, so a request that is
/// dropped on the way closes its connection and leaves nothing half done.
pub(in crate::targets) struct Wire {
    connector: Arc<Connector>,
    tls: Arc<ClientConfig>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    stream: Option<(Origin, Box<dyn Stream>)>,
    /// Whether a poll has ended since the stream was last used.
    rested: bool,
    /// Rested streams found closed, in a row.
    found_closed: u8,
    /// Polls to come that close their connection themselves.
    closing: u8,
}

impl Wire {
    pub(in crate::targets) fn new(connector: Arc<Connector>, tls: Arc<ClientConfig>) -> Self {
        Self { connector, tls, kept: Mutex::default() }
    }

    /// Makes a request on the kept connection or a new one.
    ///
    /// If a kept connection turns out to have been closed, the request is made once more on a new one.
    pub(in crate::targets) async fn ask(
        &self,
        ask: &Ask<'_>,
        deadline: Deadline<'_>,
        cost: &mut PollCost,
    ) -> Result<Answer, Fault> {
        let begun = deadline.now();
        let answered = self.ask_unnoted(ask, deadline, cost).await;
        self.connector.note(|| CallSaid {
            call: format!("{} {}", ask.method, without_credentials(ask.url)),
            at: begun,
            status: answered.as_ref().ok().map(|answer| answer.status),
            took: deadline.now() - begun,
            problem: answered.as_ref().err().map(|fault| fault.problem.clone()),
        });
        answered
    }

    async fn ask_unnoted(&self, ask: &Ask<'_>, deadline: Deadline<'_>, cost: &mut PollCost) -> Result<Answer, Fault> {
        let origin = ask.url.origin();
        let request = request(ask)?;
        if let Some(stream) = self.take_open(&origin) {
            cost.calls += 1;
            let exchange = http1::exchange(stream, request.clone(), ask.limit);
            match deadline.run(exchange, "no answer came").await? {
                Ok((answer, stream)) => return Ok(self.put_back(origin, answer, stream, cost)),
                Err(broken) if broken.unanswered && broken.fault.kind == FailureKind::Reset => {}
                Err(broken) => return Err(broken.fault),
            }
        }
        let stream = self.connector.open(ask.url, &self.tls, deadline, cost).await?;
        cost.calls += 1;
        match deadline.run(http1::exchange(stream, request, ask.limit), "no answer came").await? {
            Ok((answer, stream)) => Ok(self.put_back(origin, answer, stream, cost)),
            Err(broken) => Err(broken.fault),
        }
    }

    /// Ends a poll. After a success the connection stays, unless the host is known to close idle ones anyway.
    pub(in crate::targets) fn rest(&self, success: bool) {
        let mut kept = self.lock();
        kept.rested = true;
        if kept.found_closed >= PATIENCE {
            kept.found_closed = 0;
            kept.closing = RECONSIDER;
        }
        let closing = kept.closing > 0;
        kept.closing = kept.closing.saturating_sub(1);
        if closing || !success {
            kept.stream = None;
        }
    }

    fn take_open(&self, origin: &Origin) -> Option<Box<dyn Stream>> {
        let (stream, rested) = {
            let mut kept = self.lock();
            (kept.stream.take(), std::mem::take(&mut kept.rested))
        };
        let (at, mut stream) = stream?;
        if at != *origin {
            return None;
        }
        let open = http1::is_open(&mut stream);
        if rested {
            let mut kept = self.lock();
            kept.found_closed = if open { 0 } else { kept.found_closed.saturating_add(1) };
        }
        open.then_some(stream)
    }

    fn put_back(&self, origin: Origin, answer: Answer, stream: Option<Box<dyn Stream>>, cost: &mut PollCost) -> Answer {
        cost.bytes += answer.body.len() as u64;
        self.lock().stream = stream.map(|stream| (origin, stream));
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Each field is whole after any panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, Fault> {
    let authority = &ask.url[Position::BeforeHost..Position::AfterPort];
    let target = &ask.url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(target)
        .header(HOST, authority)
        .header(USER_AGENT, PULSE)
        .body(Full::new(ask.body.clone()))
        .map_err(|_| Fault::new(FailureKind::InvalidSettings, "the address cannot be put into a request"))?;
    request.headers_mut().extend(ask.headers.clone());
    Ok(request)
}
