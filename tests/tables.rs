//! Lookup tables and address classes: the same files and questions for the real Postfix and for wasmta, and what is Postfix's to say in
//! whole sessions. Where Postfix is not installed or may not be started, wasmta is compared with what Postfix has said.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Folder, Maildir, Mta, Peer, Setup, free_port, skip, wait_for, wasmta};

/// A table's type, its text, and keys to look up in it.
const TABLES: [(&str, &str, &[&str]); 7] = [
    (
        "texthash",
        "# comment\nann@example.org  ann\n\nBOB@example.org bob,\n   carol\n# within\n\tdave\n\"a b\"@example.org quoted\n\
         @example.org catch all \nesc\\ aped yes\nexample.org   OK text  with   spaces\t\n.sub.example.org sub\nümlaut@example.org u\n\
         127.0.0.1 REJECT\n127.0 OK\nlast no newline",
        &[
            "ann@example.org",
            "ANN@EXAMPLE.ORG",
            "bob@example.org",
            "Bob@Example.org",
            "\"a b\"@example.org",
            "a b@example.org",
            "@example.org",
            "esc\\ aped",
            "example.org",
            "sub.example.org",
            ".sub.example.org",
            "ümlaut@example.org",
            "ÜMLAUT@example.org",
            "127.0.0.1",
            "127.0",
            "127",
            "last",
            "# comment",
            "nothing",
        ],
    ),
    (
        "regexp",
        "/^(.*)@old\\.example$/ ${1}@new.example\nif /^list-/\n/^list-(.*)-request@/ request $1\n!/-owner@/ member\nendif\n\
         /^[[:digit:]]{3}@/!/^666@/ three digits\n!/@/ no at\n/ANY\\.example$/i case counts\n/any\\.example$/ any $$5\n",
        &[
            "Ann+x@old.example",
            "ann@OLD.example",
            "list-a-request@x",
            "list-a@x",
            "list-a-owner@x",
            "123@x",
            "666@x",
            "1234@x",
            "noat",
            "x@any.example",
            "x@ANY.example",
            "x@else",
        ],
    ),
    (
        "pcre",
        "/^(?<user>\\w+)\\+(\\S+)@(.*)$/ $1@$(3) ext=$2\n/^(?!good)\\w+@neg\\.example$/ bad\nif !/\\.example$/\n/\\.org$/ org\nendif\n\
         !/@/x none\n/^a(?=b)/A ahead\n/(a|b)\\1@/ twice $1\n",
        &[
            "ann+list@example.org",
            "Ann+A.b@Example.org",
            "bad@neg.example",
            "good@neg.example",
            "x@a.org",
            "x@a.example",
            "plain",
            "ab@c",
            "aa@x",
            "ab@x.example",
        ],
    ),
    (
        "cidr",
        "192.0.2.1 one host\n!192.0.0.0/16 elsewhere\nif 192.0.2.0/25\n192.0.2.64/26 REJECT low\n192.0.2.0/26 OK\nendif\nif !192.0.2.128/25\n\
         192.0.2.0/24 never\nendif\n192.0.2.128/25 high\n2001:db8::/32 doc\n[2001:db9::1] bracket\n[2001:dba::]/32 bracket2\n::/0 any six\n",
        &[
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.65",
            "192.0.2.129",
            "192.0.3.1",
            "10.0.0.1",
            "2001:db8::5",
            "2001:DB8::5",
            "2001:db9::1",
            "2001:dba::9",
            "::1",
            "192.0.2",
            "name.example",
        ],
    ),
    ("inline", "{a=1, b=2 {c = e, f}, {G=h}, a=3}", &["a", "A", "b", "c", "C", "g", "G", "d", "e"]),
    ("static", "REJECT all of you", &["x", "user@example.org"]),
    ("static", "{ in braces }", &["y"]),
];

struct Postfix {
    folder: PathBuf,
}

impl Postfix {
    /// A folder for the config, the queue and the data of one instance.
    fn new(main: &str, master: &str) -> Self {
        // Postfix's own user must get there.
        let unique = format!("wasmta-tables-{}-{}", std::process::id(), free_port());
        let folder = std::env::temp_dir().join(unique);
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let dir = folder.display();
        let own = format!("compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\n");
        std::fs::write(folder.join("etc/main.cf"), own + main).unwrap();
        std::fs::write(folder.join("etc/master.cf"), master).unwrap();
        Self { folder }
    }

