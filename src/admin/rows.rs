//! Rows of listings as JSON, with RabbitMQ's names.

use super::table_json::to_json;
use serde_json::{Value, json};
use std::net::SocketAddr;
use understudy_broker::{BindingRow, ConnectionRow, ConsumerRow, ExchangeRow, QueueRow};
use understudy_model::{ConnectionId, PermissionRecord, PolicyRecord, Protocol, UserRecord};

pub(super) fn queue(row: &QueueRow, node: &str) -> Value {
    json!({
        "name": &*row.spec.name,
        "vhost": &*row.spec.vhost,
        "type": "classic",
        "durable": row.spec.durable,
        "auto_delete": row.spec.auto_delete,
        "exclusive": row.spec.exclusive,
        "arguments": to_json(&row.spec.arguments),
        "policy": row.policy.as_deref(),
        "messages": row.ready + row.unacked,
        "messages_ready": row.ready,
        "messages_unacknowledged": row.unacked,
        "consumers": row.consumers,
        "owner_pid_details": row.owner.map(|owner| json!({ "name": owner.to_string() })),
        "node": node,
        "state": "running",
    })
}

pub(super) fn exchange(row: &ExchangeRow) -> Value {
    json!({
        "name": &*row.spec.name,
        "vhost": &*row.spec.vhost,
        "type": &*row.spec.kind,
        "durable": row.spec.durable,
        "auto_delete": row.spec.auto_delete,
        "internal": row.spec.internal,
        "arguments": to_json(&row.spec.arguments),
        "policy": row.policy.as_deref(),
    })
}

pub(super) fn binding(row: &BindingRow) -> Value {
    json!({
        "source": &*row.source,
        "vhost": &*row.vhost,
        "destination": &*row.destination,
        "destination_type": if row.to_exchange { "exchange" } else { "queue" },
        "routing_key": &*row.key,
        "arguments": to_json(&row.arguments),
        "properties_key": properties_key(row),
    })
}

/// Tells bindings between the same two apart: the key, coded as RabbitMQ does it, `~` for an empty
/// one, and a hash of arguments.
pub(super) fn properties_key(row: &BindingRow) -> String {
    let key = if row.key.is_empty() { "~".to_owned() } else { coded(&row.key, b".-_") };
    if row.arguments.is_empty() {
        return key;
    }
    format!("{key}~{:08x}", crc32fast::hash(&row.arguments))
}

/// What follows `/e/SOURCE/q/` in the path of a new binding: clients take the second part.
pub(super) fn binding_location(row: &BindingRow) -> String {
    let [destination, key] = [&*row.destination, &properties_key(row)].map(|p| coded(p, b".-_~"));
    format!("{destination}/{key}")
}

/// Percent-coded, and a space as `+`.
fn coded(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            _ if byte.is_ascii_alphanumeric() || plain.contains(&byte) => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn connection(row: &ConnectionRow, peer: Option<SocketAddr>, node: &str) -> Value {
    json!({
        "name": connection_name(row.id),
        "vhost": &*row.vhost,
        "user": &*row.user,
        "protocol": match row.protocol {
            Protocol::Amqp => "AMQP 0-9-1",
            Protocol::Stomp => "STOMP",
            Protocol::Native => "native",
            Protocol::Management => "HTTP",
        },
        "peer_host": peer.map(|peer| peer.ip().to_canonical().to_string()),
        "peer_port": peer.map(|peer| peer.port()),
        "client_properties": { "product": &*row.client_name },
        "consumers": row.consumers,
        "node": node,
        "type": "network",
        "state": "running",
    })
}

pub(super) fn connection_name(id: ConnectionId) -> String {
    id.to_string()
}

pub(super) fn consumer(row: &ConsumerRow) -> Value {
    json!({
        "queue": { "name": &*row.queue, "vhost": &*row.vhost },
        "consumer_tag": format!("{}.{}", row.connection, row.number.0),
        "channel_details": {
            "connection_name": connection_name(row.connection),
            "name": format!("{} ({})", row.connection, row.channel),
            "number": row.channel,
        },
        "ack_required": row.ack_required,
        "prefetch_count": row.prefetch,
        "exclusive": row.exclusive,
        "active": true,
        "arguments": {},
    })
}

/// RabbitMQ's name of the algorithm, and the hash as its files have it.
pub(super) fn hash_parts(stored: &str) -> (&'static str, &str) {
    match stored.split_once(':') {
        Some(("sha256", hash)) => ("rabbit_password_hashing_sha256", hash),
        Some((_, hash)) => ("argon2id", hash),
        None => ("argon2id", ""),
    }
}

pub(super) fn user(user: &UserRecord) -> Value {
    let (algorithm, hash) = hash_parts(&user.password_hash);
    let tags: Vec<&str> = user.tags.iter().map(|tag| &**tag).collect();
    json!({
        "name": &*user.name,
        "password_hash": hash,
        "hashing_algorithm": algorithm,
        "tags": tags,
        "limits": {},
    })
}

pub(super) fn permission(permission: &PermissionRecord) -> Value {
    json!({
        "user": &*permission.user,
        "vhost": &*permission.vhost,
        "configure": &*permission.configure,
        "write": &*permission.write,
        "read": &*permission.read,
    })
}

pub(super) fn policy(policy: &PolicyRecord) -> Value {
    json!({
        "vhost": &*policy.vhost,
        "name": &*policy.name,
        "pattern": &*policy.pattern,
        "apply-to": policy.apply_to.name(),
        "priority": policy.priority,
        "definition": to_json(&policy.definition),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::Text;

    #[test]
    fn a_binding_is_named_as_rabbitmq_names_it() {
        for (key, properties_key, location) in [
            ("k", "k", "q%2F1/k"),
            ("", "~", "q%2F1/~"),
            ("a.#", "a.%23", "q%2F1/a.%2523"),
            ("a b/\u{fc}~%", "a+b%2F%C3%BC%7E%25", "q%2F1/a%2Bb%252F%25C3%25BC%257E%2525"),
        ] {
            let row = BindingRow {
                vhost: Text::from_static("/"),
                source: Text::from_static("x"),
                destination: Text::from_static("q/1"),
                to_exchange: false,
                key: Text::from_static(key),
                arguments: bytes::Bytes::new(),
            };
            assert_eq!(super::properties_key(&row), properties_key);
            assert_eq!(binding_location(&row), location);
        }
    }
}
