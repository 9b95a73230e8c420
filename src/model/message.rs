//! A message as it lies in the log, and a body on its way in.

use crate::{Malformed, Reader};
use bytes::Bytes;

/// A body as it was read: usually one slice of the read buffer, more when it came in several
/// frames. Copied once, into the open group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl Body {
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len(), first: bytes, rest: Vec::new() }
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

/// The content of an `Enqueue` record, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// Raw AMQP property flags and list, see [`crate::PropertiesView`].
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> MessageView<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            exchange: reader.str()?,
            routing_key: reader.str()?,
            properties: reader.bytes()?,
            body: std::mem::take(&mut reader.0),
        })
    }
}
