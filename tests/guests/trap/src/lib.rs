//! Panics whenever it is asked. The session must go on with the verdict of `on-error`.

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package guest:trap; world plugin { export wasmta:policy/meta@0.1.0; export wasmta:policy/on-rcpt@0.1.0; }",
    world: "guest:trap/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "trap".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "panics whenever it is asked".into(),
            settings_schema: "{}".into(),
            symbols: vec![],
        }
    }

    fn configure(_: String) -> Result<(), ConfigError> {
        Ok(())
    }
}

impl OnRcpt for Plugin {
    fn run(_: &Session, _: &Envelope, _: Recipient) -> Verdict {
        panic!("as it must")
    }
}
