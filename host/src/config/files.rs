//! File names in the config start from the folder the config is in; files that plugins' settings name are read here.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::source::read_octets;
use super::{Config, ConfigError, Source};
use crate::install::{Lock, Store};

/// Octets of one file that a plugin's settings name.
const MAX_FILE: u64 = 16 << 20;
/// Octets of all files that one plugin's settings name.
const MAX_FILES: u64 = 64 << 20;

/// Where the content of a file goes that is UTF-8.
const TEXT: &str = "content";
/// Where that of any other file goes: one character, U+0000 to U+00FF, for each octet.
const OCTETS: &str = "content-octets";

/// Makes the names of directories independent of the folder; all lies below `data_dir` unless it says otherwise.
pub(super) fn resolve_dirs(config: &mut Config, data_dir: PathBuf) {
    config.runtime.cache_dir = data_dir.join(&config.runtime.cache_dir);
    config.runtime.plugin_dir = data_dir.join(&config.runtime.plugin_dir);
    config.server.data_dir = data_dir;
}

/// Makes file names independent of the folder, finds what is installed, and puts the content of files into plugins' settings.
pub(super) fn resolve(config: &mut Config, source: &Source, data_dir: PathBuf) -> Result<(), ConfigError> {
    let folder = source.folder();
    resolve_dirs(config, data_dir);
    let from_folder = |path: &mut PathBuf| *path = folder.join(&*path); // an absolute path stays
    config.directory.start_from(folder);
    let data_dir = config.server.data_dir.to_string_lossy().into_owned();
    let filled = |path: &str| folder.join(path.replace("{data-dir}", &data_dir));
    config.directory.maildir = filled(&config.directory.maildir).to_string_lossy().into_owned();
    let base = filled(&config.directory.virtual_mailbox_base);
    config.directory.virtual_mailbox_base = base.to_string_lossy().into_owned();
    config.queue.path = filled(&config.queue.path.to_string_lossy());
    let lock_file = Lock::path(source.file());
    let lock = Lock::read(&lock_file).map_err(|err| ConfigError::of_file(&lock_file, err.to_string()))?;
    let store = Store::new(&config.runtime.plugin_dir);
    config.kv.path = filled(&config.kv.path.to_string_lossy());
    for (name, plugin) in &mut config.plugins {
        let located = lock.locate(name, &plugin.source, folder, &store);
        (plugin.source, plugin.pin) = located.map_err(|err| source.error_at(&["plugin", name, "source"], err))?;
        for endpoint in plugin.endpoints.values_mut() {
            endpoint.paths_mut().for_each(from_folder);
        }
        let mut path = vec!["plugin".to_owned(), name.clone(), "settings".to_owned()];
        plugin.weights = config.score.weights_of(name);
        let mut reader = Reader { folder, source, left: MAX_FILES };
        reader.read_into(&mut plugin.settings, &mut path)?;
    }
    Ok(())
}

impl Source {
    /// Puts the content of the files that these settings name into them, as for a policy of the config.
    pub fn read_files_into(&self, settings: &mut Value) -> Result<(), ConfigError> {
        let mut reader = Reader { folder: self.folder(), source: self, left: MAX_FILES };
        reader.read_into(settings, &mut vec!["settings".to_owned()])
    }
}

struct Reader<'a> {
    folder: &'a Path,
    source: &'a Source,
    left: u64,
}

impl Reader<'_> {
    fn read_into(&mut self, value: &mut Value, path: &mut Vec<String>) -> Result<(), ConfigError> {
        let mut within = |key: String, value: &mut Value| {
            path.push(key);
            self.read_into(value, path)?;
            path.pop();
            Ok(())
        };
        match value {
            Value::Array(items) => {
                items.iter_mut().enumerate().try_for_each(|(index, item)| within(index.to_string(), item))
            }
            Value::Object(items) => {
                items.iter_mut().try_for_each(|(key, item)| within(key.clone(), item))?;
                let Some(Value::String(file)) = items.get("file") else {
                    return Ok(());
                };
                path.push("file".into());
                if let Some(name) = [TEXT, OCTETS].into_iter().find(|name| items.contains_key(*name)) {
                    let message = format_args!("there is `{name}` beside it, which the file would replace; remove one");
                    return Err(self.source.error_at(path, message));
                }
                let file = self.folder.join(file);
                let content = self.read(&file).map_err(|why| self.source.error_at(path, why))?;
                path.pop();
                let (name, content) = match String::from_utf8(content) {
                    Ok(text) => (TEXT, text),
                    // JSON knows no other text; nothing of the file may be lost or guessed.
                    Err(err) => (OCTETS, err.as_bytes().iter().copied().map(char::from).collect()),
                };
                items.insert(name.into(), content.into());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, file: &Path) -> Result<Vec<u8>, String> {
        let shown = file.display();
        let content =
            read_octets(file, MAX_FILE).map_err(|why| format!("{shown} {why}; correct the name or the file"))?;
        self.left = self.left.checked_sub(content.len() as u64).ok_or_else(|| {
            let limit = crate::units::ByteSize::from_bytes(MAX_FILES);
            format!("with {shown} the files of this plugin are larger than {limit} together; name fewer")
        })?;
        Ok(content)
    }
}
