//! Vhosts, exchanges, queues' names, bindings and users: committed state, changed by apply only.

use crate::policy::Policies;
use crate::topic::TopicTrie;
use std::collections::{BTreeMap, BTreeSet};
use understudy_model::{
    ApplyTo, BindTarget, Binding, ExchangeSpec, Malformed, QueueId, QueueSpec, Reader, Table, Text,
    UserRecord, Value, Writer,
};

/// AMQP's predeclared exchanges, present in every vhost and not in the log.
const PREDECLARED: [(&str, Kind); 7] = [
    ("", Kind::Direct),
    ("amq.direct", Kind::Direct),
    ("amq.fanout", Kind::Fanout),
    ("amq.topic", Kind::Topic),
    ("amq.headers", Kind::Headers),
    ("amq.match", Kind::Headers),
    (TRACE, Kind::Topic),
];
/// Clients and tools look for it; nothing is traced here, so nothing comes out of it.
const TRACE: &str = "amq.rabbitmq.trace";

/// The type of exchanges that hold messages back; `x-delayed-type` says how they route.
pub(crate) const DELAYING: &str = "x-delayed-message";

#[derive(Default)]
pub(crate) struct Topology {
    pub(crate) vhosts: BTreeMap<Text, Vhost>,
    pub(crate) users: BTreeMap<Text, UserRecord>,
    /// Rises with every change, so that cached routes know when they are stale.
    pub(crate) version: u64,
}

pub(crate) struct Vhost {
    pub(crate) exchanges: BTreeMap<Text, Exchange>,
    pub(crate) queues: BTreeMap<Text, QueueId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
    ConsistentHash,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            "x-consistent-hash" => Self::ConsistentHash,
            _ => return None,
        })
    }

    /// How an exchange of this spec routes. None: a type that is not known.
    pub(crate) fn of(kind: &str, arguments: &Table) -> Option<Self> {
        if kind != DELAYING {
            return Self::parse(kind);
        }
        arguments.get("x-delayed-type").and_then(Value::as_str).and_then(Self::parse)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
        }
    }
}

pub(crate) struct Exchange {
    pub(crate) spec: ExchangeSpec,
    pub(crate) kind: Kind,
    /// Messages with an `x-delay` header wait before they are routed.
    pub(crate) delays: bool,
    /// The header that a consistent-hash exchange looks at instead of the routing key.
    pub(crate) hash_header: Option<Text>,
    /// `alternate-exchange` of the arguments, else of the policy: tried when nothing matches.
    pub(crate) alternate: Option<Text>,
    pub(crate) bindings: Bindings,
    pub(crate) predeclared: bool,
}

/// What leaves an exchange. All bindings stand in `all`, those to one target behind one another; the
/// others are indexes for routing.
#[derive(Default)]
pub(crate) struct Bindings {
    pub(crate) all: BTreeSet<Binding>,
    pub(crate) by_key: BTreeMap<Text, Vec<BindTarget>>,
    pub(crate) by_topic: TopicTrie<BindTarget>,
    /// Decoded arguments of a headers exchange.
    pub(crate) by_headers: Vec<(Table, BindTarget)>,
}

impl Bindings {
    /// Those that lead from the exchange to the target.
    fn to<'a>(
        &'a self,
        exchange: &ExchangeSpec,
        target: &'a BindTarget,
    ) -> impl Iterator<Item = &'a Binding> {
        let first = Binding {
            vhost: exchange.vhost.clone(),
            source: exchange.name.clone(),
            target: target.clone(),
            key: Text::new(),
            arguments: bytes::Bytes::new(),
        };
        self.all.range(first..).take_while(move |binding| binding.target == *target)
    }
}

impl Vhost {
    fn new(name: &Text) -> Self {
        let exchanges = PREDECLARED.iter().map(|&(exchange, kind)| {
            let spec = ExchangeSpec {
                vhost: name.clone(),
                name: Text::from_static(exchange),
                kind: Text::from_static(kind.name()),
                durable: true,
                auto_delete: false,
                internal: exchange == TRACE,
                arguments: bytes::Bytes::new(),
            };
            (Text::from_static(exchange), Exchange::new(spec, kind, true))
        });
        Self { exchanges: exchanges.collect(), queues: BTreeMap::new() }
    }
}

impl Exchange {
    fn new(spec: ExchangeSpec, kind: Kind, predeclared: bool) -> Self {
        let arguments = Table::decode(&spec.arguments).unwrap_or_default();
        let text = |name| arguments.get(name).and_then(Value::as_str).map(Text::from);
        Self {
            kind,
            delays: spec.kind == DELAYING,
            hash_header: text("hash-header"),
            alternate: alternate(&arguments),
            bindings: Bindings::default(),
            predeclared,
            spec,
        }
    }

