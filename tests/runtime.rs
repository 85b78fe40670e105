//! The driver on virtual time: slots are freed whatever a poll does, and stopping leaves nothing behind.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pulse::engine::{
    ChangeHash, Command, CommandError, Engine, Event, FailureKind, InstanceEvent, InstanceKey, InstanceSpec,
    InstanceView, Millis, Outcome, Reply, Settings, SettingsDraft, Timestamp, What,
};
use pulse::runtime::{
    Clock, Drained, Driver, Handle, PollCost, PollReport, PollRequest, Subscriber, TokioClock, Transport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Answers by the instance's name, and counts the polls that are alive.
#[derive(Clone)]
struct Scripted {
    clock: Arc<TokioClock>,
    alive: Arc<AtomicUsize>,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Transport for Scripted {
    type Reading = String;

    fn poll(&self, request: PollRequest) -> impl Future<Output = PollReport<String>> + Send + 'static {
        let clock = Arc::clone(&self.clock);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.alive));
        async move {
            let _alive = alive;
            match request.key.name() {
                "hangs" => std::future::pending::<()>().await,
                "panics" => panic!("this poll is broken"),
                _ => clock.sleep_until(clock.now() + Millis::new(120)).await,
            }
            let outcome = Outcome::Success { reading: ChangeHash(1) };
            let reading = Some(Arc::new(format!("reading of {}", request.key)));
            PollReport { outcome, reading, cost: PollCost::default() }
        }
    }
}

/// Passes everything on to the test.
struct Tell(mpsc::UnboundedSender<(Option<InstanceKey>, Event)>, mpsc::UnboundedSender<(InstanceKey, String)>);

impl Subscriber<String> for Tell {
    fn event(&mut self, event: &Event, key: Option<&InstanceKey>) {
        let _ = self.0.send((key.cloned(), event.clone()));
    }

    fn report(&mut self, key: &InstanceKey, _at: Timestamp, report: &PollReport<String>) {
        if let Some(reading) = &report.reading {
            let _ = self.1.send((key.clone(), reading.to_string()));
        }
    }
}

struct Rig {
    clock: Arc<TokioClock>,
    handle: Handle,
    stop: CancellationToken,
    driver: JoinHandle<Drained>,
    alive: Arc<AtomicUsize>,
    events: mpsc::UnboundedReceiver<(Option<InstanceKey>, Event)>,
    readings: mpsc::UnboundedReceiver<(InstanceKey, String)>,
}

#[expect(clippy::disallowed_methods, reason = "the test itself waits for the driver's task")]
async fn rig(draft: SettingsDraft, keys: &[&str]) -> Rig {
    let clock = Arc::new(TokioClock::start());
    let alive = Arc::new(AtomicUsize::new(0));
    let transport = Scripted { clock: Arc::clone(&clock), alive: Arc::clone(&alive) };
    let settings: Settings = draft.validate().expect("the test's settings are valid");
    let engine = Engine::new(settings, 42, clock.now());
    let (events_out, events) = mpsc::unbounded_channel();
    let (readings_out, readings) = mpsc::unbounded_channel();
    let (driver, handle) = Driver::new(engine, Arc::clone(&clock), Arc::new(transport));
    let stop = CancellationToken::new();
    let driver = tokio::spawn(driver.subscribe(Tell(events_out, readings_out)).run(stop.clone()));
    let spec = |key: &&str| InstanceSpec::new(key.parse().expect("the test's key is well formed"));
    handle.replace_inventory(keys.iter().map(spec).collect()).await.expect("the driver runs");
    Rig { clock, handle, stop, driver, alive, events, readings }
}

