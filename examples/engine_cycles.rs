//! Cycles of the scheduler and nothing else, for tools that count what a processor does: `scripts/cache-misses.sh`.
//!
//! `engine_cycles INSTANCES POLLS`: sets up the fleet, lets it find its rhythm, and then does so many polls.

#[path = "../benches/support/fleet.rs"]
mod fleet;

use std::process::ExitCode;

use fleet::Fleet;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let (Some(Ok(instances)), Some(Ok(polls)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        eprintln!("engine_cycles: two numbers are needed: of instances, and of polls");
        return ExitCode::from(2);
    };
    Fleet::new(instances).cycle(polls);
    ExitCode::SUCCESS
}