    fn command(&self, name: &str) -> Command {
        let path = format!("/usr/sbin:/usr/bin:/sbin:/bin:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(name);
        command.env("PATH", path).arg("-c").arg(self.folder.join("etc"));
        command
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name).args(arguments).output().unwrap()
    }

    fn installed() -> bool {
        ["/usr/sbin/postfix", "/usr/sbin/postmap"].iter().all(|program| Path::new(program).is_file())
    }

    /// What `postmap -q` says.
    fn look_up(&self, table: &str, key: &str) -> Option<String> {
        let output = self.tool("postmap", &["-q", key, table]);
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if self.folder.join("queue/pid/master.pid").exists() {
            self.tool("postfix", &["stop"]);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What `wasmta table query` says.
fn look_up(table: &str, key: &str) -> Option<(String, Option<u64>)> {
    let output = wasmta(Path::new("none.toml"), &["table", "query", table, "--json", key]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{table} {key}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(i32::from(answer["value"].is_null())), "{table} {key}");
    Some((answer["value"].as_str()?.to_owned(), answer["line"].as_u64()))
}

#[test]
fn lookups_are_those_of_postmap() {
    if !Postfix::installed() {
        return skip("tables::lookups_are_those_of_postmap", "needs postfix and postfix-pcre");
    }
    let postfix = Postfix::new("smtputf8_enable = yes\n", "");
    let mut asked = 0;
    let mut differ = String::new();
    for (index, (kind, text, keys)) in TABLES.into_iter().enumerate() {
        let table = if matches!(kind, "inline" | "static") {
            format!("{kind}:{text}")
        } else {
            let file = postfix.folder.join(format!("table-{index}"));
            std::fs::write(&file, text).unwrap();
            format!("{kind}:{}", file.display())
        };
        for key in keys {
            let (theirs, ours) = (postfix.look_up(&table, key), look_up(&table, key).map(|(value, _)| value));
            if theirs != ours {
                writeln!(differ, "{kind} {key:?}: {ours:?} instead of {theirs:?}").unwrap();
            }
            asked += 1;
        }
    }
    assert!(differ.is_empty(), "{differ}");
    assert!(asked >= 60, "{asked}");
}

#[test]
fn a_query_shows_the_line_that_answered() {
    let folder = Folder::new();
    let file = folder.write("virtual", "# first\nann@example.org ann\n\n@example.org\n  bob\n");
    let table = format!("hash:{}", file.display());
    assert_eq!(look_up(&table, "@example.org"), Some(("bob".into(), Some(4))));
    let plain = wasmta(Path::new("none.toml"), &["table", "query", &table, "ann@example.org"]);
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), format!("{}:2: ann\n", file.display()));
    let missing = wasmta(Path::new("none.toml"), &["table", "query", &table, "eve@example.org"]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(1), 0));
    let file = folder.write("broken", "a b\nc\n");
    let broken = wasmta(Path::new("none.toml"), &["table", "query", &format!("hash:{}", file.display()), "a"]);
    assert_eq!(broken.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&broken.stderr).contains(&format!("{}:2: ", file.display())));
}

/// The tables of a site, for Postfix and for wasmta.
const SITE: [(&str, &str); 10] = [
    (
        "aliases",
        "postmaster: ann\nroot: ann, bob\nsales: root, \"odd name\"@elsewhere.example\nself: self, ann\nnull: /dev/null\n\
         loop1: loop2\nloop2: loop1\nmissing: nobody-there\n",
    ),
    ("users", "ann x\nbob x\nself x\ndelimited+name x\n"),
    (
        "virtual",
        "info@virtual.example ann\nvx@virtual.example bob@example.test, eve@elsewhere.example\n@catch.example ann\n\
         old@example.test ann\nv+ext@virtual.example bob\nchain1@virtual.example chain2@virtual.example\nchain2@virtual.example ann\n\
         @map.example @virtual.example\nendless@virtual.example x.endless@virtual.example\n",
    ),
    ("mailboxes", "box@mail.example mail.example/box/\n@all.mail.example all/\n"),
    ("relay", "known@relay.example x\n@wild.relay.example x\n"),
    (
        "relocated",
        "gone@example.test gone@elsewhere.example\nleft@relay.example no longer there\n@moved.example somewhere\n",
    ),
    ("canonical", "ann.smith@example.test ann\n"),
    (
        "helo",
        "bad.helo.example REJECT bad helo\nparent.example 550 5.1.1 not this one\nfine.parent.example OK\n127.0.0.9 REJECT\n",
    ),
    (
        "senders",
        "bad@sender.example REJECT\nsender2.example 450 4.1.8 nope\nbounce@ REJECT 5.7.9 no bounces here\n<> DUNNO\n\
         deferreject@sender.example DEFER_IF_REJECT\ngood.sender2.example OK\n",
    ),
    (
        "recipients",
        "no@example.test REJECT not him\ncode@example.test 553 5.3.0 odd\nshort@example.test 450 wait\nper@example.test DEFER_IF_PERMIT\n\
         5xx@example.test 550 5.1.7 sender status\ndefer@ DEFER\nann@example.test DUNNO\nsub.virtual.example REJECT sub\n",
    ),
];

