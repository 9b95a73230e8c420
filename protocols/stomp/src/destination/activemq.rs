//! ActiveMQ's spelling: names may hold slashes, `*` and `>` are the wildcards of topics, and a SEND
//! may list several destinations.

use super::{Destination, decode};
use crate::error::StompError;
use std::fmt::Write;
use understudy_model::Text;

/// A list is one atomic group: it must stay small beside it.
const DESTINATIONS_MAX: usize = 64;
const PREFIXES: [&str; 4] = ["/queue/", "/topic/", "/temp-queue/", "/temp-topic/"];

pub(super) fn parse(text: &str) -> Result<Destination, StompError> {
    match split(text) {
        Some((prefix, name)) => named(prefix, name),
        None if !text.starts_with('/') => named("/queue/", text),
        // RabbitMQ's other kinds are at hand here too: replies need one of them.
        None => Destination::parse_rabbitmq(text),
    }
}

fn split(text: &str) -> Option<(&'static str, &str)> {
    PREFIXES.iter().find_map(|&prefix| Some((prefix, text.strip_prefix(prefix)?)))
}

fn named(prefix: &str, name: &str) -> Result<Destination, StompError> {
    let name = decode(name).filter(|name| !name.is_empty()).ok_or_else(|| {
        let kind = prefix.trim_matches('/');
        let body = format!("'/{name}' is not a valid {kind} destination\n");
        StompError::new("Invalid destination", body)
    })?;
    Ok(match prefix {
        "/queue/" => Destination::Queue(name),
        "/topic/" => Destination::Topic(name),
        "/temp-queue/" => Destination::TempQueue(name),
        _ => Destination::TempTopic(name),
    })
}

/// `/queue/a,b,/topic/c`: a part without a prefix is of the kind of the part before it.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Destination>, StompError> {
    let mut destinations = Vec::new();
    let mut kind = None;
    for part in text.split(',').map(str::trim) {
        if destinations.len() == DESTINATIONS_MAX {
            let body = format!("A SEND may list {DESTINATIONS_MAX} destinations.\n");
            return Err(StompError::new("Invalid destination", body));
        }
        let destination = match (split(part), kind) {
            (Some((prefix, name)), _) => {
                kind = Some(prefix);
                named(prefix, name)?
            }
            (None, Some(prefix)) if !part.starts_with('/') => named(prefix, part)?,
            (None, _) => parse(part)?,
        };
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
    }
    Ok(destinations)
}

/// What a subscription's topic is as a key of `amq.topic`: `>` stands for the rest, like `#`.
pub(crate) fn binding_key(topic: &str) -> Text {
    let words: Vec<&str> =
        topic.split('.').map(|word| if word == ">" { "#" } else { word }).collect();
    Text::from(words.join("."))
}

/// As it was written, but for what would be read otherwise: a comma, and a `%` in front of digits.
pub(super) fn encode(name: &str, out: &mut String) {
    for (at, c) in name.char_indices() {
        let escape = || name.as_bytes()[at..].get(1..3);
        match c {
            '%' if escape().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) => {
                out.push_str("%25");
            }
            ',' | '\0'..' ' | '\x7f' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            c => out.push(c),
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
    fn names_are_taken_as_activemq_takes_them() {
        for (given, wanted) in [
            ("/queue/a/b.c", Destination::Queue(text("a/b.c"))),
            ("/topic/a.>", Destination::Topic(text("a.>"))),
            ("/temp-queue/t", Destination::TempQueue(text("t"))),
            ("/temp-topic/t", Destination::TempTopic(text("t"))),
            ("/reply-queue/r", Destination::ReplyQueue(text("r"))),
            ("/amq/queue/q", Destination::AmqQueue(text("q"))),
            ("orders", Destination::Queue(text("orders"))),
        ] {
            assert_eq!(parse(given), Ok(wanted), "{given}");
        }
        for wrong in ["/queue/", "/topic/", "/temp-topic/", "/queue/%ff", "", "/dsub/x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_names_each_destination_once() {
        let wanted = [
            Destination::Queue(text("a")),
            Destination::Queue(text("b")),
            Destination::Topic(text("c")),
        ];
        assert_eq!(parse_list("/queue/a, b,/topic/c,/queue/a").unwrap(), wanted);
        assert_eq!(parse_list("a,b,/topic/c").unwrap(), wanted);
        for wrong in ["/queue/a,", "/queue/a,/nothing/b", ",/queue/a"] {
            assert!(parse_list(wrong).is_err(), "{wrong}");
        }
        let long = (0..65).map(|n| format!("/queue/{n}")).collect::<Vec<_>>().join(",");
        assert!(parse_list(&long).is_err());
    }

    #[test]
    fn names_are_shown_as_they_were_written() {
        for (name, shown) in [
            ("a/b.c d", "a/b.c d"),
            ("100%", "100%"),
            ("é%é", "é%é"),
            ("a%2fb", "a%252fb"),
            ("a,b\r\n", "a%2Cb%0D%0A"),
        ] {
            for (exchange, prefix) in [("", "/queue/"), ("amq.topic", "/topic/")] {
                let there = crate::destination::format(exchange, name, crate::Dialect::Activemq);
                assert_eq!(there, format!("{prefix}{shown}"));
                let name = text(name);
                let back = if exchange.is_empty() {
                    Destination::Queue(name)
                } else {
                    Destination::Topic(name)
                };
                assert_eq!(parse(&there), Ok(back.clone()));
                assert_eq!(parse_list(&there).unwrap(), [back]);
            }
        }
    }

    #[test]
    fn wildcards_become_those_of_the_topic_exchange() {
        for (topic, key) in [("a.>", "a.#"), (">", "#"), ("a.*.b", "a.*.b"), ("a>b", "a>b")] {
            assert_eq!(binding_key(topic), key);
        }
    }
}
