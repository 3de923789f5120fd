//! What a config says that cannot be, though each value by itself is well-formed.

use std::collections::HashSet;
use std::fmt::Display;

use super::{Config, ConfigError, Source, nearest};
use crate::directory::Directory;
use crate::plugin::{self, is_plain_name};

/// What a policy may be granted beyond what all have.
const GRANTS: [&str; 3] = ["kv", "dns", "net"];

/// The first fault.
pub(super) fn check(config: &Config, source: &Source) -> Result<(), ConfigError> {
    let checker = Checker { config, source };
    checker.server()?;
    checker.listeners()?;
    checker.smtp()?;
    checker.score()?;
    checker.queue_and_delivery()?;
    checker.directory()?;
    if let Err((key, message)) = config.resolver.check() {
        return checker.fault(&["resolver", key], message);
    }
    config.plugins.iter().try_for_each(|(name, plugin)| checker.plugin(name, plugin))?;
    if config.runtime.instances == 0 {
        return checker.fault(&["runtime", "instances"], "0 would let no policy run; write at least 1");
    }
    Ok(())
}

struct Checker<'a> {
    config: &'a Config,
    source: &'a Source,
}

impl Checker<'_> {
    fn fault<T>(&self, path: &[&str], message: impl Display) -> Result<T, ConfigError> {
        Err(self.source.error_at(path, message))
    }

    fn server(&self) -> Result<(), ConfigError> {
        let server = &self.config.server;
        if server.hostname().is_none() {
            return self.fault(
                &["server", "hostname"],
                "the machine's own name is no domain; write one, like hostname = \"mx.example.org\"",
            );
        }
        for (path, key) in [(&server.data_dir, ["server", "data-dir"]), (&self.config.queue.path, ["queue", "path"])] {
            if path.exists() && !path.is_dir() {
                return self.fault(&key, format_args!("{} is no directory; name another", path.display()));
            }
        }
        if server.workers.is_some_and(|count| !(1..=1024).contains(&count)) {
            return self.fault(&["server", "workers"], "write 1 to 1024, or leave it out for one per processor");
        }
        if server.reload_timeout.is_zero() {
            return self.fault(&["server", "reload-timeout"], "0 would end every reload; write at least \"1s\"");
        }
        if let Err(err) = tracing_subscriber::EnvFilter::builder().parse(&server.log_level) {
            return self.fault(
                &["server", "log-level"],
                format_args!("{err}; write error, warn, info, debug or trace, or PART=LEVEL after a comma"),
            );
        }
        Ok(())
    }

    fn listeners(&self) -> Result<(), ConfigError> {
        if self.config.listeners.is_empty() {
            let example = "[[listener]] with name = \"smtp\" and address = \"[::]:25\"";
            return self.fault(&["listener"], format_args!("there is none, so nobody could send mail; add {example}"));
        }
        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let index = index.to_string();
            let at = |key| ["listener", index.as_str(), key];
            if !is_plain_name(&listener.name) {
                return self.fault(&at("name"), "a name has 1 to 64 letters, digits, `-` and `_`");
            }
            if !names.insert(&listener.name) {
                let name = &listener.name;
                return self
                    .fault(&at("name"), format_args!("another listener is named `{name}`; choose another name"));
            }
            // Port 0 is any free port: for tests.
            if listener.address.port() != 0 && !addresses.insert(listener.address) {
                return self.fault(&at("address"), "another listener has this address; choose another port");
            }
            self.chain(&index, &listener.chain)?;
        }
        Ok(())
    }

    fn chain(&self, listener: &str, chain: &[String]) -> Result<(), ConfigError> {
        for (place, name) in chain.iter().enumerate() {
            let place = place.to_string();
            let at = ["listener", listener, "chain", place.as_str()];
            if !self.config.plugins.contains_key(name) {
                let known = self.config.plugins.keys().map(String::as_str);
                return match nearest(name, known) {
                    Some(best) => self.fault(&at, format_args!("there is no plugin `{name}`; did you mean `{best}`?")),
                    None => self.fault(&at, format_args!("there is no plugin `{name}`; add a table [plugin.{name}]")),
                };
            }
            if chain.iter().filter(|other| *other == name).count() > 1 {
                return self.fault(&at, format_args!("`{name}` is in this chain twice; remove one"));
            }
        }
        Ok(())
    }

    fn score(&self) -> Result<(), ConfigError> {
        let score = &self.config.score;
        if let Err((key, message)) = score.check() {
            return self.fault(&["score", key], message);
        }
        for (key, weight) in &score.weights {
            let at = ["score", "weights", key.as_str()];
            if !weight.is_finite() {
                return self.fault(&at, "no sum could be made with that; write a number");
            }
            let Some((plugin, _)) = key.split_once('.') else {
                return self.fault(&at, "write \"PLUGIN.SYMBOL\", the plugin by its name here");
            };
            if !self.config.plugins.contains_key(plugin) {
                let known = self.config.plugins.keys().map(String::as_str);
                let hint = nearest(plugin, known).map(|best| format!("; did you mean `{best}`?")).unwrap_or_default();
                return self.fault(&at, format_args!("there is no plugin `{plugin}`{hint}"));
            }
        }
        Ok(())
    }

    fn smtp(&self) -> Result<(), ConfigError> {
        let smtp = &self.config.smtp;
        let rules = [
            (
                smtp.max_command_line.as_u64() >= 512,
                "max-command-line",
                "RFC 5321 asks for at least \"512 B\"; write more",
            ),
            (smtp.max_text_line.as_u64() >= 1000, "max-text-line", "RFC 5321 asks for at least \"1000 B\"; write more"),
            (
                smtp.max_message_size.as_u64() >= 64 << 10,
                "max-message-size",
                "RFC 5321 asks for at least \"64 KiB\"; write more",
            ),
            (
                smtp.max_header_size.as_u64() >= 1 << 10,
                "max-header-size",
                "hardly a mail would pass; write at least \"1 KiB\"",
            ),
            (smtp.max_recipients > 0, "max-recipients", "0 would take no mail; RFC 5321 asks for at least 100"),
            (smtp.max_hops > 0, "max-hops", "0 would take no mail that has passed a host; write at least 1"),
            (smtp.max_errors > 0, "max-errors", "0 would close every session; write at least 1"),
            (smtp.max_transactions > 0, "max-transactions", "0 would take no mail; write at least 1"),
            (
                !smtp.command_timeout.is_zero(),
                "command-timeout",
                "0 would close every session; RFC 5321 asks for \"5m\"",
            ),
            (!smtp.data_timeout.is_zero(), "data-timeout", "0 would take no mail; RFC 5321 asks for \"3m\""),
        ];
        match rules.iter().find(|(sound, _, _)| !sound) {
            Some((_, key, message)) => self.fault(&["smtp", key], message),
            None => Ok(()),
        }
    }

    fn queue_and_delivery(&self) -> Result<(), ConfigError> {
        if let Err((key, message)) = self.config.queue.check() {
            return self.fault(&["queue", key], message);
        }
        if let Err((key, message)) = self.config.kv.check() {
            return self.fault(&["kv", key], message);
        }
        let delivery = &self.config.delivery;
        let rules = [
            (delivery.max_messages > 0, "max-messages", "0 would deliver nothing; write at least 1"),
            (!delivery.connect_timeout.is_zero(), "connect-timeout", "0 would reach nobody; write at least \"1s\""),
        ];
        match rules.iter().find(|(sound, _, _)| !sound) {
            Some((_, key, message)) => self.fault(&["delivery", key], message),
            None => Ok(()),
        }
    }

    fn directory(&self) -> Result<(), ConfigError> {
        let directory = &self.config.directory;
        for (index, domain) in directory.local_domains.iter().enumerate() {
            if directory.relay_domains.iter().any(|relay| relay.matches(domain)) {
                let at = ["directory", "local-domains", &index.to_string()];
                return self.fault(&at, format_args!("{domain} is among the relay-domains as well; remove one"));
            }
        }
        if !directory.relay_domains.is_empty() && self.config.delivery.relay_host.is_none() {
            let message = "mail for them could not be passed on; write in [delivery] a relay-host";
            return self.fault(&["directory", "relay-domains"], message);
        }
        if let Err(err) = Directory::check(directory) {
            let at: Vec<&str> = ["directory"].into_iter().chain(err.key().split('.')).collect();
            return self.fault(&at, &err);
        }
        let unknown = directory.maildir.replace("{user}", "").replace("{domain}", "");
        if unknown.contains(['{', '}']) {
            let message = "only {user}, {domain} and {data-dir} are filled in; correct the rest";
            return self.fault(&["directory", "maildir"], message);
        }
        if !directory.maildir.contains("{user}") {
            let message = "all users would share one Maildir; put {user} where the name belongs";
            return self.fault(&["directory", "maildir"], message);
        }
        Ok(())
    }

    fn plugin(&self, name: &str, plugin: &plugin::Config) -> Result<(), ConfigError> {
        let at = |key| ["plugin", name, key];
        if !is_plain_name(name) {
            return self.fault(&["plugin", name], "a name has 1 to 64 letters, digits, `-` and `_`");
        }
        if !plugin.source.is_file() {
            let file = plugin.source.display();
            return match plugin.source.exists() {
                true => self.fault(&at("source"), format_args!("{file} is no file; name the component itself")),
                false => self.fault(
                    &at("source"),
                    format_args!("there is no file {file}; correct the name or build the component"),
                ),
            };
        }
        if plugin.timeout.is_zero() {
            return self.fault(&at("timeout"), "0 would let no call end in time; write at least 1ms");
        }
        if plugin.memory.as_u64() < 64 << 10 {
            return self.fault(&at("memory"), "no component runs in less than \"64 KiB\"; write more");
        }
        if plugin.max_instances == 0 {
            return self.fault(
                &at("max-instances"),
                "0 would never let it run; write at least 1, or take it out of the chains",
            );
        }
        if plugin.memory > self.config.runtime.slot_memory {
            let most = self.config.runtime.slot_memory;
            return self.fault(
                &at("memory"),
                format_args!("more than the {most} of slot-memory in [runtime]; raise that too"),
            );
        }
        for (endpoint, config) in &plugin.endpoints {
            let at = ["plugin", name, "endpoints", endpoint.as_str()];
            if !is_plain_name(endpoint) {
                return self.fault(&at, "a name has 1 to 64 letters, digits, `-` and `_`");
            }
            if let Err((key, message)) = config.check() {
                return self.fault(&[&at[..], &[key]].concat(), message);
            }
            if !plugin.grants.iter().any(|grant| grant == "net") {
                let message = "of no use without the grant; add `grants = [\"net\"]` to the plugin's table";
                return self.fault(&at, message);
            }
        }
        for (index, grant) in plugin.grants.iter().enumerate() {
            if !GRANTS.contains(&grant.as_str()) {
                let at = ["plugin", name, "grants", &index.to_string()];
                let known = GRANTS.join(", ");
                return self.fault(&at, format_args!("`{grant}` cannot be granted; there are {known}"));
            }
        }
        Ok(())
    }
}
