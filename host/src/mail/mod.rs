//! The vocabulary of mail, in the words of RFC 5321. Pure: no clock, no disk, no network.
//!
//! Architecture invariant: this room imports no other room.

mod address;
mod envelope;
mod header;
mod id;
mod reply;

pub use address::{AddressError, Domain, ForwardPath, Host, LocalPart, Mailbox, ReversePath};
pub use envelope::{BodyType, DsnReturn, Envelope, Notify, Origin, Recipient};
pub use header::{Field, HeaderBlock, HeaderError, find_header_end, is_field_name};
pub use id::QueueId;
pub use reply::{EnhancedStatus, Reply, ReplyClass, ReplyError, ReplyText};