impl Rig {
    async fn pass(&self, span: Millis) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    fn failures(&mut self, name: &str) -> Vec<FailureKind> {
        let mut kinds = Vec::new();
        while let Ok((key, event)) = self.events.try_recv() {
            if let (Some(key), What::Instance { what: InstanceEvent::PollFailed { failure, .. }, .. }) =
                (key, event.what)
                && key.name() == name
            {
                kinds.push(failure.kind);
            }
        }
        kinds
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_panics_or_hangs_frees_its_slot_and_touches_no_other() {
    let draft = SettingsDraft { max_in_flight: 2, ..SettingsDraft::default() };
    let mut rig = rig(draft, &["pve::panics", "pve::hangs", "pve::fine"]).await;
    rig.pass(Millis::from_secs(30)).await;
    let health = rig.handle.read(Engine::health).await.unwrap();
    let fine = health.instances.iter().find(|instance| instance.key.name() == "fine").unwrap();
    assert!(fine.last_success.is_some_and(|at| health.at - at < Millis::from_secs(15)));
    assert!(rig.failures("panics").iter().all(|kind| *kind == FailureKind::Internal));
    let mut second = crate::rig(SettingsDraft::default(), &["pve::hangs"]).await;
    second.pass(Millis::from_secs(21)).await;
    assert_eq!(second.failures("hangs")[0], FailureKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_polls_end_cuts_off_the_rest_and_leaves_no_task_behind() {
    let rig = rig(SettingsDraft::default(), &["pve::fine", "pve::hangs"]).await;
    while rig.alive.load(Ordering::SeqCst) < 2 {
        rig.pass(Millis::new(1)).await;
        if rig.handle.overview().await.unwrap().totals.started > 1 && rig.alive.load(Ordering::SeqCst) == 1 {
            break;
        }
    }
    let asked = rig.clock.now();
    rig.stop.cancel();
    let drained = rig.driver.await.unwrap();
    assert_eq!(drained.aborted, 1, "the hanging one");
    assert!(rig.clock.now() - asked <= Millis::from_secs(30));
    assert_eq!(rig.alive.load(Ordering::SeqCst), 0);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    assert!(rig.handle.overview().await.is_err(), "whoever asks later is told");
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_passed_on_with_its_key() {
    let mut rig = rig(SettingsDraft::default(), &["pve::fine"]).await;
    rig.pass(Millis::from_secs(11)).await;
    let (key, reading) = rig.readings.try_recv().unwrap();
    assert_eq!((key.to_string().as_str(), reading.as_str()), ("pve::fine", "reading of pve::fine"));
}

#[tokio::test(start_paused = true)]
async fn a_command_is_answered_and_the_next_read_sees_its_effect() {
    let rig = rig(SettingsDraft::default(), &["pve::fine"]).await;
    let key: InstanceKey = "pve::fine".parse().unwrap();
    let paused = rig.handle.command(Command::SetEnabled { key: key.clone(), enabled: false }).await.unwrap();
    assert_eq!(paused, Ok(Reply::EnabledSet { changed: true }));
    assert_eq!(rig.handle.overview().await.unwrap().depth(), 0);
    assert_eq!(rig.handle.command(Command::PollNow { key }).await.unwrap(), Err(CommandError::Paused));
}

#[tokio::test(start_paused = true)]
async fn settings_take_effect_without_a_restart() {
    let rig = rig(SettingsDraft::default(), &["pve::fine"]).await;
    rig.pass(Millis::from_secs(15)).await;
    let off = SettingsDraft { adaptive: false, ..SettingsDraft::default() }.validate().unwrap();
    rig.handle.replace_settings(off).await.unwrap();
    let health = rig.handle.overview().await.unwrap();
    assert!(!health.adaptive);
    assert_eq!(health.totals.started, health.totals.succeeded + u64::from(health.in_flight.pve));
}

/// A clock on which each look at the nanoseconds shows a tenth of a millisecond more, as if every request took as long.
struct Laborious(TokioClock, AtomicU64);

impl Clock for Laborious {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn nanos(&self) -> u64 {
        self.1.fetch_add(100_000, Ordering::SeqCst)
    }

    fn wall(&self) -> jiff::Timestamp {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: Timestamp) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }
}

/// Notes the start of a poll between the requests that were served.
struct NoteStarts(Arc<Mutex<Vec<&'static str>>>);

impl Subscriber<String> for NoteStarts {
    fn event(&mut self, event: &Event, _key: Option<&InstanceKey>) {
        if let What::Instance { what: InstanceEvent::PollStarted { .. }, .. } = &event.what {
            self.0.lock().expect("nobody panics with it").push("poll");
        }
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "the test itself waits for the driver's task")]
async fn a_flood_of_requests_is_served_for_half_a_millisecond_and_then_polls_have_their_turn() {
    let clock = Arc::new(Laborious(TokioClock::start(), AtomicU64::new(0)));
    let transport = Scripted { clock: Arc::new(clock.0), alive: Arc::new(AtomicUsize::new(0)) };
    let engine = Engine::new(Settings::default(), 42, clock.now());
    let (driver, handle) = Driver::new(engine, Arc::clone(&clock), Arc::new(transport));
    let notes: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let stop = CancellationToken::new();
    let driver = tokio::spawn(driver.subscribe(NoteStarts(Arc::clone(&notes))).run(stop.clone()));
    handle.replace_inventory(vec![InstanceSpec::new("pve::fine".parse().unwrap())]).await.unwrap();
    let due = handle.read(|engine, _| engine.next_wakeup()).await.unwrap().unwrap();
    clock.sleep_until(due).await;
    let read = |_| {
        let notes = Arc::clone(&notes);
        handle.read(move |_, _| notes.lock().unwrap().push("read"))
    };
    futures::future::join_all((0..60).map(read)).await;
    stop.cancel();
    driver.await.unwrap();
    let notes = notes.lock().unwrap();
    let before = notes.iter().position(|note| *note == "poll").expect("a poll is started");
    assert!(before <= 10, "{before} of 60 requests came first");
}

#[tokio::test(start_paused = true)]
async fn a_large_fleet_is_read_in_pages_that_are_sorted_and_whole() {
    let keys: Vec<String> = (0..1_000).map(|n| format!("pve::{n:04}")).collect();
    let rig = rig(SettingsDraft::default(), &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut seen, mut after, mut largest) = (Vec::new(), None, 0);
    loop {
        let look =
            |_, views: &mut dyn Iterator<Item = InstanceView<'_>>| views.map(|it| it.key().clone()).collect::<Vec<_>>();
        let page = rig.handle.page(after, look).await.unwrap();
        largest = largest.max(page.found.len());
        seen.extend(page.found.iter().map(ToString::to_string));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, keys);
    assert!(largest <= 256, "{largest} in one look");
}
