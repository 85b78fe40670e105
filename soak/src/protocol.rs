//! What the conductor and the judged process say to each other: a line of JSON each, over the pipes between them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::sample::{Leftover, Sample};

/// What the judged process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub(crate) enum Told {
    /// The daemon listens.
    Ready {
        /// Where the API listens.
        address: SocketAddr,
        /// Where the metrics listen.
        metrics_address: SocketAddr,
        /// What makes the first admin. It goes over a pipe that nobody else reads.
        setup_token: String,
    },
    /// What it holds now.
    Sample(Sample),
    /// The profile of the heap is written.
    Profiled,
    /// The daemon has stopped.
    Stopped(Leftover),
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the judged process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub(crate) enum Asked {
    /// The warm-up is over: remember what each site holds.
    Mark,
    /// End the profile of the heap and write it.
    Profile,
    /// Stop the daemon, tell what is left, and end.
    Stop,
}
