//! One connection: from the first byte through TLS to the last answer, or to the fault that it meets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::fault::FaultKind;
use super::host::Host;
use super::http::Server;
use crate::engine::InstanceType;

/// The largest request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A TCP stream that can be told to end by a reset instead of an orderly close.
pub(super) struct Wire {
    stream: TcpStream,
    abort: AbortHandle,
}

/// Decides how a [`Wire`] ends.
#[derive(Clone, Default)]
pub(super) struct AbortHandle(Arc<AtomicBool>);

impl AbortHandle {
    pub(super) fn reset_on_close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Small pieces go out as they come. If it cannot be set, they come a little later.
        let _ = stream.set_nodelay(true);
        Self { stream, abort: AbortHandle::default() }
    }

    pub(super) fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.abort.0.load(Ordering::Relaxed) {
            // If it cannot be set, the connection ends orderly, which a client has to bear as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Serves a connection that meets `fault`, until either side ends it.
pub(super) async fn serve(host: &Arc<Host>, member: usize, wire: Wire, fault: Option<FaultKind>) {
    let is_encrypted = host.plan.system.is_encrypted();
    let identity = match fault {
        Some(FaultKind::Refuse) => return wire.abort.reset_on_close(),
        Some(FaultKind::HangBeforeTls) => return swallow(wire).await,
        Some(FaultKind::CutHandshake) => return read_once(wire).await,
        Some(FaultKind::WrongCertificate) => &host.impostor,
        _ => &host.identity,
    };
    if host.plan.system.kind() == InstanceType::Tcp {
        return swallow(wire).await;
    }
    let server = Server { host: Arc::clone(host), member, abort: wire.abort_handle() };
    if !is_encrypted {
        return serve_http(wire, server).await;
    }
    if let Ok(stream) = identity.acceptor.accept(wire).await {
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        host.counters.handshake(resumed);
        serve_http(stream, server).await;
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, server: Server) {
    let service = service_fn(|request| server.respond(request));
    let connection = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).serve_connection(TokioIo::new(stream), service);
    // What goes wrong on a connection is the client's to see; the lab meant it, or the client left.
    let _ = connection.await;
}

/// Reads and says nothing until the client leaves.
async fn swallow(mut wire: Wire) {
    let mut buffer = [0; 512];
    while wire.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Takes the client's first message, so that it is not answered by a reset, and closes.
async fn read_once(mut wire: Wire) {
    let mut buffer = [0; 4_096];
    // An error means that the client left first.
    let _ = wire.read(&mut buffer).await;
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
