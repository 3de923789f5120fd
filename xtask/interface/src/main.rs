//! `cargo xtask interface`: what is generated from `wit/`: the page of documentation, and the C side of the interface, for which
//! there is no generator that a C project could fetch.

//!
//! A workspace of its own: its parser of WIT would change features of what wasmtime stands on.

mod page;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// The text of an error is for the person at the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Writes everything that is generated, where it changed.
fn main() -> Result<()> {
    for (path, contents) in generated()? {
        let shown = path.strip_prefix(root()).unwrap_or(&path).display();
        if fs::read(&path).ok().as_ref() == Some(&contents) {
            println!("{shown}: current");
            continue;
        }
        fs::write(&path, contents).map_err(|err| format!("{}: {err}", path.display()))?;
        println!("{shown}: written");
    }
    Ok(())
}

/// The project's top directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies in xtask/interface")
}

/// Every generated file with what should stand in it.
fn generated() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root().join("wit/policy.wit"))?;
    let mut all = vec![(root().join("docs/plugin-interface.md"), page::render(&resolve, package)?.into_bytes())];
    all.extend(c_side(&root().join("plugins/examples/c"))?);
    Ok(all)
}

/// What `wit-bindgen c --autodrop-borrows yes` makes of the world of a C project.
fn c_side(project: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(project.join("wit"))?;
    let world = resolve.select_world(&[package], None)?;
    let mut files = Files::default();
    let options = wit_bindgen_c::Opts { autodrop_borrows: wit_bindgen_c::Enabled::Yes, ..Default::default() };
    options.build().generate(&mut resolve, world, &mut files)?;
    Ok(files.iter().map(|(name, contents)| (project.join(name), contents.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_generated_is_current() {
        for (path, contents) in super::generated().expect("generated") {
            let there = std::fs::read(&path).unwrap_or_default();
            assert!(there == contents, "{} is not current: run `cargo xtask interface`", path.display());
        }
    }
}
