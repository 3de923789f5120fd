//! From our vocabulary to the interface's and back. What a guest says is checked here: a verdict that cannot be is a failure.

use super::bindings::wasmta::policy::types as wit;
use crate::mail::{EnhancedStatus, Recipient, Reply, ReplyClass, ReplyText};
use crate::policy::{Stage, Verdict};

pub(super) fn wit_recipient(recipient: &Recipient) -> wit::Recipient {
    wit::Recipient { address: recipient.forward_path.to_string(), original: recipient.original.clone() }
}

/// The verdict of a guest, or why it is none.
pub(super) fn verdict(verdict: wit::Verdict, stage: Stage) -> Result<Verdict, String> {
    use ReplyClass::{Permanent, Transient};
    Ok(match verdict {
        wit::Verdict::Pass => Verdict::Pass,
        wit::Verdict::Accept => Verdict::Accept,
        wit::Verdict::Reject(own) => Verdict::Reject(reply(own, &[Permanent])?),
        wit::Verdict::Defer(own) => Verdict::Defer(reply(own, &[Transient])?),
        wit::Verdict::DeferIfPermit(own) => Verdict::DeferIfPermit(reply(own, &[Transient])?),
        wit::Verdict::Disconnect(own) => Verdict::Disconnect(reply(own, &[Transient, Permanent])?),
        wit::Verdict::Discard(_) | wit::Verdict::Quarantine(_) if matches!(stage, Stage::Connect | Stage::Helo) => {
            return Err(format!("there is no message to discard or quarantine at {stage}"));
        }
        wit::Verdict::Discard(why) => Verdict::Discard(ReplyText::lossy(&why).to_string()),
        wit::Verdict::Quarantine(why) => Verdict::Quarantine(ReplyText::lossy(&why).to_string()),
        wit::Verdict::Delay(millis) => Verdict::Delay(std::time::Duration::from_millis(millis.into())),
    })
}

fn reply(reply: wit::Reply, classes: &[ReplyClass]) -> Result<Reply, String> {
    let enhanced = match reply.enhanced {
        None => None,
        Some(status) => {
            Some(EnhancedStatus::new(status.class, status.subject, status.detail).ok_or_else(|| {
                format!("{}.{}.{} is no enhanced status", status.class, status.subject, status.detail)
            })?)
        }
    };
    // A CR is refused even before an LF: text of a guest is parted by LF alone.
    if reply.text.contains('\r') {
        return Err("its reply holds a CR".into());
    }
    let own =
        Reply::try_new(reply.code, enhanced, &reply.text).map_err(|err| format!("its reply cannot be sent: {err}"))?;
    if classes.contains(&own.class()) {
        Ok(own)
    } else {
        Err(format!("the code {} does not fit its verdict", own.code()))
    }
}
