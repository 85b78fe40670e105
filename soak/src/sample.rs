//! One look at this process: how much it holds of everything that can leak.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the judged process held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Milliseconds since the daemon began to listen.
    pub at: u64,
    /// Bytes allocated and not freed.
    pub heap_bytes: u64,
    /// Blocks allocated and not freed.
    pub heap_blocks: u64,
    /// Resident memory, in bytes, with what the heap's profile takes.
    pub resident_bytes: u64,
    /// Tasks of the runtime that have not ended.
    pub tasks: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Connections of callers to the daemon's ports.
    pub inbound: u64,
    /// Connections of the daemon to hosts.
    pub outbound: u64,
    /// Polls under way.
    pub in_flight: u64,
    /// Instances that wait for their poll.
    pub queue_depth: u64,
    /// Processor time used so far, in milliseconds.
    pub cpu_millis: u64,
}

impl Sample {
    /// Tasks that are neither a poll nor a caller's connection: they come and go with nothing.
    pub fn standing_tasks(&self) -> f64 {
        self.tasks as f64 - self.in_flight as f64 - self.inbound as f64
    }

    /// Descriptors that are no connection.
    pub fn standing_descriptors(&self) -> f64 {
        self.descriptors as f64 - self.inbound as f64 - self.outbound as f64
    }
}

/// What was left when the daemon had stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// Tasks of the runtime beyond those before the daemon started.
    pub tasks: u64,
    /// What descriptors that were not there before the daemon started lead to.
    pub descriptors: Vec<String>,
    /// Connections, of callers or to hosts.
    pub connections: u64,
    /// Polls that were cut off.
    pub polls_cut_off: u64,
    /// Whether every call under way was answered in time.
    pub calls_ended: bool,
    /// How long it took, in milliseconds.
    pub took_millis: u64,
}

/// What the kernel tells of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) cpu_millis: u64,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) inbound: u64,
    pub(crate) outbound: u64,
}

/// An open file descriptor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Descriptor {
    pub(crate) number: u32,
    /// A path, `socket:[…]`, `anon_inode:[…]`.
    pub(crate) target: String,
}

impl Process {
    /// Looks at this process; connections to `ports` are inbound.
    pub(crate) fn look(ports: [u16; 2]) -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).and_then(first_number);
        let descriptors = descriptors()?;
        let sockets: BTreeSet<u64> = descriptors.iter().filter_map(Descriptor::socket).collect();
        let (mut inbound, mut outbound) = (0, 0);
        for connection in connections()?.filter(|connection| sockets.contains(&connection.inode)) {
            match ports.contains(&connection.local_port) {
                true => inbound += 1,
                false => outbound += 1,
            }
        }
        Ok(Self {
            resident_bytes: field("VmRSS:").unwrap_or_default() * 1_024,
            threads: field("Threads:").unwrap_or_default(),
            cpu_millis: cpu_millis(&fs::read_to_string("/proc/self/stat")?),
            descriptors,
            inbound,
            outbound,
        })
    }
}

impl Descriptor {
    /// The inode of a socket.
    fn socket(&self) -> Option<u64> {
        self.target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }
}

/// Every open descriptor, but for the one that this look itself takes.
pub(crate) fn descriptors() -> io::Result<Vec<Descriptor>> {
    let listed = fs::read_dir("/proc/self/fd")?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some(Descriptor { number, target })
    });
    let itself = format!("/proc/{}/fd", std::process::id());
    Ok(listed.filter(|descriptor| Path::new(&descriptor.target) != Path::new(&itself)).collect())
}

struct Connection {
    local_port: u16,
    inode: u64,
}

/// Every TCP connection of the machine that has an owner.
fn connections() -> io::Result<impl Iterator<Item = Connection>> {
    let mut tables = fs::read_to_string("/proc/self/net/tcp")?;
    tables.push_str(&fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default());
    let rows: Vec<Connection> = tables.lines().filter_map(connection).collect();
    Ok(rows.into_iter())
}

/// A row such as `3: 0100007F:1DE7 0100007F:C350 01 … 0 0 123456 …`; the header and listeners give none.
fn connection(row: &str) -> Option<Connection> {
    const LISTENS: &str = "0A";
    let mut fields = row.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (state != LISTENS).then_some(Connection { local_port, inode })
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The time in user and kernel mode out of `/proc/self/stat`, whose clock ticks a hundred times a second.
fn cpu_millis(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).filter_map(first_number);
    ticks.sum::<u64>() * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_by_the_side_whose_port_it_has() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let before = Process::look([port, 0]).unwrap();
        let caller = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let after = Process::look([port, 0]).unwrap();
        assert_eq!(after.inbound - before.inbound, 1);
        let new = after.descriptors.iter().filter(|descriptor| !before.descriptors.contains(descriptor));
        assert!(new.count() >= 2);
        assert!(after.resident_bytes > 100_000 && after.threads >= 1);
        drop((caller, accepted));
    }

    #[test]
    fn the_processor_time_is_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "77 (a (b) c) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_millis(stat), 3_000);
    }

    #[test]
    fn listeners_and_the_header_are_no_connections() {
        assert!(
            connection(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            )
            .is_none()
        );
        let row = |state: &str| {
            format!(
                "   0: 0100007F:1DE7 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0"
            )
        };
        assert!(connection(&row("0A")).is_none());
        let open = connection(&row("01")).unwrap();
        assert_eq!((open.local_port, open.inode), (0x1DE7, 4242));
    }
}
