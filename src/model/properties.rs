//! AMQP basic properties (specification section 2.3.5.2 and class basic), the form in which every
//! frontend hands over a message's properties. They travel and are stored as the raw block:
//! property flags and property list, exactly as in an AMQP content header.

use crate::{Malformed, Table, Text};
use bytes::{BufMut, Bytes, BytesMut};

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

/// Owned properties, for frontends that build or translate them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub content_type: Option<Text>,
    pub content_encoding: Option<Text>,
    pub headers: Option<Table>,
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<Text>,
    pub reply_to: Option<Text>,
    /// Milliseconds, as a decimal string.
    pub expiration: Option<Text>,
    pub message_id: Option<Text>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub kind: Option<Text>,
    pub user_id: Option<Text>,
    pub app_id: Option<Text>,
    pub cluster_id: Option<Text>,
}

impl Properties {
    pub fn decode(raw: &[u8]) -> Result<Self, Malformed> {
        let view = PropertiesView::decode(raw)?;
        let text = |value: Option<&[u8]>| -> Result<Option<Text>, Malformed> {
            value
                .map(|v| std::str::from_utf8(v).map(Text::from))
                .transpose()
                .map_err(|_| Malformed("property text"))
        };
        Ok(Self {
            content_type: text(view.content_type)?,
            content_encoding: text(view.content_encoding)?,
            headers: view.headers.map(Table::decode).transpose()?,
            delivery_mode: view.delivery_mode,
            priority: view.priority,
            correlation_id: text(view.correlation_id)?,
            reply_to: text(view.reply_to)?,
            expiration: text(view.expiration)?,
            message_id: text(view.message_id)?,
            timestamp: view.timestamp,
            kind: text(view.kind)?,
            user_id: text(view.user_id)?,
            app_id: text(view.app_id)?,
            cluster_id: text(view.cluster_id)?,
        })
    }

