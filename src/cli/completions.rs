//! `pulse completions`: a script that completes this command line in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failed};

const EXAMPLES: &str = "\
Examples:
  pulse completions bash > /etc/bash_completion.d/pulse
  pulse completions zsh > ~/.zfunc/_pulse";

/// Prints a script that completes this command line in a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pulse", &mut script);
        super::print_line(&String::from_utf8_lossy(&script))
    }
}
