//! `pulse instances discover`: the nodes of a cluster, and adding those that are not watched yet.

use std::io::{BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::{DaemonOption, segment};
use super::health::plain_table;
use super::{Failed, print_json, print_line};
use crate::api::{ClusterAdded, ClusterAnswer, ClusterNodeShown, FingerprintSource};
use crate::config::Environment;

const DISCOVER_EXAMPLES: &str = "\
Examples:
  pulse instances discover pve::rack-1
      Show the nodes of the cluster that rack-1 is in.
  pulse instances discover pve::rack-1 --add rack-2,rack-3
      Watch two of them too, with the credentials of rack-1; asks before it trusts a certificate.
  pulse instances discover pve::rack-1 --add-all --trust-certificates --json
      Watch all of them, in a script.";

/// Finds instances to watch.
#[derive(Debug, Args)]
pub(super) struct InstancesCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Discover(Discover),
}

/// Reads the nodes of a Proxmox VE cluster from one member, and adds those that you choose.
///
/// They are added with the credentials and the authority of the instance they were found by. Where that one pins a
/// certificate, those of the nodes are shown, and pinned only once you have confirmed them.
#[derive(Debug, Args)]
#[command(after_help = DISCOVER_EXAMPLES)]
struct Discover {
    /// The instance to ask, as in pve::rack-1.
    key: String,

    /// Add these nodes, by their names in the cluster.
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "add_all")]
    add: Vec<String>,

    /// Add every node that can be added.
    #[arg(long)]
    add_all: bool,

    /// Pin the certificates that are shown without asking.
    #[arg(long)]
    trust_certificates: bool,

    /// Why, for the history and the audit log.
    #[arg(long)]
    reason: Option<String>,

    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl InstancesCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::Discover(discover) => discover.run(environment),
        }
    }
}

impl Discover {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let path = format!("/api/config/nodes/{}/cluster", segment(&self.key));
        let cluster: ClusterAnswer = self.daemon.get(environment, &path)?;
        if !self.add_all && self.add.is_empty() {
            return if self.json { print_json(&cluster) } else { print_line(&table(&cluster)) };
        }
        let chosen = self.chosen(&cluster)?;
        if chosen.is_empty() {
            let nothing = json!({"keys": [], "version": null});
            return if self.json { print_json(&nothing) } else { print_line("There is no node to add.") };
        }
        self.confirm(&chosen)?;
        let node = |node: &&ClusterNodeShown| {
            let seen = node.offer.as_ref().and_then(|offer| offer.fingerprint.as_ref());
            json!({"name": node.name, "fingerprint": seen})
        };
        let body = json!({"nodes": chosen.iter().map(node).collect::<Vec<_>>(), "reason": self.reason});
        let added: ClusterAdded = self.daemon.send(environment, Method::POST, &path, Some(&body))?;
        if self.json {
            return print_json(&added);
        }
        added.keys.iter().try_for_each(|key| print_line(&format!("{key} is added and polled from now on")))
    }

    /// The nodes to add: all that can be, or those named, which the daemon may still refuse.
    fn chosen<'a>(&self, cluster: &'a ClusterAnswer) -> Result<Vec<&'a ClusterNodeShown>, Failed> {
        if self.add_all {
            return Ok(cluster.nodes.iter().filter(|node| node.offer.is_some()).collect());
        }
        let find = |name: &String| {
            let unknown = || Failed::because(format!("the cluster {} has no node {name}", cluster.cluster));
            cluster.nodes.iter().find(|node| node.name == *name).ok_or_else(unknown)
        };
        self.add.iter().map(find).collect()
    }

    /// Has the operator confirm what is to be pinned, if anything is.
    fn confirm(&self, chosen: &[&ClusterNodeShown]) -> Result<(), Failed> {
        let told = |node: &&ClusterNodeShown| Some(format!("  {}: {}", node.name, certificate(node)?));
        let shown: Vec<String> = chosen.iter().filter_map(told).collect();
        if shown.is_empty() || self.trust_certificates {
            return Ok(());
        }
        let shown = shown.join("\n");
        if !std::io::stdin().is_terminal() {
            return Err(Failed::because(format!(
                "these certificates would be pinned; compare them with the nodes' own, and run this again with \
                 --trust-certificates:\n{shown}"
            )));
        }
        eprint!("These certificates will be pinned; compare them with the nodes' own:\n{shown}\nTrust them? [y/N] ");
        std::io::stderr().flush().map_err(Failed::because)?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(Failed::because)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failed::because("nothing was added")),
        }
    }
}

fn table(cluster: &ClusterAnswer) -> String {
    let mut table = plain_table(&["NODE", "ADDRESS", "ONLINE", "WATCHED AS", "CERTIFICATE TO TRUST"]);
    for node in &cluster.nodes {
        let watched = match (&node.configured, &node.problem) {
            (Some(key), _) => key.clone(),
            (None, Some(problem)) => format!("cannot be added: {problem}"),
            (None, None) => "not yet".to_owned(),
        };
        let absent = || "–".to_owned();
        let online = if node.online { "yes" } else { "no" };
        table.add_row([
            node.name.clone(),
            node.address.clone().unwrap_or_else(absent),
            online.to_owned(),
            watched,
            certificate(node).unwrap_or_else(absent),
        ]);
    }
    format!("Cluster {}\n{table}", cluster.cluster)
}

/// The certificate that would be pinned, and who tells of it.
fn certificate(node: &ClusterNodeShown) -> Option<String> {
    let offer = node.offer.as_ref()?;
    let source = match offer.fingerprint_source {
        Some(FingerprintSource::Cluster) => "told by the cluster",
        Some(FingerprintSource::FirstContact) | None => "shown by the node, at first contact",
    };
    Some(format!("{} ({source})", offer.fingerprint.as_ref()?))
}
