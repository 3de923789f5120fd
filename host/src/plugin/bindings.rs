//! What `wit/` says, as Rust: generated, nothing else.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "all",
    imports: {
        "wasmta:policy/kv": async | trappable,
        "wasmta:policy/dns": async | trappable,
        "wasmta:policy/net": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "wasmta:policy/types.session": crate::plugin::resource::SessionView,
        "wasmta:policy/types.envelope": crate::plugin::resource::EnvelopeView,
        "wasmta:policy/types.message": crate::plugin::resource::MessageView,
    },
});
