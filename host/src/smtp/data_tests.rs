#![allow(clippy::unwrap_used)]

use super::*;
use crate::units::ByteSize;

/// What the decoder makes of `wire`, cut at `cuts`: content, flaws, octets left behind the end.
fn decode(framing: Framing, config: &Config, wire: &[u8], piece: usize) -> (Vec<u8>, Flaws, Option<usize>) {
    let mut decoder = Decoder::new(framing, config);
    let mut out = Vec::new();
    let mut at = 0;
    for chunk in wire.chunks(piece.max(1)) {
        let step = decoder.decode(chunk, &mut out);
        at += step.consumed;
        if step.ended {
            return (out, decoder.flaws(), Some(wire.len() - at));
        }
        assert_eq!(step.consumed, chunk.len());
    }
    if framing == Framing::Counted {
        decoder.finish(&mut out);
    }
    (out, decoder.flaws(), None)
}

fn check_all_cuts(framing: Framing, config: &Config, wire: &[u8]) -> (Vec<u8>, Flaws, Option<usize>) {
    let whole = decode(framing, config, wire, wire.len());
    for piece in 1..wire.len() {
        let cut = decode(framing, config, wire, piece);
        assert_eq!((cut.1, cut.2), (whole.1, whole.2), "{:?} cut into {piece}", wire.escape_ascii().to_string());
        if !whole.1.any() {
            assert_eq!(cut.0, whole.0, "{:?} cut into {piece}", wire.escape_ascii().to_string());
        }
    }
    whole
}

#[test]
fn transparency() {
    for (wire, content) in [
        (&b".\r\n"[..], &b""[..]),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..\r\n..b\r\n.\r\n", b"a\r\n.\r\n.b\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"\x00\xff\r\n.\r\n", b"\x00\xff\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
    ] {
        let (out, flaws, rest) = check_all_cuts(Framing::Dots, &Config::default(), wire);
        assert_eq!((out.as_slice(), rest), (content, Some(0)), "{wire:?}");
        assert!(!flaws.any());
    }
}

/// Each has been taken for an end of data by some server in use; none is one here, and what follows stays part of the message.
#[test]
fn smuggling() {
    for form in [
        &b"\n.\n"[..],
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r",
        b"\r.\r\n",
        b"\r.\n",
        b"\n.\r",
        b"\n\n.\n\n",
        b"\r\n\x00.\r\n",
        b"\r\n.\x00\r\n",
        b"\r\r\n.\n",
        b"\n\r.\r\n",
        b"\r\n.\r\r\n",
        b"\r\n.\n\r\n",
        b"\r\n .\r\n",
        b"\r\n.\x20\r\n",
        b"\r\n.\x0b\r\n",
        b"\x0b.\x0b",
        "\u{2028}.\u{2028}".as_bytes(),
        "\u{85}.\u{85}".as_bytes(),
    ] {
        let wire =
            [b"Subject: x\r\n\r\ntext", form, b"MAIL FROM:<evil@a.example>\r\nRCPT TO:<b@c.example>\r\n", b"\r\n.\r\n"]
                .concat();
        let shown = form.escape_ascii().to_string();
        for mode in [BareLineEnds::Reject, BareLineEnds::Normalize] {
            let config = Config { bare_line_ends: mode, ..Config::default() };
            let (out, flaws, rest) = check_all_cuts(Framing::Dots, &config, &wire);
            assert_eq!(rest, Some(0), "{shown}: the end is the last CRLF.CRLF");
            let mut without_crlf = form.to_vec();
            while let Some(at) = memchr::memmem::find(&without_crlf, b"\r\n") {
                without_crlf.splice(at..at + 2, []);
            }
            let bare = memchr2(b'\r', b'\n', &without_crlf).is_some();
            assert_eq!(flaws.bare_cr || flaws.bare_lf, bare && mode == BareLineEnds::Reject, "{shown}: {flaws:?}");
            if mode == BareLineEnds::Normalize {
                assert!(memchr::memmem::find(&out, b"MAIL FROM:").is_some(), "{shown}");
                let mut stuffed = Vec::new();
                let mut encoder = Encoder::new(Framing::Dots);
                encoder.encode(&out, &mut stuffed);
                encoder.finish(&mut stuffed);
                assert_eq!(
                    memchr::memmem::find(&stuffed, b"\r\n.\r\n"),
                    Some(stuffed.len() - 5),
                    "{shown}: sent on, it ends once"
                );
            }
        }
    }
}

