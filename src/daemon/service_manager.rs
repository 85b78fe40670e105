//! Tells a service manager how the daemon does, by the protocol of systemd's `sd_notify`: ready, alive, stopping.
//!
//! A sign of life is the scheduler's own: it is given only if the scheduler answers and does what is due.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::Environment;
use crate::engine::Millis;
use crate::runtime::{Clock, Handle};

/// Signs of life in the time that the service manager waits for one: two may be lost.
const SIGNS_IN_TIME: u64 = 3;

/// The service manager that started this process; telling it something does nothing if there is none.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// How long it waits for a sign of life, if it wants any.
    patience: Option<Millis>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names. It wants signs of life if `WATCHDOG_USEC` says how often.
    pub fn of(environment: &Environment) -> Self {
        let socket = environment.get("NOTIFY_SOCKET").and_then(|name| {
            let connected = connect(name);
            if let Err(error) = &connected {
                tracing::warn!(%error, "the service manager's NOTIFY_SOCKET cannot be used; it is told nothing");
            }
            connected.ok()
        });
        let text = |name: &str| environment.get(name).and_then(OsStr::to_str);
        let is_meant = text("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let micros = text("WATCHDOG_USEC").and_then(|micros| micros.parse::<u64>().ok()).filter(|_| is_meant);
        Self { socket, patience: micros.map(|micros| Millis::new(micros / 1_000)) }
    }

    /// The daemon listens and polls.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Gives signs of life for as long as this is awaited, none while the scheduler stands still.
    pub async fn keep_alive(&self, scheduler: &Handle, clock: &impl Clock) -> Infallible {
        let Some(patience) = self.patience.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let period = Millis::new((patience.get() / SIGNS_IN_TIME).max(1));
        let mut lived = true;
        loop {
            let next = clock.now() + period;
            let lives = tokio::select! {
                lives = does_its_work(scheduler, patience) => lives,
                () = clock.sleep_until(next) => false,
            };
            if lives {
                self.tell("WATCHDOG=1");
            } else if lived {
                tracing::error!("the scheduler stands still; the service manager gets no sign of life");
            }
            lived = lives;
            clock.sleep_until(next).await;
        }
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()) {
            tracing::warn!(%error, state, "the service manager could not be told");
        }
    }
}

/// Whether the scheduler answers, and nothing that it has to do is due for longer than `patience`.
async fn does_its_work(scheduler: &Handle, patience: Millis) -> bool {
    let work = scheduler.read(move |engine, now| engine.next_wakeup().is_none_or(|due| now.since(due) < patience));
    work.await.unwrap_or(false)
}

/// A name that begins with `@` is no path but one of Linux's abstract sockets.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A service manager that reads nothing must not hold up the daemon.
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::engine::{Engine, Settings};
    use crate::runtime::{Driver, PollReport, PollRequest, TokioClock, Transport};

    struct NoHosts;

    impl Transport for NoHosts {
        type Reading = ();

        fn poll(&self, _: PollRequest) -> impl Future<Output = PollReport<()>> + Send + 'static {
            std::future::pending()
        }
    }

    fn told(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_sign_of_life_only_while_the_scheduler_turns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")];
        let manager = ServiceManager::of(&environment.into_iter().collect());
        let clock = Arc::new(TokioClock::start());
        let engine = Engine::new(Settings::default(), 1, clock.now());
        let (driver, handle) = Driver::new(engine, Arc::clone(&clock), Arc::new(NoHosts));

        let for_ten_seconds = async || {
            let end = clock.now() + Millis::from_secs(10);
            tokio::select! {
                never = manager.keep_alive(&handle, &*clock) => match never {},
                () = clock.sleep_until(end) => {}
            }
        };
        for_ten_seconds().await;
        assert_eq!(told(&listener), Vec::<String>::new(), "the driver is there, and does not run");

        let stop = CancellationToken::new();
        let counted = async {
            for_ten_seconds().await;
            stop.cancel();
        };
        tokio::join!(driver.run(stop.clone()), counted);
        let signs = told(&listener);
        assert!((9..=11).contains(&signs.len()) && signs.iter().all(|sign| sign == "WATCHDOG=1"), "{signs:?}");

        for_ten_seconds().await;
        assert_eq!(told(&listener), Vec::<String>::new(), "the driver has ended");
    }

    #[test]
    fn a_watchdog_that_is_meant_for_another_process_is_none() {
        let environment = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
        assert_eq!(ServiceManager::of(&environment.into_iter().collect()).patience, None);
    }
}
