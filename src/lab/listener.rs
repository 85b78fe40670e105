//! The door of one member: it opens, closes, and changes its manners as the member's behaviour says.
//!
//! A closed door keeps its port by a socket that is bound but does not listen, so that the kernel refuses
//! connections and nobody else can take the port meanwhile.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::pause;
use super::connection::{self, Wire};
use super::fault::FaultKind;
use super::host::{Host, Member};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;
/// The most connections of one host that are open at a time; further ones are reset.
const MAX_CONNECTIONS: u64 = 256;
/// A schedule is looked at this often at least, because the lab's clock need not run with tokio's.
const LONGEST_NAP: Duration = Duration::from_millis(200);
/// After a failed `accept`, usually for want of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// A socket of a member.
pub(super) enum Door {
    /// Connections are accepted.
    Open(TcpListener),
    /// Connections are refused; the port is kept.
    Closed(TcpSocket),
    /// Somebody else has the port; it is tried for again and again.
    Lost,
}

impl Door {
    /// A closed door at `address`; its port is chosen if it is 0.
    pub(super) fn reserve(address: SocketAddrV4) -> io::Result<(Self, SocketAddrV4)> {
        let socket = bind(address)?;
        let port = socket.local_addr()?.port();
        Ok((Self::Closed(socket), SocketAddrV4::new(*address.ip(), port)))
    }

    fn open(self, address: SocketAddrV4) -> Self {
        match self {
            Self::Open(listener) => Self::Open(listener),
            Self::Closed(socket) => socket.listen(BACKLOG).map_or_else(|error| Self::lose(address, &error), Self::Open),
            Self::Lost => bind(address).and_then(|socket| socket.listen(BACKLOG)).map_or(Self::Lost, Self::Open),
        }
    }

    fn close(self, address: SocketAddrV4) -> Self {
        match self {
            Self::Open(listener) => {
                drop(listener);
                bind(address).map_or_else(|error| Self::lose(address, &error), Self::Closed)
            }
            closed => closed,
        }
    }

    fn lose(address: SocketAddrV4, error: &io::Error) -> Self {
        tracing::warn!(%address, %error, "the lab lost a port; its host cannot be reached until the port is free");
        Self::Lost
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
            Self::Closed(_) | Self::Lost => std::future::pending().await,
        }
    }
}

fn bind(address: SocketAddrV4) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of a listener that was closed may linger; they must not keep the port from being bound.
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    Ok(socket)
}

/// Serves member `index` of `host` at `door` until `stop` is cancelled.
pub(super) async fn serve(host: Arc<Host>, index: usize, door: Door, tasks: TaskTracker, stop: CancellationToken) {
    let member = &host.members[index];
    let mut changes = member.changes();
    let mut keeper = DoorKeeper { host: &host, index, tasks, live: stop.child_token(), stop: &stop, manners: None };
    let mut door = door;
    loop {
        let active = Arc::clone(&changes.borrow_and_update());
        let now = host.now();
        door = keeper.adapt(door, active.standing_fault(now));
        member.applied(&active);
        let turn = active.turns_in(now).map(|turn| Duration::from(turn).min(LONGEST_NAP));
        let nap = turn.or(matches!(door, Door::Lost).then_some(LONGEST_NAP));
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => {}
            () = pause(nap.unwrap_or_default()), if nap.is_some() => {}
            accepted = door.accept() => match accepted {
                Ok(stream) => keeper.welcome(stream),
                Err(_) => pause(PAUSE_AFTER_ERROR).await,
            },
        }
    }
}

struct DoorKeeper<'a> {
    host: &'a Arc<Host>,
    index: usize,
    tasks: TaskTracker,
    /// Cancelled to reset the connections that were accepted under other manners.
    live: CancellationToken,
    stop: &'a CancellationToken,
    /// The fault under which connections are accepted at present.
    manners: Option<FaultKind>,
}

impl DoorKeeper<'_> {
    fn adapt(&mut self, door: Door, fault: Option<FaultKind>) -> Door {
        if fault != self.manners {
            self.live.cancel();
            self.live = self.stop.child_token();
            self.manners = fault;
        }
        let address = self.member().address;
        if fault == Some(FaultKind::Refuse) { door.close(address) } else { door.open(address) }
    }

    fn welcome(&self, stream: TcpStream) {
        let now = self.host.now();
        let fault = self.member().active().meet_connection(now);
        if fault.is_some() {
            self.host.counters.outcome(true, now);
        }
        let (host, index, live) = (Arc::clone(self.host), self.index, self.live.clone());
        self.tasks.spawn(async move {
            let wire = Wire::new(stream);
            let abort = wire.abort_handle();
            let Some(_open) = host.counters.connection(MAX_CONNECTIONS) else { return abort.reset_on_close() };
            let cut = async {
                live.cancelled().await;
                abort.reset_on_close();
            };
            tokio::select! {
                biased;
                () = cut => {}
                () = connection::serve(&host, index, wire, fault) => {}
            }
        });
    }

    fn member(&self) -> &Member {
        &self.host.members[self.index]
    }
}
