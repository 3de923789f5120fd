//! The project's own commands. `cargo xtask` without arguments lists them.

mod bench;
mod guests;
mod machine;
mod run;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test                  everything that must hold before a change is kept
cargo xtask guests                the policies, as components in target/plugins
cargo xtask run                   wasmta on 127.0.0.1:2525 with every bundled policy
cargo xtask bench relay [OPTIONS] wasmta, tuned Postfix and the floor side by side (`bench help` has the options)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test", rest @ ..] => test::all(rest),
        ["guests"] => guests::build().map(drop),
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
