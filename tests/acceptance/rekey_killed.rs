//! `pulse config rekey` killed in its midst: whatever it had come to, every secret of file and history still opens.

use std::path::Path;

use pulse::config::{Config, DataDir, Environment};
use pulse::engine::Millis;
use pulse::targets::{Access, Credentials};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Daemon, Folder, PATIENCE, Program, SEED, Stopwatch, pause, run};

const ROUNDS: u64 = 25;
/// Enough that the steps of a change take their time.
const INSTANCES: usize = 40;

fn fleet(secret: &str) -> Value {
    let instance = |number: usize| {
        let auth = json!({"tokenId": "pulse@pve!test", "secret": format!("{secret} of {number}")});
        json!({"type": "pve", "name": format!("rack-{number}"), "url": "https://127.0.0.1:9", "auth": auth})
    };
    json!({"instances": (0..INSTANCES).map(instance).collect::<Vec<_>>()})
}

/// Opens every secret with what keys are there.
#[track_caller]
fn assert_secrets(folder: &Path, secret: &str, when: &str) {
    let config = Config::load(DataDir::open(folder).unwrap(), &Environment::default());
    let config = config.unwrap_or_else(|errors| panic!("{when}: {errors}"));
    assert_eq!(config.instances.len(), INSTANCES, "{when}");
    for instance in config.instances.iter() {
        let Access::Pve(access) = &instance.target.access else { panic!("{when}: another type") };
        let Credentials::Token { secret: found, .. } = &access.credentials else { panic!("{when}: another kind") };
        let number = instance.target.key.name().strip_prefix("rack-").unwrap();
        assert_eq!(found.expose(), format!("{secret} of {number}"), "{when}");
    }
}

#[tokio::test]
async fn a_change_of_key_that_is_killed_at_any_moment_loses_no_credential() {
    let folder = Folder::quick(&fleet("first"));
    Daemon::start(&folder).await.stop().await;
    folder.write_json("instances.json", &fleet("second"));
    Daemon::start(&folder).await.stop().await;
    let rekey = ["config", "rekey", "--reason", "a round"];
    let watch = Stopwatch::start();
    assert_eq!(run(&mut folder.pulse(rekey)).await.code, Some(0));
    let whole = u64::try_from(watch.elapsed().as_micros()).unwrap();

    let mut draws = ChaCha8Rng::seed_from_u64(SEED);
    let (new_key, output) = (folder.path().join("secrets.key.new"), tempfile::tempdir().unwrap());
    let mut in_its_midst = 0;
    for round in 0..ROUNDS {
        let mut program = Program::start(&mut folder.pulse(rekey), output.path());
        let mut span = draws.random_range(0..=whole);
        if round % 2 == 0 {
            // From the first step on.
            let watch = Stopwatch::start();
            while !new_key.exists() && watch.elapsed() < PATIENCE && program.is_running() {
                std::thread::yield_now();
            }
            span /= 8;
        }
        pause(Millis::new(span / 1_000)).await;
        if program.is_running() {
            program.signal(Signal::KILL);
        }
        program.ended(PATIENCE).await;
        in_its_midst += u64::from(new_key.exists());
        assert_secrets(folder.path(), "second", &format!("round {round}, killed after {span} µs"));
        if round % 5 == 4 {
            // The history has the secrets of before.
            for (version, secret) in [("1", "first"), ("2", "second")] {
                let back = ["config", "rollback", version, "--reason", "a look"];
                let back = run(&mut folder.pulse(back)).await;
                assert_eq!(back.code, Some(0), "round {round}: {back:?}");
                assert_secrets(folder.path(), secret, &format!("round {round}, version {version}"));
            }
        }
    }
    assert!(in_its_midst > 0, "no kill left a change of key behind");
    assert_eq!(run(&mut folder.pulse(rekey)).await.code, Some(0));
    assert!(!new_key.exists());
    assert_secrets(folder.path(), "second", "the end");
    assert_eq!(run(&mut folder.pulse(["audit", "verify"])).await.code, Some(0));
}
