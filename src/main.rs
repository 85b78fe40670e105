//! The program `pulse`.

fn main() -> std::process::ExitCode {
    pulse::cli::run()
}
