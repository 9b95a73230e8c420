//! Which queues a message enters.

use crate::consistent_hash;
use crate::topology::{Exchange, Kind, Topology};
use std::collections::BTreeSet;
use understudy_model::{BindTarget, PropertiesView, QueueId, Table, Text, Value};

impl Topology {
    /// Queues for a message published to `exchange` with any of `keys`. Exchange-to-exchange
    /// loops and alternate-exchange cycles end at an exchange that was already visited.
    pub(crate) fn route(
        &self,
        vhost: &str,
        exchange: &Exchange,
        keys: &[&str],
        properties: &[u8],
    ) -> Found {
        let mut route = Route {
            topology: self,
            vhost,
            keys,
            properties,
            queues: Vec::new(),
            depends_on_key_only: true,
        };
        let mut visited = BTreeSet::new();
        route.follow(exchange, &mut visited);
        route.queues.sort_unstable();
        route.queues.dedup();
        Found { queues: route.queues, depends_on_key_only: route.depends_on_key_only }
    }
}

pub(crate) struct Found {
    /// Each once, ascending.
    pub(crate) queues: Vec<QueueId>,
    /// No exchange on the way looked at the message itself.
    pub(crate) depends_on_key_only: bool,
}

struct Route<'a> {
    topology: &'a Topology,
    vhost: &'a str,
    keys: &'a [&'a str],
    properties: &'a [u8],
    queues: Vec<QueueId>,
    depends_on_key_only: bool,
}

impl<'a> Route<'a> {
    fn follow(&mut self, exchange: &'a Exchange, visited: &mut BTreeSet<&'a Text>) {
        if !visited.insert(&exchange.spec.name) {
            return;
        }
        let before = self.queues.len();
        let mut exchanges = Vec::new();
        let matched = self.take_targets(exchange, &mut exchanges);
        for name in exchanges {
            if let Some(next) = self.topology.exchange(self.vhost, &name) {
                self.follow(next, visited);
            }
        }
        if let Some(alternate) = &exchange.alternate
            && !matched
            && self.queues.len() == before
            && let Some(next) = self.topology.exchange(self.vhost, alternate)
        {
            self.follow(next, visited);
        }
    }

    /// Adds the queues that `exchange` itself leads to, and names the exchanges. True if any
    /// binding matched.
    fn take_targets(&mut self, exchange: &Exchange, exchanges: &mut Vec<Text>) -> bool {
        let mut matched = false;
        let mut take = |queues: &mut Vec<QueueId>, target: &BindTarget| {
            matched = true;
            match target {
                BindTarget::Queue(queue) => queues.push(*queue),
                BindTarget::Exchange(name) => exchanges.push(name.clone()),
            }
        };
        let bindings = &exchange.bindings;
        match exchange.kind {
            // The default exchange binds every queue by its name.
            Kind::Direct if exchange.spec.name.is_empty() => {
                for queue in self.keys.iter().filter_map(|key| self.topology.queue(self.vhost, key))
                {
                    take(&mut self.queues, &BindTarget::Queue(queue));
                }
            }
            Kind::Direct => {
                let targets = self.keys.iter().filter_map(|key| bindings.by_key.get(*key));
                targets.flatten().for_each(|t| take(&mut self.queues, t));
            }
            Kind::Fanout => bindings.all.iter().for_each(|b| take(&mut self.queues, &b.target)),
            Kind::Topic => {
                for key in self.keys {
                    bindings.by_topic.matches(key, &mut |t| take(&mut self.queues, t));
                }
            }
            Kind::ConsistentHash => {
                for key in self.keys {
                    let hashed = match &exchange.hash_header {
                        None => Some((*key).to_owned()),
                        Some(name) => {
                            self.depends_on_key_only = false;
                            header_text(self.properties, name)
                        }
                    };
                    let chosen =
                        consistent_hash::choose(&bindings.all, &hashed.unwrap_or_default());
                    chosen.into_iter().for_each(|target| take(&mut self.queues, target));
                }
            }
            Kind::Headers => {
                self.depends_on_key_only = false;
                let headers = PropertiesView::decode(self.properties).ok().and_then(|p| p.headers);
                let headers = headers.and_then(|h| Table::decode(h).ok()).unwrap_or_default();
                let fitting = bindings.by_headers.iter().filter(|(b, _)| fits(b, &headers));
                fitting.for_each(|(_, target)| take(&mut self.queues, target));
            }
        }
        matched
    }
}

