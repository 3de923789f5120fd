//! Postfix with a config and a queue of its own, tuned so that the comparison is fair: no limits meant for strangers,
//! no needless lookups, no pauses, as many receiving and sending processes as do it good.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::server::Setup;
use super::tree::Tree;
use crate::machine::{Result, find_program, is_root, show};

/// Receiving processes for load: more make it slower on few cores.
pub const RECEIVERS: usize = 20;

const MASTER: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

const TUNED: &str = "\
in_flow_delay = 0
max_use = 100000
max_idle = 3600s
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_reject_unlisted_recipient = no
smtpd_reject_unlisted_sender = no
local_header_rewrite_clients =
smtp_send_xforward_command = no
smtp_destination_concurrency_limit = 10
smtp_connection_cache_on_demand = no
";

/// A running instance; stopped when dropped.
pub struct Postfix {
    conf: PathBuf,
    queue: PathBuf,
    program: PathBuf,
    master: u32,
}

impl Postfix {
    /// Starts it below `dir`.
    pub fn start(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let Setup { port, sink_port, rules, sessions: receivers, .. } = *setup;
        let program = find_program("postfix").ok_or("postfix is missing: apt-get install postfix postfix-pcre")?;
        if !is_root() {
            return Err("Postfix can be started by root only; leave it out with --only wasmta,floor".into());
        }
        let (conf, queue, data) = (dir.join("conf"), dir.join("queue"), dir.join("data"));
        for made in [&conf, &queue, &data] {
            std::fs::create_dir_all(made)?;
        }
        reachable_by_others(&queue)?;
        checked(Command::new("chown").arg("postfix").arg(&data))?;
        std::fs::write(conf.join("main.cf"), main_cf(dir, sink_port, rules))?;
        std::fs::write(conf.join("master.cf"), format!("127.0.0.1:{port} inet n - n - {receivers} smtpd\n{MASTER}"))?;
        checked(Command::new(&program).arg("-c").arg(&conf).arg("start"))?;
        let mut postfix = Self { conf, queue, program, master: 0 };
        postfix.master = std::fs::read_to_string(postfix.queue.join("pid/master.pid"))?.trim().parse()?;
        Ok(postfix)
    }

    /// The master with all its daemons.
    pub fn tree(&self) -> Tree {
        Tree(self.master)
    }

    /// Whether no message is left in any queue.
    pub fn queue_is_empty(&self) -> Result<bool> {
        let queues = ["maildrop", "incoming", "active", "deferred", "hold"];
        Ok(queues.iter().map(|name| files_below(&self.queue.join(name))).sum::<u64>() == 0)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = checked(Command::new(&self.program).arg("-c").arg(&self.conf).arg("stop"));
    }
}

fn main_cf(dir: &Path, sink_port: u16, rules: Option<&Path>) -> String {
    let dir = dir.display();
    let mut text = format!(
        "compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
myhostname = mx.example.test
mydomain = example.test
myorigin = example.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink_port}
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
local_recipient_maps =
{TUNED}"
    );
    let _ = match rules {
        // Without rules, not even the parsing for them.
        None => writeln!(text, "receive_override_options = no_header_body_checks,no_address_mappings"),
        Some(table) => {
            writeln!(text, "receive_override_options = no_address_mappings\nheader_checks = pcre:{}", table.display())
        }
    };
    text
}

/// Postfix's daemons give up root: every directory on the way must let them through.
fn reachable_by_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if std::fs::metadata(dir)?.permissions().mode() & 0o001 == 0 {
            let dir = dir.display();
            return Err(format!("{dir} is closed to other users and so to Postfix: choose a --dir elsewhere").into());
        }
    }
    Ok(())
}

/// Quiet unless it fails; Postfix's warnings about the owners of a scratch directory are no news.
fn checked(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", show(command), String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn files_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}
