//! How namespaces, keys, values and their ends lie in the tables.
//!
//! `entries`: length of the namespace's name (one octet), name, key → end of the value (8 octets, milliseconds since 1970, 0 for none),
//! value. `expiry`: end (8 octets), then the key as in `entries` → nothing. All numbers big-endian, so that they sort.

use crate::kv::change::Entry;

/// A key as it lies in `entries`; none if the namespace's name is too long.
pub(super) fn place(space: &str, key: &str) -> Option<Vec<u8>> {
    let mut place = Vec::with_capacity(1 + space.len() + key.len());
    place.push(u8::try_from(space.len()).ok()?);
    place.extend_from_slice(space.as_bytes());
    place.extend_from_slice(key.as_bytes());
    Some(place)
}

/// Namespace and key, if it can be read.
pub(super) fn parts(place: &[u8]) -> Option<(&str, &str)> {
    let (&len, rest) = place.split_first()?;
    let (space, key) = rest.split_at_checked(len.into())?;
    Some((std::str::from_utf8(space).ok()?, std::str::from_utf8(key).ok()?))
}

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut octets = Vec::with_capacity(8 + entry.value.len());
    octets.extend_from_slice(&entry.expires.unwrap_or(0).to_be_bytes());
    octets.extend_from_slice(&entry.value);
    octets
}

/// End and value.
pub(super) fn decode(octets: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (expires, value) = octets.split_first_chunk()?;
    Some((Some(u64::from_be_bytes(*expires)).filter(|expires| *expires > 0), value))
}

/// The row of `expiry` for a value that has an end.
pub(super) fn expiry_row(expires: u64, place: &[u8]) -> Vec<u8> {
    [&expires.to_be_bytes(), place].concat()
}

/// End and key of such a row.
pub(super) fn expiry_parts(row: &[u8]) -> Option<(u64, &[u8])> {
    let (expires, place) = row.split_first_chunk()?;
    Some((u64::from_be_bytes(*expires), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (space, key) in [("a", "k"), ("a", ""), ("", "a"), ("greylist", "192.0.2.1\0x")] {
            assert_eq!(place(space, key).as_deref().and_then(parts), Some((space, key)));
        }
        assert_eq!(place(&"x".repeat(256), "k"), None);
        // One namespace never reads as the beginning of another.
        assert_ne!(place("a", "bc"), place("ab", "c"));
        for expires in [None, Some(1), Some(u64::MAX)] {
            let entry = Entry { value: b"v".to_vec(), expires };
            assert_eq!(decode(&encode(&entry)), Some((expires, &b"v"[..])));
        }
        assert_eq!(expiry_parts(&expiry_row(7, b"p")), Some((7, &b"p"[..])));
    }

    #[test]
    fn what_was_damaged_is_none() {
        for octets in [&b""[..], b"\x02a", b"\x01\xff", b"\x00\xff"] {
            assert_eq!(parts(octets), None);
        }
        assert_eq!((decode(b"1234567"), expiry_parts(b"1234567")), (None, None));
    }
}
