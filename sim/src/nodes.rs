//! The instances as operators write them down, and `instances.json` held to it: it says what was carried out, and else nothing.
//!
//! It is read by the configuration's own rules, and so the simulated fleet has the specs that the daemon gives its engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pulse::config::{Config, Follower, Keyring};
use pulse::engine::{InstanceKey, InstanceSpec, InstanceType, Millis};
use pulse::fleet::Fleet;
use pulse::runtime::Clock;
use serde_json::{Value, json};

use crate::host::Host;

/// The port of an endpoint that was never moved.
const FIRST_PORT: u32 = 9;
/// A port has sixteen bits.
const PORTS: u32 = 60_000;

/// What is asked for of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) host: usize,
    pub(crate) edit: Edit,
    pub(crate) tag: Tag,
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Add,
    Remove,
    /// It is polled with another secret from then on, or at another port.
    Move,
    /// People see another name, which is nothing to the scheduler.
    Rename,
    /// It is switched off, or on again.
    Switch,
}

/// Which state of the entry the caller says to have seen, by `If-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    None,
    Current,
    Outdated,
}

/// Every host's entry, and what the file says.
pub(crate) struct Nodes {
    entries: Vec<Entry>,
    file: PathBuf,
    content: Vec<u8>,
    /// Reads the file by the rules of the daemon, beside the daemon.
    follower: Follower,
    fleet: Fleet,
    listed: BTreeMap<InstanceKey, InstanceSpec>,
}

/// One instance as an operator wants it.
#[derive(Clone, Debug)]
struct Entry {
    key: InstanceKey,
    /// The name of the machine that carries it, which shares it with others where the scenario says so.
    machine: String,
    interval: Option<Millis>,
    enabled: bool,
    moves: u32,
    renames: u32,
}

impl Entry {
    /// An entry of `instances.json`. Nobody polls by it.
    fn text(&self, secret: &Value) -> Value {
        let kind = self.key.kind();
        let port = FIRST_PORT + self.moves % PORTS;
        let mut entry = json!({
            "type": kind.as_str(),
            "name": self.key.name(),
            "displayName": self.display_name(),
            "enabled": self.enabled,
        });
        if let Some(interval) = self.interval {
            entry["interval"] = json!(format!("{}ms", interval.get()));
        }
        match kind {
            InstanceType::Tcp => {
                entry["host"] = json!(self.machine);
                entry["port"] = json!(port);
            }
            InstanceType::Http => entry["url"] = json!(format!("https://{}:{port}", self.machine)),
            InstanceType::Pve | InstanceType::Pbs | InstanceType::Pmg => {
                entry["url"] = json!(format!("https://{}", self.machine));
                entry["auth"] = json!({"tokenId": "pulse@pve!sim", "secret": secret});
            }
        }
        entry
    }

    fn secret(&self) -> Value {
        json!(format!("simulated {}", self.moves))
    }

    fn display_name(&self) -> String {
        format!("{} {}", self.key.name(), self.renames)
    }

    /// What the engine must be given for it.
    fn spec(&self, revision: u64) -> InstanceSpec {
        let (host, interval, enabled) = (self.machine.as_str().into(), self.interval, self.enabled);
        InstanceSpec { host, enabled, interval, revision, ..InstanceSpec::new(self.key.clone()) }
    }

    fn after(&self, edit: Edit) -> Self {
        let mut entry = self.clone();
        match edit {
            Edit::Add | Edit::Remove => {}
            Edit::Move => entry.moves += 1,
            Edit::Rename => entry.renames += 1,
            Edit::Switch => entry.enabled = !entry.enabled,
        }
        entry
    }
}

/// The hosts of a scenario as an operator would write them down.
#[derive(Clone, Debug)]
pub(crate) struct Written(Vec<Entry>);

impl Written {
    pub(crate) fn new(hosts: &[Host]) -> Self {
        // A machine is called after the last of its hosts; nobody looks its name up.
        let machines: BTreeMap<&str, usize> = hosts.iter().map(|host| &*host.spec.host).zip(0..).collect();
        let entry = |(number, host): (usize, &Host)| {
            let machine = if host.spec.host.is_empty() { number } else { machines[&*host.spec.host] };
            let (key, interval) = (host.key.clone(), host.spec.interval);
            Entry { key, machine: format!("machine-{machine}.invalid"), interval, enabled: true, moves: 0, renames: 0 }
        };
        Self(hosts.iter().enumerate().map(entry).collect())
    }

    /// What `instances.json` is to hold.
    pub(crate) fn text(&self) -> String {
        let entries: Vec<Value> = self.0.iter().map(|entry| entry.text(&entry.secret())).collect();
        json!({"instances": entries}).to_string()
    }
}

