//! Writing of frames that have no message; MESSAGE is written by `mapping`.

use super::{Version, escape::escape};
use crate::error::StompError;
use bytes::{BufMut, BytesMut};

/// The line end is not a part of the frame. RabbitMQ and ActiveMQ send it, and PHP's extension reads
/// it without looking.
pub(crate) const FRAME_END: &[u8] = b"\0\n";

pub(crate) fn put_header(out: &mut BytesMut, version: Version, name: &str, value: &[u8]) {
    escape(name.as_bytes(), version, true, out);
    out.put_u8(b':');
    escape(value, version, false, out);
    out.put_u8(b'\n');
}

pub(crate) fn put_receipt(out: &mut BytesMut, version: Version, id: &str) {
    out.put_slice(b"RECEIPT\n");
    put_header(out, version, "receipt-id", id.as_bytes());
    out.put_u8(b'\n');
    out.put_slice(FRAME_END);
}

/// `receipt` is that of the frame that failed.
pub(crate) fn put_error(
    out: &mut BytesMut,
    version: Version,
    error: &StompError,
    receipt: Option<&str>,
) {
    out.put_slice(b"ERROR\n");
    put_header(out, version, "message", error.message.as_bytes());
    put_header(out, version, "content-type", b"text/plain");
    put_header(out, version, "version", Version::SUPPORTED.as_bytes());
    if let Some(receipt) = receipt {
        put_header(out, version, "receipt-id", receipt.as_bytes());
    }
    if let Some(subscription) = &error.subscription {
        put_header(out, version, "subscription", subscription.as_bytes());
    }
    put_header(out, version, "content-length", error.body.len().to_string().as_bytes());
    out.put_u8(b'\n');
    out.put_slice(error.body.as_bytes());
    out.put_slice(FRAME_END);
}
