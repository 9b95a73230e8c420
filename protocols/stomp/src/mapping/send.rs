//! From the headers of a SEND to AMQP properties (docs/message-mapping.md).

use super::is_frame_header;
use crate::{codec::Headers, error::StompError};
use bytes::Bytes;
use understudy_model::{Properties, Refusal, RefusalKind, TIME_TO_LIVE_MS_MAX, Table, Text, Value};

/// What a message's properties depend on besides its headers.
pub(crate) struct Sender<'a> {
    pub(crate) user: &'a str,
    pub(crate) now_ms: u64,
    /// Stands for a `reply-to` that names a temporary queue.
    pub(crate) reply_queue: Option<Text>,
    /// Of a SEND without a `persistent` header.
    pub(crate) default_persistent: bool,
}

/// The raw AMQP property block of a SEND.
pub(crate) fn properties(headers: &Headers, sender: &Sender<'_>) -> Result<Bytes, StompError> {
    let mut properties = Properties {
        delivery_mode: sender.default_persistent.then_some(2),
        ..Properties::default()
    };
    let mut custom = Table::default();
    for (name, value) in headers.iter() {
        if !set_property(&mut properties, headers, sender, name, value)? {
            if name.is_empty() || name.len() > 255 {
                return Err(StompError::invalid_header("name", "of 1 to 255 bytes"));
            }
            custom.0.push((name.clone(), Value::String(value.as_bytes().clone())));
        }
    }
    if !custom.0.is_empty() {
        properties.headers = Some(custom);
    }
    Ok(properties.to_bytes())
}

/// False: it is a header of the publisher's own.
fn set_property(
    properties: &mut Properties,
    headers: &Headers,
    sender: &Sender<'_>,
    name: &str,
    value: &Text,
) -> Result<bool, StompError> {
    match name {
        "content-type" => properties.content_type = short(name, value)?,
        "content-encoding" => properties.content_encoding = short(name, value)?,
        "persistent" => {
            properties.delivery_mode = headers.bool(name)?.and_then(|yes| yes.then_some(2));
        }
        "priority" => properties.priority = headers.number(&[name])?,
        "correlation-id" => properties.correlation_id = short(name, value)?,
        "reply-to" => {
            properties.reply_to = match &sender.reply_queue {
                Some(queue) => Some(queue.clone()),
                None => short(name, value)?,
            }
        }
        "expiration" => {
            let milliseconds = headers.number::<u64>(&[name])?;
            properties.expiration = milliseconds.map(|ms| Text::from(ms.to_string()));
        }
        "expires" => {
            // ActiveMQ's: a point in time in milliseconds, 0 for never. `expiration` counts more.
            // It stays a header as well: ActiveMQ's clients look for it in the MESSAGE.
            let at = headers.number::<u64>(&[name])?.filter(|&at| at > 0);
            if headers.get("expiration").is_none() {
                let left = at.map(|at| at.saturating_sub(sender.now_ms));
                let left = left.filter(|&ms| ms <= TIME_TO_LIVE_MS_MAX as u64);
                properties.expiration = left.map(|ms| Text::from(ms.to_string()));
            }
            return Ok(false);
        }
        "amqp-message-id" => properties.message_id = short(name, value)?,
        "timestamp" => properties.timestamp = headers.number(&[name])?,
        "type" => properties.kind = short(name, value)?,
        "user-id" => {
            check_user(value, sender.user)?;
            properties.user_id = short(name, value)?;
        }
        "app-id" => properties.app_id = short(name, value)?,
        "cluster-id" => properties.cluster_id = short(name, value)?,
        name => return Ok(is_frame_header(name)),
    }
    Ok(true)
}

/// AMQP carries 255 bytes at most.
fn short(name: &str, value: &Text) -> Result<Option<Text>, StompError> {
    if value.len() > 255 {
        return Err(StompError::invalid_header(name, "at most 255 bytes long"));
    }
    Ok(Some(value.clone()))
}

fn check_user(given: &str, user: &str) -> Result<(), StompError> {
    if given == user {
        return Ok(());
    }
    let text = format!("user_id property set to '{given}' but authenticated user was '{user}'");
    Err(StompError::refusal(&Refusal::new(RefusalKind::PreconditionFailed, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(&str, &str)]) -> Result<Properties, StompError> {
        let mut headers = Headers::default();
        for (name, value) in list {
            headers.insert_first(Text::from(*name), Text::from(*value));
        }
        let sender =
            Sender { user: "guest", now_ms: 10_000, reply_queue: None, default_persistent: false };
        let raw = properties(&headers, &sender)?;
        Ok(Properties::decode(&raw).unwrap())
    }

    #[test]
    fn every_header_finds_its_property() {
        let properties = map(&[
            ("destination", "/queue/a"),
            ("content-length", "3"),
            ("receipt", "r"),
            ("transaction", "t"),
            ("content-type", "text/plain"),
            ("content-encoding", "utf-8"),
            ("persistent", "true"),
            ("priority", "4"),
            ("correlation-id", "c"),
            ("reply-to", "/queue/b"),
            ("expiration", "1000"),
            ("expires", "99999"),
            ("amqp-message-id", "m"),
            ("timestamp", "1700000000"),
            ("type", "k"),
            ("user-id", "guest"),
            ("app-id", "app"),
            ("cluster-id", "cl"),
            ("x-mine", "1"),
            ("other", ""),
        ]);
        let text = |t: &str| Some(Text::from(t));
        let mut custom = Table::default();
        custom.push("expires", Value::text("99999"));
        custom.push("x-mine", Value::text("1"));
        custom.push("other", Value::text(""));
        let wanted = Properties {
            content_type: text("text/plain"),
            content_encoding: text("utf-8"),
            headers: Some(custom),
            delivery_mode: Some(2),
            priority: Some(4),
            correlation_id: text("c"),
            reply_to: text("/queue/b"),
            expiration: text("1000"),
            message_id: text("m"),
            timestamp: Some(1_700_000_000),
            kind: text("k"),
            user_id: text("guest"),
            app_id: text("app"),
            cluster_id: text("cl"),
        };
        assert_eq!(properties, Ok(wanted));
    }

    #[test]
    fn a_point_in_time_becomes_a_time_to_live() {
        let left = |at: &str| map(&[("expires", at)]).unwrap().expiration;
        assert_eq!(left("12500"), Some(Text::from("2500")));
        assert_eq!(left("9000"), Some(Text::from("0")));
        assert_eq!(left("0"), None);
        assert_eq!(left("315360010000"), Some(Text::from("315360000000")));
        assert_eq!(left("315360010001"), None);
        assert_eq!(map(&[("persistent", "false")]), Ok(Properties::default()));
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        let long = "x".repeat(256);
        for (name, value) in [
            ("priority", "256"),
            ("priority", "high"),
            ("expiration", "1s"),
            ("timestamp", "now"),
            ("persistent", "maybe"),
            ("correlation-id", &long),
            (&long, "v"),
        ] {
            assert_eq!(map(&[(name, value)]).unwrap_err().message, "Invalid header", "{name}");
        }
        assert_eq!(map(&[("user-id", "root")]).unwrap_err().message, "precondition_failed");
    }
}
