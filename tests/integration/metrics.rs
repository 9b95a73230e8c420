//! What Prometheus reads: every page is well-formed, and the numbers are those of what was done.

use crate::prometheus::Metrics;
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, eventually};
use std::io::{Read, Write};

const LOGIN: &str = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";

fn get(node: &Node, path: &str, login: &str) -> (String, String) {
    let mut socket = std::net::TcpStream::connect(&node.ports.http).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn scrape(node: &Node, path: &str, login: &str) -> Metrics {
    let (head, body) = get(node, path, login);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    Metrics::parse(&body)
}

/// Scrapes until it is as wanted: the node publishes its numbers a few times a second.
fn wait(node: &Node, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
    let mut last = Metrics::default();
    eventually(
        || {
            last = scrape(node, "/metrics", "");
            wanted(&last)
        },
        || format!("{}: {:#?}", node.name, scrape(node, "/metrics", "")),
    );
    last
}

fn value(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.get(&format!("understudy_{name}"), &[])
}

fn of_stomp(metrics: &Metrics, prefix: &str, name: &str) -> Option<f64> {
    metrics.get(&format!("{prefix}_global_messages_{name}_total"), &[("protocol", "stomp")])
}

/// Five messages of which two are settled and three are handed out, and one that goes nowhere.
fn traffic(node: &Node) -> Stomp {
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.publish("/queue/say \"x\"", (0..5).map(|number| number.to_string()));
    stomp.publish("/exchange/amq.topic/nowhere", ["lost".to_owned()]);
    stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/say \"x\"\nack:client-individual\n\n");
    let messages: Vec<_> = (0..5).map(|_| stomp.receive()).collect();
    for message in &messages[..2] {
        stomp.send(&format!("ACK\nid:{}\nreceipt:r\n\n", message.header("ack")));
        assert_eq!(stomp.receive().command, "RECEIPT");
    }
    stomp
}

#[test]
fn what_clients_did_is_counted_and_named_as_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let fresh = scrape(&node, "/metrics", "");
    assert_eq!(of_stomp(&fresh, "understudy", "received"), Some(0.0));
    let stomp = traffic(&node);
    let metrics = wait(&node, |metrics| value(metrics, "queue_messages_unacked") == Some(3.0));
    for (name, expected) in [
        ("queue_messages_ready", Some(0.0)),
        ("queue_messages", Some(3.0)),
        ("queues", Some(1.0)),
        ("queues_created_total", Some(1.0)),
        ("consumers", Some(1.0)),
        ("connections", Some(1.0)),
        ("connections_opened_total", Some(1.0)),
        ("connections_closed_total", Some(0.0)),
        ("serving", Some(1.0)),
        ("alarms_free_disk_space_watermark", Some(0.0)),
        // There is no pair.
        ("replication_in_sync", None),
        ("replication_lag_records", None),
        ("replication_arbiter_answers", None),
        ("replication_masterships_total", Some(1.0)),
    ] {
        assert_eq!(value(&metrics, name), expected, "{name}");
    }
    for (name, expected) in [
        ("received", 6.0),
        ("routed", 5.0),
        ("unroutable_dropped", 1.0),
        ("delivered", 5.0),
        ("delivered_consume_manual_ack", 5.0),
        ("delivered_get_auto_ack", 0.0),
        ("acknowledged", 2.0),
        ("redelivered", 0.0),
    ] {
        assert_eq!(of_stomp(&metrics, "understudy", name), Some(expected), "{name}");
    }
    let amqp = [("protocol", "amqp091")];
    assert_eq!(metrics.get("understudy_global_messages_received_total", &amqp), Some(0.0));
    for name in ["process_resident_memory_bytes", "disk_space_available_bytes", "log_applied_lsn"] {
        assert!(value(&metrics, name) > Some(0.0), "{name}");
    }
    assert!(value(&metrics, "log_commit_seconds_count") > Some(0.0));
    let infinite = metrics.get("understudy_log_commit_seconds_bucket", &[("le", "+Inf")]);
    assert_eq!(infinite, value(&metrics, "log_commit_seconds_count"));

    drop(stomp);
    let metrics = wait(&node, |metrics| value(metrics, "queue_messages_ready") == Some(3.0));
    assert_eq!(value(&metrics, "connections_closed_total"), Some(1.0));
    let mut stomp = Stomp::connect(&node.ports.stomp);
    assert_eq!(stomp.consume("/queue/say \"x\"", 3).len(), 3);
    wait(&node, |metrics| of_stomp(metrics, "understudy", "redelivered") == Some(3.0));
    let renamed = scrape(&node, "/metrics?prefix=rabbitmq", "");
    assert_eq!(of_stomp(&renamed, "rabbitmq", "acknowledged"), Some(5.0));
    assert!(renamed.names().iter().all(|name| name.starts_with("rabbitmq_")));
    let identity = [("rabbitmq_node", "standalone"), ("rabbitmq_cluster", "standalone")];
    assert_eq!(renamed.get("rabbitmq_identity_info", &identity), Some(1.0));
    let (head, body) = get(&node, "/metrics?prefix=a-b", "");
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("prefix"), "{head}\n{body}");
}

