//! One request over HTTP/1.1, driven by whoever makes it.
//!
//! hyper splits a connection into a sender and a driver that is usually spawned as a task. Here the driver is polled
//! along with the request and taken apart after the answer, so that an idle connection has no task and no buffers.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::poll_fn;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, Connection};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::connector::Stream;
use crate::engine::FailureKind;
use crate::targets::fault::{Fault, plain};

type HttpConnection = Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

/// How much of a body is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::targets) enum BodyLimit {
    /// All of it; more bytes than these are a fault.
    Whole(usize),
    /// Its first bytes; the rest is left.
    Prefix(usize),
}

/// An answer whose body has been read as far as was wanted.
#[derive(Debug)]
pub(in crate::targets) struct Answer {
    pub(in crate::targets) status: u16,
    /// The words after the status, on one short line.
    pub(in crate::targets) reason: String,
    pub(in crate::targets) headers: HeaderMap,
    pub(in crate::targets) body: Vec<u8>,
    /// Whether the answer said where its body ends; if not, a cut looks like the end.
    pub(in crate::targets) delimited: bool,
}

/// A request that got no usable answer.
#[derive(Debug)]
pub(super) struct ExchangeFault {
    pub(super) fault: Fault,
    /// No head of an answer had come, so the connection may have been closed before the request.
    pub(super) unanswered: bool,
}

/// Makes one request. The stream comes back if another request can follow on it.
pub(super) async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    limit: BodyLimit,
) -> Result<(Answer, Option<Box<dyn Stream>>), ExchangeFault> {
    let unanswered = |error: hyper::Error| ExchangeFault { fault: http_fault(&error), unanswered: true };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unanswered)?;
    let mut driver = Driver(Some(Box::new(connection)));
    let response = driver.alongside(sender.send_request(request)).await.map_err(unanswered)?;
    let (answer, whole) =
        driver.alongside(read(response, limit)).await.map_err(|fault| ExchangeFault { fault, unanswered: false })?;
    let ready = driver.glance(sender.ready()).await;
    let reusable = whole && matches!(ready, Some(Ok(())));
    Ok((answer, if reusable { driver.into_stream() } else { None }))
}

/// Whether a stream is open and silent, as far as this side has been told.
///
/// It also takes the place of whoever waited for the stream last: a waker left behind would keep the memory of a
/// finished task for as long as the stream is idle.
pub(super) fn is_open(stream: &mut Box<dyn Stream>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let mut buffer = ReadBuf::uninit(&mut byte);
    // Its end, an error and a word that nobody asked for all make it useless.
    Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
}

/// The half of a connection that moves its bytes, until it ends.
struct Driver(Option<Box<HttpConnection>>);

impl Driver {
    /// Runs `work` to its end while the connection moves bytes.
    async fn alongside<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.turn(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Runs `work` as far as it goes without waiting.
    async fn glance<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.turn(context);
            Poll::Ready(match work.as_mut().poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }

    fn turn(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && Pin::new(connection).poll(context).is_ready()
        {
            // What ended it reaches the request in flight, if there is one.
            self.0 = None;
        }
    }

    /// The bare stream, unless it ended or holds bytes that nobody asked for.
    fn into_stream(self) -> Option<Box<dyn Stream>> {
        let parts = self.0?.into_parts();
        let mut stream = parts.io.into_inner();
        (parts.read_buf.is_empty() && is_open(&mut stream)).then_some(stream)
    }
}

/// Reads a body up to its limit; says whether that was all of it.
async fn read(response: Response<Incoming>, limit: BodyLimit) -> Result<(Answer, bool), Fault> {
    let (head, mut incoming) = response.into_parts();
    let reason = head.extensions.get::<ReasonPhrase>().map(|phrase| String::from_utf8_lossy(phrase.as_bytes()));
    let mut answer = Answer {
        status: head.status.as_u16(),
        reason: reason.map(|phrase| plain(phrase.trim(), 160)).unwrap_or_default(),
        delimited: head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING),
        headers: head.headers,
        body: Vec::new(),
    };
    let (BodyLimit::Whole(most) | BodyLimit::Prefix(most)) = limit;
    if limit == BodyLimit::Whole(most) && incoming.size_hint().lower() > most as u64 {
        return Err(too_long(most));
    }
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| http_fault(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = most - answer.body.len();
        answer.body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return match limit {
                BodyLimit::Whole(_) => Err(too_long(most)),
                BodyLimit::Prefix(_) => Ok((answer, false)),
            };
        }
    }
    Ok((answer, true))
}

fn too_long(most: usize) -> Fault {
    Fault::new(FailureKind::NotTheApi, format!("the answer is longer than {} KiB", most / 1_024))
}

fn http_fault(error: &hyper::Error) -> Fault {
    if error.is_parse_too_large() {
        return Fault::new(FailureKind::NotTheApi, "the head of the answer is too long");
    }
    if error.is_parse() {
        return Fault::new(FailureKind::NotTheApi, "the port answers, but not in HTTP");
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Fault::of_stream(error);
        }
        cause = error.source();
    }
    Fault::new(FailureKind::Reset, "the connection was cut before the answer was complete")
}
