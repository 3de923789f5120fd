//! `:include:/file` in a table of aliases: a list of addresses, one or more a line. `man 5 aliases`.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::address;

/// Octets of one file: the members of a large list.
const MAX_FILE: u64 = 4 << 20;

/// Its addresses, each line with its number from 1. Asked for each mail to the list, so that a change counts at once.
pub(super) fn read(file: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let path = Path::new(file);
    if !path.is_absolute() {
        return Err("has a relative name; write :include:/FOLDER/FILE".into());
    }
    let unreadable = |err: std::io::Error| format!("cannot be read: {err}");
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > MAX_FILE {
        return Err("is not a regular file of at most 4 MiB".into());
    }
    // As in Postfix: whoever can write there would get our mail.
    if facts.permissions().mode() & 0o002 != 0 {
        return Err("may be written by everybody; chmod o-w".into());
    }
    let mut text = String::new();
    let opened = fs::File::open(path).map_err(unreadable)?;
    opened.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    Ok(lines.map(|(index, line)| (index + 1, address::list(line))).collect())
}
