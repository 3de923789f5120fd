//! `types`: sessions, envelopes and messages as a policy sees them. They stay here; the guest reads what it asks for.
//!
//! Numbers from a guest are hostile: each is checked against what there is. A guest that asks for what cannot be gets an
//! error where the interface has one, and a trap where it has none.

use std::sync::{Arc, OnceLock};

use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::wasmta::policy::types::{
    Host, HostEnvelope, HostMessage, HostSession, Part as WitPart, Recipient as WitRecipient, TlsInfo,
};
use super::context::Context;
use super::mime::{self, Parts};
use crate::mail::{Envelope, ForwardPath, QueueId, ReplyText, ReversePath};
use crate::policy::{Edit, Mail, Notes, Session};

/// Octets that one read hands to a guest.
const MAX_READ: usize = 1024 * 1024;
/// Octets of a note's key.
const MAX_KEY: usize = 256;
/// Octets of a reason or a destination.
const MAX_TEXT: usize = 1024;

/// A session, lent.
pub struct SessionView(pub Arc<Session>);

/// An envelope, lent.
pub struct EnvelopeView {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    pub announced_size: Option<u64>,
    pub notes: Notes,
}

/// A message, lent.
pub struct MessageView {
    pub mail: Mail,
    pub parts: OnceLock<std::result::Result<Parts, String>>,
}

impl Host for Context {}

impl Context {
    fn session(&self, view: &Resource<SessionView>) -> Result<&Session> {
        Ok(&self.table.get(view)?.0)
    }
    fn envelope(&self, view: &Resource<EnvelopeView>) -> Result<&EnvelopeView> {
        Ok(self.table.get(view)?)
    }
    fn mail(&self, view: &Resource<MessageView>) -> Result<&Mail> {
        Ok(&self.table.get(view)?.mail)
    }

    fn put_note(&self, notes: &Notes, key: &str, value: Vec<u8>) -> bool {
        key.len() <= MAX_KEY && notes.put(&self.identity.name, key, value)
    }

    fn forward_path_edit(
        &mut self,
        address: &str,
        edit: fn(ForwardPath) -> Edit,
    ) -> Result<std::result::Result<(), String>> {
        match address.parse() {
            Ok(path) => self.note_edit(edit(path)).map(Ok),
            Err(err) => Ok(Err(format!("{address}: {err}"))),
        }
    }

    fn message_edit(&mut self, view: &Resource<MessageView>, edit: Edit) -> Result<std::result::Result<(), String>> {
        let mail = self.mail(view)?;
        match edit.check(mail.header.len(), mail.body.len()) {
            Ok(()) => self.note_edit(edit).map(Ok),
            Err(err) => Ok(Err(err.to_string())),
        }
    }
}

impl HostSession for Context {
    fn id(&mut self, view: Resource<SessionView>) -> Result<String> {
        Ok(self.session(&view)?.id.clone())
    }
    fn listener(&mut self, view: Resource<SessionView>) -> Result<String> {
        Ok(self.session(&view)?.listener.clone())
    }
    fn server_name(&mut self, _: Resource<SessionView>) -> Result<String> {
        Ok(self.identity.services.server_name.clone())
    }
    fn client_address(&mut self, view: Resource<SessionView>) -> Result<String> {
        Ok(self.session(&view)?.client.ip().to_canonical().to_string())
    }
    fn client_port(&mut self, view: Resource<SessionView>) -> Result<u16> {
        Ok(self.session(&view)?.client.port())
    }
    fn client_name(&mut self, view: Resource<SessionView>) -> Result<Option<String>> {
        Ok(self.session(&view)?.client_name.clone())
    }
    fn helo(&mut self, view: Resource<SessionView>) -> Result<Option<String>> {
        Ok(self.session(&view)?.helo.clone())
    }
    fn extended(&mut self, view: Resource<SessionView>) -> Result<bool> {
        Ok(self.session(&view)?.extended)
    }
    fn tls(&mut self, view: Resource<SessionView>) -> Result<Option<TlsInfo>> {
        let tls = self.session(&view)?.tls.clone();
        Ok(tls.map(|tls| TlsInfo { version: tls.version, cipher: tls.cipher }))
    }
    fn user(&mut self, view: Resource<SessionView>) -> Result<Option<String>> {
        Ok(self.session(&view)?.user.clone())
    }
    fn trusted(&mut self, view: Resource<SessionView>) -> Result<bool> {
        Ok(self.session(&view)?.trusted)
    }
    fn note(&mut self, view: Resource<SessionView>, key: String) -> Result<Option<Vec<u8>>> {
        Ok(self.session(&view)?.notes.get(&self.identity.name, &key))
    }
    fn set_note(&mut self, view: Resource<SessionView>, key: String, value: Vec<u8>) -> Result<bool> {
        let notes = self.session(&view)?.notes.clone();
        Ok(self.put_note(&notes, &key, value))
    }
    fn drop(&mut self, view: Resource<SessionView>) -> Result<()> {
        self.table.delete(view)?;
        Ok(())
    }
}