impl Nodes {
    /// Follows the file that `written` was written to, and encrypts its secrets.
    pub(crate) fn open(
        written: Written,
        config: &Config,
        keys: Arc<Keyring>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let mut follower = Follower::new(config);
        follower.use_keys(keys);
        let file = follower.data_dir().instances_file();
        let (entries, fleet) = (written.0, Fleet::new(clock));
        let mut nodes = Self { entries, file, content: Vec::new(), follower, fleet, listed: BTreeMap::new() };
        nodes.read()?;
        let said = |entry: &Entry| nodes.listed.get(&entry.key).cloned();
        match nodes.entries.iter().find(|it| said(it).is_none_or(|said| said != it.spec(said.revision))) {
            Some(entry) => Err(format!("{entry:?} was read as {:?}", said(entry))),
            None => Ok(nodes),
        }
    }

    /// The inventory as the daemon gives it to its engine.
    pub(crate) fn specs(&self) -> Arc<[InstanceSpec]> {
        self.listed.values().cloned().collect()
    }

    pub(crate) fn is_listed(&self, host: usize) -> bool {
        self.listed.contains_key(&self.entries[host].key)
    }

    pub(crate) fn is_switched_on(&self, host: usize) -> bool {
        self.entries[host].enabled
    }

    /// How a change is asked for over HTTP.
    pub(crate) fn call_of(&self, change: &Change) -> (&'static str, String, Value) {
        let Change { host, edit, .. } = *change;
        let path = format!("/api/config/nodes/{}", self.entries[host].key);
        let entry = self.entries[host].after(edit);
        match edit {
            Edit::Add => ("POST", "/api/config/nodes".to_owned(), json!({"instance": entry.text(&entry.secret())})),
            Edit::Remove => ("DELETE", path, json!({})),
            Edit::Move => ("PUT", path, json!({"instance": entry.text(&entry.secret())})),
            Edit::Rename | Edit::Switch => ("PUT", path, json!({"instance": entry.text(&json!({"set": true}))})),
        }
    }

    /// Where the entry of the instance is read.
    pub(crate) fn path_of(&self, host: usize) -> String {
        format!("/api/config/nodes/{}", self.entries[host].key)
    }

    /// What whoever may manage must be answered, unless the daemon could not.
    pub(crate) fn expected(&self, change: &Change) -> u16 {
        match (change.edit, self.is_listed(change.host), change.tag) {
            (Edit::Add, false, _) => 201,
            (Edit::Add, true, _) => 409,
            (_, false, _) => 404,
            (_, true, Tag::Outdated) => 412,
            (_, true, _) => 200,
        }
    }

    /// Holds the file to what a call has done; `done` is the change, if it was carried out.
    pub(crate) fn hold(&mut self, done: Option<&Change>) -> Result<(), String> {
        let before = self.content.clone();
        let known = self.listed.clone();
        match (std::fs::read(&self.file), done) {
            (Ok(content), None) if content == before => return Ok(()),
            (Ok(content), Some(_)) if content == before => return Err("instances.json is what it was".to_owned()),
            _ => self.read()?,
        }
        let Some(change) = done else { return Err("instances.json is another one than before".to_owned()) };
        let entry = self.entries[change.host].after(change.edit);
        let said = self.listed.get(&entry.key);
        let revision = said.map_or(0, |said| said.revision);
        let (mut wanted, former) = (known.clone(), known.get(&entry.key));
        match change.edit {
            Edit::Remove => wanted.remove(&entry.key),
            _ => wanted.insert(entry.key.clone(), entry.spec(revision)),
        };
        let moved = former.is_some_and(|former| said.is_some() && former.revision != revision);
        if wanted != self.listed || moved != (change.edit == Edit::Move) || !self.is_shown_as(&entry) {
            return Err(format!("instances.json has {said:?}, and had {former:?}"));
        }
        self.entries[change.host] = entry;
        Ok(())
    }

    /// Whether people see the name that was asked for, if they see the instance at all.
    fn is_shown_as(&self, entry: &Entry) -> bool {
        let shown = self.follower.instances().iter().find(|it| it.target.key == entry.key);
        shown.is_none_or(|shown| shown.target.display_name == entry.display_name())
    }

    fn read(&mut self) -> Result<(), String> {
        self.follower.read();
        if let Some(errors) = self.follower.refused_inventory() {
            return Err(format!("instances.json is refused: {errors}"));
        }
        self.content = std::fs::read(&self.file).map_err(|error| format!("instances.json: {error}"))?;
        let specs = self.fleet.replace(self.follower.instances());
        self.listed = specs.into_iter().map(|spec| (spec.key.clone(), spec)).collect();
        Ok(())
    }
}
