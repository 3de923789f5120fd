//! `cargo xtask guests`: builds the bundled policies and the tests' guests into `target/plugins/NAME.wasm`.
//!
//! With a toolchain that has the target `wasm32-unknown-unknown` this is one plain cargo run. Debian's compiler for the
//! web does it too, where the toolchain has not the target: std is built along then, once.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::machine::{Result, is_root, root, run, target_dir};

const TARGET: &str = "wasm32-unknown-unknown";

const WASM_LD: &str = "/usr/bin/wasm-ld-19";

/// What a calling cargo sets, by the beginnings of the names: it would choose compiler, flags and target for the guests.
/// RUSTUP_TOOLCHAIN is not among them: with rustup, the guests are built by the toolchain that was asked for.
const OF_THE_CALLER: [&str; 12] = [
    "CARGO_BIN_",
    "CARGO_BUILD_",
    "CARGO_CRATE_",
    "CARGO_ENCODED_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTFLAGS",
];

/// Builds every guest and returns the directory that holds the components.
pub fn build() -> Result<PathBuf> {
    let begin = Instant::now();
    let mut cargo = if toolchain_has_target() {
        println!("guests: building with this toolchain's {TARGET}");
        clean("cargo")
    } else {
        install_debian_chain()?;
        println!(
            "guests: building with Debian's rustc-web (the toolchain has no {TARGET}; std is built once, about 75 s)"
        );
        debian_cargo()
    };
    let build_dir = target_dir().join("guests");
    // In that directory cargo finds .cargo/config.toml, which names the linker.
    cargo.current_dir(root().join("plugins")).args(["build", "--release", "--workspace", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&build_dir);
    run(&mut cargo)?;
    let out = target_dir().join("plugins");
    let names = collect(&build_dir.join(TARGET).join("release"), &out)?;
    println!("guests: {} in {:.1} s in {}", names.join(", "), begin.elapsed().as_secs_f32(), out.display());
    Ok(out)
}

/// Format, lints and native tests of the guests' workspace.
pub fn check() -> Result<()> {
    let cargo = |args: &[&str]| run(clean("cargo").current_dir(root().join("plugins")).args(args));
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // Only the libraries' own tests: the component itself can be linked for no other target.
    cargo(&["test", "--workspace", "--lib"])
}

/// A command that knows nothing of the cargo that runs us.
fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("CARGO");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if OF_THE_CALLER.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// Cargo and rustc of Debian, whatever rustup says. `RUSTC_BOOTSTRAP` lets a stable compiler build std from source.
fn debian_cargo() -> Command {
    let mut command = clean("/usr/bin/cargo");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("/usr/bin:{path}")).env_remove("RUSTUP_TOOLCHAIN").env("RUSTC_BOOTSTRAP", "1");
    command.env("RUSTFLAGS", format!("-Clink-arg=--wasm-ld-path={WASM_LD}")).env("RUSTC", "/usr/bin/rustc");
    command.args(["-Z", "build-std=std,panic_abort"]);
    command
}

fn toolchain_has_target() -> bool {
    let printed = clean("rustc")
        .current_dir(root().join("plugins"))
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output();
    let Ok(printed) = printed else { return false };
    let libdir = String::from_utf8_lossy(&printed.stdout);
    printed.status.success() && holds_core(Path::new(libdir.trim()))
}

fn holds_core(libdir: &Path) -> bool {
    let entries = fs::read_dir(libdir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Debian's chain: what must be there, and the package that brings it.
fn debian_chain() -> [(PathBuf, &'static str); 5] {
    let rustlib = Path::new("/usr/lib/rustlib");
    let tools = rustlib.join(format!("{}-unknown-linux-gnu/bin", std::env::consts::ARCH));
    [
        ("/usr/bin/cargo".into(), "cargo-web"),
        ("/usr/bin/rustc".into(), "rustc-web"),
        (rustlib.join("src/rust/library/std/Cargo.toml"), "rust-web-src"),
        (tools.join("wasm-component-ld"), "rust-web-llvm"),
        (WASM_LD.into(), "lld-19"),
    ]
}

fn install_debian_chain() -> Result<()> {
    let chain = debian_chain();
    let missing: Vec<&str> = chain.iter().filter(|(path, _)| !path.exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let by_hand = format!(
        "the guests need the target {TARGET}. Run\n  rustup target add {TARGET}\nor, on Debian,\n  sudo apt-get update && \
         sudo apt-get install --no-install-recommends {packages}\nand start this again"
    );
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        return Err(by_hand.into());
    }
    println!("guests: installing {packages} (the toolchain has no {TARGET})");
    let apt =
        |args: &[&str]| run(clean("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()));
    apt(&["update", "-q"])
        .and_then(|()| apt(&[&["install", "-q", "-y", "--no-install-recommends"][..], &missing].concat()))
        .map_err(|err| format!("{err}; {by_hand}").into())
}

/// Copies the components to `to`, those that changed, and removes those that have no source any more.
fn collect(from: &Path, to: &Path) -> Result<Vec<String>> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |err: std::io::Error| format!("{path}: {err}")
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    let mut names = Vec::new();
    for crate_name in crate_names()? {
        let source = from.join(format!("{}.wasm", crate_name.replace('-', "_")));
        let component = fs::read(&source).map_err(failed(&source))?;
        // Layer 1, version 13: a component. A plain module (layer 0) would be refused by every host.
        if component.get(..8) != Some(b"\0asm\x0d\0\x01\0") {
            return Err(format!("{} is no component: is plugins/.cargo/config.toml in force?", source.display()).into());
        }
        let target = to.join(format!("{crate_name}.wasm"));
        if fs::read(&target).ok().as_ref() != Some(&component) {
            let partial = to.join(format!("{crate_name}.wasm.new"));
            fs::write(&partial, &component).map_err(failed(&partial))?;
            fs::rename(&partial, &target).map_err(failed(&target))?;
        }
        names.push(crate_name);
    }
    for entry in fs::read_dir(to).map_err(failed(to))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(".wasm").is_some_and(|stem| !names.iter().any(|known| known == stem)) {
            fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
        }
    }
    Ok(names)
}

/// The packages of the guests' workspace that make a component.
fn crate_names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for dir in [root().join("plugins"), root().join("tests").join("guests")] {
        for entry in fs::read_dir(&dir).map_err(|err| format!("{}: {err}", dir.display()))?.flatten() {
            let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            if let Some(name) = name.filter(|_| manifest.contains("\"cdylib\"")) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_is_found() {
        let names = crate_names().expect("readable");
        assert!(names.iter().any(|name| name == "subject-words") && names.iter().any(|name| name == "guest-zoo"));
    }
}
