//! Proxmox Mail Gateway: two calls a poll and two a node, and its statistics now and then.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer::{NodeStatus, NodeStatusAnswer};
use super::slow::SlowPart;
use super::visit::{Visit, is_plain_name};
use crate::targets::digest::ChangeDigest;
use crate::targets::fault::{CallFailure, FailedCall};
use crate::targets::lenient::{self, Bounded};
use crate::targets::reading::Dated;

/// Nodes that a reading holds.
const MAX_NODES: usize = 16;
/// Domains of a queue's shape that are looked at; the sum of all comes first.
const MAX_DOMAINS: usize = 16;

/// What is known of a Proxmox Mail Gateway.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PmgReading {
    /// Its version.
    pub version: String,
    /// Nodes by name.
    pub nodes: Vec<PmgNode>,
    /// Mail of the current day.
    pub mail: Option<Dated<MailStatistics>>,
    /// The spam quarantine.
    pub quarantine: Option<Dated<Quarantine>>,
    /// Whether the host lists more than a reading holds.
    pub truncated: bool,
    /// Calls that failed without failing the poll.
    pub failed_calls: Vec<FailedCall>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PmgNode {
    /// Its name.
    pub name: String,
    /// `master` or `node` in a cluster.
    pub role: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// How it is doing; `None` if it could not be asked.
    pub status: Option<NodeStatus>,
    /// Mail that waits on it.
    pub queue: Option<MailQueue>,
}

/// Mails that could not be delivered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailQueue {
    /// All of them.
    pub deferred: Option<u64>,
    /// Those that have waited for more than 1280 minutes.
    pub deferred_for_long: Option<u64>,
}

/// Counts of mails.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailStatistics {
    /// Received.
    pub received: Option<u64>,
    /// Sent.
    pub sent: Option<u64>,
    /// Spam received.
    pub spam: Option<u64>,
    /// Viruses received.
    pub viruses: Option<u64>,
    /// Bounces received.
    pub bounces: Option<u64>,
    /// Bytes received.
    pub bytes_received: Option<u64>,
    /// Bytes sent.
    pub bytes_sent: Option<u64>,
    /// Seconds that a mail takes on average.
    pub average_seconds: Option<f64>,
}

/// What lies in the spam quarantine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Mails.
    pub mails: Option<u64>,
    /// Their size in mebibytes.
    pub mebibytes: Option<f64>,
    /// Their average spam level.
    pub average_spam_level: Option<f64>,
}

/// The costly parts, kept between polls.
#[derive(Default)]
pub(super) struct Parts(Mutex<SlowParts>);

#[derive(Default)]
struct SlowParts {
    mail: SlowPart<MailStatistics>,
    quarantine: SlowPart<Quarantine>,
}

