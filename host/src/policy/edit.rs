//! The changes a policy asks for, as an ordered log. They take effect together, when its hook has returned, or not at all.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Mail;
use crate::mail::{Envelope, ForwardPath, HeaderBlock, HeaderError, Recipient, ReversePath, is_field_name};

/// Octets of a field that are shown to people.
const MAX_SHOWN: usize = 400;

/// One change. Header indices and body offsets mean the message as the hook saw it, whatever the same hook changed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A field before the one at this index; an index equal to the number of fields means after the last.
    InsertHeader {
        /// Where.
        index: usize,
        /// The whole field, folding kept, without its last CRLF.
        field: Vec<u8>,
    },
    /// Another field in place of the one at this index.
    ReplaceHeader {
        /// Which.
        index: usize,
        /// The whole new field.
        field: Vec<u8>,
    },
    /// The field at this index goes.
    RemoveHeader {
        /// Which.
        index: usize,
    },
    /// These octets of the body become others. Ranges of one hook may not overlap.
    ReplaceBody {
        /// Which octets.
        range: Range<u64>,
        /// What stands there instead, with CRLF line ends.
        with: Vec<u8>,
    },
    /// One more recipient (never told to the sender: a blind copy).
    AddRecipient(ForwardPath),
    /// One recipient less.
    RemoveRecipient(ForwardPath),
    /// This one instead of all.
    Redirect(ForwardPath),
    /// Another reverse-path.
    ReversePath(ReversePath),
    /// Keep it for the operator, for this reason.
    Hold(String),
    /// Send it to this transport and next hop, whatever routing says.
    Filter(String),
}

/// For people. A field is shown as it will stand there, the octets of a body are not.
impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |field: &[u8]| String::from_utf8_lossy(field.get(..MAX_SHOWN).unwrap_or(field)).into_owned();
        match self {
            Self::InsertHeader { index, field } => write!(f, "inserts header field {index}: {}", shown(field)),
            Self::ReplaceHeader { index, field } => write!(f, "replaces header field {index}: {}", shown(field)),
            Self::RemoveHeader { index } => write!(f, "removes header field {index}"),
            Self::ReplaceBody { range, with } => {
                write!(f, "replaces octets {} to {} of the body by {}", range.start, range.end, with.len())
            }
            Self::AddRecipient(path) => write!(f, "adds the recipient {path}"),
            Self::RemoveRecipient(path) => write!(f, "removes the recipient {path}"),
            Self::Redirect(path) => write!(f, "redirects to {path}"),
            Self::ReversePath(path) => write!(f, "sets the sender to <{path}>"),
            Self::Hold(why) => write!(f, "holds: {why}"),
            Self::Filter(to) => write!(f, "sends to {to}"),
        }
    }
}

/// Why an edit cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no header field with that index.
    #[error("there is no header field {0}")]
    NoSuchField(usize),
    /// Octets that cannot stand in a header field.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Outside the body, or over another edit's range.
    #[error("body range {0:?} is outside the body or overlaps another edit")]
    Range(Range<u64>),
    /// A body edit that holds a bare CR or LF, which could end the message early for somebody else.
    #[error("a body edit may not hold a bare CR or LF")]
    BareLineEnd,
    /// The body could not be read.
    #[error("the body cannot be read: {0}")]
    Body(String),
}

/// Whether `field` is one header field: name, colon, a value whose line breaks are all folded.
pub(crate) fn check_field(field: &[u8]) -> Result<(), HeaderError> {
    let colon = memchr::memchr(b':', field).ok_or(HeaderError::Name)?;
    if !is_field_name(field[..colon].trim_ascii_end()) {
        return Err(HeaderError::Name);
    }
    let value = &field[colon + 1..];
    let sound = value.iter().enumerate().all(|(at, octet)| match octet {
        0 => false,
        b'\r' => value.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && value[at - 1] == b'\r' && matches!(value.get(at + 1), Some(b' ' | b'\t')),
        _ => true,
    });
    if sound { Ok(()) } else { Err(HeaderError::Value) }
}

fn check_line_ends(octets: &[u8]) -> Result<(), EditError> {
    let sound = octets.iter().enumerate().all(|(at, octet)| match octet {
        b'\r' => octets.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && octets[at - 1] == b'\r',
        _ => true,
    });
    if sound { Ok(()) } else { Err(EditError::BareLineEnd) }
}

