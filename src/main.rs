//! The program `pulse`.

/// A package may be built under another version than the crate's, such as one of the day.
const VERSION: &str = match option_env!("PULSE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

fn main() -> std::process::ExitCode {
    pulse::cli::run(VERSION)
}
