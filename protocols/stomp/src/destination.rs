//! Names of places: `/queue/NAME` and its kin, each part percent-coded.

mod activemq;

use crate::{error::StompError, options::Dialect};
pub(crate) use activemq::{binding_key, parse_list};
use std::fmt::Write;
use understudy_model::Text;

pub(crate) const TOPIC_EXCHANGE: &str = "amq.topic";
pub(crate) const TEMP_QUEUE: &str = "/temp-queue/";
pub(crate) const REPLY_QUEUE: &str = "/reply-queue/";
const PREFIXES: [&str; 6] =
    ["/temp-queue", "/exchange", "/topic", "/queue", "/amq/queue", "/reply-queue"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A queue that SEND and SUBSCRIBE make if it is missing.
    Queue(Text),
    /// A queue that must be there.
    AmqQueue(Text),
    Topic(Text),
    Exchange {
        name: Text,
        key: Text,
    },
    /// A queue of this connection alone, known to it by this name.
    TempQueue(Text),
    /// A topic that nobody else knows unless this connection tells; ActiveMQ's dialect.
    TempTopic(Text),
    /// Where a reply goes; the name of a queue as it is, slashes and all.
    ReplyQueue(Text),
}

impl Destination {
    pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Self, StompError> {
        match dialect {
            Dialect::Rabbitmq => Self::parse_rabbitmq(text),
            Dialect::Activemq => activemq::parse(text),
        }
    }

    fn parse_rabbitmq(text: &str) -> Result<Self, StompError> {
        let Some((prefix, rest)) = split_prefix(text) else {
            let body = format!(
                "'{text}' is not a valid destination.\nValid destination types are: {}.\n",
                PREFIXES.join(", ")
            );
            return Err(StompError::new("Unknown destination", body));
        };
        let kind = prefix.trim_start_matches('/');
        let invalid = || {
            let body = format!("'{rest}' is not a valid {kind} destination\n");
            StompError::new("Invalid destination", body)
        };
        let content = rest.strip_prefix('/').ok_or_else(invalid)?;
        if prefix == "/reply-queue" {
            let named = !content.is_empty();
            return if named { Ok(Self::ReplyQueue(Text::from(content))) } else { Err(invalid()) };
        }
        let parts = content.split('/').map(decode).collect::<Option<Vec<_>>>();
        let parts = parts.ok_or_else(invalid)?;
        match (prefix, &parts[..]) {
            (_, [name, ..]) if name.is_empty() => Err(invalid()),
            ("/exchange", [name]) => {
                Ok(Self::Exchange { name: name.clone(), key: Text::default() })
            }
            ("/exchange", [name, key]) => {
                Ok(Self::Exchange { name: name.clone(), key: key.clone() })
            }
            ("/queue", [name]) => Ok(Self::Queue(name.clone())),
            ("/amq/queue", [name]) => Ok(Self::AmqQueue(name.clone())),
            ("/topic", [key]) => Ok(Self::Topic(key.clone())),
            ("/temp-queue", [name]) => Ok(Self::TempQueue(name.clone())),
            _ => Err(invalid()),
        }
    }
}

/// The prefix must end where a name begins or nothing follows.
fn split_prefix(text: &str) -> Option<(&'static str, &str)> {
    PREFIXES.iter().find_map(|&prefix| {
        let rest = text.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((prefix, rest))
    })
}

/// Does it look like a destination, so that a client can send to it as it is?
pub(crate) fn has_prefix(text: &str) -> bool {
    split_prefix(text).is_some_and(|(_, rest)| !rest.is_empty())
}

/// Takes `%XX` for a byte, and a `%` that begins no such thing for itself. Names are limited to
/// 255 bytes, AMQP's most.
fn decode(part: &str) -> Option<Text> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&b| char::from(b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    Text::try_from(bytes).ok().filter(|name| name.len() <= 255)
}

/// The destination that a message was sent to.
pub(crate) fn format(exchange: &str, key: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(16 + exchange.len() + key.len());
    match exchange {
        "" => out.push_str("/queue/"),
        TOPIC_EXCHANGE => out.push_str("/topic/"),
        _ => {
            out.push_str("/exchange/");
            encode(exchange, &mut out);
            if key.is_empty() {
                return out;
            }
            out.push('/');
        }
    }
    match (exchange, dialect) {
        ("" | TOPIC_EXCHANGE, Dialect::Activemq) => activemq::encode(key, &mut out),
        _ => encode(key, &mut out),
    }
    out
}

fn encode(name: &str, out: &mut String) {
    for byte in name.bytes() {
        match byte {
            b'/' | b'%' | 0..32 | 127.. => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push(byte.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::from(text)
    }

    #[test]
    fn the_kinds_are_told_apart() {
        let exchange = |name, key| Destination::Exchange { name: text(name), key: text(key) };
        for (given, wanted) in [
            ("/queue/a.b", Destination::Queue(text("a.b"))),
            ("/queue/a%2Fb%25", Destination::Queue(text("a/b%"))),
            ("/queue/100%", Destination::Queue(text("100%"))),
            ("/queue/%C3%A9", Destination::Queue(text("é"))),
            ("/amq/queue/a", Destination::AmqQueue(text("a"))),
            ("/topic/a.*.#", Destination::Topic(text("a.*.#"))),
            ("/exchange/e", exchange("e", "")),
            ("/exchange/e/k", exchange("e", "k")),
            ("/exchange/a%2fb/c%2fd", exchange("a/b", "c/d")),
            ("/temp-queue/t", Destination::TempQueue(text("t"))),
            ("/reply-queue/a/b%2F", Destination::ReplyQueue(text("a/b%2F"))),
        ] {
            assert_eq!(Destination::parse_rabbitmq(given), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_rabbitmqs_words() {
        for (given, kind, rest) in [
            ("/queue/bah/baz", "queue", "/bah/baz"),
            ("/queue", "queue", ""),
            ("/topic/bah/baz", "topic", "/bah/baz"),
            ("/topic", "topic", ""),
            ("/exchange/bah/baz/boo", "exchange", "/bah/baz/boo"),
            ("/exchange", "exchange", ""),
            ("/exchange//foo", "exchange", "//foo"),
            ("/queue/%ff", "queue", "/%ff"),
        ] {
            let error = Destination::parse_rabbitmq(given).unwrap_err();
            assert_eq!(error.message, "Invalid destination");
            assert_eq!(error.body, format!("'{rest}' is not a valid {kind} destination\n"));
        }
        for given in ["/something/interesting", "queue", "", "/queuex/a"] {
            let error = Destination::parse_rabbitmq(given).unwrap_err();
            assert_eq!(error.message, "Unknown destination");
        }
        assert!(Destination::parse_rabbitmq(&format!("/queue/{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn a_formatted_destination_leads_back() {
        let format = |exchange, key| format(exchange, key, Dialect::Rabbitmq);
        assert_eq!(format("", "a/b%é"), "/queue/a%2Fb%25%C3%A9");
        assert_eq!(format("amq.topic", "a.b"), "/topic/a.b");
        assert_eq!(format("amq.fanout", ""), "/exchange/amq.fanout");
        assert_eq!(format("e/x", "k"), "/exchange/e%2Fx/k");
        let there = Destination::parse_rabbitmq(&format("", "a/b%é")).unwrap();
        assert_eq!(there, Destination::Queue(text("a/b%é")));
    }
}
