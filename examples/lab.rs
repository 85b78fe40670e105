//! Runs an emulated fleet until it is told to stop by SIGINT or SIGTERM.
//!
//! ```text
//! cargo run --example lab -- --plan demo --instances-out instances.json --ca-out ca.pem --control 127.0.0.1:7700
//! ```

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use pulse::lab::{Lab, LabClock, LabPlan};
use tokio::signal::unix::{SignalKind, signal};

/// An emulated fleet of Proxmox hosts and endpoints on loopback.
#[derive(Parser)]
struct Arguments {
    /// Which fleet.
    #[arg(long, value_enum, default_value = "demo")]
    plan: Plan,
    /// How many hosts a uniform fleet has.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// What every figure of the fleet follows from; the scenarios have their own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The index of the first address, to run several fleets side by side.
    #[arg(long, default_value_t = 0)]
    first_address: u32,
    /// The port of every node of a cluster, as real ones have; else each has a free one.
    #[arg(long, default_value_t = 0)]
    cluster_port: u16,
    /// Where another process reads counts and sets faults, on loopback; port 0 takes a free one.
    #[arg(long)]
    control: Option<SocketAddr>,
    /// Writes an instances.json that polls the whole fleet, secrets included.
    #[arg(long)]
    instances_out: Option<PathBuf>,
    /// Writes the certificate of the fleet's authority; instances then trust it instead of fingerprints.
    #[arg(long)]
    ca_out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Plan {
    Demo,
    Uniform,
    Integration,
    Soak,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let plan = match arguments.plan {
        Plan::Demo => LabPlan::demo(arguments.seed),
        Plan::Uniform => LabPlan::uniform(arguments.hosts, arguments.seed),
        Plan::Integration => LabPlan::integration(),
        Plan::Soak => LabPlan::soak(),
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let plan = plan.starting_at(arguments.first_address).with_cluster_port(arguments.cluster_port);
    let lab = Lab::start(plan, LabClock::real()).await?;
    if let Some(address) = arguments.control {
        println!("control port: http://{}", lab.serve_control(address, None).await?);
    }
    let authority_file = arguments.ca_out.map(std::path::absolute).transpose()?;
    if let Some(path) = &authority_file {
        write_private(path, lab.authority_pem())?;
    }
    if let Some(path) = &arguments.instances_out {
        write_private(path, &serde_json::to_string_pretty(&lab.instances_json(authority_file.as_deref()))?)?;
    }
    println!("{} hosts are up", lab.hosts().len());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    lab.shutdown().await;
    Ok(())
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str) -> Result<(), std::io::Error> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
