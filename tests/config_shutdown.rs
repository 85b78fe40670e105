//! A stopped watcher leaves nothing behind. Alone in its program, so that it can count threads.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::time::Duration;

use pulse::config::{Config, DataDir, Environment, Follower, Look, LookAtFiles, Looked, watch_files};
use tokio_util::sync::CancellationToken;

fn threads_of_notify() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.flat_map(|thread| std::fs::read_to_string(thread.path().join("comm")));
    names.filter(|name| name.starts_with("notify")).count()
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), wait).await.expect("it happens in time");
}

struct Eyes(Follower);

impl LookAtFiles for Eyes {
    async fn look(&mut self, look: Look) -> Looked {
        self.0.look(look).1
    }
}

#[tokio::test]
async fn a_cancelled_watcher_leaves_no_task_and_no_thread() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(DataDir::open(folder.path()).unwrap(), &Environment::default()).unwrap();
    let shutdown = CancellationToken::new();
    let stop = async {
        until(|| threads_of_notify() == 1).await;
        shutdown.cancel();
    };
    let mut eyes = Eyes(Follower::new(&config));
    tokio::join!(watch_files(&config.data_dir, &mut eyes, shutdown.clone()), stop);
    until(|| threads_of_notify() == 0).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}
