//! A stopped watcher leaves nothing behind. Alone in its program, so that it can count threads.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::time::Duration;

use pulse::config::{Config, ConfigWatcher, DataDir, Environment};
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

#[tokio::test]
async fn a_cancelled_watcher_leaves_no_task_and_no_thread() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(DataDir::open(folder.path()).unwrap(), &Environment::default()).unwrap();
    let (sender, events) = tokio::sync::mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let stop = async {
        until(|| threads_of_notify() == 1).await;
        shutdown.cancel();
    };
    tokio::join!(ConfigWatcher::new(&config).run(sender, shutdown.clone()), stop);
    until(|| threads_of_notify() == 0).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    assert!(events.is_closed());
}
