//! The plugin `greylist`: what the real postgrey says of each case, and the whole server with it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Folder, Peer, Setup, free_port, skip, wait_for};

/// Any moment: the cases count from it.
const BEGIN: u64 = 1_000_000_000;

/// A postgrey of the tests' own; ended when dropped.
struct Postgrey {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Postgrey {
    fn start(table: &Value) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let database = folder.path().join("db");
        std::fs::create_dir(&database).unwrap();
        let mut command = Command::new("postgrey");
        command.arg(format!("--inet=127.0.0.1:{port}")).arg(format!("--dbdir={}", database.display()));
        command.args(["--user=root", "--group=root"]);
        for (kind, option) in [("clients", "--whitelist-clients"), ("recipients", "--whitelist-recipients")] {
            let file = folder.write(kind, table[kind].as_str().unwrap());
            command.arg(format!("{option}={}", file.display()));
        }
        command.args(table["options"].as_array().unwrap().iter().map(|option| option.as_str().unwrap()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, port, _folder: folder }
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = wait_for("postgrey", || TcpStream::connect(("127.0.0.1", self.port)).ok());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Postgrey {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it says to one request of Postfix's policy protocol, without what differs between hosts and days.
fn ask(stream: &mut BufReader<TcpStream>, step: &Value) -> String {
    let text = |index: usize| step[index].as_str().unwrap();
    let request = format!(
        "request=smtpd_access_policy\nclient_name={}\nclient_address={}\nsender={}\nrecipient={}\ninstance={}\netrn_domain=\n\
         policy_test_time={}\n\n",
        text(1),
        text(2),
        text(3),
        text(4),
        text(5),
        BEGIN + step[0].as_u64().unwrap()
    );
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    stream.read_line(&mut String::new()).unwrap();
    let action = answer.trim_end().strip_prefix("action=").unwrap();
    match action.split_once(" seconds by ") {
        Some((delayed, _)) => format!("{delayed} seconds"),
        None => action.to_owned(),
    }
}

#[test]
fn the_real_postgrey_agrees_with_the_cases() {
    if Command::new("postgrey").arg("--version").output().is_err() {
        return skip("greylist", "postgrey is not installed");
    }
    if !rustix::process::getuid().is_root() {
        return skip("greylist", "postgrey changes its user, which only root may");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/greylist/cases.json");
    let tables: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut cases, mut differ) = (0, Vec::new());
    for table in &tables {
        let postgrey = Postgrey::start(table);
        let mut stream = postgrey.connect();
        for case in table["cases"].as_array().unwrap() {
            cases += 1;
            for step in case["steps"].as_array().unwrap() {
                let action = ask(&mut stream, step);
                if step[6] != action.as_str() {
                    differ.push(format!("{}: {step}: {action}", case["name"]));
                }
            }
        }
    }
    assert!(cases >= 60, "{cases}");
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A server whose clients are nobody's own.
fn greylisting(settings: &str) -> Setup {
    let settings = format!("grants = [\"kv\"]\nsettings = {{ {settings} }}");
    Setup::new()
        .directory("local-domains = [\"example.test\"]\nusers = [\"ann\"]\ntrusted-networks = []")
        .plugin("greylist", "greylist", &settings)
}

const LATER: &str = "450 4.2.0 <ann@example.test>: Recipient address rejected: Greylisted, see \
                     http://postgrey.schweikert.ch/help/example.test.html";

/// One RCPT in a transaction of its own.
fn rcpt(peer: &mut Peer, recipient: &str) -> String {
    peer.say("RSET", "250");
    peer.say("MAIL FROM:<bob@example.org>", "250");
    peer.send(format!("RCPT TO:<{recipient}>\r\n").as_bytes()).unwrap();
    peer.reply().unwrap().trim_end().to_owned()
}

#[test]
fn who_comes_back_is_let_in_with_a_field() {
    let mut mta = greylisting("delay = \"2s\", hostname = \"mx.example.test\"").start();
    let mut peer = Peer::hello(mta.port);
    assert_eq!(rcpt(&mut peer, "ann@example.test"), LATER);
    assert_eq!(rcpt(&mut peer, "ann@example.test"), LATER);
    // Who may not wait: postmaster's mail, in any case.
    assert!(rcpt(&mut peer, "Postmaster@example.test").starts_with("250"));
    // It lasts.
    mta.kill9();
    mta.restart();
    let mut peer = Peer::hello(mta.port);
    wait_for("the end of the delay", || rcpt(&mut peer, "ann@example.test").starts_with("250").then_some(()));
    peer.say("RSET", "250");
    peer.deliver("bob@example.org", &["ann@example.test"], "Subject: late\r\n\r\nx\r\n");
    let mail = mta.maildir("ann").wait_for(1).remove(0);
    let field = mail.lines().find(|line| line.starts_with("X-Greylist: ")).unwrap_or_else(|| panic!("{mail}"));
    assert!(field.starts_with("X-Greylist: delayed "), "{field}");
    assert!(field.contains(" seconds by greylist-") && field.contains(" at mx.example.test; "), "{field}");
    assert!(field.ends_with(" UTC"), "{field}");
    // The next one had not to wait and says nothing of it.
    peer.deliver("bob@example.org", &["ann@example.test"], "Subject: next\r\n\r\nx\r\n");
    let mails = mta.maildir("ann").wait_for(2);
    assert_eq!(mails.iter().filter(|mail| mail.contains("X-Greylist")).count(), 1);
}

#[test]
fn what_the_message_is_refused_for_is_no_success() {
    let setup = greylisting("delay = \"1s\"").plugin("words", "subject-words", "settings = { words = [\"lottery\"] }");
    let mta = setup.start();
    let mut peer = Peer::hello(mta.port);
    assert_eq!(rcpt(&mut peer, "ann@example.test"), LATER);
    wait_for("the end of the delay", || rcpt(&mut peer, "ann@example.test").starts_with("250").then_some(()));
    peer.say("RSET", "250");
    let refused = peer.try_deliver("bob@example.org", "ann@example.test", "Subject: lottery\r\n\r\nx\r\n");
    assert!(refused.starts_with("550"), "{refused}");
    // It is let in, and told that it waited, as if for the first time.
    peer.deliver("bob@example.org", &["ann@example.test"], "Subject: sorry\r\n\r\nx\r\n");
    assert!(mta.maildir("ann").wait_for(1).remove(0).contains("X-Greylist: delayed "));
}

#[test]
fn own_clients_do_not_wait() {
    let setup = Setup::new().plugin("greylist", "greylist", "grants = [\"kv\"]");
    let mta = setup.start();
    Peer::hello(mta.port).deliver("bob@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
}

#[test]
fn a_wrong_whitelist_is_named_with_its_line() {
    let setup = greylisting("whitelist-clients = [{ file = \"white\" }]").file("white", "a.example\n192.0.2.0/40\n");
    let output = crate::support::wasmta(&setup.write(), &["check"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("white:2: ") && said.contains("192.0.2.0/40"), "{said}");
}