    /// The raw block: flags and list. Texts are cut at 255 bytes, the most that AMQP can carry.
    pub fn encode(&self, out: &mut BytesMut) {
        let at = out.len();
        let mut flags = 0;
        out.put_u16(0);
        let mut short = |out: &mut BytesMut, flag: u16, value: &Option<Text>| {
            if let Some(value) = value {
                flags |= flag;
                let bytes = &value.as_bytes()[..value.len().min(255)];
                out.put_u8(bytes.len() as u8);
                out.put_slice(bytes);
            }
        };
        short(out, CONTENT_TYPE, &self.content_type);
        short(out, CONTENT_ENCODING, &self.content_encoding);
        if let Some(headers) = &self.headers {
            let at = out.len();
            out.put_u32(0);
            headers.encode(out);
            let length = (out.len() - at - 4) as u32;
            out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        self.delivery_mode.into_iter().for_each(|v| out.put_u8(v));
        self.priority.into_iter().for_each(|v| out.put_u8(v));
        short(out, CORRELATION_ID, &self.correlation_id);
        short(out, REPLY_TO, &self.reply_to);
        short(out, EXPIRATION, &self.expiration);
        short(out, MESSAGE_ID, &self.message_id);
        self.timestamp.into_iter().for_each(|v| out.put_u64(v));
        short(out, KIND, &self.kind);
        short(out, USER_ID, &self.user_id);
        short(out, APP_ID, &self.app_id);
        short(out, CLUSTER_ID, &self.cluster_id);
        flags |= if self.headers.is_some() { HEADERS } else { 0 };
        flags |= if self.delivery_mode.is_some() { DELIVERY_MODE } else { 0 };
        flags |= if self.priority.is_some() { PRIORITY } else { 0 };
        flags |= if self.timestamp.is_some() { TIMESTAMP } else { 0 };
        out[at..at + 2].copy_from_slice(&flags.to_be_bytes());
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

/// Borrowed properties: each field a slice of the raw block, the header table still encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PropertiesView<'a> {
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    /// The inside of the header table, not yet looked at.
    pub headers: Option<&'a [u8]>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<&'a [u8]>,
    pub reply_to: Option<&'a [u8]>,
    pub expiration: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
    pub timestamp: Option<u64>,
    pub kind: Option<&'a [u8]>,
    pub user_id: Option<&'a [u8]>,
    pub app_id: Option<&'a [u8]>,
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> PropertiesView<'a> {
    /// Whether the raw block has a user id; costs nothing more than a look at its flags.
    pub fn has_user_id(raw: &[u8]) -> bool {
        raw.first_chunk::<2>().is_some_and(|flags| u16::from_be_bytes(*flags) & USER_ID != 0)
    }

    /// Whether the raw block has an expiration; costs nothing more than a look at its flags.
    pub fn has_expiration(raw: &[u8]) -> bool {
        raw.first_chunk::<2>().is_some_and(|flags| u16::from_be_bytes(*flags) & EXPIRATION != 0)
    }

    /// Whether the raw block has headers; costs nothing more than a look at its flags.
    pub fn has_headers(raw: &[u8]) -> bool {
        raw.first_chunk::<2>().is_some_and(|flags| u16::from_be_bytes(*flags) & HEADERS != 0)
    }

    /// The raw block with other headers, all else byte for byte.
    pub fn with_headers(&self, headers: &Table) -> Bytes {
        let mut out = BytesMut::new();
        let mut flags = HEADERS;
        out.put_u16(0);
        let mut put = |out: &mut BytesMut, flag: u16, value: Option<&[u8]>| {
            if let Some(value) = value {
                flags |= flag;
                out.put_u8(value.len() as u8);
                out.put_slice(value);
            }
        };
        put(&mut out, CONTENT_TYPE, self.content_type);
        put(&mut out, CONTENT_ENCODING, self.content_encoding);
        let at = out.len();
        out.put_u32(0);
        headers.encode(&mut out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self.delivery_mode.into_iter().for_each(|v| out.put_u8(v));
        self.priority.into_iter().for_each(|v| out.put_u8(v));
        put(&mut out, CORRELATION_ID, self.correlation_id);
        put(&mut out, REPLY_TO, self.reply_to);
        put(&mut out, EXPIRATION, self.expiration);
        put(&mut out, MESSAGE_ID, self.message_id);
        self.timestamp.into_iter().for_each(|v| out.put_u64(v));
        put(&mut out, KIND, self.kind);
        put(&mut out, USER_ID, self.user_id);
        put(&mut out, APP_ID, self.app_id);
        put(&mut out, CLUSTER_ID, self.cluster_id);
        flags |= if self.delivery_mode.is_some() { DELIVERY_MODE } else { 0 };
        flags |= if self.priority.is_some() { PRIORITY } else { 0 };
        flags |= if self.timestamp.is_some() { TIMESTAMP } else { 0 };
        out[..2].copy_from_slice(&flags.to_be_bytes());
        out.freeze()
    }

    /// Walks the raw block and checks that every property lies inside it, nothing behind it.
    pub fn decode(raw: &'a [u8]) -> Result<Self, Malformed> {
        const BLOCK: Malformed = Malformed("properties");
        let (flags, mut rest) = raw.split_first_chunk::<2>().ok_or(BLOCK)?;
        let flags = u16::from_be_bytes(*flags);
        // Bit 0 would announce a second flag word, bit 1 is reserved: basic has neither.
        if flags & 0b11 != 0 {
            return Err(BLOCK);
        }
        let mut take = |flag: u16, length_bytes: usize| -> Result<Option<&'a [u8]>, Malformed> {
            if flags & flag == 0 {
                return Ok(None);
            }
            let length = match length_bytes {
                0 => match flag {
                    TIMESTAMP => 8,
                    _ => 1,
                },
                n => {
                    let (prefix, tail) = rest.split_at_checked(n).ok_or(BLOCK)?;
                    rest = tail;
                    prefix.iter().fold(0, |acc, &b| acc << 8 | usize::from(b))
                }
            };
            let (value, tail) = rest.split_at_checked(length).ok_or(BLOCK)?;
            rest = tail;
            Ok(Some(value))
        };
        let view = Self {
            content_type: take(CONTENT_TYPE, 1)?,
            content_encoding: take(CONTENT_ENCODING, 1)?,
            headers: take(HEADERS, 4)?,
            delivery_mode: take(DELIVERY_MODE, 0)?.map(|v| v[0]),
            priority: take(PRIORITY, 0)?.map(|v| v[0]),
            correlation_id: take(CORRELATION_ID, 1)?,
            reply_to: take(REPLY_TO, 1)?,
            expiration: take(EXPIRATION, 1)?,
            message_id: take(MESSAGE_ID, 1)?,
            timestamp: take(TIMESTAMP, 0)?
                .and_then(|v| v.first_chunk::<8>())
                .map(|v| u64::from_be_bytes(*v)),
            kind: take(KIND, 1)?,
            user_id: take(USER_ID, 1)?,
            app_id: take(APP_ID, 1)?,
            cluster_id: take(CLUSTER_ID, 1)?,
        };
        if rest.is_empty() { Ok(view) } else { Err(BLOCK) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn full() -> Properties {
        let mut headers = Table::default();
        headers.push("answer", Value::I32(42));
        let text = |t: &str| Some(Text::from(t));
        Properties {
            content_type: text("text/plain"),
            content_encoding: text("utf-8"),
            headers: Some(headers),
            delivery_mode: Some(2),
            priority: Some(5),
            correlation_id: text("c"),
            reply_to: text("r"),
            expiration: text("1000"),
            message_id: text("m"),
            timestamp: Some(1_700_000_000),
            kind: text("t"),
            user_id: text("guest"),
            app_id: text("a"),
            cluster_id: text(""),
        }
    }

    #[test]
    fn properties_round_trip_whole_and_empty() {
        for properties in [full(), Properties::default()] {
            assert_eq!(Properties::decode(&properties.to_bytes()), Ok(properties));
        }
    }

    #[test]
    fn headers_are_replaced_and_the_expiration_taken() {
        let before = full();
        let mut headers = Table::default();
        headers.push("x-death", Value::Array(vec![]));
        let raw = before.to_bytes();
        let mut view = PropertiesView::decode(&raw).unwrap();
        view.expiration = None;
        let expected = Properties { headers: Some(headers.clone()), expiration: None, ..before };
        assert_eq!(Properties::decode(&view.with_headers(&headers)), Ok(expected));
    }

    #[test]
    fn every_truncation_is_refused() {
        let raw = full().to_bytes();
        for end in 0..raw.len() {
            assert!(PropertiesView::decode(&raw[..end]).is_err(), "cut at {end}");
        }
    }
}
