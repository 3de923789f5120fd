//! The project's own commands. `cargo xtask` without arguments lists them.

mod bench;
mod guests;
mod machine;
mod run;
mod test;

use std::process::ExitCode;

use machine::{cargo, root, run, target_dir};

const USAGE: &str = "\
cargo xtask test                  everything that must hold before a change is kept
cargo xtask guests                the policies, as components in target/plugins
cargo xtask interface             what is generated from wit/: docs/plugin-interface.md, the C side of the interface
cargo xtask run                   wasmta on 127.0.0.1:2525 with every bundled policy
cargo xtask bench relay [OPTIONS] wasmta, tuned Postfix and the floor side by side (`bench help` has the options)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test", rest @ ..] => test::all(rest),
        ["guests"] => guests::build().map(drop),
        ["interface"] => interface("run"),
        ["run", rest @ ..] => run::example(rest),
        ["bench", rest @ ..] => bench::command(rest),
        ["floor", rest @ ..] => bench::floor(rest),
        ["" | "help" | "--help" | "-h"] | [] => {
            print!("{USAGE}");
            Ok(())
        }
        [other, ..] => Err(format!("no such command: {other}\n{USAGE}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The generator of what comes from `wit/`, which has a workspace of its own: runs it, or its test that nothing is out of date.
fn interface(what: &str) -> machine::Result<()> {
    let manifest = root().join("xtask/interface/Cargo.toml");
    run(cargo()
        .args([what, "-q", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target_dir().join("interface")))
}
