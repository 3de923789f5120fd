//! The plugin `header-checks` against the real Postfix: the same tables and mails, the same replies and results.
//!
//! `data/header-checks` says what Postfix makes of each case. Here the real Postfix has to agree with that, where it is installed
//! and may be started, and wasmta has to agree for some of the cases: compiling a plugin takes seconds for each table. With
//! `WASMTA_HEADER_CASES=all` it is asked for all of them, with `=mime/` for those whose names begin so; the plugin's own tests, without a server, always are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::header_cases::{Case, load};
use crate::support::{Mta, Peer, Setup, Sink, free_port, skip, wait_for};

/// Cases for the whole server: one of each kind.
const SOME: [&str; 13] = [
    "actions/reject-with-passing-code",
    "actions/discard",
    "actions/replace-folded-header",
    "actions/ignore-body-line",
    "actions/many-edits-in-order",
    "actions/reject-own-received",
    "limits/edits-of-pieces",
    "mime/edits-in-parts",
    "actions/redirect-overrides-filter",
    "actions/bcc-twice",
    "tables/latin-1",
    "tables/manual-page-header-example",
    "tables/manual-page-body-example",
];
/// So many plugins a server: all of them are compiled before it listens.
const AT_ONCE: usize = 2;

fn cases() -> Vec<Case> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/header-checks"))
}

/// What became of a mail.
#[derive(Debug, PartialEq)]
struct Seen {
    reply: String,
    envelope: Vec<String>,
    result: Option<Vec<u8>>,
}

impl Seen {
    /// What should become of it.
    fn expected(case: &Case) -> Self {
        let accepted = case.reply == "250";
        let stored = accepted && !case.envelope.iter().any(|line| line == "discard");
        let result = case.result.clone().filter(|_| stored).map(|mail| lf(&mail));
        Self { reply: case.reply.clone(), envelope: case.envelope.clone(), result }
    }
}

fn lf(mail: &[u8]) -> Vec<u8> {
    mail.iter().copied().filter(|octet| *octet != b'\r').collect()
}

/// Sends the mail; a yes counts as `250`, whatever its text.
fn send(port: u16, recipient: &str, mail: &[u8]) -> (String, String) {
    let mut peer = Peer::connect(port);
    peer.expect("220");
    peer.say("EHLO client.example", "250");
    peer.say("MAIL FROM:<sender@example.com>", "250");
    peer.say(&format!("RCPT TO:<{recipient}>"), "250");
    peer.say("DATA", "354");
    let mut data = Vec::new();
    for line in mail.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            data.push(b'.');
        }
        data.extend_from_slice(line);
    }
    data.extend_from_slice(b".\r\n");
    peer.send(&data).unwrap();
    let reply = peer.reply().unwrap().trim_end().to_owned();
    let short = if reply.starts_with("250") { "250".into() } else { reply.clone() };
    (short, reply)
}

/// Without the fields that the server put before what the client sent.
fn without_trace(mail: &[u8]) -> Vec<u8> {
    let mail = lf(mail);
    let mut lines = mail.split_inclusive(|octet| *octet == b'\n').peekable();
    let mut kept = Vec::new();
    let mut dropped = false;
    while let Some(line) = lines.next() {
        let own = line.starts_with(b"Received: from client.example");
        let delivery =
            [&b"Return-Path:"[..], b"Delivered-To:", b"X-Original-To:"].iter().any(|name| line.starts_with(name));
        if dropped || !(own || delivery) {
            kept.extend_from_slice(line);
            continue;
        }
        dropped = own;
        while lines.next_if(|line| matches!(line.first(), Some(b' ' | b'\t'))).is_some() {}
    }
    kept
}

#[track_caller]
fn agree(who: &str, outcomes: Vec<(&Case, Seen)>) {
    let differ: Vec<String> = outcomes
        .iter()
        .filter(|(case, seen)| *seen != Seen::expected(case))
        .map(|(case, seen)| {
            let shown = |seen: &Seen| {
                let text = seen.result.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                format!("{} {:?}\n{}", seen.reply, seen.envelope, text.chars().take(800).collect::<String>())
            };
            format!("{}: {}\n-- instead of --\n{}", case.name, shown(seen), shown(&Seen::expected(case)))
        })
        .collect();
    assert!(differ.is_empty(), "{who} differs in {} of {}:\n{}", differ.len(), outcomes.len(), differ.join("\n\n"));
}

