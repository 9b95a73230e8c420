//! Queues as SEND's and SUBSCRIBE's headers describe them.

use crate::{codec::Headers, error::StompError};
use understudy_model::{DeclareQueue, Table, Text, Value};

/// Headers that become arguments of the queue, with their AMQP type.
const ARGUMENTS: [(&str, Kind); 17] = [
    ("x-message-ttl", Kind::Integer),
    ("x-expires", Kind::Integer),
    ("x-max-length", Kind::Integer),
    ("x-max-length-bytes", Kind::Integer),
    ("x-max-priority", Kind::Integer),
    ("x-delivery-limit", Kind::Integer),
    ("x-max-in-memory-length", Kind::Integer),
    ("x-max-in-memory-bytes", Kind::Integer),
    ("x-stream-max-segment-size-bytes", Kind::Integer),
    ("x-single-active-consumer", Kind::Bool),
    ("x-dead-letter-exchange", Kind::Text),
    ("x-dead-letter-routing-key", Kind::Text),
    ("x-overflow", Kind::Text),
    ("x-queue-type", Kind::Text),
    ("x-queue-mode", Kind::Text),
    ("x-dead-letter-strategy", Kind::Text),
    ("x-max-age", Kind::Text),
];

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Bool,
    Text,
}

/// Whether it is durable, and what holds where the headers do not say otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
}

impl Defaults {
    /// Of `/queue/NAME`, and of durable subscriptions.
    pub(crate) const LASTING: Self = Self { durable: true, exclusive: false, auto_delete: false };
    pub(crate) const PRIVATE: Self = Self { durable: false, exclusive: true, auto_delete: true };
}

/// SUBSCRIBE's `durable`, or its old name. (SEND's `persistent` is about the message.)
pub(crate) fn durable(headers: &Headers) -> Result<Option<bool>, StompError> {
    Ok(headers.bool("durable")?.or(headers.bool("persistent")?))
}

/// The declaration of a queue, but for its token.
pub(crate) fn declare(
    name: Text,
    headers: &Headers,
    defaults: Defaults,
) -> Result<DeclareQueue, StompError> {
    Ok(DeclareQueue {
        name,
        durable: defaults.durable,
        exclusive: headers.bool("exclusive")?.unwrap_or(defaults.exclusive),
        auto_delete: headers.bool("auto-delete")?.unwrap_or(defaults.auto_delete),
        arguments: arguments(headers)?.to_bytes(),
        ..DeclareQueue::default()
    })
}

fn arguments(headers: &Headers) -> Result<Table, StompError> {
    let mut table = Table::default();
    for (name, kind) in ARGUMENTS {
        let Some(text) = headers.get(name) else { continue };
        let value = match kind {
            Kind::Integer => headers.number(&[name])?.map(Value::I64),
            Kind::Bool => headers.bool(name)?.map(Value::Bool),
            Kind::Text => Some(Value::String(text.as_bytes().clone())),
        };
        value.into_iter().for_each(|value| table.push(name, value));
    }
    Ok(table)
}

/// Does a SEND ask for more than the default queue?
pub(crate) fn is_described(headers: &Headers) -> bool {
    let flags = ["durable", "exclusive", "auto-delete"];
    let arguments = ARGUMENTS.iter().map(|(name, _)| *name);
    flags.into_iter().chain(arguments).any(|name| headers.get(name).is_some())
}

/// Name of the queue of a durable subscription: the same for the same client, topic and id, on
/// any connection and either node. FNV-1a of 128 bits; lengths keep the parts apart.
pub(crate) fn durable_name(parts: [&str; 3]) -> Text {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let fold = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    let hash = parts.iter().fold(OFFSET, |hash, part| {
        let length = (part.len() as u64).to_be_bytes();
        length.into_iter().chain(part.bytes()).fold(hash, fold)
    });
    Text::from(format!("stomp-subscription-{hash:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in list {
            headers.insert_first(Text::from(*name), Text::from(*value));
        }
        headers
    }

    #[test]
    fn headers_become_typed_arguments_and_flags() {
        let given = headers(&[
            ("x-message-ttl", "1000"),
            ("x-queue-type", "quorum"),
            ("x-single-active-consumer", "true"),
            ("x-other", "1"),
            ("auto-delete", "True"),
        ]);
        let queue = declare(Text::from("q"), &given, Defaults::LASTING).unwrap();
        assert!(queue.durable && queue.auto_delete && !queue.exclusive);
        let arguments = Table::decode(&queue.arguments).unwrap();
        assert_eq!(arguments.get("x-message-ttl"), Some(&Value::I64(1_000)));
        assert_eq!(arguments.get("x-queue-type"), Some(&Value::text("quorum")));
        assert_eq!(arguments.get("x-single-active-consumer"), Some(&Value::Bool(true)));
        assert_eq!(arguments.0.len(), 3);
        let bad = headers(&[("x-expires", "soon")]);
        assert!(declare(Text::from("q"), &bad, Defaults::LASTING).is_err());
    }

    #[test]
    fn a_durable_name_is_stable_and_keeps_its_parts_apart() {
        let name = durable_name(["client", "/topic/a", "id"]);
        assert_eq!(name, "stomp-subscription-5077f0c96f7962bc6e67b05dc37a2987");
        assert_ne!(name, durable_name(["clien", "t/topic/a", "id"]));
        assert_ne!(name, durable_name(["client", "/topic/b", "id"]));
    }
}
