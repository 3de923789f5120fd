//! A full disk: 452 4.3.1, nothing acknowledged is lost, and the server recovers by itself when there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, Peer, Point, Setup, Sink, skip, wait_for};

/// A small disk in memory under the data directory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "none"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn mail_is_put_off_until_there_is_room() {
    let sink = Sink::start();
    let setup = Setup::new().next_hop(sink.port);
    let Some(disk) = SmallDisk::mount(&setup.folder().join("data")) else {
        return skip("disk_full::mail_is_put_off_until_there_is_room", "cannot mount a small disk (needs root)");
    };
    let mta = setup.start();
    sink.at(Point::Mail, Answer::Say("451 4.3.0 not now".into()));
    let mut peer = Peer::hello(mta.port);
    let body = ("y".repeat(76) + "\r\n").repeat(1500);
    let message = |number: usize| format!("Subject: {number}\r\n\r\n{body}");
    let mut taken = 0;
    let refusal = loop {
        let reply = peer.try_deliver("ann@example.test", "far@elsewhere.example", &message(taken));
        match reply.get(..3) {
            Some("250") => taken += 1,
            _ => break reply,
        }
        assert!(taken < 1000, "8 MiB must be full some time");
    };
    assert!(refusal.starts_with("452 4.3.1"), "{refusal}");
    assert!(taken > 10, "{taken}");
    // The session stands, and says the same again.
    peer.say("RSET", "250");
    assert!(peer.try_deliver("ann@example.test", "far@elsewhere.example", &message(0)).starts_with("452 4.3.1"));
    peer.say("RSET", "250");

    sink.behave();
    mta.command(&["queue", "flush"]);
    let arrived = wait_for("the acknowledged mail", || Some(sink.taken()).filter(|all| all.len() >= taken));
    assert_eq!(arrived.len(), taken, "what was not acknowledged was not kept");
    let reply = wait_for("room", || {
        let reply = peer.try_deliver("ann@example.test", "far@elsewhere.example", &message(0));
        peer.say("RSET", "250");
        reply.starts_with("250").then_some(reply)
    });
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    drop(mta);
    drop(disk);
}