mod wasmta {
    use super::*;

    /// The case's tables and settings as TOML, inline.
    fn settings(case: &Case, folder: &Path) -> String {
        let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
        for (index, (kind, table, text)) in case.tables.iter().enumerate() {
            let table = match std::str::from_utf8(text) {
                Ok(text) => {
                    format!("{{ type = \"{table}\", rules = {} }}", serde_json::to_string(text).unwrap())
                }
                Err(_) => {
                    let file = folder.join(format!("{}-{index}", case.name.replace('/', "-")));
                    std::fs::write(&file, text).unwrap();
                    format!("{{ type = \"{table}\", file = {file:?} }}")
                }
            };
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, tables)) => tables.push(table),
                None => kinds.push((kind.clone(), vec![table])),
            }
        }
        let mut text = String::new();
        for (kind, tables) in kinds {
            writeln!(text, "{kind} = [{}]", tables.join(", ")).unwrap();
        }
        for (key, value) in &case.settings {
            writeln!(text, "{key} = {}", value.as_deref().unwrap_or("[]")).unwrap();
        }
        text
    }

    /// A server with a listener and a plugin for each case.
    fn start(cases: &[&Case], sink: &Sink) -> (Mta, Vec<u16>) {
        let mut setup = Setup::new().next_hop(sink.port);
        let mut ports = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let name = format!("checks-{number}");
            let port = free_port();
            let settings = settings(case, setup.folder());
            setup = setup.plugin(&name, "header-checks", &format!("[plugin.{name}.settings]\n{settings}"));
            setup = setup.tables(&format!(
                "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nchain = [\"{name}\"]\n"
            ));
            ports.push(port);
        }
        (setup.start(), ports)
    }

    #[test]
    fn does_as_postfix_does() {
        let wanted = std::env::var("WASMTA_HEADER_CASES").ok();
        let cases = cases();
        // wasmta has no transport of another name than `smtp` for a filter.
        let known = |case: &&Case| !case.envelope.iter().any(|line| line == "filter other:");
        let chosen = |case: &&Case| match wanted.as_deref() {
            None => SOME.contains(&case.name.as_str()),
            Some("all") => known(case),
            Some(beginning) => case.name.starts_with(beginning) && known(case),
        };
        let chosen: Vec<&Case> = cases.iter().filter(chosen).collect();
        assert!(wanted.is_some() || chosen.len() == SOME.len(), "{} of {}", chosen.len(), SOME.len());
        let mut outcomes = Vec::new();
        for group in chosen.chunks(AT_ONCE) {
            let sink = Sink::start();
            let (mta, ports) = start(group, &sink);
            for (case, port) in group.iter().zip(ports) {
                outcomes.push((*case, judge(&mta, &sink, case, port)));
            }
        }
        agree("wasmta", outcomes);
    }

    fn judge(mta: &Mta, sink: &Sink, case: &Case, port: u16) -> Seen {
        let (mails, queued, taken) = (mta.maildir("ann").octets(), mta.queue(), sink.taken().len());
        let (reply, _) = send(port, "ann@example.test", &case.mail);
        let mut seen = Seen { reply, envelope: Vec::new(), result: None };
        if seen.reply != "250" {
            return seen;
        }
        // At a filter's address nobody listens.
        let settled = |mail: &serde_json::Value| mail["standing"] == "hold" || mail["standing"] == "deferred";
        let queue = wait_for("delivery", || Some(mta.queue()).filter(|queue| queue.iter().all(settled)));
        let new = queue.iter().filter(|mail| queued.iter().all(|old| old["id"] != mail["id"]));
        let waiting: Vec<&serde_json::Value> = new.collect();
        let here = mta.maildir("ann").octets().into_iter().find(|mail| !mails.contains(mail));
        let there = sink.taken().into_iter().nth(taken);
        if waiting.iter().any(|mail| mail["standing"] == "hold") {
            seen.envelope.push("hold".into());
        }
        let left: Vec<&serde_json::Value> =
            waiting.iter().flat_map(|mail| mail["recipients"].as_array().unwrap()).collect();
        // A REDIRECT overrides a FILTER. Postfix keeps both in the queue file, and heeds the first.
        let overridden = case.envelope.iter().filter(|line| line.starts_with("filter ")).cloned();
        let redirected = case.envelope.iter().any(|line| line.starts_with("redirect "));
        seen.envelope.extend(overridden.filter(|_| redirected));
        let filter = left.iter().map(|recipient| recipient["destination"].as_str().unwrap());
        let filter = filter.filter(|to| to.contains(":1002")).map(|to| format!("filter {to}")).next();
        seen.envelope.extend(filter);
        let mut recipients: Vec<String> =
            left.iter().map(|recipient| recipient["address"].as_str().unwrap().to_owned()).collect();
        recipients.extend(here.iter().map(|_| "ann@example.test".to_owned()));
        let relayed = there.iter().flat_map(|mail| &mail.rcpt).filter_map(|line| line.split(['<', '>']).nth(1));
        recipients.extend(relayed.map(str::to_owned));
        let added = if recipients.iter().any(|to| to == "ann@example.test") { "bcc" } else { "redirect" };
        let others = recipients.iter().filter(|to| *to != "ann@example.test");
        seen.envelope.extend(others.map(|to| format!("{added} {to}")));
        if recipients.is_empty() {
            seen.envelope.push("discard".into());
        }
        let arrived = here.or_else(|| there.map(|mail| mail.data.into_bytes())).map(|mail| without_trace(&mail));
        // What a waiting mail looks like is not shown; the plugin's own tests compare that.
        let expected = case.result.as_deref().map(lf).filter(|_| !waiting.is_empty());
        seen.result = case.result.as_ref().and(arrived.or(expected));
        seen
    }
}

