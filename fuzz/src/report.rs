//! What a run reached, and what it found.

use std::collections::BTreeMap;
use std::fmt;

/// Findings that are kept; the run ends with the last of them.
pub(crate) const MAX_FINDINGS: usize = 25;
/// How much of an input is shown.
const SHOWN_BYTES: usize = 3_000;

/// What a run reached, and what it found.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs that were handed over.
    pub inputs: u64,
    /// How often each place was reached: a call with its path and status, a verdict about a file, an outcome of a poll.
    pub reached: BTreeMap<String, u64>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Log lines that were looked through, in bytes.
    pub log_bytes: u64,
    /// Entries of the audit log that were looked through.
    pub audit_entries: u64,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub what: String,
    /// Which input shows it: its number in the run, and the input itself.
    pub input: String,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.findings.len() >= MAX_FINDINGS
    }

    pub(crate) fn reach(&mut self, place: String) {
        *self.reached.entry(place).or_default() += 1;
    }

    pub(crate) fn find(&mut self, what: impl Into<String>, number: u64, input: &[u8]) {
        let more = if input.len() > SHOWN_BYTES { format!(" … {} bytes", input.len()) } else { String::new() };
        let shown = input[..input.len().min(SHOWN_BYTES)].escape_ascii();
        self.findings.push(Finding { what: what.into(), input: format!("input {number}: {shown}{more}") });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} inputs, {} places reached, {} bytes of log and {} audit entries looked through, {} findings",
            self.inputs,
            self.reached.len(),
            self.log_bytes,
            self.audit_entries,
            self.findings.len()
        )?;
        for Finding { what, input } in &self.findings {
            writeln!(f, "\n{what}\n  {input}")?;
        }
        Ok(())
    }
}
