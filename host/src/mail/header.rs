//! The header section of a message, cut into its fields without copying or changing an octet: RFC 5322 §2.2.

use std::ops::Range;

/// Why an octet string is no header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not printable ASCII without colon and space (RFC 5322 §2.2).
    #[error("malformed header field name")]
    Name,
    /// A bare CR or LF, a NUL, or a line break that no white space follows.
    #[error("a header field value may not hold a bare CR or LF, NUL, or a line break without folding")]
    Value,
}

/// Whether it can name a header field: printable US-ASCII without the colon.
pub fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|octet| (33..127).contains(octet) && *octet != b':')
}

/// Where the header section ends: the offset just past the empty line, or None if there is none yet.
/// `content` has CRLF line ends.
pub fn find_header_end(content: &[u8]) -> Option<usize> {
    if content.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memmem::find(content, b"\r\n\r\n").map(|at| at + 4)
}

/// One logical header field with its folding: where name and value lie in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The whole field, its last CRLF excluded.
    pub whole: Range<usize>,
    /// Octets of the name.
    pub name_len: usize,
}

/// A header section: the fields in order, without the empty line that ends it. Lines that are no field and come before the
/// empty line end the section as the empty line would (as in Postfix), so that nothing hides between header and body.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl HeaderBlock {
    /// Cuts the beginning of a message (CRLF line ends) into its header section and returns it with the offset where the
    /// body begins, past the empty line where there is one.
    pub fn parse(content: &[u8]) -> (Self, usize) {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = 0;
        let body = loop {
            let rest = content.get(at..).unwrap_or_default();
            let line_len = memchr::memmem::find(rest, b"\r\n").unwrap_or(rest.len());
            let next = (at + line_len + 2).min(content.len());
            let line = rest.get(..line_len).unwrap_or_default();
            if line.is_empty() {
                break next;
            }
            if matches!(line.first(), Some(b' ' | b'\t')) {
                match fields.last_mut() {
                    Some(field) => field.whole.end = at + line_len,
                    None => break at, // a continuation of nothing: body
                }
            } else {
                // RFC 5322 §4.5: white space between name and colon is obsolete, but must be understood.
                let colon = memchr::memchr(b':', line);
                let name = colon.and_then(|colon| line.get(..colon)).unwrap_or_default().trim_ascii_end();
                if !is_field_name(name) {
                    break at;
                }
                fields.push(Field { whole: at..at + line_len, name_len: name.len() });
            }
            if next >= content.len() {
                break content.len();
            }
            at = next;
        };
        let end = fields.last().map_or(0, |field| (field.whole.end + 2).min(content.len()));
        let mut bytes = content.get(..end).unwrap_or_default().to_vec();
        if !fields.is_empty() && !bytes.ends_with(b"\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        (Self { bytes, fields }, body)
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }
    /// Whether there is no field at all.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
    /// The octets of all fields, each with its CRLF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The whole field, folding kept, without its last CRLF.
    pub fn field(&self, index: usize) -> Option<&[u8]> {
        self.bytes.get(self.fields.get(index)?.whole.clone())
    }
    /// The name of a field.
    pub fn name(&self, index: usize) -> Option<&[u8]> {
        self.field(index)?.get(..self.fields.get(index)?.name_len)
    }
    /// What follows the colon, folding kept.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        let field = self.field(index)?;
        let colon = memchr::memchr(b':', field)?;
        field.get(colon + 1..)
    }
    /// The indices of all fields of a name, in order, without regard to case.
    pub fn indices_of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        (0..self.len()).filter(move |index| self.name(*index).is_some_and(|own| own.eq_ignore_ascii_case(name)))
    }
    /// Whether a field of that name is there.
    pub fn has(&self, name: &str) -> bool {
        self.indices_of(name.as_bytes()).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_folding() {
        let (block, body) = HeaderBlock::parse(b"A: 1\r\nB : 2\r\n 3\r\nC:\r\n\r\nbody\r\n");
        assert_eq!(block.len(), 3);
        assert_eq!(block.field(1), Some(&b"B : 2\r\n 3"[..]));
        assert_eq!(block.name(1), Some(&b"B"[..]));
        assert_eq!(block.value(2), Some(&b""[..]));
        assert_eq!(body, 23);
        assert!(block.has("b") && !block.has("d"));
    }

    #[test]
    fn no_header_at_all() {
        for (content, body) in [(&b""[..], 0), (b"\r\nx", 2), (b"no colon here\r\n\r\n", 0), (b" x\r\n", 0)] {
            let (block, at) = HeaderBlock::parse(content);
            assert!(block.is_empty());
            assert_eq!(at, body, "{content:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        let (block, body) = HeaderBlock::parse(b"A: 1\r\nnot a field\r\nB: 2\r\n\r\n");
        assert_eq!((block.len(), body), (1, 6));
    }

    #[test]
    fn header_without_body() {
        let (block, body) = HeaderBlock::parse(b"A: 1\r\n");
        assert_eq!((block.len(), body, block.as_bytes()), (1, 6, &b"A: 1\r\n"[..]));
        let (block, _) = HeaderBlock::parse(b"A: 1");
        assert_eq!(block.as_bytes(), b"A: 1\r\n");
    }
}
