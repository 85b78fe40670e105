//! Python with what some test needs, in virtual environments that are kept between runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the scripts and the lists of requirements are.
pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

/// A Python that has all that `requirements` lists, a file beside the scripts. Blocks on the network the first time.
///
/// Without network or Python there is none: a failure where everything must be there (`CI=true`), a note elsewhere.
pub(crate) fn python_with(requirements: &str) -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(requirements.trim_end_matches(".txt"));
    let python = environment.join("bin/python");
    let requirements = Path::new(SCRIPTS).join(requirements);
    let installed = environment.join("installed.txt");
    let wanted = std::fs::read(&requirements).unwrap();
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Some(python);
    }
    let prepared = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).and_then(|()| {
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))
    });
    match prepared {
        Ok(()) => {
            std::fs::write(installed, wanted).unwrap();
            Some(python)
        }
        Err(reason) if std::env::var_os("CI").is_some_and(|value| value == "true") => {
            panic!("{} cannot be installed: {reason}", requirements.display())
        }
        Err(reason) => {
            eprintln!("SKIPPED: {} cannot be installed, so nothing was proved: {reason}", requirements.display());
            None
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", text(&output))) }
}

/// Everything that a program printed.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
