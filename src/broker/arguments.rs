//! Queue and exchange arguments: which values are allowed, and when two declarations are equal.
//! Codes and texts as RabbitMQ 3.10.8 gives them (amqp-errors-rabbitmq-3.10.8.txt).

use understudy_model::{
    QueueSpec, Refusal, RefusalKind, TIME_TO_LIVE_MS_MAX, Table, Value, type_name,
};

/// Arguments that must be equal when a queue is declared again; others are ignored.
const KNOWN: [&str; 13] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
    "x-queue-leader-locator",
];

pub(crate) fn check_queue(spec: &QueueSpec) -> Result<(), Refusal> {
    let table = Table::decode(&spec.arguments).map_err(|malformed| {
        Refusal::new(RefusalKind::PreconditionFailed, malformed.to_string())
    })?;
    for (name, value) in &table.0 {
        if let Err(reason) = check_value(name, value) {
            let (vhost, queue) = (&spec.vhost, &spec.name);
            let text =
                format!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {reason}");
            return Err(Refusal::new(RefusalKind::PreconditionFailed, text));
        }
    }
    let invalid = |arg: &str, reason: &str| {
        let (vhost, queue) = (&spec.vhost, &spec.name);
        let text = format!("invalid {arg} for queue '{queue}' in vhost '{vhost}'{reason}");
        Err(Refusal::new(RefusalKind::PreconditionFailed, text))
    };
    let what = format!("queue '{}' in vhost '{}'", spec.name, spec.vhost);
    check_exchange_name(&table, "x-dead-letter-exchange", &what)?;
    if table.get("x-dead-letter-routing-key").is_some()
        && table.get("x-dead-letter-exchange").is_none()
    {
        return invalid("arg 'x-dead-letter-routing-key'", ": routing_key_but_no_dlx_defined");
    }
    if table.get("x-queue-type").and_then(Value::as_str) == Some("quorum") {
        if !spec.durable {
            return invalid("property 'non-durable'", "");
        }
        if spec.exclusive {
            return invalid("property 'exclusive-owner'", "");
        }
    }
    Ok(())
}

pub(crate) fn check_exchange(name: &str, vhost: &str, table: &Table) -> Result<(), Refusal> {
    let what = format!("exchange '{name}' in vhost '{vhost}'");
    check_exchange_name(table, "alternate-exchange", &what)
}

/// An argument that names an exchange, if it is there; the exchange need not exist.
fn check_exchange_name(table: &Table, argument: &str, what: &str) -> Result<(), Refusal> {
    let Some(value) = table.get(argument).filter(|value| value.as_str().is_none()) else {
        return Ok(());
    };
    let text = format!("invalid type '{}' for arg '{argument}' in {what}", type_name(value));
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}

fn check_value(name: &str, value: &Value) -> Result<(), String> {
    match name {
        "x-message-ttl" => integer(value, 0, TIME_TO_LIVE_MS_MAX),
        "x-expires" => integer(value, 1, TIME_TO_LIVE_MS_MAX),
        "x-max-length" | "x-max-length-bytes" | "x-delivery-limit" => integer(value, 0, i64::MAX),
        "x-max-priority" => match integer(value, 0, 255) {
            Err(_) if value.as_i64().is_some_and(|v| v > 255) => {
                Err(format!("{{max_value_exceeded,{}}}", value.as_i64().unwrap_or(0)))
            }
            result => result,
        },
        "x-dead-letter-routing-key" if value.as_str().is_none() => {
            Err(format!("{{unacceptable_type,{}}}", type_name(value)))
        }
        "x-overflow" => match value.as_str() {
            Some("drop-head" | "reject-publish" | "reject-publish-dlx") => Ok(()),
            _ => Err("invalid_overflow".into()),
        },
        "x-queue-mode" => one_of(value, &["default", "lazy"], "queue mode"),
        "x-queue-type" => one_of(value, &["classic", "quorum"], "queue type"),
        "x-single-active-consumer" if value.as_bool().is_none() => {
            Err(format!("{{unacceptable_type,{}}}", type_name(value)))
        }
        _ => Ok(()),
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Result<(), String> {
    match value.as_i64() {
        None => Err(format!("\"expected integer, got {}\"", type_name(value))),
        Some(0) if min > 0 => Err("{value_zero,0}".into()),
        Some(v) if v < min => Err(format!("{{value_negative,{v}}}")),
        Some(v) if v > max => Err(format!("{{value_too_large,{v}}}")),
        Some(_) => Ok(()),
    }
}

fn one_of(value: &Value, allowed: &[&str], what: &str) -> Result<(), String> {
    match value.as_str() {
        Some(text) if allowed.contains(&text) => Ok(()),
        Some(text) => Err(format!("\"unsupported {what} '{text}'\"")),
        None => Err(format!("{{unacceptable_type,{}}}", type_name(value))),
    }
}

/// The first of these arguments that differs, and how, in RabbitMQ's words.
pub(crate) fn first_difference(
    received: &[u8],
    current: &[u8],
    known: &[&'static str],
) -> Option<(&'static str, String)> {
    let received = Table::decode(received).unwrap_or_default();
    let current = Table::decode(current).unwrap_or_default();
    known.iter().find_map(|&name| {
        let (new, old) = (received.get(name), current.get(name));
        (!is_equal(name, new, old)).then(|| (name, show_difference(new, old)))
    })
}

pub(crate) fn queue_difference(received: &[u8], current: &[u8]) -> Option<(&'static str, String)> {
    first_difference(received, current, &KNOWN)
}

fn is_equal(name: &str, new: Option<&Value>, old: Option<&Value>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => match (new.as_i64(), old.as_i64()) {
            (Some(new), Some(old)) => new == old,
            _ => new == old,
        },
        (None, None) => true,
        // A queue that names no type is a classic one.
        (Some(value), None) | (None, Some(value)) => {
            name == "x-queue-type" && value.as_str() == Some("classic")
        }
    }
}

fn show_difference(new: Option<&Value>, old: Option<&Value>) -> String {
    match (new, old) {
        (Some(new), Some(old)) => {
            format!("received '{}' but current is '{}'", show(new), show(old))
        }
        (new, old) => {
            let with_type = |value: Option<&Value>| match value {
                Some(value) => {
                    format!("the value '{}' of type '{}'", show(value), type_name(value))
                }
                None => "none".into(),
            };
            format!("received {} but current is {}", with_type(new), with_type(old))
        }
    }
}

/// A field's value as it stands in an error's text; of those with parts only the type.
pub(crate) fn show(value: &Value) -> String {
    match (value.as_str(), value.as_i64(), value.as_bool()) {
        (Some(text), ..) => text.into(),
        (_, Some(number), _) => number.to_string(),
        (.., Some(flag)) => flag.to_string(),
        _ => type_name(value).into(),
    }
}