fn header_text(properties: &[u8], name: &str) -> Option<String> {
    let headers = Table::decode(PropertiesView::decode(properties).ok()?.headers?).ok()?;
    let value = headers.get(name)?;
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

/// `x-match`: all (default), any, and RabbitMQ's forms that also look at keys beginning `x-`.
fn fits(binding: &Table, headers: &Table) -> bool {
    let mode = binding.get("x-match").and_then(Value::as_str).unwrap_or("all");
    let with_x = mode.ends_with("-with-x");
    let mut wanted = binding
        .0
        .iter()
        .filter(|(name, _)| name != "x-match" && (with_x || !name.starts_with("x-")))
        .map(|(name, value)| match headers.get(name) {
            Some(found) => *value == Value::Void || same(value, found),
            None => false,
        });
    if mode.starts_with("any") { wanted.any(|fit| fit) } else { wanted.all(|fit| fit) }
}

/// Integers are compared by value, whatever their width.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use understudy_model::{Binding, ExchangeSpec, Lsn, QueueSpec};

    fn text(text: &str) -> Text {
        Text::from(text)
    }

    fn queue(number: u64) -> BindTarget {
        BindTarget::Queue(QueueId(Lsn(number)))
    }

    fn topology(bindings: &[(&str, BindTarget, &str)]) -> Topology {
        let mut topology = Topology::default();
        topology.put_vhost(&text("/"));
        for (name, kind, alternate) in
            [("loop", "fanout", None), ("ae", "direct", Some("amq.fanout"))]
        {
            let mut arguments = Table::default();
            if let Some(alternate) = alternate {
                arguments.push("alternate-exchange", Value::text(alternate));
            }
            topology.declare_exchange(ExchangeSpec {
                vhost: text("/"),
                name: text(name),
                kind: text(kind),
                durable: true,
                auto_delete: false,
                internal: false,
                arguments: arguments.to_bytes(),
            });
        }
        topology.declare_queue(QueueId(Lsn(1)), &spec("q1"));
        for (source, target, key) in bindings {
            topology.bind(Binding {
                vhost: text("/"),
                source: text(source),
                target: target.clone(),
                key: text(key),
                arguments: Bytes::new(),
            });
        }
        topology
    }

    fn spec(name: &'static str) -> QueueSpec {
        QueueSpec {
            vhost: text("/"),
            name: text(name),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Bytes::new(),
        }
    }

    fn check(bindings: &[(&str, BindTarget, &str)], exchange: &str, key: &str, expected: &[u64]) {
        let topology = topology(bindings);
        let exchange = topology.exchange("/", exchange).unwrap();
        let queues = topology.route("/", exchange, &[key], &[0, 0]).queues;
        assert_eq!(queues.iter().map(|q| q.0.0).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn routes() {
        check(&[], "", "q1", &[1]);
        check(&[], "", "q2", &[]);
        let direct = [("amq.direct", queue(2), "k"), ("amq.direct", queue(3), "other")];
        check(&direct, "amq.direct", "k", &[2]);
        let fanout = [("amq.fanout", queue(4), "a"), ("amq.fanout", queue(4), "b")];
        check(&fanout, "amq.fanout", "", &[4]);
        check(&[("amq.topic", queue(5), "a.#")], "amq.topic", "a.b.c", &[5]);
    }

    #[test]
    fn loops_end_and_queues_come_once() {
        let to = |name| BindTarget::Exchange(text(name));
        let bindings = [
            ("loop", to("amq.fanout"), ""),
            ("amq.fanout", to("loop"), ""),
            ("amq.fanout", queue(7), ""),
            ("loop", queue(7), ""),
        ];
        check(&bindings, "loop", "x", &[7]);
    }

    #[test]
    fn the_alternate_exchange_takes_what_nothing_matched() {
        let bindings = [("amq.fanout", queue(8), ""), ("ae", queue(9), "yes")];
        check(&bindings, "ae", "yes", &[9]);
        check(&bindings, "ae", "no", &[8]);
    }

    #[test]
    fn a_deleted_queue_takes_its_own_bindings_along() {
        for source in ["amq.direct", "amq.topic", "amq.fanout"] {
            let of_three = [0, 1, 2].map(|n| (source, queue(n), "k"));
            let more = [(source, queue(1), ""), (source, queue(1), "z"), (source, queue(1), "z")];
            let mut topology = topology(&[&of_three[..], &more].concat());
            let bindings = |topology: &Topology| -> Vec<BindTarget> {
                let all = &topology.exchange("/", source).unwrap().bindings.all;
                all.iter().map(|binding| binding.target.clone()).collect()
            };
            assert_eq!(bindings(&topology).len(), 5, "a binding is there once");
            topology.delete_queue(QueueId(Lsn(1)), &spec("q1"), &[text(source)]);
            assert_eq!(bindings(&topology), [queue(0), queue(2)]);
            let exchange = topology.exchange("/", source).unwrap();
            let routed = topology.route("/", exchange, &["k", "z"], &[0, 0]).queues;
            assert_eq!(routed, [QueueId(Lsn(0)), QueueId(Lsn(2))]);
        }
    }
}