/// HELO, sender, recipient.
const SESSIONS: &[(&str, &str, &str)] = &[
    ("c.example", "a@example.org", "ann@example.test"),
    ("c.example", "a@example.org", "ANN@EXAMPLE.TEST"),
    ("c.example", "a@example.org", "ann+x@example.test"),
    ("c.example", "a@example.org", "nobody@example.test"),
    ("c.example", "a@example.org", "delimited+name@example.test"),
    ("c.example", "a@example.org", "root@example.test"),
    ("c.example", "a@example.org", "Root+x@example.test"),
    ("c.example", "a@example.org", "old@example.test"),
    ("c.example", "a@example.org", "ann.smith@example.test"),
    ("c.example", "a@example.org", "gone@example.test"),
    ("c.example", "a@example.org", "gone+x@example.test"),
    ("c.example", "a@example.org", "left@relay.example"),
    ("c.example", "a@example.org", "known@relay.example"),
    ("c.example", "a@example.org", "known+x@relay.example"),
    ("c.example", "a@example.org", "unknown@relay.example"),
    ("c.example", "a@example.org", "any@wild.relay.example"),
    ("c.example", "a@example.org", "info@virtual.example"),
    ("c.example", "a@example.org", "info+x@virtual.example"),
    ("c.example", "a@example.org", "none@virtual.example"),
    ("c.example", "a@example.org", "any@catch.example"),
    ("c.example", "a@example.org", "box@mail.example"),
    ("c.example", "a@example.org", "box+x@mail.example"),
    ("c.example", "a@example.org", "none@mail.example"),
    ("c.example", "a@example.org", "any@all.mail.example"),
    ("c.example", "a@example.org", "x@elsewhere.example"),
    ("c.example", "a@example.org", "x@moved.example"),
    ("c.example", "a@example.org", "x%elsewhere.example@example.test"),
    ("bad.helo.example", "a@example.org", "ann@example.test"),
    ("sub.bad.helo.example", "a@example.org", "ann@example.test"),
    ("x.parent.example", "a@example.org", "ann@example.test"),
    ("fine.parent.example", "a@example.org", "ann@example.test"),
    ("fine.parent.example", "a@example.org", "nobody@example.test"),
    ("c.example", "bad@sender.example", "ann@example.test"),
    ("c.example", "Bad+x@Sender.Example", "ann@example.test"),
    ("c.example", "a@sender2.example", "ann@example.test"),
    ("c.example", "a@x.sender2.example", "ann@example.test"),
    ("c.example", "a@good.sender2.example", "ann@example.test"),
    ("c.example", "bounce@any.example", "ann@example.test"),
    ("c.example", "", "ann@example.test"),
    ("c.example", "deferreject@sender.example", "ann@example.test"),
    ("c.example", "deferreject@sender.example", "nobody@example.test"),
    ("c.example", "a@example.org", "no@example.test"),
    ("c.example", "a@example.org", "code@example.test"),
    ("c.example", "a@example.org", "short@example.test"),
    ("c.example", "a@example.org", "per@example.test"),
    ("c.example", "a@example.org", "5xx@example.test"),
    ("c.example", "a@example.org", "defer@example.test"),
    ("c.example", "a@example.org", "x@sub.virtual.example"),
];

/// What a server says to each recipient; a yes counts as `250`.
fn replies(port: u16) -> Vec<String> {
    let ask = |(helo, sender, recipient): &(&str, &str, &str)| {
        let mut peer = Peer::connect(port);
        peer.expect("220");
        peer.say(&format!("EHLO {helo}"), "250");
        peer.say(&format!("MAIL FROM:<{sender}>"), "250");
        let reply = peer.say(&format!("RCPT TO:<{recipient}>"), "");
        let reply = reply.trim_end();
        if reply.starts_with("250") { "250".to_owned() } else { reply.to_owned() }
    };
    SESSIONS.iter().map(ask).collect()
}

