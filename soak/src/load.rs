//! Everybody who calls the daemon meanwhile: dashboards, scrapers, viewers, operators, strangers, and people who edit.
//!
//! Who needs a call that this daemon does not have stays away, and the report says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pulse::engine::Millis;
use pulse::runtime::{Clock, TokioClock};
use reqwest::{Client, RequestBuilder};
use serde::Serialize;
use serde_json::{Value, json};
use sim::{Action, Operator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::people::{AUDIT, TOKENS};

pub(crate) const HEALTH: &str = "/api/monitoring/scheduler/health";
const EVENTS: &str = "/api/events";
const RESET: &str = "/api/monitoring/breakers/{key}/reset";
const RETRY: &str = "/api/monitoring/dlq/{key}/retry";
const RETRY_ALL: &str = "/api/monitoring/dlq/retry";
const POLL: &str = "/api/monitoring/instances/{key}/poll";
const PAUSE: &str = "/api/monitoring/instances/{key}/pause";
const RESUME: &str = "/api/monitoring/instances/{key}/resume";
const UPDATE: &str = "/api/system/settings/update";
/// The answer to more calls than one caller may make; rightly given.
pub(crate) const TOO_MANY: u16 = 429;
const DASHBOARDS: u64 = 3;
const VIEWERS: u64 = 8;
/// Longer than the daemon gives itself for a call.
const PATIENCE: Duration = Duration::from_secs(40);
/// How soon an edit must have taken effect: the documented two seconds, and as much again for a busy machine.
const EDIT_SEEN_WITHIN: Millis = Millis::from_secs(4);

/// Where the daemon is reached, and by what right.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) api: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) token: String,
    /// The password of the user [`crate::people::USER`].
    pub(crate) password: String,
    pub(crate) instances_file: PathBuf,
    /// Instances as they are in the file.
    pub(crate) instances: Value,
    /// The keys of all instances.
    pub(crate) keys: Vec<String>,
    /// The scenario's cap of polls at once, which the editor of settings moves by one.
    pub(crate) max_in_flight: u32,
}

/// What came of the calls of one kind of caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Calls {
    /// Calls made.
    pub made: u64,
    /// Of those, answered as they should be.
    pub right: u64,
    /// The first few that were not.
    pub wrong: Vec<String>,
}

/// Calls by who made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeMap<&'static str, Calls>>>);

impl Ledger {
    const WRONG_KEPT: usize = 5;

    pub(crate) fn note(&self, who: &'static str, result: Result<(), String>) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = book.entry(who).or_default();
        calls.made += 1;
        match result {
            Ok(()) => calls.right += 1,
            Err(what) if calls.wrong.len() < Self::WRONG_KEPT => calls.wrong.push(what),
            Err(_) => {}
        }
    }

    pub(crate) fn read(&self) -> BTreeMap<&'static str, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everybody who calls.
pub(crate) struct Load {
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(crate) ledger: Ledger,
    /// Who stays away, and why.
    pub(crate) absent: Vec<String>,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) target: Arc<Target>,
    pub(crate) ledger: Ledger,
    pub(crate) clock: TokioClock,
    pub(crate) stop: CancellationToken,
}

impl Load {
    /// Lets everybody begin to call.
    pub(crate) async fn start(target: Target, operators: &[Operator]) -> Self {
        let (tasks, stop, ledger) = (TaskTracker::new(), CancellationToken::new(), Ledger::default());
        let (clock, target) = (TokioClock::start(), Arc::new(target));
        let caller = Caller { client: client(), target, ledger: ledger.clone(), clock, stop: stop.clone() };
        let routes = caller.routes().await;
        for number in 0..DASHBOARDS {
            tasks.spawn(caller.alone().dashboard(number));
        }
        tasks.spawn(caller.clone().scraper());
        tasks.spawn(caller.clone().stranger());
        tasks.spawn(caller.clone().sleeper());
        tasks.spawn(caller.clone().settings_editor());
        tasks.spawn(caller.clone().inventory_editor());
        let mut absent = Vec::new();
        match routes.contains(EVENTS) {
            true => (0..VIEWERS).for_each(|number| drop(tasks.spawn(caller.alone().viewer(number)))),
            false => absent.push(format!("viewers: the daemon has no {EVENTS}")),
        }
        match [TOKENS, AUDIT].iter().all(|route| routes.contains(*route)) {
            true => {
                tasks.spawn(caller.clone().guest());
                tasks.spawn(caller.alone().user());
            }
            false => absent.push(format!("guests and users: the daemon has no {TOKENS}")),
        }
        let can_manage = [RESET, RETRY, RETRY_ALL, POLL, PAUSE, RESUME].iter().all(|route| routes.contains(*route));
        let is_setting =
            |operator: &&Operator| matches!(operator.action, Action::ToggleAdaptive | Action::EditSettings);
        for operator in operators.iter().filter(|operator| can_manage || is_setting(operator)) {
            tasks.spawn(caller.clone().scripted(operator.clone()));
        }
        match can_manage {
            // Those of the scenario may use up what one caller may ask in a minute.
            true if operators.is_empty() => drop(tasks.spawn(caller.clone().operator())),
            true => {}
            false => absent.push(format!("operators: the daemon has no {RESET}")),
        }
        Self { tasks, stop, ledger, absent }
    }

