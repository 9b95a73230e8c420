//! What two nodes tell each other first; both sides decide by the same two hellos.

use crate::pair::config::{Policy, Role};
use crate::pair::upgrade::Protocols;
use crate::pair::view::{
    Standing, get_epoch, get_option, get_policy, put_epoch, put_option, put_policy,
};
use bytes::BytesMut;
use understudy_model::{
    Epoch, EpochHistory, Features, Lsn, Malformed, NodeId, Reader, Text, Writer,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hello {
    pub(crate) protocols: Protocols,
    /// What the sender's program can read.
    pub(crate) features: Features,
    /// What its state has switched on.
    pub(crate) features_on: Features,
    /// The epoch that the sender leads now.
    pub(crate) leading: Option<Epoch>,
    /// Random number of the sender's process.
    pub(crate) process: u64,
    /// Counts the process's hellos: tells a newer link from an older one.
    pub(crate) serial: u64,
    pub(crate) cluster: Option<u128>,
    pub(crate) node: NodeId,
    /// The sender's other half, known or attached.
    pub(crate) peer: Option<NodeId>,
    /// A node that the sender will not take back.
    pub(crate) forgotten: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) standing: Standing,
    pub(crate) promised: Epoch,
    pub(crate) history: EpochHistory,
    pub(crate) base: Lsn,
    /// End of the log, and the chain hash there.
    pub(crate) last: Lsn,
    pub(crate) chain: u128,
    pub(crate) commit: Lsn,
    pub(crate) address: Text,
    /// Where clients find the sender while it leads; a word of the program's own.
    pub(crate) client_addresses: Text,
    pub(crate) policy: Policy,
    /// [`crate::ArbiterConfig::id`]; 0: none.
    pub(crate) arbiter: u64,
}

impl Hello {
    /// The mastership that wrote the last group of the sender's log.
    pub(crate) fn log_epoch(&self) -> Epoch {
        let written = self.history.0.iter().rev().find(|start| start.first <= self.last);
        written.map_or_else(Epoch::default, |start| start.epoch)
    }

    /// Every protocol version begins with the same: versions, and whether the sender leads.
    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        put_front(w, self.protocols, self.leading.is_some());
        let mut rest = BytesMut::new();
        self.encode_rest(&mut Writer(&mut rest));
        w.bytes(&rest);
    }

    fn encode_rest(&self, w: &mut Writer<'_>) {
        w.varint(self.features.0);
        w.varint(self.features_on.0);
        put_epoch(w, self.leading.unwrap_or_default());
        w.varint(self.process);
        w.varint(self.serial);
        put_option(w, self.cluster);
        w.u128(self.node.0);
        put_option(w, self.peer.map(|peer| peer.0));
        put_option(w, self.forgotten.map(|node| node.0));
        w.bool(self.role == Role::Master);
        self.standing.encode(w);
        put_epoch(w, self.promised);
        self.history.encode(w);
        w.varint(self.base.0);
        w.varint(self.last.0);
        w.u128(self.chain);
        w.varint(self.commit.0);
        w.text(&self.address);
        w.text(&self.client_addresses);
        put_policy(w, self.policy);
        w.varint(self.arbiter);
    }

    /// Behind the front. A newer program may say more behind what is known here.
    pub(crate) fn decode(
        protocols: Protocols,
        leads: bool,
        r: &mut Reader<'_>,
    ) -> Result<Self, Malformed> {
        let r = &mut Reader(r.bytes()?);
        let features = Features(r.varint()?);
        let features_on = Features(r.varint()?);
        let epoch = get_epoch(r)?;
        Ok(Self {
            protocols,
            features,
            features_on,
            leading: leads.then_some(epoch),
            process: r.varint()?,
            serial: r.varint()?,
            cluster: get_option(r)?,
            node: NodeId(r.u128()?),
            peer: get_option(r)?.map(NodeId),
            forgotten: get_option(r)?.map(NodeId),
            role: if r.bool()? { Role::Master } else { Role::Slave },
            standing: Standing::decode(r)?,
            promised: get_epoch(r)?,
            history: EpochHistory::decode(r)?,
            base: Lsn(r.varint()?),
            last: Lsn(r.varint()?),
            chain: r.u128()?,
            commit: Lsn(r.varint()?),
            address: r.text()?,
            client_addresses: r.text()?,
            policy: get_policy(r)?,
            arbiter: r.varint()?,
        })
    }
}

pub(crate) fn put_front(w: &mut Writer<'_>, protocols: Protocols, leads: bool) {
    w.varint(protocols.least);
    w.varint(protocols.most);
    w.bool(leads);
}