impl HostEnvelope for Context {
    fn queue_id(&mut self, view: Resource<EnvelopeView>) -> Result<String> {
        Ok(self.envelope(&view)?.id.to_string())
    }
    fn sender(&mut self, view: Resource<EnvelopeView>) -> Result<String> {
        Ok(self.envelope(&view)?.envelope.reverse_path.to_string())
    }
    fn recipient_count(&mut self, view: Resource<EnvelopeView>) -> Result<u32> {
        Ok(u32::try_from(self.envelope(&view)?.envelope.recipients.len()).unwrap_or(u32::MAX))
    }
    fn recipients(&mut self, view: Resource<EnvelopeView>, start: u32, count: u32) -> Result<Vec<WitRecipient>> {
        let recipients = &self.envelope(&view)?.envelope.recipients;
        Ok(recipients.iter().skip(start as usize).take(count as usize).map(super::call::wit_recipient).collect())
    }
    fn announced_size(&mut self, view: Resource<EnvelopeView>) -> Result<Option<u64>> {
        Ok(self.envelope(&view)?.announced_size)
    }
    fn smtputf8(&mut self, view: Resource<EnvelopeView>) -> Result<bool> {
        Ok(self.envelope(&view)?.envelope.smtputf8)
    }
    fn note(&mut self, view: Resource<EnvelopeView>, key: String) -> Result<Option<Vec<u8>>> {
        Ok(self.envelope(&view)?.notes.get(&self.identity.name, &key))
    }
    fn set_note(&mut self, view: Resource<EnvelopeView>, key: String, value: Vec<u8>) -> Result<bool> {
        let notes = self.envelope(&view)?.notes.clone();
        Ok(self.put_note(&notes, &key, value))
    }
    fn add_recipient(&mut self, _: Resource<EnvelopeView>, address: String) -> Result<std::result::Result<(), String>> {
        self.forward_path_edit(&address, Edit::AddRecipient)
    }
    fn remove_recipient(
        &mut self,
        _: Resource<EnvelopeView>,
        address: String,
    ) -> Result<std::result::Result<(), String>> {
        self.forward_path_edit(&address, Edit::RemoveRecipient)
    }
    fn redirect(&mut self, _: Resource<EnvelopeView>, address: String) -> Result<std::result::Result<(), String>> {
        self.forward_path_edit(&address, Edit::Redirect)
    }
    fn set_sender(&mut self, _: Resource<EnvelopeView>, address: String) -> Result<std::result::Result<(), String>> {
        match address.parse::<ReversePath>() {
            Ok(path) => self.note_edit(Edit::ReversePath(path)).map(Ok),
            Err(err) => Ok(Err(format!("{address}: {err}"))),
        }
    }
    fn hold(&mut self, _: Resource<EnvelopeView>, reason: String) -> Result<()> {
        self.note_edit(Edit::Hold(ReplyText::lossy(&reason).to_string()))
    }
    fn set_filter(
        &mut self,
        _: Resource<EnvelopeView>,
        destination: String,
    ) -> Result<std::result::Result<(), String>> {
        let sound = destination.len() <= MAX_TEXT
            && !destination.chars().any(|c| c.is_control() || c.is_whitespace())
            && destination.split_once(':').is_some_and(|(transport, _)| !transport.is_empty());
        if !sound {
            return Ok(Err("a filter is named transport:destination".into()));
        }
        self.note_edit(Edit::Filter(destination)).map(Ok)
    }
    fn drop(&mut self, view: Resource<EnvelopeView>) -> Result<()> {
        self.table.delete(view)?;
        Ok(())
    }
}

impl MessageView {
    pub fn new(mail: Mail) -> Self {
        Self { mail, parts: OnceLock::new() }
    }

