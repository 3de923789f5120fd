//! `cargo xtask test`: everything that must hold before a change is kept.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::guests;
use crate::machine::{Result, cargo, find_program, install_packages, is_root, run, show};

/// What has passed and what has not, checks and tests alike.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<String>,
}

/// Runs all checks, in order of how soon they tell something, and counts. A failure does not keep the rest from running.
pub fn all(arguments: &[&str]) -> Result<()> {
    if !arguments.is_empty() {
        return Err("`test` takes no arguments; for some of the tests: cargo test -p CRATE NAME".into());
    }
    let begin = Instant::now();
    let mut tally = Tally::default();
    tally.check("format", || run(cargo().args(["fmt", "--all", "--check"])));
    let built = tally.check("guests", || guests::build().map(drop));
    tally.check("guests: format, lints and native tests", guests::check);
    tally.check("what is generated from wit/ is current", || crate::interface("test"));
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.check("lints", || run(cargo().args(lints)));
    dependencies(&mut tally);
    install_what_tests_use();
    // The scenarios run the binary itself, and nothing but a build of the binary makes it.
    let built = built & tally.check("build", || run(cargo().args(["build", "--workspace"])));
    if built {
        tally.tests(cargo().args(["test", "--workspace", "--no-fail-fast"]))?;
    }
    tally.close(begin)
}

impl Tally {
    /// One check; true if it passed.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) -> bool {
        let begin = Instant::now();
        println!("== {name}");
        match check() {
            Ok(()) => {
                self.passed += 1;
                println!("== {name}: passed in {:.0} s", begin.elapsed().as_secs_f32());
                true
            }
            Err(error) => {
                self.fail(format!("{name}: {error}"));
                false
            }
        }
    }

    fn fail(&mut self, what: String) {
        println!("== FAILED {what}");
        self.failed += 1;
        self.failures.push(what);
    }

    fn skip(&mut self, what: &str) {
        println!("SKIPPED {what}");
        self.skipped += 1;
    }

    /// Runs cargo's tests, passes their lines on and counts what they say.
    fn tests(&mut self, command: &mut Command) -> Result<()> {
        println!("== tests");
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let failed_before = self.failed;
        for line in lines.into_iter().flatten() {
            let line = line?;
            writeln!(std::io::stdout(), "{line}")?;
            self.count(&line);
        }
        let status = child.wait()?;
        if !status.success() && self.failed == failed_before {
            self.fail(format!("{}: {status}", show(command))); // a test that did not compile or was killed says nothing
        }
        Ok(())
    }

    fn count(&mut self, line: &str) {
        if line.contains("SKIPPED ") {
            // Such a test ends well, and libtest calls that passed.
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            let counted = |what: &str| number_before(result, what);
            self.passed += counted(" passed");
            self.failed += counted(" failed");
            self.skipped += counted(" ignored");
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }

    fn close(self, begin: Instant) -> Result<()> {
        let Self { passed, failed, skipped, failures } = self;
        println!("== {:.0} s", begin.elapsed().as_secs_f32());
        for failure in &failures {
            println!("FAILED {failure}");
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { Ok(()) } else { std::process::exit(1) }
    }
}

/// The number that stands before a word: `12 passed`.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    let digits = before.rsplit(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// Licences, sources and known holes of what host and policies stand on. cargo-deny is not installed here: building it
/// takes longer than all the rest.
fn dependencies(tally: &mut Tally) {
    let in_cargo_home = std::env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin/cargo-deny"));
    if find_program("cargo-deny").is_none() && !in_cargo_home.is_some_and(|file| file.is_file()) {
        return tally.skip("dependencies: cargo-deny is not here; get it by: cargo install --locked cargo-deny");
    }
    let deny = |manifest: &str, what: &[&str]| {
        let mut command = cargo();
        run(command
            .args(["deny", "--manifest-path", manifest, "--workspace", "--config", "deny.toml", "check"])
            .args(what))
    };
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        let name = format!("dependencies: {manifest}");
        tally.check(&name, || deny(manifest, &["bans", "licenses", "sources"]));
    }
    if !cargo().args(["deny", "fetch", "db"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return tally.skip("dependencies: known holes: the advisory database cannot be fetched");
    }
    tally.check("dependencies: known holes", || {
        ["Cargo.toml", "plugins/Cargo.toml"].iter().try_for_each(|manifest| deny(manifest, &["advisories"]))
    });
}

/// Postfix is compared with, swaks sends, policies are installed from docker-registry. Where they cannot be had, the tests that use them say so and are skipped.
fn install_what_tests_use() {
    println!("== packages");
    let had_postfix = find_program("postfix").is_some();
    if !had_postfix && is_root() {
        // Debian's package asks what kind of site this is and would start a mail server of its own.
        let answers = Command::new("debconf-set-selections").stdin(Stdio::piped()).spawn();
        if let Ok(mut answers) = answers {
            let text = b"postfix postfix/main_mailer_type select No configuration\n";
            let _ = answers.stdin.take().map(|mut stdin| stdin.write_all(text));
            let _ = answers.wait();
        }
    }
    install_packages(&["postfix", "postfix-pcre", "swaks"]);
    // Tests start some of their own; Debian's packages start one for the whole machine.
    for daemon in ["docker-registry", "postgrey"] {
        let had = find_program(daemon).is_some();
        install_packages(&[daemon]);
        if !had && find_program(daemon).is_some() {
            let mut stop = Command::new("invoke-rc.d");
            let _ = stop.args([daemon, "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
    if let Some(postfix) = find_program("postfix").filter(|_| !had_postfix) {
        let _ = Command::new(postfix).arg("stop").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libtest_says_is_counted() {
        let mut tally = Tally::default();
        for line in [
            "test delivery::maildir ... ok",
            "test crash::disk_full ... SKIPPED crash::disk_full: no loop devices",
            "test smtp::banner ... FAILED",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.04s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.04s",
        ] {
            tally.count(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.skipped), (15, 1, 3));
        assert_eq!(tally.failures, ["smtp::banner"]);
    }
}
