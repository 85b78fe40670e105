//! Whoever reads what the daemon tells may stop reading; polls go on.

use std::process::Stdio;
use std::time::Duration;

use pulse::lab::HostPlan;
use rustix::process::{Pid, Signal, kill_process};

use super::support::{Folder, SEED, eventually, free_address, lab, quick_settings};

/// What an unread pipe takes, in polls that are logged in full.
const POLLS_THAT_FILL_A_PIPE: u64 = 200;

#[tokio::test]
async fn polls_go_on_while_nobody_reads_the_log() {
    let names: Vec<String> = (0..20).map(|n| format!("rack-{n}")).collect();
    let lab = lab(names.iter().map(|name| HostPlan::pve(SEED, name, 1)).collect()).await;
    let folder = Folder::new();
    folder.write_json("system.json", &quick_settings());
    folder.write_json("instances.json", &lab.instances_json(None));
    let mut command = folder.pulse(["serve", "--log", "pulse=trace"]);
    command.args(["--listen", &free_address().to_string(), "--metrics-listen", &free_address().to_string()]);
    let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();

    let polls = || -> u64 { names.iter().filter_map(|name| lab.stats(name).ok()).map(|it| it.requests / 4).sum() };
    let many = async || (polls() > 4 * POLLS_THAT_FILL_A_PIPE).then_some(());
    let went_on = eventually("polls go on beyond what the pipe takes", Duration::from_secs(60), many).await;

    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    let ended = eventually("it stops all the same", Duration::from_secs(30), async || daemon.try_wait().unwrap()).await;
    let _ = daemon.kill();
    went_on.unwrap_or_else(|late| panic!("{late}: {} polls", polls()));
    assert_eq!(ended.unwrap().code(), Some(0));
    lab.shutdown().await;
}