fn site(folder: &Path) {
    for (name, text) in SITE {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// The site as wasmta's config has it; `more` are further lines for `[directory]`.
fn setup(more: &str) -> Setup {
    let setup = Setup::new();
    site(setup.folder());
    setup.directory(&format!(
        "local-domains = [\"example.test\"]\nrelay-domains = [\"relay.example\", \".relay.example\"]\ntrusted-networks = []\n\
         users = [\"ann\", \"bob\", \"self\", \"delimited+name\"]\naliases = [\"hash:aliases\"]\nvirtual-aliases = [\"hash:virtual\"]\n\
         virtual-alias-domains = [\"virtual.example\", \"catch.example\", \"map.example\", \"sub.virtual.example\"]\n\
         virtual-mailbox-domains = [\"mail.example\", \"all.mail.example\"]\nvirtual-mailboxes = [\"hash:mailboxes\"]\n\
         relay-recipients = [\"hash:relay\"]\nrelocated = [\"hash:relocated\"]\ncanonical = [\"hash:canonical\"]\n\
         helo-access = [\"hash:helo\"]\nsender-access = [\"hash:senders\"]\nrecipient-access = [\"hash:recipients\"]\n{more}"
    ))
}

#[test]
fn recipients_are_refused_as_by_postfix() {
    let root = rustix::process::geteuid().is_root();
    if !(root && Postfix::installed()) {
        return skip("tables::recipients_are_refused_as_by_postfix", "needs root and postfix");
    }
    let port = free_port();
    let postfix = Postfix::new("", "");
    let dir = postfix.folder.join("etc").display().to_string();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {0}/queue\ndata_directory = {0}/data\nmyhostname = mx.example.test\n\
         mydestination = example.test, mx.example.test\nmynetworks = 192.0.2.1\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
         relay_domains = relay.example\nalias_maps = hash:{dir}/aliases\nalias_database =\nrecipient_delimiter = +\n\
         local_recipient_maps = texthash:{dir}/users $alias_maps\nvirtual_alias_maps = texthash:{dir}/virtual\n\
         virtual_alias_domains = virtual.example catch.example map.example sub.virtual.example\n\
         virtual_mailbox_domains = mail.example all.mail.example\nvirtual_mailbox_maps = texthash:{dir}/mailboxes\n\
         virtual_mailbox_base = {0}/data\nvirtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n\
         relay_recipient_maps = texthash:{dir}/relay\nrelocated_maps = texthash:{dir}/relocated\ncanonical_maps = texthash:{dir}/canonical\n\
         smtpd_helo_restrictions = check_helo_access texthash:{dir}/helo\n\
         smtpd_sender_restrictions = check_sender_access texthash:{dir}/senders\n\
         smtpd_recipient_restrictions = check_recipient_access texthash:{dir}/recipients\n\
         smtpd_relay_restrictions = reject_unauth_destination\nsmtpd_peername_lookup = no\ndisable_dns_lookups = yes\n\
         maillog_file = {0}/log\nmaillog_file_prefixes = {0}\n",
        postfix.folder.display()
    );
    let master = format!(
        "127.0.0.1:{port} inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nproxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n\
         postlog unix-dgram n - n - 1 postlogd\nlocal unix - n n - - local\nerror unix - - n - - error\nretry unix - - n - - error\n\
         smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nvirtual unix - n n - - virtual\nbounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nscache unix - - n - 1 scache\npickup unix n - n 60 1 pickup\n"
    );
    std::fs::write(postfix.folder.join("etc/main.cf"), main).unwrap();
    std::fs::write(postfix.folder.join("etc/master.cf"), master).unwrap();
    let owned = Command::new("chown").arg("postfix").arg(postfix.folder.join("data")).status().unwrap();
    assert!(owned.success());
    site(&postfix.folder.join("etc"));
    let aliases = postfix.tool("postalias", &[&format!("hash:{dir}/aliases")]);
    assert!(aliases.status.success(), "{}", String::from_utf8_lossy(&aliases.stderr));
    let started = postfix.tool("postfix", &["start"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let theirs = replies(port);
    let mta = setup("").next_hop(free_port()).start();
    let ours = replies(mta.port);
    let mut differ = String::new();
    for (session, (theirs, ours)) in SESSIONS.iter().zip(theirs.iter().zip(&ours)) {
        if theirs != ours {
            writeln!(differ, "{session:?}:\n   {ours}\n   {theirs} (Postfix)").unwrap();
        }
    }
    assert!(differ.is_empty(), "{differ}");
    assert!(theirs.iter().filter(|reply| *reply == "250").count() > 10, "{theirs:?}");
}

fn deliver(mta: &Mta, recipients: &[&str]) {
    let mut peer = Peer::hello(mta.port);
    let reply = peer.deliver("a@example.org", recipients, "Subject: x\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn aliases_are_for_all_they_name_and_once() {
    let folder = Folder::new();
    let members = folder.write("members", "# the list\nann, bob@example.test\nsales\n");
    std::fs::set_permissions(&members, std::fs::Permissions::from_mode(0o644)).unwrap();
    let hop = free_port(); // nobody there: what is for elsewhere waits
    let setup = setup("always-bcc = \"archive\"\nany-user = true").next_hop(hop);
    let aliases = format!("{}everybody: :include:{}\n", SITE[0].1, members.display());
    let mta = setup.file("aliases", &aliases).start();
    deliver(&mta, &["everybody@example.test", "info@virtual.example", "vx@virtual.example"]);
    for user in ["ann", "bob", "archive"] {
        mta.maildir(user).wait_for(1);
    }
    let mail = mta.maildir("bob").wait_for(1).remove(0);
    assert!(mail.contains("Delivered-To: bob@"), "{mail}");
    let waiting = wait_for("what goes elsewhere", || Some(mta.queue()).filter(|queue| queue.len() == 1));
    let text = waiting[0].to_string();
    assert!(text.contains("odd name") && text.contains("eve@elsewhere.example"), "{text}");
    deliver(&mta, &["self@example.test"]);
    mta.maildir("self").wait_for(1);
    deliver(&mta, &["box+x@mail.example"]);
    let folder = mta.folder().join("data/virtual/mail.example/box/");
    Maildir(folder).wait_for(1);
}

#[test]
fn loops_and_what_cannot_be_delivered_are_refused() {
    let more = "commands: |/bin/true\nfiles: /tmp/x\nrelative: :include:members\nabsent: :include:/nonexistent/x\nodd: \"a b@\"\n";
    let setup = setup("").next_hop(free_port());
    let mta = setup.file("aliases", &(SITE[0].1.to_owned() + more)).start();
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    for (recipient, reply) in [
        ("loop1", "550 5.4.6 <loop1@example.test>: Recipient address rejected: alias database loop for loop1"),
        ("missing", "550 5.1.1 <missing@example.test>: Recipient address rejected: User unknown"),
        ("null", "250"),
        ("commands", "451 4.3.5"),
        ("files", "451 4.3.5"),
        ("relative", "451 4.3.5"),
        ("absent", "451 4.3.5"),
    ] {
        peer.say(&format!("RCPT TO:<{recipient}@example.test>"), reply);
    }
    peer.say("RCPT TO:<endless@virtual.example>", "550 5.1.1");
    let place = format!("{}:9: ", mta.folder().join("aliases").display());
    wait_for("the place in the log", || mta.log().contains(&place).then_some(()));
}

#[test]
fn a_table_that_changed_counts_and_a_broken_one_does_not() {
    let setup = setup("");
    let file = setup.folder().join("virtual");
    let mta = setup.next_hop(free_port()).start();
    let reply = |recipient: &str| {
        let mut peer = Peer::hello(mta.port);
        peer.say("MAIL FROM:<a@example.org>", "250");
        peer.say(&format!("RCPT TO:<{recipient}>"), "")
    };
    assert!(reply("new@virtual.example").starts_with("550 5.1.1"));
    std::fs::write(&file, "new@virtual.example ann\n").unwrap();
    wait_for("the new table", || reply("new@virtual.example").starts_with("250").then_some(()));
    assert!(reply("info@virtual.example").starts_with("550 5.1.1"));
    let mut broken = std::fs::File::options().append(true).open(&file).unwrap();
    broken.write_all(b"more@virtual.example bob\nbroken\n").unwrap();
    let fault = format!("{}:3: ", file.display());
    wait_for("the fault in the log", || mta.log().contains(&fault).then_some(()));
    assert!(reply("new@virtual.example").starts_with("250"));
    assert!(reply("more@virtual.example").starts_with("550 5.1.1"));
    std::fs::write(&file, "more@virtual.example bob\n").unwrap();
    wait_for("the mended table", || reply("more@virtual.example").starts_with("250").then_some(()));
}

#[test]
fn a_broken_table_is_found_before_the_start() {
    let setup = setup("").next_hop(free_port()).file("virtual", "a@b c\nbroken\n");
    let config = setup.write();
    let output = wasmta(&config, &["check"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("wasmta.toml:") && text.contains("virtual:2: "), "{text}");
}
