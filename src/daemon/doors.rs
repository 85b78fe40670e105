//! The doors that calls come in by: TCP ports and a unix socket, with bounds on connections and on patience.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callers::Callers;
use super::start::{Options, StartError};
use super::tls::Tls;
use crate::api::{Encrypted, Peer};
use crate::config::DataDir;
use crate::security::account_name;

/// Connections that one door keeps open at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long a caller may leave what it is sent untaken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a caller may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a door could not be opened.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}; {}", mend(source, option))]
    Port {
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        option: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has the socket.
    #[error("another daemon is running with this data folder: {0} answers; stop it or choose another --data-dir")]
    AnotherDaemon(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}; check the data folder's owner and mode")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn mend(source: &io::Error, option: &str) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!("another program uses the port; stop it or choose another with {option}"),
        io::ErrorKind::PermissionDenied => format!("ports below 1024 need a privilege; choose another with {option}"),
        _ => format!("choose an address of this machine with {option}"),
    }
}

/// The ways into a daemon, taken before anything else is touched, so that one that is taken changes nothing.
///
/// Dropped without having been served, they leave the disk as it was.
#[derive(Debug)]
pub struct Doors {
    pub(super) api: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) socket: UnixListener,
    pub(super) traces: Traces,
}

impl Doors {
    /// Takes both ports, then makes the socket, and its folder if that is not there.
    ///
    /// # Errors
    /// A port is taken, another daemon has the socket, or the folder cannot be used.
    pub async fn open(options: &Options) -> Result<Self, StartError> {
        let api = open_port(options.listen, "--listen").await?;
        let metrics = open_port(options.metrics_listen, "--metrics-listen").await?;
        let path = options.socket_path();
        let folder = path.parent().unwrap_or(&options.data_dir);
        let mut traces = Traces { socket: None, folders: missing(folder) };
        DataDir::open(folder)?;
        let socket = open_socket(&path).await?;
        traces.socket = Some(path);
        Ok(Self { api, metrics, socket, traces })
    }
}

/// What a daemon made on disk to be reached by: taken away with it, except for folders that are in use by then.
#[derive(Debug)]
pub(super) struct Traces {
    socket: Option<PathBuf>,
    /// Innermost first.
    folders: Vec<PathBuf>,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // The next start replaces a socket that could not be removed.
            let _ = std::fs::remove_file(socket);
        }
        for folder in &self.folders {
            // Only an empty folder can be removed, and only that is wanted.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The folders that would have to be made for `path` to be there, innermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect()
}

/// Takes a TCP port.
async fn open_port(address: SocketAddr, option: &'static str) -> Result<TcpListener, DoorError> {
    TcpListener::bind(address).await.map_err(|source| DoorError::Port { address, option, source })
}

/// Makes the unix socket, for its owner alone. One that a killed daemon left behind is replaced.
async fn open_socket(path: &Path) -> Result<UnixListener, DoorError> {
    let failed = |source| DoorError::Socket { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok_and(|it| it.file_type().is_socket()) {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            _ => return Err(DoorError::AnotherDaemon(path.to_owned())),
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// A listener that can tell who connects.
pub(super) trait Door: Listener {
    /// Makes the connection ready, and tells who is at the other end; `None` if that is nobody who may come in.
    fn peer(stream: &Self::Io, address: &Self::Addr) -> impl Future<Output = Option<Peer>> + Send;
}

impl Door for TcpListener {
    async fn peer(stream: &TcpStream, address: &SocketAddr) -> Option<Peer> {
        // Else a short answer or event waits up to 40 ms for the caller to acknowledge what went before, as the end of a
        // TLS handshake does; where it cannot be had, that is all that happens.
        let _ = stream.set_nodelay(true);
        Some(Peer::Tcp(address.ip().to_canonical()))
    }
}

impl Door for UnixListener {
    /// The mode of the socket keeps others out already; that root and the owner are who comes in is asked of the system.
    async fn peer(stream: &UnixStream, _: &tokio::net::unix::SocketAddr) -> Option<Peer> {
        let uid = stream.peer_cred().ok()?.uid();
        let welcome = uid == 0 || uid == rustix::process::geteuid().as_raw();
        if !welcome {
            tracing::warn!(uid, "another account than the owner's came to the unix socket, and was turned away");
            return None;
        }
        // The name may have to be asked of a directory service.
        let account = tokio::task::spawn_blocking(move || account_name(uid)).await.ok()?;
        Some(Peer::Local { account: account.into() })
    }
}

/// Serves calls that come in by `listener` until `stop`, then lets those under way end.
pub(super) async fn serve<L: Door>(mut listener: L, tls: Option<Tls>, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let callers = Callers::default();
    let connections = TaskTracker::new();
    while let Some(slot) = next_slot(&slots, &stop).await {
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (tls, router, callers, stop) = (tls.clone(), router.clone(), callers.clone(), stop.clone());
        connections.spawn(async move {
            if let Some(peer) = L::peer(&stream, &address).await
                && let Some(_place) = callers.place(peer.address())
            {
                receive(stream, tls, router, peer, stop).await;
            }
            drop(slot);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn next_slot(slots: &Arc<Semaphore>, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        slot = Arc::clone(slots).acquire_owned() => slot.ok(),
    }
}

async fn receive<S>(stream: S, tls: Option<Tls>, router: Router, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = tls else { return converse(stream, None, router, peer, stop).await };
    if let Some(Some(stream)) = stop.run_until_cancelled(tls.accept(stream)).await {
        converse(stream, Some(Encrypted), router, peer, stop).await;
    }
}

/// Answers the calls of `peer` over one connection, as every door does, until either side ends it or `stop` is cancelled.
/// What is under way then is ended first.
pub async fn converse<S>(stream: S, encrypted: Option<Encrypted>, router: Router, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(peer.clone());
        if let Some(encrypted) = encrypted {
            request.extensions_mut().insert(encrypted);
        }
        router.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let conversation = protocol.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut conversation = std::pin::pin!(conversation);
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = stop.cancelled() => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a caller's connection ended early");
    }
}
