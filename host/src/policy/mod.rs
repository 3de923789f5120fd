//! Judgement: what is judged, what a policy may say of it, and how many policies make one decision. Pure; no WebAssembly in it.
//!
//! Architecture invariant: a policy is whatever implements a hook; this room does not know that it is a component.

mod call;
mod chain;
mod edit;
mod score;
mod subject;
mod verdict;

pub use call::{Call, Event, Events, told};
pub use chain::{Decision, Opinion};
pub use edit::{Edit, EditError, apply};
pub use score::{Scoring, Tally, shown};
pub use subject::{Content, Mail, Notes, Session, Stage, TlsFacts};
pub use verdict::{OnError, Symbol, Verdict};