impl Edit {
    /// Whether it can be done to a message of so many header fields and so long a body.
    pub fn check(&self, fields: usize, body: u64) -> Result<(), EditError> {
        match self {
            Self::InsertHeader { index, field } if *index <= fields => Ok(check_field(field)?),
            Self::ReplaceHeader { index, field } if *index < fields => Ok(check_field(field)?),
            Self::RemoveHeader { index } if *index < fields => Ok(()),
            Self::InsertHeader { index, .. } | Self::ReplaceHeader { index, .. } | Self::RemoveHeader { index } => {
                Err(EditError::NoSuchField(*index))
            }
            Self::ReplaceBody { range, with } => {
                if range.start > range.end || range.end > body {
                    return Err(EditError::Range(range.clone()));
                }
                check_line_ends(with)
            }
            _ => Ok(()),
        }
    }
}

/// The message after the edits, in order. A body that changes is built anew in memory; the caller bounds its size.
pub fn apply(mail: &mut Mail, edits: Vec<Edit>) -> Result<(), EditError> {
    let fields = mail.header.len();
    for edit in &edits {
        edit.check(fields, mail.body.len())?;
    }
    let body = edited_body(mail, &edits)?;
    let header = edited_header(&mail.header, &edits);
    if let Some(body) = body {
        mail.body = Arc::new(body);
    }
    if let Some(header) = header {
        mail.header = Arc::new(header);
    }
    for edit in edits {
        match edit {
            Edit::Hold(why) => mail.hold = Some(why),
            Edit::Filter(destination) => mail.filter = Some(destination),
            Edit::AddRecipient(_) | Edit::RemoveRecipient(_) | Edit::Redirect(_) | Edit::ReversePath(_) => {
                edit_envelope(Arc::make_mut(&mut mail.envelope), edit);
            }
            Edit::InsertHeader { .. }
            | Edit::ReplaceHeader { .. }
            | Edit::RemoveHeader { .. }
            | Edit::ReplaceBody { .. } => {}
        }
    }
    Ok(())
}

fn edit_envelope(envelope: &mut Envelope, edit: Edit) {
    match edit {
        Edit::AddRecipient(path) if envelope.recipients.iter().all(|known| known.forward_path != path) => {
            // The sender did not name this one and hears nothing of it.
            let notify = Some(crate::mail::Notify::NEVER);
            envelope.recipients.push(Recipient { notify, ..Recipient::new(path) });
        }
        Edit::RemoveRecipient(path) => envelope.recipients.retain(|known| known.forward_path != path),
        Edit::Redirect(path) => envelope.recipients = vec![Recipient::new(path)],
        Edit::ReversePath(path) => envelope.reverse_path = path,
        _ => {}
    }
}

