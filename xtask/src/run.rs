//! `cargo xtask run`: wasmta as a small site on loopback, for a first look.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::guests;
use crate::machine::{Result, cargo, root, run, target_dir};

/// What the site begins with, by the names that the files get.
const FILES: [(&str, &str); 2] = [
    ("wasmta.toml", include_str!("../first-look/wasmta.toml")),
    ("header_checks", include_str!("../first-look/header_checks")),
];

/// Builds everything, lays the site out, says how to send a mail, and becomes the server: Ctrl-C goes to it alone.
pub fn example(arguments: &[&str]) -> Result<()> {
    if !arguments.is_empty() {
        return Err("`run` takes no arguments; its config is wasmta-data/wasmta.toml".into());
    }
    let components = guests::build()?;
    run(cargo().args(["build", "--release", "--package", "wasmta"]))?;
    let site = root().join("wasmta-data");
    lay_out(&site, &components)?;
    let config = site.join("wasmta.toml");
    println!("{}", instructions(&site));
    let mut server = Command::new(target_dir().join("release/wasmta"));
    Err(server.arg("serve").arg("-c").arg(config).exec().into())
}

/// What people have changed stays; the components are always those just built.
fn lay_out(site: &Path, components: &Path) -> Result<()> {
    let plugins = site.join("plugins");
    std::fs::create_dir_all(&plugins)?;
    for (name, content) in FILES {
        let file = site.join(name);
        if !file.exists() {
            std::fs::write(file, content)?;
        }
    }
    for entry in std::fs::read_dir(components)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("guest-") {
            std::fs::copy(entry.path(), plugins.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn instructions(site: &Path) -> String {
    let site = site.display();
    format!(
        "
wasmta serves on 127.0.0.1:2525 as soon as its log says so; Ctrl-C ends it. Config, queue and mail: {site}

Send a mail to ann or bob:
  swaks --server 127.0.0.1:2525 --from you@example.org --to ann@example.test --header 'Subject: hello'
or without swaks:
  python3 -c \"import smtplib; smtplib.SMTP('127.0.0.1', 2525).sendmail('you@example.org', 'ann@example.test', 'Subject: hello\\n\\nhello')\"
It arrives in {site}/mail/ann/new

One that header_checks refuses (the table is {site}/header_checks):
  swaks --server 127.0.0.1:2525 --from you@example.org --to ann@example.test --header 'Subject: free money'
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_policy_is_in_the_chain() {
        let config = FILES[0].1;
        let chain = config.lines().find(|line| line.starts_with("chain = ")).expect("there is a chain");
        // What somebody tries out beside them is not bundled: git does not know it.
        let listed = Command::new("git").args(["ls-files", "plugins/*/Cargo.toml"]).current_dir(root()).output();
        let listed = String::from_utf8(listed.expect("git is here").stdout).expect("plain names");
        // `plugins/examples/LANGUAGE` are for those who write policies.
        fn name(path: &str) -> Option<&str> {
            path.strip_prefix("plugins/")?.strip_suffix("/Cargo.toml").filter(|name| !name.contains('/'))
        }
        let names: Vec<&str> = listed.lines().filter_map(name).collect();
        assert!(!names.is_empty(), "there are bundled policies");
        for name in names {
            assert!(chain.contains(&format!("\"{name}\"")), "{name} is not in the chain");
            assert!(config.contains(&format!("[plugin.{name}]")), "{name} has no table");
        }
    }
}
