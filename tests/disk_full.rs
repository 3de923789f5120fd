//! A full disk: 452 4.3.1, nothing acknowledged is lost, and the server recovers by itself when there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, Peer, Point, Setup, Sink, skip, wait_for};

const SMALL_QUEUE: &str = "[queue]\nsegment-size = \"2 MiB\"\nmin-free = \"4 MiB\"";

/// A small disk in memory under the data directory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m,mode=0700", "none"]).arg(at).output();
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
    let setup = Setup::new().next_hop(sink.port).tables(SMALL_QUEUE);
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
        assert!(taken < 1000, "32 MiB must be full some time");
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

#[test]
fn a_disk_that_others_fill_is_survived() {
    let setup = Setup::new().tables(SMALL_QUEUE);
    let data = setup.folder().join("data");
    let Some(disk) = SmallDisk::mount(&data) else {
        return skip("disk_full::a_disk_that_others_fill_is_survived", "cannot mount a small disk (needs root)");
    };
    let mta = setup.start();
    let mut peer = Peer::hello(mta.port);
    let taken = std::cell::Cell::new(0);
    let deliver = |peer: &mut Peer| {
        let reply = peer.try_deliver("a@example.org", "ann@example.test", "Subject: x\r\n\r\nx\r\n");
        taken.set(taken.get() + usize::from(reply.starts_with("250")));
        peer.say("RSET", "250");
        reply
    };
    assert!(deliver(&mut peer).starts_with("250 2.0.0"));
    mta.maildir("ann").wait_for(1);
    for _ in 0..3 {
        let filler = data.join("filler");
        // Until there is not one octet left.
        let full = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap());
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        wait_for("452", || deliver(&mut peer).starts_with("452 4.3.1").then_some(()));
        std::fs::remove_file(&filler).unwrap();
        wait_for("room", || deliver(&mut peer).starts_with("250 2.0.0").then_some(()));
    }
    // What was taken when there was room in the spool but none for the Maildir is still there.
    mta.command(&["queue", "flush"]);
    wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
    assert_eq!(mta.maildir("ann").mails().len(), taken.get());
    drop(mta);
    drop(disk);
}