fn edited_header(header: &HeaderBlock, edits: &[Edit]) -> Option<HeaderBlock> {
    let mut before: Vec<Vec<&[u8]>> = vec![Vec::new(); header.len() + 1];
    let mut own: Vec<Option<&[u8]>> = (0..header.len()).map(|index| header.field(index)).collect();
    let mut changed = false;
    for edit in edits {
        changed |= match edit {
            Edit::InsertHeader { index, field } => before.get_mut(*index).map(|at| at.push(field)).is_some(),
            Edit::ReplaceHeader { index, field } => own.get_mut(*index).map(|at| *at = Some(field)).is_some(),
            Edit::RemoveHeader { index } => own.get_mut(*index).map(|at| *at = None).is_some(),
            _ => false,
        };
    }
    if !changed {
        return None;
    }
    let mut bytes = Vec::with_capacity(header.as_bytes().len() + 256);
    for (index, inserted) in before.iter().enumerate() {
        for field in inserted.iter().copied().chain(own.get(index).copied().flatten()) {
            bytes.extend_from_slice(field);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    Some(HeaderBlock::parse(&bytes).0)
}

fn edited_body(mail: &Mail, edits: &[Edit]) -> Result<Option<Vec<u8>>, EditError> {
    let mut splices: Vec<(&Range<u64>, &[u8])> = edits
        .iter()
        .filter_map(|edit| match edit {
            Edit::ReplaceBody { range, with } => Some((range, with.as_slice())),
            _ => None,
        })
        .collect();
    if splices.is_empty() {
        return Ok(None);
    }
    splices.sort_by_key(|(range, _)| (range.start, range.end)); // stable: insertions at one place keep their order
    let mut body = Vec::new();
    let mut at = 0;
    for (range, with) in splices {
        if range.start < at {
            return Err(EditError::Range(range.clone()));
        }
        copy(mail, at..range.start, &mut body)?;
        body.extend_from_slice(with);
        at = range.end;
    }
    copy(mail, at..mail.body.len(), &mut body)?;
    check_line_ends(&body)?;
    Ok(Some(body))
}

fn copy(mail: &Mail, range: Range<u64>, into: &mut Vec<u8>) -> Result<(), EditError> {
    let len = usize::try_from(range.end - range.start).map_err(|_| EditError::Range(range.clone()))?;
    let start = into.len();
    into.resize(start + len, 0);
    match mail.body.read_at(range.start, &mut into[start..]) {
        Ok(n) if n == len => Ok(()),
        Ok(_) => Err(EditError::Body("it is shorter than it was".into())),
        Err(err) => Err(EditError::Body(err.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyType, Origin, QueueId};
    use crate::policy::Notes;

    fn mail() -> Mail {
        Mail {
            id: QueueId::from_u64(1),
            envelope: Arc::new(Envelope {
                reverse_path: ReversePath::Null,
                recipients: vec![Recipient::new(ForwardPath::Postmaster)],
                body: BodyType::SevenBit,
                smtputf8: false,
                ret: None,
                envelope_id: None,
                origin: Origin { client: None, helo: String::new(), protocol: "SMTP".into() },
            }),
            header: Arc::new(HeaderBlock::parse(b"A: 1\r\nB: 2\r\n 3\r\nC: 4\r\n\r\n").0),
            body: Arc::new(b"one\r\ntwo\r\n".to_vec()),
            hold: None,
            filter: None,
            notes: Notes::default(),
        }
    }

    #[test]
    fn header_edits_mean_the_header_as_it_was() {
        let mut mail = mail();
        let edits = vec![
            Edit::RemoveHeader { index: 0 },
            Edit::InsertHeader { index: 1, field: b"X: y".to_vec() },
            Edit::ReplaceHeader { index: 1, field: b"B: new".to_vec() },
            Edit::InsertHeader { index: 3, field: b"Z: end".to_vec() },
        ];
        apply(&mut mail, edits).expect("sound edits");
        assert_eq!(mail.header.as_bytes(), b"X: y\r\nB: new\r\nC: 4\r\nZ: end\r\n");
    }

    #[test]
    fn body_edits() {
        let mut edited = mail();
        let splice = |range, with: &[u8]| Edit::ReplaceBody { range, with: with.to_vec() };
        apply(&mut edited, vec![splice(5..10, b""), splice(0..0, b"zero\r\n")]).expect("sound edits");
        assert_eq!(edited.body.as_slice(), Some(&b"zero\r\none\r\n"[..]));
        for bad in [
            vec![splice(0..4, b"")],
            vec![splice(0..11, b"")],
            vec![splice(0..5, b""), splice(3..10, b"")],
            vec![splice(0..5, b"a\n")],
        ] {
            assert!(apply(&mut mail(), bad).is_err());
        }
    }

    #[test]
    fn nothing_forged() {
        for bad in [&b"A"[..], b"A B: c", b"A: b\r\nC: d", b"A: b\n c", b"A: b\r", b": x", b"A: \0", b"A: b\r\n"] {
            assert!(check_field(bad).is_err(), "{bad:?}");
        }
        assert!(check_field(b"A: b\r\n c").is_ok());
    }

    #[test]
    fn envelope_edits() {
        let mut mail = mail();
        let path: ForwardPath = "a@b.example".parse().expect("well-formed");
        apply(&mut mail, vec![Edit::AddRecipient(path.clone()), Edit::AddRecipient(path.clone())]).expect("sound");
        assert_eq!(mail.envelope.recipients.len(), 2);
        apply(&mut mail, vec![Edit::Redirect(path), Edit::Hold("look".into())]).expect("sound");
        assert_eq!((mail.envelope.recipients.len(), mail.hold.as_deref()), (1, Some("look")));
    }
}