    fn parts(&self) -> std::result::Result<&Parts, String> {
        let parts = self.parts.get_or_init(|| {
            mime::scan(self.mail.header.as_bytes(), self.mail.body.as_ref()).map_err(|err| err.to_string())
        });
        parts.as_ref().map_err(Clone::clone)
    }
}

impl HostMessage for Context {
    fn header_count(&mut self, view: Resource<MessageView>) -> Result<u32> {
        Ok(u32::try_from(self.mail(&view)?.header.len()).unwrap_or(u32::MAX))
    }
    fn headers(&mut self, view: Resource<MessageView>, start: u32, count: u32) -> Result<Vec<Vec<u8>>> {
        let header = &self.mail(&view)?.header;
        let mut octets = 0;
        let fields = (start as usize..header.len()).take(count as usize).map_while(|index| header.field(index));
        Ok(fields
            .take_while(|field| {
                octets += field.len();
                octets <= MAX_READ || octets == field.len() // one that is longer comes alone
            })
            .map(<[u8]>::to_vec)
            .collect())
    }
    fn header(&mut self, view: Resource<MessageView>, name: String) -> Result<Vec<String>> {
        let header = &self.mail(&view)?.header;
        let values = header.indices_of(name.as_bytes()).filter_map(|index| header.value(index));
        Ok(values.map(|value| String::from_utf8_lossy(value).replace("\r\n", "").trim().to_owned()).collect())
    }
    fn header_size(&mut self, view: Resource<MessageView>) -> Result<u64> {
        Ok(self.mail(&view)?.header.as_bytes().len() as u64)
    }
    fn body_size(&mut self, view: Resource<MessageView>) -> Result<u64> {
        Ok(self.mail(&view)?.body.len())
    }
    fn body(
        &mut self,
        view: Resource<MessageView>,
        offset: u64,
        len: u32,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let body = &self.mail(&view)?.body;
        let rest = usize::try_from(body.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut octets = vec![0; rest.min(len as usize).min(MAX_READ)];
        Ok(match body.read_at(offset, &mut octets) {
            Ok(n) => {
                octets.truncate(n);
                Ok(octets)
            }
            Err(err) => Err(err.to_string()),
        })
    }
    fn parts(&mut self, view: Resource<MessageView>) -> Result<std::result::Result<Vec<WitPart>, String>> {
        let parts = self.table.get(&view)?.parts();
        Ok(parts.map(|parts| parts.iter().map(wit_part).collect()))
    }
    fn part_content(
        &mut self,
        view: Resource<MessageView>,
        index: u32,
        offset: u64,
        len: u32,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let message = self.table.get(&view)?;
        let parts = match message.parts() {
            Ok(parts) => parts,
            Err(err) => return Ok(Err(err)),
        };
        let content = parts.read(index as usize, message.mail.body.as_ref(), offset, (len as usize).min(MAX_READ));
        Ok(content.map_err(|err| err.to_string()))
    }
    fn insert_header(
        &mut self,
        view: Resource<MessageView>,
        index: u32,
        field: Vec<u8>,
    ) -> Result<std::result::Result<(), String>> {
        self.message_edit(&view, Edit::InsertHeader { index: index as usize, field })
    }
    fn replace_header(
        &mut self,
        view: Resource<MessageView>,
        index: u32,
        field: Vec<u8>,
    ) -> Result<std::result::Result<(), String>> {
        self.message_edit(&view, Edit::ReplaceHeader { index: index as usize, field })
    }
    fn remove_header(&mut self, view: Resource<MessageView>, index: u32) -> Result<std::result::Result<(), String>> {
        self.message_edit(&view, Edit::RemoveHeader { index: index as usize })
    }
    fn replace_body(
        &mut self,
        view: Resource<MessageView>,
        offset: u64,
        len: u64,
        with: Vec<u8>,
    ) -> Result<std::result::Result<(), String>> {
        let Some(end) = offset.checked_add(len) else { return Ok(Err("the range is no range".into())) };
        self.message_edit(&view, Edit::ReplaceBody { range: offset..end, with })
    }
    fn drop(&mut self, view: Resource<MessageView>) -> Result<()> {
        self.table.delete(view)?;
        Ok(())
    }
}

fn wit_part(part: &mime::Part) -> WitPart {
    WitPart {
        depth: part.depth,
        content_type: part.content_type.clone(),
        charset: part.charset.clone(),
        name: part.name.clone(),
        attachment: part.attachment,
        encoded_size: part.body.end - part.body.start,
    }
}
