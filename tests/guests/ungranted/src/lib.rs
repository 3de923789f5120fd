//! Imports `kv`, which nobody granted: refused at load, with the line to add.

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_connect::{Guest as OnConnect, Session, Verdict};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package guest:ungranted; world plugin {
        import wasmta:policy/kv@0.1.0;
        export wasmta:policy/meta@0.1.0;
        export wasmta:policy/on-connect@0.1.0;
    }",
    world: "guest:ungranted/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "ungranted".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "wants more than it is given".into(),
            settings_schema: "{}".into(),
            symbols: vec![],
        }
    }

    fn configure(_: String) -> Result<(), ConfigError> {
        Ok(())
    }
}

impl OnConnect for Plugin {
    fn run(session: &Session) -> Verdict {
        match wasmta::policy::kv::get(&session.client_address()) {
            Ok(Some(_)) => Verdict::Accept,
            _ => Verdict::Pass,
        }
    }
}
