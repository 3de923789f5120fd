//! Header rules for the benches.

use std::path::{Path, PathBuf};

use crate::machine::Result;

/// A pcre table with rules that look like people's own and that no message of the benches matches, so that all are tried.
pub fn write_rules(scratch: &Path, count: u64) -> Result<PathBuf> {
    let names = ["Subject", "From", "To", "Received", "X-Mailer", "Reply-To", "Content-Type"];
    let rules = (0..count).zip(names.iter().cycle()).map(|(number, name)| match number % 3 {
        0 => format!("/^{name}:.*\\b(?:cheap|free) +pills{number}\\b/ REJECT 5.7.1 rule {number}\n"),
        1 => format!("/^{name}: .*[a-z0-9._-]+@spam{number}\\.example/ REJECT rule {number}\n"),
        _ => format!("/^{name}:\\s+casino-?{number}$/ WARN rule {number}\n"),
    });
    let path = scratch.join("header_checks.pcre");
    std::fs::write(&path, rules.collect::<String>())?;
    Ok(path)
}
