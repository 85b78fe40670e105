//! A Proxmox host or cluster: which member is asked, and as whom.

use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use super::answer::Version;
use super::credentials::{self, Product, Ticket};
use super::discovery::{self, DiscoveryError, FoundCluster};
use super::visit::Visit;
use super::{pbs, pmg, pve};
use crate::engine::{FailureKind, Timestamp};
use crate::runtime::PollCost;
use crate::targets::client::ClientError;
use crate::targets::deadline::Deadline;
use crate::targets::fault::{CallFailure, Fault};
use crate::targets::net::{Connector, Wire};
use crate::targets::reading::Reading;
use crate::targets::target::{Credentials, ProxmoxAccess, without_credentials};

/// Polls one Proxmox instance.
pub(in crate::targets) struct ProxmoxClient {
    product: Product,
    members: Vec<Url>,
    credentials: Credentials,
    wire: Wire,
    state: Mutex<State>,
    parts: Parts,
}

/// What a client remembers from poll to poll. Never locked across an await.
#[derive(Default)]
struct State {
    /// The member asked first: the one that answered last, or the one after those that did not.
    preferred: usize,
    ticket: Option<Ticket>,
}

/// The costly parts of a reading, by product.
enum Parts {
    Pve(pve::Parts),
    Pbs(pbs::Parts),
    Pmg(pmg::Parts),
}

/// What a member is asked for, once it has told its version.
trait Errand: Sync {
    type Brought: Send;

    fn run(
        &self,
        visit: &mut Visit<'_>,
        version: String,
    ) -> impl Future<Output = Result<Self::Brought, CallFailure>> + Send;
}

impl Errand for Parts {
    type Brought = Reading;

    async fn run(&self, visit: &mut Visit<'_>, version: String) -> Result<Reading, CallFailure> {
        match self {
            Self::Pve(parts) => pve::read(visit, version, parts).await.map(Reading::Pve),
            Self::Pbs(parts) => pbs::read(visit, version, parts).await.map(Reading::Pbs),
            Self::Pmg(parts) => pmg::read(visit, version, parts).await.map(Reading::Pmg),
        }
    }
}

/// Asks for the nodes of the cluster.
struct Discovery {
    fingerprints: bool,
}

impl Errand for Discovery {
    type Brought = Option<FoundCluster>;

    async fn run(&self, visit: &mut Visit<'_>, _version: String) -> Result<Option<FoundCluster>, CallFailure> {
        discovery::read(visit, self.fingerprints).await
    }
}

impl ProxmoxClient {
    pub(in crate::targets) fn new(
        product: Product,
        access: ProxmoxAccess,
        connector: &Arc<Connector>,
    ) -> Result<Self, ClientError> {
        if access.members.is_empty() {
            return Err(ClientError::NoMember);
        }
        if let Some(member) = access.members.iter().find(|member| member.scheme() != "https" || !member.has_host()) {
            return Err(ClientError::NotHttps(without_credentials(member)));
        }
        credentials::check(product, &access.credentials)?;
        let config = connector.client_config(&access.trust)?;
        Ok(Self {
            product,
            members: access.members,
            credentials: access.credentials,
            wire: Wire::new(Arc::clone(connector), config),
            state: Mutex::default(),
            parts: match product {
                Product::Pve => Parts::Pve(pve::Parts::default()),
                Product::Pbs => Parts::Pbs(pbs::Parts::default()),
                Product::Pmg => Parts::Pmg(pmg::Parts::default()),
            },
        })
    }

    /// Reads the instance.
    pub(in crate::targets) async fn poll(
        &self,
        deadline: Deadline<'_>,
        cost: &mut PollCost,
    ) -> Result<Reading, CallFailure> {
        self.ask_members(&self.parts, deadline, cost).await
    }

    /// Asks for the nodes of the cluster.
    pub(in crate::targets) async fn discover(
        &self,
        deadline: Deadline<'_>,
        fingerprints: bool,
    ) -> Result<FoundCluster, DiscoveryError> {
        if !matches!(self.product, Product::Pve) {
            return Err(DiscoveryError::NotPve);
        }
        let asked = self.ask_members(&Discovery { fingerprints }, deadline, &mut PollCost::default()).await;
        match asked {
            Ok(found) => found.ok_or(DiscoveryError::NoCluster),
            Err(failure) => Err(DiscoveryError::Failed(failure.into_failure())),
        }
    }

    /// Asks the last good member, and the next ones if it cannot be connected to.
    ///
    /// A member has to show itself within an even share of the time left; once it has, all of it is its own.
    async fn ask_members<E: Errand>(
        &self,
        errand: &E,
        deadline: Deadline<'_>,
        cost: &mut PollCost,
    ) -> Result<E::Brought, CallFailure> {
        let count = self.members.len();
        let first = self.lock().preferred;
        let mut last_failure = None;
        for turn in 0..count {
            let member = (first + turn) % count;
            let mut visit = Visit::new(self, &self.members[member], deadline, cost);
            let share = deadline.remaining().scaled(1.0 / (count - turn) as f64);
            let brought = match visit.get_soon::<Version>("/version", share).await {
                Ok(version) => errand.run(&mut visit, version.into_text()).await,
                Err(failure) => Err(failure),
            };
            self.wire.rest(brought.is_ok());
            match brought {
                Ok(brought) => return Ok(brought),
                Err(failure) => {
                    let elsewhere = failure.fault.is_of_connection();
                    last_failure = Some(failure);
                    if !elsewhere {
                        break;
                    }
                    // Whoever hung or was away is not asked first the next time.
                    self.lock().preferred = (member + 1) % count;
                }
            }
        }
        Err(self.failure_of_all(last_failure))
    }

    fn failure_of_all(&self, last: Option<CallFailure>) -> CallFailure {
        let Some(mut failure) = last else {
            return Fault::new(FailureKind::InvalidSettings, "no address is given").during("polling");
        };
        let others = self.members.len() - 1;
        if others > 0 && failure.fault.is_of_connection() {
            failure.fault.problem.push_str(&format!(", and none of the {others} other members could be used either"));
        }
        failure
    }

    pub(super) fn product(&self) -> Product {
        self.product
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The ticket, unless a new one is due.
    pub(super) fn ticket(&self, now: Timestamp) -> Option<Ticket> {
        self.lock().ticket.clone().filter(|ticket| !ticket.is_due(now))
    }

    pub(super) fn keep_ticket(&self, ticket: Ticket) {
        self.lock().ticket = Some(ticket);
    }

    pub(super) fn drop_ticket(&self) {
        self.lock().ticket = None;
    }

    pub(super) const fn sign_in_advice(&self) -> &'static str {
        match self.credentials {
            Credentials::Token { .. } => {
                "the API token was refused; check that it exists, is enabled and its secret is right"
            }
            Credentials::Password { .. } => "the sign-in was refused; check that the user is enabled",
        }
    }

    /// Whether a text from the host repeats a secret of ours.
    pub(super) fn is_told_in(&self, text: &str) -> bool {
        let repeats = |secret: &str| !secret.is_empty() && text.contains(secret);
        let ticket = self.lock().ticket.clone();
        let (Credentials::Token { secret, .. } | Credentials::Password { password: secret, .. }) = &self.credentials;
        repeats(secret.expose()) || ticket.is_some_and(|ticket| repeats(ticket.value().expose()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each field is whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
