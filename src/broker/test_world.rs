//! A broker that decides, commits and serves as a node makes it, for tests.

use crate::{Broker, Contents, Decided, Limits};
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy_model::{
    Command, Connect, ConnectionId, Effect, Epoch, Lsn, NewEpoch, NodeId, OpenGroup, Protocol,
    Request, Text, Token, UserRecord,
};

pub(crate) struct World {
    pub(crate) broker: Broker,
    last: Lsn,
    chain: u128,
    pub(crate) now_ms: u64,
    records: BTreeMap<Lsn, Bytes>,
}

impl World {
    pub(crate) fn empty() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let broker = Broker::new(limits);
        Self { broker, last: Lsn::ZERO, chain: 0, now_ms: 0, records: BTreeMap::new() }
    }

    /// With the vhost `/` and `guest`, who may do everything there.
    pub(crate) fn seeded(limits: Limits) -> Self {
        let mut world = Self::with(limits);
        let guest = UserRecord {
            name: Text::from_static("guest"),
            password_hash: Text::from_static("sha256:x"),
            tags: Vec::new(),
        };
        world.run(|broker, decided| broker.seed(&[], &guest, decided));
        world
    }

    /// Decides, and applies what came of it.
    pub(crate) fn run(&mut self, act: impl FnOnce(&mut Broker, &mut Decided<'_>)) -> Vec<Effect> {
        let mut open = OpenGroup::new(self.last.next());
        let mut effects = Vec::new();
        let mut decided = Decided {
            open: &mut open,
            effects: &mut effects,
            depends_on: Lsn::ZERO,
            topology: false,
        };
        act(&mut self.broker, &mut decided);
        let mut all = Vec::new();
        self.broker.flush_settles(&mut open);
        self.broker.flush_returns(&mut open);
        self.broker.flush_marks(&mut open);
        if !open.is_empty() {
            let group = open.seal(1, self.now_ms, self.chain);
            self.records.extend(group.records().map(|(lsn, _)| (lsn, group.record(lsn).unwrap())));
            self.broker.apply_group(&group, &mut all).unwrap();
            self.last = group.last();
            self.chain = group.header().chain;
            self.broker.release_names();
        }
        all.extend(effects);
        all.into_iter().map(|(_, effect)| effect).collect()
    }

    pub(crate) fn ask(&mut self, connection: ConnectionId, request: &Request) -> Vec<Effect> {
        self.run(|broker, decided| broker.decide(connection, request, decided).unwrap())
    }

    /// The refusal's text; empty if it was allowed.
    pub(crate) fn said(&mut self, connection: ConnectionId, request: &Request) -> String {
        let effects = self.ask(connection, request);
        let refusals = effects.into_iter().filter_map(|effect| match effect {
            Effect::Reply { result: Err(refusal), .. } | Effect::PublishRefused { refusal, .. } => {
                Some(format!("{} {}", refusal.kind.code().0, refusal.text))
            }
            _ => None,
        });
        refusals.collect()
    }

    pub(crate) fn connect(
        &mut self,
        id: ConnectionId,
        protocol: Protocol,
        user: &str,
        vhost: &str,
    ) -> String {
        let connect = Connect {
            token: Token(1),
            protocol,
            vhost: Text::from(vhost),
            vhost_else: None,
            user: Text::from(user),
            client_name: Text::new(),
            producer: None,
        };
        self.said(id, &Request::Connect(connect))
    }

    /// Hands out what may be handed out now.
    pub(crate) fn serve(&mut self) -> Vec<(ConnectionId, Effect)> {
        let (mut told, mut reads) = (Vec::new(), Vec::new());
        self.broker.serve(&mut Records(&self.records), &mut told, &mut reads);
        assert!(reads.is_empty(), "every record is in memory");
        told
    }

    /// A new mastership begins here.
    pub(crate) fn new_epoch(&mut self) {
        let new_epoch = NewEpoch { epoch: Epoch::default(), leader: NodeId(1) };
        self.broker.forget_clients();
        self.run(|_, decided| _ = decided.push(&Command::NewEpoch(new_epoch)));
    }

    /// Turns until nothing is left to do: what a node does at the end of each. Returns what
    /// clients were told.
    pub(crate) fn turns(&mut self) -> Vec<(ConnectionId, Effect)> {
        let mut told = Vec::new();
        self.broker.set_now(self.now_ms);
        for _ in 0..64 {
            let before = (self.last, told.len());
            self.run(|broker, decided| broker.on_time(decided));
            told.extend(self.serve());
            let mut reads = Vec::new();
            let records = self.records.clone();
            let mut contents = Records(&records);
            self.run(|broker, decided| {
                broker.bury(&mut contents, decided, &mut reads);
                broker.release_delayed(&mut contents, decided, &mut reads);
            });
            assert!(reads.is_empty(), "every record is in memory");
            if before == (self.last, told.len()) {
                return told;
            }
        }
        panic!("the broker does not come to rest");
    }

    /// The broker as another node has it that was given the saved state.
    pub(crate) fn reload(&mut self) {
        let slices = self.broker.save_all(self.chain);
        let slices: Vec<_> =
            slices.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let (mut broker, chain) = Broker::load(Limits::default(), &slices).unwrap();
        assert_eq!((broker.applied(), chain), (self.last, self.chain));
        broker.replayed();
        self.broker = broker;
    }
}

struct Records<'a>(&'a BTreeMap<Lsn, Bytes>);

impl Contents for Records<'_> {
    fn record(&mut self, lsn: Lsn) -> Option<Bytes> {
        self.0.get(&lsn).cloned()
    }
}
