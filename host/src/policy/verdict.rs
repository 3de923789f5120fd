//! What one policy says at one stage.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mail::Reply;

/// What one policy says at one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No objection; the next policy is asked.
    Pass,
    /// No objection, and the remaining policies of this stage are not asked.
    Accept,
    /// Refuse for good with this 5yz reply.
    Reject(Reply),
    /// Refuse for now with this 4yz reply.
    Defer(Reply),
    /// Refuse for now, but only if no other policy refuses for good (Postfix's DEFER_IF_PERMIT; greylisting).
    DeferIfPermit(Reply),
    /// Say 250 and throw the message away.
    Discard(String),
    /// Say 250 and keep the message on hold for the operator.
    Quarantine(String),
    /// Send this reply and close the connection.
    Disconnect(Reply),
    /// No objection, but make the client wait this long first.
    Delay(Duration),
}

impl Verdict {
    /// Whether what was judged is refused, for now or for good.
    pub fn refuses(&self) -> bool {
        matches!(self, Self::Reject(_) | Self::Defer(_) | Self::DeferIfPermit(_) | Self::Disconnect(_))
    }

    /// Whether nothing more can become of it: it is refused, or thrown away.
    pub fn ends(&self) -> bool {
        self.refuses() || matches!(self, Self::Discard(_))
    }
}

/// What counts as the verdict of a policy that trapped, timed out or could not be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// 451 4.3.0: the client comes back when the policy works again. Nothing unjudged passes.
    #[default]
    Defer,
    /// As if the policy were not there.
    Skip,
    /// 554 5.3.0.
    Reject,
    /// Accept on hold.
    Quarantine,
}

impl OnError {
    /// The verdict it stands for. The peer learns nothing of the plugin; the detail goes to the log.
    pub fn verdict(self, plugin: &str) -> Verdict {
        match self {
            Self::Defer => Verdict::Defer(Reply::transient(451, (3, 0), "a policy is unavailable, try again later")),
            Self::Skip => Verdict::Pass,
            Self::Reject => Verdict::Reject(Reply::permanent(554, (3, 0), "a policy is unavailable")),
            Self::Quarantine => Verdict::Quarantine(format!("policy {plugin} failed")),
        }
    }
}

/// Something a policy noticed, with the weight it suggests; the operator's `[score]` table has the last word on the weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Symbol {
    /// Upper-case name, unique within its plugin.
    pub name: String,
    /// Points; more is worse.
    pub weight: f64,
    /// For the log and `explain`.
    pub detail: String,
}
