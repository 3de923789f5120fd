//! `score`: symbols and their points.

use super::super::bindings::wasmta::policy::score::Host;
use super::super::context::Context;
use crate::policy::Symbol;

/// Symbols of one call.
const MAX_SYMBOLS: usize = 1000;
/// Octets of a symbol's name.
const MAX_NAME: usize = 64;

impl Host for Context {
    fn raise(&mut self, symbol: String, weight: f64, detail: String) -> wasmtime::Result<()> {
        let named = !symbol.is_empty()
            && symbol.len() <= MAX_NAME
            && symbol.bytes().all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'_');
        if !named {
            wasmtime::bail!("a symbol is named with up to {MAX_NAME} of A-Z, 0-9 and _");
        }
        if !weight.is_finite() {
            wasmtime::bail!("the weight of {symbol} is no number");
        }
        if self.symbols.len() >= MAX_SYMBOLS {
            wasmtime::bail!("a call may raise {MAX_SYMBOLS} symbols");
        }
        self.symbols.push(Symbol { name: symbol, weight, detail: super::log::clean(&detail) });
        Ok(())
    }

    fn total(&mut self) -> wasmtime::Result<f64> {
        Ok(self.score_before)
    }
}
