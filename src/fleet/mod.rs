//! The instances that this daemon polls: the client of each, and its last reading.
//!
//! Reads take no lock that a poll needs: the table is replaced as a whole, each reading by itself.

mod cluster;
#[cfg(feature = "otel")]
mod overheard;
mod test;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use tokio::sync::Semaphore;

pub use cluster::{ClusterNode, ClusterNodes, Offer, Pin, PinSource, Standing};
#[cfg(feature = "otel")]
pub use overheard::Overheard;
pub use test::{ConnectionTest, TestFailure};

use crate::config::Instance;
use crate::engine::{Event, Failure, FailureKind, InstanceKey, InstanceSpec, InstanceType, Millis, Outcome, Timestamp};
use crate::runtime::{Clock, PollCost, PollReport, PollRequest, Subscriber, Transport};
#[cfg(feature = "otel")]
use crate::targets::overhear;
use crate::targets::{Client, ClientError, Connector, Reading};

/// Every instance by its key.
pub type Members = BTreeMap<InstanceKey, Arc<Member>>;

/// The instances that this daemon polls. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    members: Arc<ArcSwap<Members>>,
    connector: Arc<Connector>,
    clock: Arc<dyn Clock>,
    /// Places for instances that are being tried.
    tests: Arc<Semaphore>,
    /// Where the calls of polls are left, if somebody wants to know.
    #[cfg(feature = "otel")]
    overheard: Option<Overheard>,
}

/// One instance: how it is configured, the client that polls it, and what was read last.
pub struct Member {
    instance: Instance,
    /// The same as before where an edit did not touch what the poll meets; with it connections and tickets.
    client: Arc<Result<Client, ClientError>>,
    /// Where it is, free of secrets; made once, for every health answer shows it.
    connection: Arc<str>,
    display_name: Arc<str>,
    /// What of its row in a health answer never changes, as JSON that lacks the closing brace.
    identity: Box<str>,
    last: Arc<ArcSwapOption<LastReading>>,
}

/// What was read last of an instance. It stays while polls fail, with its age (lesson 4).
#[derive(Debug)]
pub struct LastReading {
    /// When.
    pub at: Timestamp,
    /// What.
    pub reading: Arc<Reading>,
}

impl Fleet {
    /// A fleet without instances.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            members: Arc::default(),
            connector: Arc::new(Connector::default()),
            clock,
            tests: Arc::new(Semaphore::new(test::TESTS_AT_ONCE)),
            #[cfg(feature = "otel")]
            overheard: None,
        }
    }

    /// Has every poll leave its calls in `overheard`, just before its report.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn overheard_by(self, overheard: Overheard) -> Self {
        Self { overheard: Some(overheard), ..self }
    }

    /// The instances as they are now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Takes over an inventory, and gives the specs to hand to the engine.
    ///
    /// Clients and readings of instances that poll the same as before are kept.
    pub fn replace(&self, instances: &[Instance]) -> Vec<InstanceSpec> {
        let before = self.members();
        let member = |instance: &Instance| {
            let key = instance.target.key.clone();
            (key, Arc::new(self.member(instance, before.get(&instance.target.key).map(Arc::as_ref))))
        };
        let members: Members = instances.iter().map(member).collect();
        self.members.store(Arc::new(members));
        instances.iter().map(spec).collect()
    }

    fn member(&self, instance: &Instance, before: Option<&Member>) -> Member {
        let client = match before {
            Some(before) if before.instance.revision == instance.revision => Arc::clone(&before.client),
            _ => Arc::new(Client::new(instance.target.clone(), &self.connector)),
        };
        Member {
            instance: instance.clone(),
            client,
            identity: Identity::of(instance).opening().into(),
            connection: instance.target.connection().into(),
            display_name: instance.target.display_name.as_str().into(),
            last: before.map(|before| Arc::clone(&before.last)).unwrap_or_default(),
        }
    }

    /// Listens to the driver and keeps what is read.
    pub fn reading_keeper(&self) -> ReadingKeeper {
        ReadingKeeper(self.clone())
    }
}

impl Member {
    /// What operators call it.
    pub fn display_name(&self) -> Arc<str> {
        Arc::clone(&self.display_name)
    }

    /// Where it is, free of secrets.
    pub fn connection(&self) -> Arc<str> {
        Arc::clone(&self.connection)
    }

    /// Key, type, names and connection as a JSON object that others add to: it lacks the closing brace.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What was read last.
    pub fn last_reading(&self) -> Option<Arc<LastReading>> {
        self.last.load_full()
    }
}

/// What is known of an instance without polling it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    key: &'a InstanceKey,
    #[serde(rename = "type")]
    kind: InstanceType,
    display_name: &'a str,
    instance: &'a str,
    connection: String,
}

impl<'a> Identity<'a> {
    fn of(instance: &'a Instance) -> Self {
        let target = &instance.target;
        Self {
            key: &target.key,
            kind: target.key.kind(),
            display_name: &target.display_name,
            instance: target.key.name(),
            connection: target.connection().to_string(),
        }
    }

    fn opening(&self) -> String {
        let mut text = serde_json::to_string(self).expect("plain values become JSON");
        text.pop();
        text
    }
}

fn spec(instance: &Instance) -> InstanceSpec {
    InstanceSpec {
        key: instance.target.key.clone(),
        host: instance.target.host().into(),
        enabled: instance.enabled,
        interval: instance.interval,
        timeout: instance.timeout,
        revision: instance.revision,
    }
}

impl Transport for Fleet {
    type Reading = Reading;

    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<Reading>> + Send + 'static {
        let member = self.members.load().get(&request.key).cloned();
        let clock = Arc::clone(&self.clock);
        #[cfg(feature = "otel")]
        let overheard = self.overheard.clone();
        async move {
            #[cfg(feature = "otel")]
            if let Some(overheard) = overheard {
                let (report, calls) = overhear(poll(member, clock, request.timeout)).await;
                overheard.keep(request.key, calls);
                return report;
            }
            poll(member, clock, request.timeout).await
        }
    }
}

async fn poll(member: Option<Arc<Member>>, clock: Arc<dyn Clock>, timeout: Millis) -> PollReport<Reading> {
    let Some(member) = member else { return unable("the instance is no longer configured") };
    match member.client.as_ref() {
        Ok(client) => client.poll(&|| clock.now(), timeout).await,
        Err(error) => unable(&error.to_string()),
    }
}

fn unable(reason: &str) -> PollReport<Reading> {
    let failure = Failure::new(FailureKind::InvalidSettings, reason);
    PollReport { outcome: Outcome::Failure(failure), reading: None, cost: PollCost::default() }
}

/// Keeps the last reading of each instance.
pub struct ReadingKeeper(Fleet);

impl Subscriber<Reading> for ReadingKeeper {
    fn event(&mut self, _event: &Event, _key: Option<&InstanceKey>) {}

    fn report(&mut self, key: &InstanceKey, at: Timestamp, report: &PollReport<Reading>) {
        if let (Some(reading), Some(member)) = (&report.reading, self.0.members.load().get(key)) {
            member.last.store(Some(Arc::new(LastReading { at, reading: Arc::clone(reading) })));
        }
    }
}
