//! What has arrived in a Maildir.

use std::path::PathBuf;

use super::wait_for;

/// A Maildir that may not be there yet.
pub struct Maildir(pub PathBuf);

impl Maildir {
    /// The mails in `new` and `cur`, by the names of their files.
    pub fn mails(&self) -> Vec<String> {
        self.octets().iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect()
    }

    /// The same, octet by octet.
    pub fn octets(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = ["new", "cur"].iter().flat_map(|name| self.files(name)).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// Waits until there are so many; more are a failure.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        let mails = wait_for(&format!("{count} mails in {}", self.0.display()), || {
            let mails = self.mails();
            (mails.len() >= count).then_some(mails)
        });
        assert_eq!(mails.len(), count, "{mails:?}");
        mails
    }

    /// Files that a delivery has not finished.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        self.files("tmp")
    }

    fn files(&self, name: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.0.join(name)) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }
}