impl Parts {
    fn with<R>(&self, work: impl FnOnce(&mut SlowParts) -> R) -> R {
        // Each part is whole after any panic.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads everything but the version, which has been read.
pub(super) async fn read(visit: &mut Visit<'_>, version: String, parts: &Parts) -> Result<PmgReading, CallFailure> {
    // Without the parameter a gateway on its own lists nothing.
    let list: Bounded<ClusterNodeAnswer, MAX_NODES> = visit.get("/config/cluster/status?list_single_node=1").await?;
    let truncated = list.truncated;
    let mut nodes: Vec<PmgNode> = list.entries.into_iter().filter_map(ClusterNodeAnswer::into_node).collect();
    if nodes.is_empty() {
        nodes.push(PmgNode { name: "localhost".to_owned(), ..PmgNode::default() });
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    read_nodes(visit, &mut nodes).await?;
    read_slow_parts(visit, parts).await;
    let now = visit.now();
    let mut failed_calls = visit.take_failed_calls();
    let (mail, quarantine) = parts.with(|parts| {
        failed_calls.extend(parts.mail.failed().cloned());
        failed_calls.extend(parts.quarantine.failed().cloned());
        (parts.mail.dated(now), parts.quarantine.dated(now))
    });
    Ok(PmgReading { version, nodes, mail, quarantine, truncated, failed_calls })
}

/// Reads every node. One that is away does not hide the others; the poll fails if there is none to read.
async fn read_nodes(visit: &mut Visit<'_>, nodes: &mut [PmgNode]) -> Result<(), CallFailure> {
    let mut none_read = None;
    let mut any_read = false;
    for node in nodes {
        match visit.get_unless_forbidden::<NodeStatusAnswer>(&format!("/nodes/{}/status", node.name)).await {
            Ok(status) => {
                any_read = true;
                node.status = status.map(NodeStatus::from);
                read_queue(visit, node).await;
            }
            Err(failure) if failure.fault.is_of_connection() => return Err(failure),
            Err(failure) => {
                visit.note(FailedCall::from(&failure));
                none_read = none_read.or(Some(failure));
            }
        }
    }
    match none_read {
        Some(failure) if !any_read => Err(failure),
        _ => Ok(()),
    }
}

async fn read_queue(visit: &mut Visit<'_>, node: &mut PmgNode) {
    let path = format!("/nodes/{}/postfix/qshape?queue=deferred", node.name);
    match visit.get_optional::<Bounded<QueueAnswer, MAX_DOMAINS>>(&path).await {
        Ok(shape) => node.queue = Some(queue(&shape.entries)),
        Err(failure) => visit.note(FailedCall::from(&failure)),
    }
}

async fn read_slow_parts(visit: &mut Visit<'_>, parts: &Parts) {
    let asked = visit.now();
    if visit.has_time_to_spare() && parts.with(|parts| parts.mail.is_due(asked)) {
        parts.with(|parts| parts.mail.begin(asked));
        let answer = visit.get_optional::<MailAnswer>("/statistics/mail").await.map(MailStatistics::from);
        parts.with(|parts| parts.mail.finish(asked, answer));
    }
    let asked = visit.now();
    if visit.has_time_to_spare() && parts.with(|parts| parts.quarantine.is_due(asked)) {
        parts.with(|parts| parts.quarantine.begin(asked));
        let answer = visit.get_optional::<QuarantineAnswer>("/quarantine/spamstatus").await.map(Quarantine::from);
        parts.with(|parts| parts.quarantine.finish(asked, answer));
    }
}

impl PmgReading {
    pub(in crate::targets) fn write_changes(&self, digest: &mut ChangeDigest) {
        digest.text(&self.version);
        digest.list(&self.nodes, |digest, node| {
            digest.text(&node.name).optional(node.role.as_deref()).optional(node.address.as_deref());
            digest.flag(node.status.is_some());
        });
    }
}

/// An entry of `/config/cluster/status`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ClusterNodeAnswer {
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    role: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    ip: Option<String>,
}

impl ClusterNodeAnswer {
    fn into_node(self) -> Option<PmgNode> {
        let name = self.name.filter(|name| is_plain_name(name))?;
        Some(PmgNode { name, role: self.role, address: self.ip, ..PmgNode::default() })
    }
}

/// An entry of `/nodes/{n}/postfix/qshape`: mails by age, of one domain or of all.
#[derive(Default, Deserialize)]
#[serde(default)]
struct QueueAnswer {
    #[serde(deserialize_with = "lenient::text")]
    domain: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    total: Option<u64>,
    #[serde(rename = "1280m+", deserialize_with = "lenient::count")]
    over_1280_minutes: Option<u64>,
}

fn queue(shape: &[QueueAnswer]) -> MailQueue {
    let sum = shape.iter().find(|entry| entry.domain.as_deref() == Some("TOTAL"));
    MailQueue { deferred: sum.and_then(|sum| sum.total), deferred_for_long: sum.and_then(|sum| sum.over_1280_minutes) }
}

/// `/statistics/mail`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MailAnswer {
    #[serde(deserialize_with = "lenient::count")]
    count_in: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    count_out: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    spamcount_in: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    viruscount_in: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    bounces_in: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    bytes_in: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    bytes_out: Option<u64>,
    #[serde(deserialize_with = "lenient::number")]
    avptime: Option<f64>,
}

impl From<MailAnswer> for MailStatistics {
    fn from(answer: MailAnswer) -> Self {
        Self {
            received: answer.count_in,
            sent: answer.count_out,
            spam: answer.spamcount_in,
            viruses: answer.viruscount_in,
            bounces: answer.bounces_in,
            bytes_received: answer.bytes_in,
            bytes_sent: answer.bytes_out,
            average_seconds: answer.avptime,
        }
    }
}

/// `/quarantine/spamstatus`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct QuarantineAnswer {
    #[serde(deserialize_with = "lenient::count")]
    count: Option<u64>,
    #[serde(deserialize_with = "lenient::number")]
    mbytes: Option<f64>,
    #[serde(deserialize_with = "lenient::number")]
    avgspam: Option<f64>,
}

impl From<QuarantineAnswer> for Quarantine {
    fn from(answer: QuarantineAnswer) -> Self {
        Self { mails: answer.count, mebibytes: answer.mbytes, average_spam_level: answer.avgspam }
    }
}