#[test]
fn queues_are_told_one_by_one_to_who_may_list_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let _stomp = traffic(&node);
    wait(&node, |metrics| value(metrics, "connections_opened_total") == Some(1.0));
    let queue = [("queue", "say \"x\""), ("vhost", "/")];
    let detailed = "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count";
    for path in ["/metrics/per-object", detailed] {
        let (head, _) = get(&node, path, "");
        assert!(head.starts_with("HTTP/1.1 401"), "{path}: {head}");
    }
    let each = scrape(&node, "/metrics/per-object", LOGIN);
    assert_eq!(each.get("understudy_queue_messages_unacked", &queue), Some(3.0));
    assert_eq!(each.get("understudy_queue_consumers", &queue), Some(1.0));
    assert_eq!(value(&each, "serving"), Some(1.0), "and what /metrics tells");
    let some = scrape(&node, &format!("{detailed}&family=none&vhost=/&prefix=rabbitmq"), LOGIN);
    let names = ["consumers", "messages", "messages_ready", "messages_unacked"];
    let names = names.map(|name| format!("rabbitmq_detailed_queue_{name}"));
    assert!(some.names().iter().eq(&names), "{some:?}");
    assert_eq!(some.get("rabbitmq_detailed_queue_messages", &queue), Some(3.0));
    let other = scrape(&node, &format!("{detailed}&vhost=other"), LOGIN);
    assert!(other.names().is_empty(), "{other:?}");
    let churn = scrape(&node, "/metrics/detailed?family=connection_churn_metrics", LOGIN);
    let opened = churn.get("understudy_detailed_connections_opened_total", &[]);
    assert_eq!((opened, churn.names().len()), (Some(1.0), 5));
}

fn is(metrics: &Metrics, role: &str, state: &str) -> bool {
    metrics.get("understudy_replication_role", &[("role", role)]) == Some(1.0)
        && metrics.get("understudy_replication_state", &[("state", state)]) == Some(1.0)
}

#[test]
fn a_pair_tells_roles_and_how_far_the_slave_is_behind() {
    let mut pair = Pair::in_sync();
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", (0..10).map(|number| number.to_string()));
    let lag = |metrics: &Metrics| {
        ["records", "bytes", "seconds"]
            .map(|unit| value(metrics, &format!("replication_lag_{unit}")))
    };
    let has_all = |metrics: &Metrics| {
        value(metrics, "replication_in_sync") == Some(1.0) && lag(metrics) == [Some(0.0); 3]
    };
    let in_sync = wait(&pair.master, |metrics| {
        is(metrics, "master", "in-sync")
            && has_all(metrics)
            && value(metrics, "queue_messages") == Some(10.0)
    });
    let slave = wait(&pair.slave, |metrics| value(metrics, "queue_messages") == Some(10.0));
    assert!(is(&slave, "slave", "in-sync"), "{slave:#?}");
    assert_eq!(value(&slave, "serving"), Some(0.0));
    assert_eq!(value(&slave, "replication_masterships_total"), Some(0.0));
    assert_eq!(value(&slave, "replication_lag_records"), Some(0.0));

    pair.slave.kill();
    pair.master.wait("alone", |status| status["state"] == "alone");
    stomp.publish("/queue/q", (0..10).map(|number| number.to_string()));
    let behind = wait(&pair.master, |metrics| lag(metrics)[0] >= Some(10.0));
    assert!(is(&behind, "master", "alone"), "{behind:#?}");
    assert_eq!(value(&behind, "replication_in_sync"), Some(0.0));
    // By no more than the log has grown since they were equal.
    let grown = |name: &str| value(&behind, name).unwrap() - value(&in_sync, name).unwrap();
    assert!(lag(&behind)[0] <= Some(grown("log_appended_lsn")), "{behind:#?}");
    assert!(lag(&behind)[1] > Some(0.0), "{behind:#?}");
    assert!(lag(&behind)[1] <= Some(grown("log_appended_bytes_total")), "{behind:#?}");
    wait(&pair.master, |metrics| lag(metrics)[2] > lag(&behind)[2]);
    pair.slave.start();
    wait(&pair.master, has_all);

    pair.slave.wait_in_sync();
    pair.master.kill();
    let leads = wait(&pair.slave, |metrics| is(metrics, "master", "alone"));
    assert_eq!(value(&leads, "replication_masterships_total"), Some(1.0));
    assert!(value(&leads, "replication_epoch") > value(&slave, "replication_epoch"));
}
