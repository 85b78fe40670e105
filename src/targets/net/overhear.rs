//! The calls of one poll, kept for whoever runs it.

use std::cell::RefCell;

use super::connector::CallSaid;

/// Calls kept of one poll; a large cluster makes more.
const MOST: usize = 64;

tokio::task_local! {
    static CALLS: RefCell<Vec<CallSaid>>;
}

/// Runs a poll, and gives its first 64 calls with what it came to.
pub async fn overhear<T>(poll: impl Future<Output = T>) -> (T, Vec<CallSaid>) {
    let heard = async {
        let done = poll.await;
        (done, CALLS.with(RefCell::take))
    };
    CALLS.scope(RefCell::default(), heard).await
}

/// Whether the poll that runs here is overheard.
pub(super) fn is_overheard() -> bool {
    CALLS.try_with(|_| ()).is_ok()
}

/// Keeps a call of the poll that runs here.
pub(super) fn keep(call: CallSaid) {
    // It fails only where nobody overhears.
    let _ = CALLS.try_with(|calls| {
        let mut calls = calls.borrow_mut();
        if calls.len() < MOST {
            calls.push(call);
        }
    });
}
