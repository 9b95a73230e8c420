//! Definitions as commands and saved state hold them: exchanges, queues, bindings, users.

use crate::{Lsn, Malformed, QueueId, Reader, Text, Writer};
use bytes::Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeSpec {
    pub vhost: Text,
    pub name: Text,
    /// `direct`, `fanout`, `topic`, …
    pub kind: Text,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    /// Inside of an AMQP field table.
    pub arguments: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    pub vhost: Text,
    pub name: Text,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    /// Inside of an AMQP field table.
    pub arguments: Bytes,
}

/// In order, those from one exchange to one target lie together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    pub vhost: Text,
    pub source: Text,
    pub target: BindTarget,
    pub key: Text,
    /// Inside of an AMQP field table; part of the binding's identity.
    pub arguments: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindTarget {
    Queue(QueueId),
    Exchange(Text),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub name: Text,
    /// `sha256:` or `argon2:` and the hash; what a frontend's login is checked against.
    pub password_hash: Text,
    pub tags: Vec<Text>,
}

impl ExchangeSpec {
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.text(&self.vhost);
        w.text(&self.name);
        w.text(&self.kind);
        w.bool(self.durable);
        w.bool(self.auto_delete);
        w.bool(self.internal);
        w.bytes(&self.arguments);
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            vhost: r.text()?,
            name: r.text()?,
            kind: r.text()?,
            durable: r.bool()?,
            auto_delete: r.bool()?,
            internal: r.bool()?,
            arguments: r.owned_bytes()?,
        })
    }
}

impl QueueSpec {
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.text(&self.vhost);
        w.text(&self.name);
        w.bool(self.durable);
        w.bool(self.exclusive);
        w.bool(self.auto_delete);
        w.bytes(&self.arguments);
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            vhost: r.text()?,
            name: r.text()?,
            durable: r.bool()?,
            exclusive: r.bool()?,
            auto_delete: r.bool()?,
            arguments: r.owned_bytes()?,
        })
    }
}

impl Binding {
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.text(&self.vhost);
        w.text(&self.source);
        match &self.target {
            BindTarget::Queue(queue) => {
                w.u8(0);
                w.varint(queue.0.0);
            }
            BindTarget::Exchange(name) => {
                w.u8(1);
                w.text(name);
            }
        }
        w.text(&self.key);
        w.bytes(&self.arguments);
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let vhost = r.text()?;
        let source = r.text()?;
        let target = match r.u8()? {
            0 => BindTarget::Queue(QueueId(Lsn(r.varint()?))),
            1 => BindTarget::Exchange(r.text()?),
            _ => return Err(Malformed("binding target")),
        };
        Ok(Self { vhost, source, target, key: r.text()?, arguments: r.owned_bytes()? })
    }
}

impl UserRecord {
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.password_hash);
        w.varint(self.tags.len() as u64);
        for tag in &self.tags {
            w.text(tag);
        }
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let name = r.text()?;
        let password_hash = r.text()?;
        let count = r.varint()?;
        let tags = (0..count).map(|_| r.text()).collect::<Result<_, _>>()?;
        Ok(Self { name, password_hash, tags })
    }
}
