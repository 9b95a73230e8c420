//! What clients have done since the start.

use super::exposition::{Exposition, Kind};
use understudy_broker::{Counted, Traffic};
use understudy_model::Protocol;

/// And the label, RabbitMQ's where it has one.
const PROTOCOLS: [(Protocol, &str); 4] = [
    (Protocol::Amqp, "amqp091"),
    (Protocol::Stomp, "stomp"),
    (Protocol::Native, "native"),
    (Protocol::Management, "http"),
];

/// Not those of the management interface, as in listings.
pub(super) fn clients(traffic: &Traffic, count: impl Fn(&Counted) -> u64) -> u64 {
    let clients = PROTOCOLS.iter().filter(|(protocol, _)| *protocol != Protocol::Management);
    clients.map(|(protocol, _)| count(traffic.of(*protocol))).sum()
}

pub(super) fn churn(traffic: &Traffic, page: &mut Exposition) {
    let opened = clients(traffic, |counted| counted.opened);
    page.counter("connections_opened_total", "Logins of clients.", opened);
    let closed = clients(traffic, |counted| counted.closed);
    page.counter("connections_closed_total", "Ends of connections after their login.", closed);
    let help = "Declarations of queues that succeeded, of those that were there too.";
    page.counter("queues_declared_total", help, traffic.queues_declared);
    page.counter("queues_created_total", "Queues that were made.", traffic.queues_created);
    page.counter("queues_deleted_total", "Queues that were deleted.", traffic.queues_deleted);
}

pub(super) fn messages(traffic: &Traffic, page: &mut Exposition) {
    for (name, help, count) in MESSAGES {
        let mut family = page.family(Kind::Counter, name, help);
        for (protocol, label) in PROTOCOLS {
            family.sample(&[("protocol", label)], count(traffic.of(protocol)));
        }
    }
    for (reason, count) in traffic.dead_lettered() {
        let name = format!("global_messages_dead_lettered_{reason}_total");
        let help = format!("Messages that went to a dead-letter exchange, reason {reason}.");
        page.counter(&name, &help, count);
    }
}

type Row = (&'static str, &'static str, fn(&Counted) -> u64);

const MESSAGES: [Row; 15] = [
    ("global_messages_received_total", "Publishes.", |c| c.received),
    ("global_messages_received_confirm_total", "Publishes that are to be confirmed.", |c| {
        c.received_confirm
    }),
    (
        "global_messages_confirmed_total",
        "Confirms. Counted when decided, told when committed.",
        |c| c.confirmed,
    ),
    ("global_messages_routed_total", "Messages into queues, each queue counted.", |c| c.routed),
    (
        "global_messages_unroutable_dropped_total",
        "Publishes that no queue took, not mandatory.",
        |c| c.unroutable_dropped,
    ),
    (
        "global_messages_unroutable_returned_total",
        "Publishes that no queue took, given back.",
        |c| c.unroutable_returned,
    ),
    (
        "global_messages_delivered_total",
        "Messages handed out, to consumers and as answers to gets.",
        |c| c.consumed.iter().chain(&c.got).sum::<u64>() + c.browsed,
    ),
    (
        "global_messages_delivered_consume_auto_ack_total",
        "Messages to consumers that do not acknowledge.",
        |c| c.consumed[0],
    ),
    (
        "global_messages_delivered_consume_manual_ack_total",
        "Messages to consumers that acknowledge.",
        |c| c.consumed[1],
    ),
    (
        "global_messages_delivered_get_auto_ack_total",
        "Answers to gets without acknowledgement.",
        |c| c.got[0],
    ),
    (
        "global_messages_delivered_get_manual_ack_total",
        "Answers to gets with acknowledgement.",
        |c| c.got[1],
    ),
    ("global_messages_delivered_browse_total", "Copies to browsers.", |c| c.browsed),
    ("global_messages_get_empty_total", "Gets that found no message.", |c| c.get_empty),
    ("global_messages_redelivered_total", "Messages handed out with the flag redelivered.", |c| {
        c.redelivered
    }),
    ("global_messages_acknowledged_total", "Messages that clients settled.", |c| c.acknowledged),
];