    fn bind(&mut self, binding: Binding) {
        if !self.bindings.all.insert(binding.clone()) {
            return;
        }
        let target = binding.target;
        match self.kind {
            Kind::Topic => self.bindings.by_topic.insert(&binding.key, target),
            Kind::Headers => {
                let table = Table::decode(&binding.arguments).unwrap_or_default();
                self.bindings.by_headers.push((table, target));
            }
            Kind::Direct => {
                self.bindings.by_key.entry(binding.key).or_default().push(target);
            }
            Kind::Fanout | Kind::ConsistentHash => {}
        }
    }

    fn unbind(&mut self, binding: &Binding) -> bool {
        if !self.bindings.all.remove(binding) {
            return false;
        }
        match self.kind {
            Kind::Topic => self.bindings.by_topic.remove(&binding.key, &binding.target),
            Kind::Headers => {
                let table = Table::decode(&binding.arguments).unwrap_or_default();
                let entry = (table, binding.target.clone());
                if let Some(at) = self.bindings.by_headers.iter().position(|b| *b == entry) {
                    self.bindings.by_headers.swap_remove(at);
                }
            }
            Kind::Fanout | Kind::ConsistentHash => {}
            Kind::Direct => {
                if let Some(targets) = self.bindings.by_key.get_mut(&binding.key) {
                    if let Some(at) = targets.iter().position(|t| *t == binding.target) {
                        targets.swap_remove(at);
                    }
                    if targets.is_empty() {
                        self.bindings.by_key.remove(&binding.key);
                    }
                }
            }
        }
        true
    }
}

impl Topology {
    pub(crate) fn exchange(&self, vhost: &str, name: &str) -> Option<&Exchange> {
        self.vhosts.get(vhost)?.exchanges.get(name)
    }

    pub(crate) fn queue(&self, vhost: &str, name: &str) -> Option<QueueId> {
        self.vhosts.get(vhost)?.queues.get(name).copied()
    }

    /// Of all vhosts. Costs per vhost.
    pub(crate) fn exchange_count(&self) -> usize {
        self.vhosts.values().map(|vhost| vhost.exchanges.len()).sum()
    }

