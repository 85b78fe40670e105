//! Leaks on purpose, in the judged process and beside the daemon, to show that each kind is caught and named.

use std::fs::File;

use clap::ValueEnum;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// How much heap leaks with each sample.
const HEAP_BYTES: usize = 64 * 1024;

/// What leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leak {
    /// Memory.
    Heap,
    /// A task that never ends.
    Task,
    /// An open file.
    Descriptor,
}

/// Everything that has leaked so far.
#[derive(Debug, Default)]
pub(crate) struct Leaked {
    memory: Vec<Vec<u8>>,
    tasks: TaskTracker,
    files: Vec<File>,
}

impl Leaked {
    /// Leaks a little more; a task goes to the runtime of `handle`.
    pub(crate) fn more(&mut self, leak: Leak, handle: Option<&Handle>) {
        match leak {
            Leak::Heap => self.memory.push(leaked_memory()),
            Leak::Task => {
                if let Some(handle) = handle {
                    leak_task(&self.tasks, handle);
                }
            }
            Leak::Descriptor => self.files.extend(File::open("/dev/null")),
        }
    }
}

#[inline(never)]
fn leaked_memory() -> Vec<u8> {
    vec![1; HEAP_BYTES]
}

#[inline(never)]
fn leak_task(tasks: &TaskTracker, handle: &Handle) {
    tasks.spawn_on(std::future::pending::<()>(), handle);
}
