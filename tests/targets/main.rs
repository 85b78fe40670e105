//! Instances polled through the real client: names, sockets, TLS and HTTP, against real servers on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod availability;
mod classification;
mod cost;
mod credentials;
mod members;
mod proxmox;
mod raw_server;
mod trust;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pulse::engine::{Failure, FailureKind, InstanceType, Millis, Outcome, Timestamp};
use pulse::lab::{Auth, HostPlan, Lab, LabClock, LabHost, LabPlan};
use pulse::runtime::PollReport;
use pulse::targets::{
    Access, Client, Connector, Credentials, HttpCheck, ProxmoxAccess, Reading, Secret, Target, TcpCheck, Trust,
};

const SEED: u64 = 7;
/// Long enough for loopback.
const BUDGET: Millis = Millis::from_secs(5);
/// Short enough to wait for.
const SHORT: Millis = Millis::new(300);

/// A client and the time that it believes in: the time since the test began, and what the test adds.
struct Poller {
    client: Client,
    start: std::time::Instant,
    skipped: AtomicU64,
}

impl Poller {
    fn new(target: Target) -> Self {
        Self::with(target, &Arc::new(Connector::default()))
    }

    fn with(target: Target, connector: &Arc<Connector>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
        let start = std::time::Instant::now();
        Self { client: Client::new(target, connector).unwrap(), start, skipped: AtomicU64::new(0) }
    }

    fn now(&self) -> Timestamp {
        let passed = Millis::from(self.start.elapsed()).get();
        Timestamp::from_millis(passed + self.skipped.load(Ordering::Relaxed))
    }

    /// Lets time pass without waiting.
    fn skip(&self, span: Millis) {
        self.skipped.fetch_add(span.get(), Ordering::Relaxed);
    }

    async fn poll(&self) -> PollReport<Reading> {
        self.poll_within(BUDGET).await
    }

    async fn poll_within(&self, budget: Millis) -> PollReport<Reading> {
        self.client.poll(&|| self.now(), budget).await
    }

    /// A poll that must succeed.
    async fn reading(&self) -> Reading {
        reading_of(self.poll().await)
    }

    /// A poll that must fail.
    async fn failure(&self) -> Failure {
        failure_of(self.poll().await)
    }
}

fn reading_of(report: PollReport<Reading>) -> Reading {
    report.reading.map(Arc::unwrap_or_clone).unwrap_or_else(|| panic!("{:?}", report.outcome))
}

fn failure_of(report: PollReport<Reading>) -> Failure {
    assert!(report.reading.is_none());
    match report.outcome {
        Outcome::Failure(failure) => failure,
        Outcome::Success { .. } => panic!("the poll succeeded"),
    }
}

fn kind_of(report: PollReport<Reading>) -> FailureKind {
    failure_of(report).kind
}

/// A lab with one host and a client for it that pins its certificate.
async fn lab_with(host: HostPlan) -> (Lab, Poller) {
    let lab = lab(vec![host]).await;
    let poller = Poller::new(target_of(&lab.hosts()[0]));
    (lab, poller)
}

async fn lab(hosts: Vec<HostPlan>) -> Lab {
    Lab::start(LabPlan::new(SEED, hosts), LabClock::real()).await.unwrap()
}

/// How an operator would set up a host of the lab, its certificate pinned.
fn target_of(host: &LabHost) -> Target {
    let trust = host.fingerprint.as_deref().map_or(Trust::System, |text| Trust::Fingerprint(fingerprint(text)));
    let proxmox = || ProxmoxAccess {
        members: host.urls.iter().map(|url| url.parse().unwrap()).collect(),
        credentials: credentials(host.auth.as_ref().unwrap()),
        trust: trust.clone(),
    };
    let access = match host.kind {
        InstanceType::Pve => Access::Pve(proxmox()),
        InstanceType::Pbs => Access::Pbs(proxmox()),
        InstanceType::Pmg => Access::Pmg(proxmox()),
        InstanceType::Http => Access::Http(HttpCheck {
            url: host.urls[0].parse().unwrap(),
            method: "GET".into(),
            expected_status: 200..=299,
            body_contains: host.body.clone(),
            trust,
        }),
        InstanceType::Tcp => {
            let (address, port) = host.urls[0].strip_prefix("tcp://").unwrap().split_once(':').unwrap();
            Access::Tcp(TcpCheck { host: address.into(), port: port.parse().unwrap() })
        }
    };
    Target { key: format!("{}::{}", host.kind, host.name).parse().unwrap(), display_name: host.name.clone(), access }
}

fn credentials(auth: &Auth) -> Credentials {
    match auth.clone() {
        Auth::Token { id, secret, .. } => Credentials::Token { id, secret: Secret::new(secret) },
        Auth::Password { user, password, .. } => Credentials::Password { user, password: Secret::new(password) },
    }
}

fn fingerprint(text: &str) -> [u8; 32] {
    let bytes: Vec<u8> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// A Proxmox VE target at one address, for servers that are no lab's.
fn pve_at(url: &str, trust: Trust) -> Target {
    let credentials = Credentials::Token { id: "pulse@pve!monitor".into(), secret: Secret::new(TOKEN.into()) };
    let access = ProxmoxAccess { members: vec![url.parse().unwrap()], credentials, trust };
    Target { key: "pve::raw".parse().unwrap(), display_name: "Raw".into(), access: Access::Pve(access) }
}

const TOKEN: &str = "c0ffee00-5ec2-4e75-0000-0123456789ab";
