//! Methods off the hot path, through `amq-protocol`.
//!
//! Its parser recurses into field tables without a limit, so every table is walked here first.

use crate::{
    codec::{cannot_decode, method_id},
    fault::{Fault, ReplyCode, short_end},
};
use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::{AMQPClass, parse_class},
    types::ShortString,
};
use bytes::{BufMut, Bytes};
use understudy_model::{Text, WriteBuffer, check_table_depth};

/// A field in front of a method's table.
#[derive(Clone, Copy)]
enum Field {
    /// Octets of fixed length.
    Octets(usize),
    Short,
}

/// What stands between the method's id and its field table, for the methods that have one.
fn fields_before_table(class: u16, method: u16) -> Option<&'static [Field]> {
    use Field::{Octets, Short};
    Some(match (class, method) {
        // connection.start-ok; connection.start, which only a server sends, has two octets
        (10, 11) => &[],
        (10, 10) => &[Octets(2)],
        // exchange.declare; basic.consume
        (40, 10) | (60, 20) => &[Octets(2), Short, Short, Octets(1)],
        // exchange.bind, exchange.unbind; queue.bind
        (40, 30 | 40) | (50, 20) => &[Octets(2), Short, Short, Short, Octets(1)],
        // queue.declare
        (50, 10) => &[Octets(2), Short, Octets(1)],
        // queue.unbind
        (50, 50) => &[Octets(2), Short, Short, Short],
        _ => return None,
    })
}

/// The inside of the method's field table, its nesting checked; `None` if it has none.
fn table_of(payload: &Bytes) -> Result<Option<Bytes>, Fault> {
    let id = method_id(payload)?;
    let Some(fields) = fields_before_table(id.class, id.method) else { return Ok(None) };
    let find = || {
        let mut at = 4;
        for field in fields {
            at += match field {
                Field::Octets(count) => *count,
                Field::Short => 1 + usize::from(*payload.get(at)?),
            };
        }
        let length = u32::from_be_bytes(*payload.get(at..)?.first_chunk::<4>()?) as usize;
        let inside = payload.get(at + 4..)?.get(..length)?;
        Some(payload.slice_ref(inside))
    };
    let table = find().ok_or_else(|| cannot_decode(payload))?;
    check_table_depth(&table)
        .map_err(|malformed| Fault::new(ReplyCode::SYNTAX_ERROR, malformed.to_string()))?;
    Ok(Some(table))
}

/// A method and the inside of its field table, as it came.
pub(crate) struct Method {
    pub(crate) class: AMQPClass,
    /// Empty if the method has no table.
    pub(crate) table: Bytes,
}

pub(crate) fn parse(payload: &Bytes) -> Result<Method, Fault> {
    let table = table_of(payload)?.unwrap_or_default();
    match parse_class(&payload[..]) {
        Ok(([], class)) => Ok(Method { class, table }),
        _ => Err(cannot_decode(payload)),
    }
}

pub(crate) fn put_method(out: &mut WriteBuffer, channel: u16, class: AMQPClass) {
    let frame = AMQPFrame::Method(channel, class);
    let written = gen_frame::<Vec<u8>>(&frame)(WriteContext::from(Vec::new()));
    debug_assert!(written.is_ok(), "{frame}");
    if let Ok(written) = written {
        out.tail().put_slice(&written.into_inner().0);
    }
}

/// `ShortString` panics on more than 255 bytes, so the text is cut.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(&text[..short_end(text)]).unwrap_or_default()
}

pub(crate) fn text(short: &ShortString) -> Text {
    Text::from(short.as_str())
}

/// Names of queues and exchanges: RabbitMQ strips line ends from them.
pub(crate) fn name(short: &ShortString) -> Text {
    let name = short.as_str();
    if name.contains(['\r', '\n']) {
        Text::from(name.replace(['\r', '\n'], ""))
    } else {
        Text::from(name)
    }
}
