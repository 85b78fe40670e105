//! The program `fuzz`: hands hostile input to every door of Pulse.

fn main() -> std::process::ExitCode {
    fuzz::main()
}
