//! How the opinions of many policies at one stage make one decision.

use std::time::Duration;

use super::{Symbol, Verdict};
use crate::mail::Reply;

/// What one policy brought forth at one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// Its name in the config.
    pub plugin: String,
    /// What it said.
    pub verdict: Verdict,
    /// What it noticed.
    pub symbols: Vec<Symbol>,
}

/// What the chain says at one stage, growing with every opinion.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    ended: Option<(String, Verdict)>,
    deferred: Option<(String, Reply)>,
    quarantine: Option<(String, String)>,
    delay: Duration,
    score: f64,
    symbols: Vec<(String, Symbol)>,
}

/// The longest that all policies together can make a client wait at one stage.
const MAX_DELAY: Duration = Duration::from_secs(60);

impl Decision {
    /// Takes one more opinion; true if the next policy of this stage is to be asked.
    pub fn add(&mut self, opinion: Opinion) -> bool {
        let Opinion { plugin, verdict, symbols } = opinion;
        for symbol in symbols {
            if symbol.weight.is_finite() {
                self.score += symbol.weight;
            }
            self.symbols.push((plugin.clone(), symbol));
        }
        match verdict {
            Verdict::Pass => true,
            Verdict::Delay(wait) => {
                self.delay = self.delay.saturating_add(wait).min(MAX_DELAY);
                true
            }
            // The first one counts; a later policy may still refuse for good.
            Verdict::DeferIfPermit(reply) => {
                self.deferred.get_or_insert((plugin, reply));
                true
            }
            Verdict::Quarantine(why) => {
                self.quarantine.get_or_insert((plugin, why));
                true
            }
            Verdict::Accept | Verdict::Reject(_) | Verdict::Defer(_) | Verdict::Discard(_) | Verdict::Disconnect(_) => {
                self.ended = Some((plugin, verdict));
                false
            }
        }
    }

    /// How long the client has to wait before it hears the reply.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The points of this stage.
    pub fn score(&self) -> f64 {
        self.score
    }

    /// What was noticed, and by whom.
    pub fn symbols(&self) -> &[(String, Symbol)] {
        &self.symbols
    }

    /// Who decided and what. `Accept`, `Pass` and `Delay` come out as `Pass`.
    pub fn outcome(self) -> (Option<String>, Verdict) {
        match (self.ended, self.deferred, self.quarantine) {
            (Some((plugin, verdict)), _, _) if verdict != Verdict::Accept => (Some(plugin), verdict),
            (_, Some((plugin, reply)), _) => (Some(plugin), Verdict::Defer(reply)),
            (_, None, Some((plugin, why))) => (Some(plugin), Verdict::Quarantine(why)),
            (ended, None, None) => (ended.map(|(plugin, _)| plugin), Verdict::Pass),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(verdicts: Vec<Verdict>) -> (usize, Verdict) {
        let mut decision = Decision::default();
        let mut asked = 0;
        for verdict in verdicts {
            asked += 1;
            if !decision.add(Opinion { plugin: asked.to_string(), verdict, symbols: Vec::new() }) {
                break;
            }
        }
        (asked, decision.outcome().1)
    }

    #[test]
    fn order_of_verdicts() {
        let later = Reply::transient(450, (2, 0), "later");
        let never = Reply::permanent(550, (7, 1), "never");
        let (defer_if, reject) = (Verdict::DeferIfPermit(later.clone()), Verdict::Reject(never));
        assert_eq!(decide(vec![Verdict::Pass, reject.clone(), Verdict::Pass]), (2, reject.clone()));
        assert_eq!(decide(vec![defer_if.clone(), reject.clone()]), (2, reject));
        assert_eq!(decide(vec![defer_if.clone(), Verdict::Pass]), (2, Verdict::Defer(later.clone())));
        assert_eq!(decide(vec![defer_if, Verdict::Accept]), (2, Verdict::Defer(later)));
        assert_eq!(decide(vec![Verdict::Accept, Verdict::Discard("x".into())]), (1, Verdict::Pass));
        let quarantine = Verdict::Quarantine("why".into());
        assert_eq!(decide(vec![quarantine.clone(), Verdict::Accept]), (2, quarantine));
    }

    #[test]
    fn scores_add_up_and_nonsense_does_not() {
        let mut decision = Decision::default();
        for weight in [1.5, f64::NAN, f64::INFINITY, -0.5] {
            let symbol = Symbol { name: "S".into(), weight, detail: String::new() };
            decision.add(Opinion { plugin: "p".into(), verdict: Verdict::Pass, symbols: vec![symbol] });
        }
        assert_eq!(decision.score(), 1.0);
    }
}
