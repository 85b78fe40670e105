//! Hostile input for every door of Pulse: calls of the API, configuration files, answers of hosts.
//!
//! Inputs are drawn from a seed: valid ones, mutated by bytes and by structure, and plain noise. They meet the real router,
//! the real readers of files and the real clients. `docs/fuzzing.md` tells what is checked.

mod answers;
mod calls;
mod cli;
mod corpus;
mod daemon;
mod files;
mod mutator;
mod report;
mod request;
mod secrets;
mod watch;

pub use answers::mistake_answers;
pub use calls::make_calls;
pub use cli::main;
pub use files::break_files;
pub use report::{Finding, Report};
