//! How much each namespace holds, and whether it may hold more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Error, Space, SpaceUsage};

/// By namespace. While what lies on the disk is still being counted, it holds less than there is, and a quota is not met too early.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<BTreeMap<String, Held>>);

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    octets: i64,
    keys: i64,
}

/// What a change adds, or takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Delta {
    octets: i64,
    keys: i64,
}

impl Delta {
    /// From a value of one length to one of another; none: there is no value.
    pub(super) fn new(key: &str, before: Option<usize>, after: Option<usize>) -> Self {
        let octets = |value: Option<usize>| value.map_or(0, |len| i64::try_from(key.len() + len).unwrap_or(i64::MAX));
        Self { octets: octets(after) - octets(before), keys: i64::from(after.is_some()) - i64::from(before.is_some()) }
    }

    fn back(self) -> Self {
        Self { octets: -self.octets, keys: -self.keys }
    }
}

impl Usage {
    /// Makes room for a change, or says that there is none. What makes nothing more always may.
    pub(super) fn reserve(&self, space: &Space, delta: Delta) -> Result<(), Error> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(space.name()).copied().unwrap_or_default();
        let (octets, keys) = (own.octets.saturating_add(delta.octets), own.keys.saturating_add(delta.keys));
        let beyond = |now: i64, more: i64, most: u64| more > 0 && u64::try_from(now).unwrap_or(0) > most;
        if beyond(octets, delta.octets, space.quota.octets) || beyond(keys, delta.keys, space.quota.keys) {
            return Err(Error::Quota);
        }
        set(&mut held, space.name(), Held { octets, keys });
        Ok(())
    }

    /// Gives back what was reserved for a change that was not made.
    pub(super) fn release(&self, space: &Space, delta: Delta) {
        self.count(space.name(), delta.back());
    }

    /// Counts what is there already.
    pub(super) fn count(&self, name: &str, delta: Delta) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(name).copied().unwrap_or_default();
        let sum = Held { octets: own.octets + delta.octets, keys: own.keys + delta.keys };
        set(&mut held, name, sum);
    }

    pub(super) fn all(&self) -> Vec<SpaceUsage> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        held.iter()
            .map(|(name, own)| SpaceUsage {
                name: name.clone(),
                octets: unsigned(own.octets),
                keys: unsigned(own.keys),
            })
            .collect()
    }
}

/// Namespaces that hold nothing are forgotten.
fn set(held: &mut BTreeMap<String, Held>, name: &str, own: Held) {
    match held.get_mut(name) {
        _ if own.keys == 0 && own.octets == 0 => drop(held.remove(name)),
        Some(place) => *place = own,
        None => drop(held.insert(name.to_owned(), own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Quota;

    #[test]
    fn a_quota_is_met_exactly() {
        let usage = Usage::default();
        let space = Space::new("a", Quota { octets: 10, keys: 2 });
        let put = |key: &str, before, after| usage.reserve(&space, Delta::new(key, before, after));
        assert_eq!(put("k", None, Some(9)), Ok(()));
        assert_eq!(put("l", None, Some(0)), Err(Error::Quota)); // one octet too many
        assert_eq!(put("k", Some(9), Some(8)), Ok(()));
        assert_eq!(put("l", None, Some(0)), Ok(()));
        assert_eq!(put("", None, Some(0)), Err(Error::Quota)); // one key too many
        assert_eq!(put("l", Some(0), None), Ok(()));
        let held = |octets, keys| [SpaceUsage { name: "a".into(), octets, keys }];
        assert_eq!(usage.all(), held(9, 1));
        // A smaller quota takes nothing away, and lets nothing grow.
        let less = Space::new("a", Quota { octets: 3, keys: 0 });
        assert_eq!(usage.reserve(&less, Delta::new("k", Some(8), Some(7))), Ok(()));
        assert_eq!(usage.reserve(&less, Delta::new("k", Some(7), Some(8))), Err(Error::Quota));
        usage.release(&space, Delta::new("k", Some(8), Some(7)));
        assert_eq!(usage.all(), held(9, 1));
        assert_eq!(put("k", Some(8), None), Ok(()));
        assert!(usage.all().is_empty());
    }
}
