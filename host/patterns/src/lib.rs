//! Postfix's `regexp:` and `pcre:` tables: read, translated, and looked up. `man 5 regexp_table`, `man 5 pcre_table`.
//!
//! A crate of its own because two programs need it: the host for its lookup tables, and the policy `header-checks`, which is built for
//! another target. It knows no files and no actions: text goes in, and what stands behind the first pattern that matches comes out.

#![deny(unsafe_code)]

mod engine;
mod rules;
mod syntax;
mod table;

pub use engine::Budget;
pub use rules::{Hit, Rules, Source};
pub use syntax::Dialect;
pub use table::{Fault, Part, Reply, is_space, logical_lines};