mod postfix {
    use super::*;

    struct Postfix {
        folder: PathBuf,
    }

    impl Postfix {
        fn tool(&self, name: &str, arguments: &[&str]) -> Output {
            let config = self.folder.join("etc");
            let path = format!("/usr/sbin:/usr/bin:/sbin:/bin:{}", std::env::var("PATH").unwrap_or_default());
            Command::new(name).env("PATH", path).arg("-c").arg(config).args(arguments).output().unwrap()
        }

        fn log(&self) -> String {
            String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
        }
    }

    impl Drop for Postfix {
        fn drop(&mut self) {
            self.tool("postfix", &["stop"]);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    const SERVICES: &str = "\
pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\nother unix - - n - - smtp\n\
showq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\nanvil unix - - n - 1 anvil\n\
scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n";

    /// One instance with a port and a cleanup server for each case. What is accepted waits in its queue.
    fn start(cases: &[Case]) -> (Postfix, Vec<u16>) {
        // Postfix's own user must get there.
        let folder = std::env::temp_dir().join(format!("wasmta-postfix-{}", std::process::id()));
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let dir = folder.display().to_string();
        assert!(Command::new("chown").args(["postfix", &format!("{dir}/data")]).status().unwrap().success());
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\nmyhostname = mx.example.org\n\
             mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             relayhost = [127.0.0.1]:9\ndisable_dns_lookups = yes\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
             maillog_file = {dir}/log\nmaillog_file_prefixes = {dir}\nlocal_header_rewrite_clients =\nalias_maps =\n\
             alias_database =\ndefer_transports = smtp other\nsmtpd_peername_lookup = no\n"
        );
        std::fs::write(folder.join("etc/main.cf"), main).unwrap();
        let mut master = SERVICES.to_owned();
        let ports: Vec<u16> = cases.iter().map(|_| free_port()).collect();
        for (number, (case, port)) in cases.iter().zip(&ports).enumerate() {
            let options = options(&folder, number, case);
            let limit = case.settings.iter().find(|(key, _)| key == "line_length_limit");
            let limit = limit.map(|(key, value)| format!(" -o {key}={}", value.as_deref().unwrap_or_default()));
            writeln!(
                master,
                "127.0.0.1:{port} inet n - n - - smtpd -o cleanup_service_name=cleanup{number}{}",
                limit.unwrap_or_default()
            )
            .unwrap();
            writeln!(master, "cleanup{number} unix n - n - 0 cleanup{options}").unwrap();
        }
        std::fs::write(folder.join("etc/master.cf"), master).unwrap();
        let postfix = Postfix { folder };
        let started = postfix.tool("postfix", &["start"]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        (postfix, ports)
    }

    fn options(folder: &Path, number: usize, case: &Case) -> String {
        let mut lists: Vec<(String, Vec<String>)> = Vec::new();
        for (index, (kind, table, text)) in case.tables.iter().enumerate() {
            let file = folder.join(format!("etc/table-{number}-{index}"));
            std::fs::write(&file, text).unwrap();
            let name = format!("{table}:{}", file.display());
            match lists.iter_mut().find(|(known, _)| known == kind) {
                Some((_, names)) => names.push(name),
                None => lists.push((kind.clone(), vec![name])),
            }
        }
        for (key, value) in &case.settings {
            let value = value.as_deref().map(|value| if value == "true" { "yes" } else { value });
            lists.push((key.clone(), value.map(str::to_owned).into_iter().collect()));
        }
        lists.into_iter().fold(String::new(), |mut text, (key, values)| {
            write!(text, " -o {{ {key} = {} }}", values.join(" ")).unwrap();
            text
        })
    }

    fn judge(postfix: &Postfix, case: &Case, port: u16) -> Seen {
        let (reply, whole) = send(port, "rcpt@example.org", &case.mail);
        let mut seen = Seen { reply, envelope: Vec::new(), result: None };
        let Some(id) = whole.strip_prefix("250 2.0.0 Ok: queued as ") else { return seen };
        // A mail on its way from one queue to the next cannot be read for a moment, and the log may lag behind.
        let show = |what: &str| {
            wait_for("a mail in Postfix's queue, or a line of its log", || {
                let shown = postfix.tool("postcat", &[what, "-q", id]);
                let there = shown.status.success() && !shown.stdout.is_empty();
                let discarded = postfix.log().contains(&format!("{id}: discard: "));
                if there { Some(Some(shown.stdout)) } else { discarded.then_some(None) }
            })
        };
        let Some(records) = show("-e") else {
            seen.envelope.push("discard".into());
            return seen;
        };
        let records = String::from_utf8_lossy(&records).into_owned();
        seen.envelope.extend(records.contains(&format!(" hold/{id} ")).then(|| "hold".into()));
        let mut bcc = Vec::new();
        for line in records.lines() {
            match line.split_once(": ") {
                Some(("content_filter", to)) => seen.envelope.push(format!("filter {}", to.trim())),
                Some(("redirect_to", to)) => seen.envelope.push(format!("redirect {}", to.trim())),
                Some(("recipient", to)) if to != "rcpt@example.org" => bcc.push(format!("bcc {}", to.trim())),
                _ => {}
            }
        }
        seen.envelope.extend(bcc);
        seen.result = case.result.as_ref().and_then(|_| show("-hb")).map(|mail| without_trace(&mail));
        seen
    }

    #[test]
    fn is_what_the_cases_say() {
        let root = rustix::process::geteuid().is_root();
        let there = ["/usr/sbin/postfix", "/usr/sbin/postmap"].iter().all(|program| Path::new(program).is_file());
        if !(root && there) {
            return skip("header_checks::postfix", "needs root, postfix and postfix-pcre");
        }
        let cases = cases();
        let (postfix, ports) = start(&cases);
        let maps = postfix.tool("postconf", &["-m"]).stdout;
        if !String::from_utf8_lossy(&maps).lines().any(|map| map == "pcre") {
            return skip("header_checks::postfix", "needs postfix-pcre");
        }
        let outcomes = cases.iter().zip(ports).map(|(case, port)| (case, judge(&postfix, case, port))).collect();
        agree("Postfix", outcomes);
    }
}