#[test]
fn counted() {
    for (wire, content, bare) in [
        (&b""[..], &b""[..], false),
        (b"a\r\n", b"a\r\n", false),
        (b"a", b"a\r\n", false),
        (b".\r\n", b".\r\n", false),
        (b"a\r\n.\r\nb", b"a\r\n.\r\nb\r\n", false),
        (b"a\r", b"", true),
        (b"a\nb", b"", true),
        (b"a\rb", b"", true),
    ] {
        let (out, flaws, _) = check_all_cuts(Framing::Counted, &Config::default(), wire);
        assert_eq!(flaws.any(), bare, "{wire:?}");
        if !bare {
            assert_eq!(out, content, "{wire:?}");
        }
    }
    let config = Config { bare_line_ends: BareLineEnds::Normalize, ..Config::default() };
    for (wire, content) in
        [(&b"a\nb"[..], &b"a\r\nb\r\n"[..]), (b"a\r", b"a\r\n"), (b"a\n", b"a\r\n"), (b"\r\r\n", b"\r\n\r\n")]
    {
        let (out, _, _) = check_all_cuts(Framing::Counted, &config, wire);
        assert_eq!(out, content, "{wire:?}");
    }
}

#[test]
fn limits() {
    let config = Config {
        max_message_size: ByteSize::from_bytes(10),
        max_text_line: ByteSize::from_bytes(6),
        nul_octets: NulOctets::Reject,
        ..Config::default()
    };
    for (wire, flaws) in [
        (&b"abc\r\nabc\r\n.\r\n"[..], Flaws::default()),
        (b"abc\r\nabc\r\n\r\n.\r\n", Flaws { too_large: true, ..Flaws::default() }),
        (b"..abc\r\n.\r\n", Flaws::default()),
        (b"abcde\r\n.\r\n", Flaws { long_line: true, ..Flaws::default() }),
        (b"a\0\r\n.\r\n", Flaws { nul: true, ..Flaws::default() }),
        (b"\0\r\n\0\r\n.\r\n", Flaws { nul: true, ..Flaws::default() }),
        (b"abcdefghijklm\n\r\n.\r\n", Flaws { too_large: true, long_line: true, bare_lf: true, ..Flaws::default() }),
    ] {
        assert_eq!(check_all_cuts(Framing::Dots, &config, wire).1, flaws, "{wire:?}");
    }
}

#[test]
fn stuffing_is_undone_by_decoding() {
    fastrand::seed(5);
    for _ in 0..3000 {
        let len = fastrand::usize(..40);
        let content: Vec<u8> = (0..len)
            .flat_map(|_| fastrand::choice([&b"\r\n"[..], b".", b"a", b"..", b"\0"]).unwrap().to_vec())
            .collect();
        let mut wire = Vec::new();
        let mut encoder = Encoder::new(Framing::Dots);
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(fastrand::usize(1..=rest.len()));
            encoder.encode(piece, &mut wire);
            rest = more;
        }
        encoder.finish(&mut wire);
        let (out, flaws, left) = decode(Framing::Dots, &Config::default(), &wire, fastrand::usize(1..=wire.len()));
        let mut expected = content;
        if !expected.is_empty() && !expected.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!((out, left), (expected, Some(0)));
        assert!(!flaws.any());
    }
}

#[test]
fn nothing_bare_is_ever_sent() {
    for (content, wire) in [
        (&b"a\nb\r\n"[..], &b"a\r\nb\r\n.\r\n"[..]),
        (b"a\rb", b"a\r\nb\r\n.\r\n"),
        (b"\r", b"\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\r", b"a\r\n..\r\n.\r\n"),
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
    ] {
        for piece in 1..=content.len().max(1) {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(Framing::Dots);
            for chunk in content.chunks(piece) {
                encoder.encode(chunk, &mut out);
            }
            encoder.finish(&mut out);
            assert_eq!(out, wire, "{content:?} in pieces of {piece}");
        }
    }
}