    /// The auto-delete exchanges that are bound to the target.
    pub(crate) fn auto_delete_sources_of(&self, vhost: &str, target: &BindTarget) -> Vec<Text> {
        let exchanges = self.vhosts.get(vhost).into_iter().flat_map(|vhost| &vhost.exchanges);
        let bound = exchanges.filter(|(_, exchange)| {
            exchange.spec.auto_delete
                && exchange.bindings.to(&exchange.spec, target).next().is_some()
        });
        bound.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn put_vhost(&mut self, name: &Text) {
        self.vhosts.entry(name.clone()).or_insert_with(|| Vhost::new(name));
        self.version += 1;
    }

    pub(crate) fn vhost_queues(&self, name: &str) -> Vec<QueueId> {
        self.vhosts.get(name).map(|v| v.queues.values().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn delete_vhost(&mut self, name: &str) {
        self.version += 1;
        self.vhosts.remove(name);
    }

    /// What the policies say about all exchanges of the vhost.
    pub(crate) fn apply_policies(&mut self, vhost: &str, policies: &Policies) {
        let Some(state) = self.vhosts.get(vhost) else { return };
        for name in state.exchanges.keys().cloned().collect::<Vec<_>>() {
            self.apply_policy(vhost, &name, policies);
        }
        self.version += 1;
    }

    pub(crate) fn apply_policy(&mut self, vhost: &str, name: &str, policies: &Policies) {
        let exchange = self.vhosts.get_mut(vhost).and_then(|v| v.exchanges.get_mut(name));
        let Some(exchange) = exchange else { return };
        let own = alternate(&Table::decode(&exchange.spec.arguments).unwrap_or_default());
        let policy = policies.effective(vhost, ApplyTo::Exchanges, name);
        exchange.alternate = own.or_else(|| policy.and_then(|p| alternate(&p.definition)));
    }

    pub(crate) fn declare_exchange(&mut self, spec: ExchangeSpec) {
        let arguments = Table::decode(&spec.arguments).unwrap_or_default();
        let Some(kind) = Kind::of(&spec.kind, &arguments) else { return };
        let Some(vhost) = self.vhosts.get_mut(&spec.vhost) else { return };
        let name = spec.name.clone();
        vhost.exchanges.entry(name).or_insert_with(|| Exchange::new(spec, kind, false));
        self.version += 1;
    }

    /// Also unbinds it everywhere.
    pub(crate) fn delete_exchange(&mut self, vhost: &str, name: &Text) {
        let Some(vhost) = self.vhosts.get_mut(vhost) else { return };
        vhost.exchanges.remove(name);
        let target = BindTarget::Exchange(name.clone());
        vhost.exchanges.values_mut().for_each(|exchange| unbind_target(exchange, &target));
        self.version += 1;
    }

    /// False if a queue of that name is there already: then nothing changes.
    pub(crate) fn declare_queue(&mut self, id: QueueId, spec: &QueueSpec) -> bool {
        let Some(vhost) = self.vhosts.get_mut(&spec.vhost) else { return false };
        if vhost.queues.contains_key(&spec.name) {
            return false;
        }
        vhost.queues.insert(spec.name.clone(), id);
        self.version += 1;
        true
    }

    /// Also removes its bindings; `bound_to` names the exchanges they leave from.
    pub(crate) fn delete_queue(&mut self, id: QueueId, spec: &QueueSpec, bound_to: &[Text]) {
        let Some(vhost) = self.vhosts.get_mut(&spec.vhost) else { return };
        vhost.queues.remove(&spec.name);
        for source in bound_to {
            if let Some(exchange) = vhost.exchanges.get_mut(source) {
                unbind_target(exchange, &BindTarget::Queue(id));
            }
        }
        self.version += 1;
    }

    pub(crate) fn bind(&mut self, binding: Binding) {
        let Some(vhost) = self.vhosts.get_mut(&binding.vhost) else { return };
        if let BindTarget::Exchange(target) = &binding.target
            && !vhost.exchanges.contains_key(target)
        {
            return;
        }
        if let Some(exchange) = vhost.exchanges.get_mut(&binding.source) {
            exchange.bind(binding);
        }
        self.version += 1;
    }

    pub(crate) fn unbind(&mut self, binding: &Binding) {
        let Some(vhost) = self.vhosts.get_mut(&binding.vhost) else { return };
        if let Some(exchange) = vhost.exchanges.get_mut(&binding.source) {
            exchange.unbind(binding);
        }
        self.version += 1;
    }

    /// Exchanges that vanish when a new epoch begins: those that are not durable.
    pub(crate) fn transient_exchanges(&self) -> Vec<(Text, Text)> {
        let all = self
            .vhosts
            .iter()
            .flat_map(|(vhost, v)| v.exchanges.values().map(move |exchange| (vhost, exchange)));
        all.filter(|(_, exchange)| !exchange.spec.durable)
            .map(|(vhost, exchange)| (vhost.clone(), exchange.spec.name.clone()))
            .collect()
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.users.len() as u64);
        self.users.values().for_each(|user| user.encode(w));
        w.varint(self.vhosts.len() as u64);
        for (name, vhost) in &self.vhosts {
            w.text(name);
            let declared: Vec<_> = vhost.exchanges.values().filter(|e| !e.predeclared).collect();
            w.varint(declared.len() as u64);
            declared.iter().for_each(|exchange| exchange.spec.encode(w));
            let bindings = vhost.exchanges.values().map(|e| e.bindings.all.len() as u64).sum();
            w.varint(bindings);
            vhost.exchanges.values().flat_map(|e| &e.bindings.all).for_each(|b| b.encode(w));
        }
    }

    /// Queues' names are not in here; they come with the queues' own slices.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut topology = Self::default();
        for _ in 0..r.varint()? {
            let user = UserRecord::decode(r)?;
            topology.users.insert(user.name.clone(), user);
        }
        for _ in 0..r.varint()? {
            topology.put_vhost(&r.text()?);
            for _ in 0..r.varint()? {
                topology.declare_exchange(ExchangeSpec::decode(r)?);
            }
            for _ in 0..r.varint()? {
                topology.bind(Binding::decode(r)?);
            }
        }
        Ok(topology)
    }
}

fn alternate(arguments: &Table) -> Option<Text> {
    arguments.get("alternate-exchange").and_then(|value| value.as_str()).map(Text::from)
}

fn unbind_target(exchange: &mut Exchange, target: &BindTarget) {
    let gone: Vec<_> = exchange.bindings.to(&exchange.spec, target).cloned().collect();
    for binding in gone {
        exchange.unbind(&binding);
    }
}
