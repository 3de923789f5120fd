//! The next hop: takes what the queue says is due, hands it over, and reports one outcome for each recipient.
//!
//! `maildir` delivers to users of this host, `remote` to another host over SMTP.

mod maildir;
mod remote;
