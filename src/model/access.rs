//! Who may do what, and the rules that an administrator lays over queues and exchanges: records
//! of the log, and the requests that change them.

use crate::{ConnectionId, Malformed, Reader, Text, Token, UserRecord, Writer};
use bytes::Bytes;

/// What a user may do in a vhost: three regular expressions on names of queues and exchanges.
/// An empty one permits nothing. They are not anchored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionRecord {
    pub user: Text,
    pub vhost: Text,
    pub configure: Text,
    pub write: Text,
    pub read: Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyTo {
    All,
    Queues,
    Exchanges,
}

/// Optional arguments for all queues or exchanges whose name matches. Of several that match, the
/// one with the highest priority holds, alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    pub vhost: Text,
    pub name: Text,
    /// A regular expression, not anchored.
    pub pattern: Text,
    pub apply_to: ApplyTo,
    pub priority: i32,
    /// Inside of an AMQP field table; keys as RabbitMQ names them: `max-length`, …
    pub definition: Bytes,
}

/// An administrator's request. Made by the management interface only, which has checked that the
/// one who asks may.
#[derive(Clone, Debug, PartialEq)]
pub struct Manage {
    pub token: Token,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    PutUser(UserRecord),
    /// With its permissions; its connections are closed.
    DeleteUser {
        name: Text,
    },
    PutVhost {
        name: Text,
    },
    /// With all that is in it; its connections are closed.
    DeleteVhost {
        name: Text,
    },
    PutPermission(PermissionRecord),
    ClearPermission {
        user: Text,
        vhost: Text,
    },
    PutPolicy(PolicyRecord),
    ClearPolicy {
        vhost: Text,
        name: Text,
    },
    CloseConnection {
        connection: ConnectionId,
        reason: Text,
    },
}

impl PermissionRecord {
    pub fn encode(&self, w: &mut Writer<'_>) {
        for text in [&self.user, &self.vhost, &self.configure, &self.write, &self.read] {
            w.text(text);
        }
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            user: r.text()?,
            vhost: r.text()?,
            configure: r.text()?,
            write: r.text()?,
            read: r.text()?,
        })
    }
}

impl ApplyTo {
    /// The word that RabbitMQ's tools use.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Queues => "queues",
            Self::Exchanges => "exchanges",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::All, Self::Queues, Self::Exchanges].into_iter().find(|kind| kind.name() == name)
    }

    fn tag(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Queues => 1,
            Self::Exchanges => 2,
        }
    }
}

impl PolicyRecord {
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.text(&self.vhost);
        w.text(&self.name);
        w.text(&self.pattern);
        w.u8(self.apply_to.tag());
        // Zigzag: small numbers of either sign stay short.
        w.varint(u64::from(((self.priority << 1) ^ (self.priority >> 31)) as u32));
        w.bytes(&self.definition);
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (vhost, name, pattern) = (r.text()?, r.text()?, r.text()?);
        let apply_to = match r.u8()? {
            0 => ApplyTo::All,
            1 => ApplyTo::Queues,
            2 => ApplyTo::Exchanges,
            _ => return Err(Malformed("what a policy applies to")),
        };
        let zigzag = r.varint_u32()?;
        let priority = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
        Ok(Self { vhost, name, pattern, apply_to, priority, definition: r.owned_bytes()? })
    }
}
