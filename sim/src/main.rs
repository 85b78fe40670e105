//! The program `sim`: runs scenarios, farms seeds, and replays, shrinks and compares what it finds.

mod commands;

fn main() -> std::process::ExitCode {
    commands::main()
}