    /// Lets everybody finish and leave.
    pub(crate) async fn leave(self) -> Ledger {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.ledger
    }
}

impl Caller {
    /// The same with connections of its own.
    fn alone(&self) -> Self {
        Self { client: client(), ..self.clone() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.target.api)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path)).bearer_auth(&self.target.token)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).bearer_auth(&self.target.token).json(body)
    }

    /// Waits; `false` if it is time to leave.
    pub(crate) async fn pause(&self, span: Millis) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.clock.sleep_until(self.clock.now() + span) => true,
        }
    }

    /// Makes a call, which must be answered with one of `expected`.
    pub(crate) async fn call(&self, who: &'static str, request: RequestBuilder, expected: &[u16]) -> Option<String> {
        let answered = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let answered = answered.await.map_err(|error| told(&error));
        let result = answered.and_then(|(status, text)| match expected.contains(&status) {
            true => Ok(text),
            false => Err(format!("{status} instead of {expected:?}: {}", text.chars().take(200).collect::<String>())),
        });
        self.ledger.note(who, result.as_ref().map(|_| ()).map_err(Clone::clone));
        result.ok()
    }

    async fn routes(&self) -> BTreeSet<String> {
        let text = self.call("description", self.get("/api/openapi.json"), &[200]).await.unwrap_or_default();
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        document["paths"].as_object().map(|paths| paths.keys().cloned().collect()).unwrap_or_default()
    }

    async fn dashboard(self, number: u64) {
        while self.pause(Millis::new(1_900 + 170 * number)).await {
            self.call("dashboards", self.get(HEALTH), &[200]).await;
            self.call("dashboards", self.get("/api/state"), &[200]).await;
        }
    }

    /// Connects anew for each scrape, as a tool from a timer does.
    async fn scraper(self) {
        while self.pause(Millis::from_secs(5)).await {
            let request = client().get(format!("http://{}/metrics", self.target.metrics));
            self.call("scrapers", request, &[200]).await;
        }
    }

    /// Has no right, asks for what is not there, sends nonsense.
    async fn stranger(self) {
        while self.pause(Millis::new(7_300)).await {
            self.call("strangers", self.client.get(self.url(HEALTH)), &[401]).await;
            self.call("strangers", self.client.get(self.url(HEALTH)).bearer_auth("pulse_guess"), &[401]).await;
            self.call("strangers", self.get("/api/no-such-call"), &[404]).await;
            let nonsense = json!({"adaptivePollingBaseInterval": "never"});
            self.call("strangers", self.post(UPDATE, &nonsense), &[422]).await;
        }
    }

    /// Connects, begins to ask and says no more; the daemon must hang up.
    async fn sleeper(self) {
        while self.pause(Millis::from_secs(9)).await {
            let slept = async {
                let mut stream = TcpStream::connect(self.target.api).await?;
                stream.write_all(b"GET /api/health HTTP/1.1\r\nHost:").await?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                slept = tokio::time::timeout(PATIENCE, slept) => {
                    let result = slept.map(drop).map_err(|_| "the daemon did not hang up".to_owned());
                    self.ledger.note("sleepers", result);
                }
            }
        }
    }

    /// Moves a setting to and fro that no rule depends on.
    async fn settings_editor(self) {
        let mut extra = 0;
        while self.pause(Millis::from_secs(11)).await {
            extra = 1 - extra;
            let update = json!({"pollingMaxInFlight": self.target.max_in_flight + extra});
            self.call("settings editors", self.post(UPDATE, &update), &[200, TOO_MANY]).await;
        }
    }

    /// Renames an instance in the file; the daemon must show it.
    async fn inventory_editor(self) {
        for edit in 1_u64.. {
            if !self.pause(Millis::from_secs(13)).await {
                return;
            }
            let name = format!("Renamed {edit} times");
            let mut instances = self.target.instances.clone();
            instances["instances"][0]["displayName"] = name.clone().into();
            let result = match replace(&self.target.instances_file, &instances) {
                Ok(()) => self.await_name(&name).await,
                Err(error) => Err(error.to_string()),
            };
            self.ledger.note("inventory editors", result);
        }
    }

    async fn await_name(&self, name: &str) -> Result<(), String> {
        let deadline = self.clock.now() + EDIT_SEEN_WITHIN;
        while self.clock.now() < deadline {
            let path = format!("/api/state?key={}", self.target.keys[0]);
            let answer = self.get(&path).send().await.map_err(|error| told(&error))?;
            if answer.text().await.map_err(|error| told(&error))?.contains(name) {
                return Ok(());
            }
            self.clock.sleep_until(self.clock.now() + Millis::new(200)).await;
        }
        Err(format!("the name {name:?} was not shown within {EDIT_SEEN_WITHIN}"))
    }

    /// Holds the stream of events open for a while and leaves without a word.
    async fn viewer(self, number: u64) {
        for round in 0_u64.. {
            let stay = Millis::new(2_000 + (number * 3_700 + round * 5_300) % 28_000);
            let watched = async {
                let mut answer = self.get(EVENTS).timeout(Duration::MAX).send().await.map_err(|error| told(&error))?;
                if answer.status().as_u16() != 200 {
                    return Err(format!("{} instead of 200", answer.status()));
                }
                loop {
                    match answer.chunk().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return Err("the stream ended by itself".to_owned()),
                        Err(error) => return Err(told(&error)),
                    }
                }
            };
            let result = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.clock.sleep_until(self.clock.now() + stay) => Ok(()),
                result = watched => result,
            };
            self.ledger.note("viewers", result);
            if !self.pause(Millis::new(900 + 410 * number)).await {
                return;
            }
        }
    }

    /// Resets and retries, right and wrong, within the limits of a caller.
    async fn operator(self) {
        let keys = &self.target.keys;
        for key in (0..keys.len()).cycle().map(|index| &keys[index * 7 % keys.len()]) {
            if !self.pause(Millis::from_secs(30)).await {
                return;
            }
            let body = json!({"reason": "soak"});
            let to = |path: &str, key: &str| self.post(&path.replace("{key}", key), &body);
            self.call("operators", to(RESET, key), &[200, TOO_MANY]).await;
            self.call("operators", to(RETRY, key), &[200, 409, TOO_MANY]).await;
            // A host that is in flight or dead-lettered is not polled out of turn.
            self.call("operators", to(POLL, key), &[200, 409, TOO_MANY]).await;
            self.call("operators", to(RESET, "pve::nobody"), &[404, TOO_MANY]).await;
        }
    }

    /// Does what an operator of the scenario does, by calls.
    async fn scripted(self, plan: Operator) {
        let keys = &self.target.keys;
        let end = self.clock.now() + plan.until.0;
        if !self.pause(plan.from.0).await {
            return;
        }
        for round in 0_usize.. {
            if !self.pause(plan.every.0).await || self.clock.now() >= end {
                return;
            }
            let key = &keys[round * 7 % keys.len()];
            let reason = json!({"reason": "soak"});
            let request = match plan.action {
                Action::ResetBreaker => self.post(&RESET.replace("{key}", key), &reason),
                Action::RetryDeadLetter => self.post(&RETRY.replace("{key}", key), &reason),
                Action::PollNow => self.post(&POLL.replace("{key}", key), &reason),
                Action::Pause => {
                    let call = if round.is_multiple_of(2) { PAUSE } else { RESUME };
                    self.post(&call.replace("{key}", &keys[round / 2 * 7 % keys.len()]), &reason)
                }
                Action::RetryAll => self.post(RETRY_ALL, &reason),
                Action::ToggleAdaptive => {
                    self.post(UPDATE, &json!({"adaptivePollingEnabled": !round.is_multiple_of(2)}))
                }
                _ => {
                    let fewer = if round.is_multiple_of(2) {
                        (self.target.max_in_flight / 4).max(1)
                    } else {
                        self.target.max_in_flight
                    };
                    self.post(UPDATE, &json!({"pollingMaxInFlight": fewer}))
                }
            };
            // More than ten calls a minute are refused, and a host may be in no dead-letter queue.
            self.call("scripted operators", request, &[200, 409, TOO_MANY]).await;
        }
    }
}

pub(crate) fn client() -> Client {
    // Fails only if a provider is there already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = Client::builder().timeout(PATIENCE).no_proxy().build();
    built.expect("a client without certificates of its own needs nothing that a system could refuse")
}

/// What went wrong, with its cause; the address is known.
pub(crate) fn told(error: &reqwest::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Replaces a file as a whole, as an editor does.
fn replace(file: &std::path::Path, content: &Value) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = file.with_extension("new");
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    std::io::Write::write_all(&mut out, format!("{content:#}\n").as_bytes())?;
    std::fs::rename(&temporary, file)
}

/// One call outside of the load: its text if it is answered with 200.
pub(crate) async fn fetch(url: &str, token: &str) -> Result<String, String> {
    let asked = async {
        let answer = client().get(url).bearer_auth(token).send().await?.error_for_status()?;
        answer.text().await
    };
    asked.await.map_err(|error| told(&error))
}
