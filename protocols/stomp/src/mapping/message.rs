//! From a stored message to a MESSAGE frame (docs/message-mapping.md).

use super::{is_frame_header, text::put_value};
use crate::{
    codec::{FRAME_END, Version, put_header},
    destination::{self, REPLY_QUEUE},
    options::Dialect,
    subscription::{Ack, Subscription},
};
use bytes::{BufMut, BytesMut};
use std::{borrow::Cow, fmt::Write};
use understudy_model::{Delivery, Malformed, PropertiesView, Table, WriteBuffer};

/// Appends the MESSAGE for a delivery. `number` is the delivery's in its subscription.
pub(crate) fn put_message(
    write: &mut WriteBuffer,
    version: Version,
    dialect: Dialect,
    subscription: &Subscription,
    number: u64,
    delivery: &Delivery,
) -> Result<(), Malformed> {
    let message = delivery.message()?;
    // Their publisher's frontend has checked them; a message is worth more than its headers.
    let counted = delivery.counted_properties(&message);
    let properties = counted.as_deref().unwrap_or(message.properties);
    let properties = PropertiesView::decode(properties).unwrap_or_default();
    let custom = properties.headers.and_then(|headers| Table::decode(headers).ok());

    let out = write.tail();
    out.put_slice(&subscription.message_start);
    if !subscription.echoes_destination {
        let place = destination::format(message.exchange, message.routing_key, dialect);
        put_header(out, version, "destination", place.as_bytes());
    }
    put_id(out, "message-id", subscription, number);
    let redelivered: &[u8] = if delivery.redelivered { b"true" } else { b"false" };
    put_header(out, version, "redelivered", redelivered);
    if version == Version::V12 && subscription.ack != Ack::Auto {
        put_id(out, "ack", subscription, number);
    }
    put_properties(out, version, &properties);
    if let Some(custom) = &custom {
        put_custom(out, version, custom, subscription);
    }
    // Writing to a buffer cannot fail.
    let _ = write!(out, "content-length:{}\n\n", message.body.len());
    write.put_part(&delivery.record, message.body);
    write.tail().put_slice(FRAME_END);
    Ok(())
}

/// Appends the MESSAGE that ends a browser's: as ActiveMQ's, with a header and no body.
pub(crate) fn put_browse_end(out: &mut BytesMut, subscription: &Subscription) {
    out.put_slice(&subscription.message_start);
    put_id(out, "message-id", subscription, 0);
    out.put_slice(b"browser:end\ncontent-length:0\n\n");
    out.put_slice(FRAME_END);
}

fn put_id(out: &mut BytesMut, name: &str, subscription: &Subscription, number: u64) {
    out.put_slice(name.as_bytes());
    out.put_u8(b':');
    out.put_slice(&subscription.id_start);
    let _ = writeln!(out, "{number}");
}

fn put_properties(out: &mut BytesMut, version: Version, properties: &PropertiesView<'_>) {
    let mut text = |name: &str, value: Option<&[u8]>| match value
        .map(|value| (value, std::str::from_utf8(value)))
    {
        None => {}
        Some((_, Ok(text))) => put_header(out, version, name, text.as_bytes()),
        Some((bytes, Err(_))) => {
            put_header(out, version, name, String::from_utf8_lossy(bytes).as_bytes());
        }
    };
    let digits = |number: Option<u64>| number.map(|number| number.to_string());
    text("content-type", properties.content_type);
    text("content-encoding", properties.content_encoding);
    text("persistent", (properties.delivery_mode == Some(2)).then_some(b"true"));
    let priority = digits(properties.priority.map(u64::from));
    text("priority", priority.as_deref().map(str::as_bytes));
    text("correlation-id", properties.correlation_id);
    let reply_to = properties.reply_to.map(reply_destination);
    text("reply-to", reply_to.as_deref());
    text("expiration", properties.expiration);
    text("amqp-message-id", properties.message_id);
    let timestamp = digits(properties.timestamp);
    text("timestamp", timestamp.as_deref().map(str::as_bytes));
    text("type", properties.kind);
    text("user-id", properties.user_id);
    text("app-id", properties.app_id);
    text("cluster-id", properties.cluster_id);
}

/// An AMQP publisher names a queue; a STOMP client needs a destination to send to.
fn reply_destination(reply_to: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(reply_to) {
        Ok(text) if destination::has_prefix(text) => Cow::Borrowed(reply_to),
        _ => Cow::Owned([REPLY_QUEUE.as_bytes(), reply_to].concat()),
    }
}

fn put_custom(out: &mut BytesMut, version: Version, table: &Table, subscription: &Subscription) {
    let mut value_text = BytesMut::new();
    for (name, value) in &table.0 {
        // A publisher must not forge what clients trust the broker for.
        let ends_browsing = subscription.browses && name == "browser";
        if name.is_empty() || is_frame_header(name) || ends_browsing {
            continue;
        }
        value_text.clear();
        put_value(value, &mut value_text);
        put_header(out, version, name, &value_text);
    }
}
