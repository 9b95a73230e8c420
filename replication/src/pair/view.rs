//! What a node keeps on disk about itself (docs/replication.md section 3).

use crate::Boot;
use crate::pair::config::{PairConfig, Policy, Role};
use crate::pair::random::Random;
use bytes::{Bytes, BytesMut};
use std::fmt;
use understudy_model::{
    Epoch, EpochHistory, EpochStart, Lsn, Malformed, NodeId, Reader, Text, Writer,
};

const TAG: u8 = b'P';
const STANDALONE_TAG: u8 = b'S';
/// 2: `forgotten`.
const FORMAT_VERSION: u8 = 2;
/// Older masterships are forgotten; a slave from that time takes a whole copy.
const HISTORY_MAX: usize = 256;

/// What a node's disk says that it may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing was ever stored here; never leads (R9).
    Empty,
    /// The copy may lack answered commands; never leads.
    Lagging { epoch: Epoch },
    /// The copy holds everything answered; member of the in-sync set of that epoch.
    Synced { epoch: Epoch, led: bool },
    /// The in-sync set is this node: it may always lead.
    Alone { epoch: Epoch, since: Lsn },
}

impl Standing {
    pub(crate) fn epoch(self) -> Epoch {
        match self {
            Self::Empty => Epoch::default(),
            Self::Lagging { epoch } | Self::Synced { epoch, .. } | Self::Alone { epoch, .. } => {
                epoch
            }
        }
    }

    pub(crate) fn is_synced(self, in_epoch: Epoch) -> bool {
        matches!(self, Self::Synced { epoch, .. } if epoch == in_epoch)
    }

    pub(crate) fn encode(self, w: &mut Writer<'_>) {
        let (kind, extra) = match self {
            Self::Empty => (0, 0),
            Self::Lagging { .. } => (1, 0),
            Self::Synced { led, .. } => (2, u64::from(led)),
            Self::Alone { since, .. } => (3, since.0),
        };
        w.u8(kind);
        put_epoch(w, self.epoch());
        w.varint(extra);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = r.u8()?;
        let epoch = get_epoch(r)?;
        let extra = r.varint()?;
        match kind {
            0 => Ok(Self::Empty),
            1 => Ok(Self::Lagging { epoch }),
            2 => Ok(Self::Synced { epoch, led: extra != 0 }),
            3 => Ok(Self::Alone { epoch, since: Lsn(extra) }),
            _ => Err(Malformed("standing")),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Lagging { epoch } => write!(f, "lagging in epoch {epoch}"),
            Self::Synced { epoch, .. } => write!(f, "in-sync in epoch {epoch}"),
            Self::Alone { epoch, since } => write!(f, "alone in epoch {epoch} since {since}"),
        }
    }
}

/// The view record cannot be used by this node; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewError {
    Malformed(Malformed),
    Version(u8),
    /// A log without a view: the directory was not written by one node as a whole.
    Missing,
    /// A standalone broker's data cannot become a slave's.
    Standalone,
    /// Log or state cannot be read, and only this node holds all that was answered.
    Damaged(String),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "view: {what}"),
            Self::Version(version) => {
                write!(f, "view format {version}, this program knows {FORMAT_VERSION}")
            }
            Self::Damaged(why) => write!(
                f,
                "{why}; this node went on alone, so no other has all of it: restore its data \
                 directory from a copy, or let the other node lead (`understudy promote --force`) \
                 and have this one join anew"
            ),
            Self::Missing => f.write_str("the log has commands but the view record is missing"),
            Self::Standalone => f.write_str(
                "the data directory belongs to a standalone broker; a slave starts with an empty \
                 one, or the standalone broker becomes the pair's master",
            ),
        }
    }
}

impl std::error::Error for ViewError {}

impl From<Malformed> for ViewError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) node: NodeId,
    /// None: not yet a member of any cluster.
    pub(crate) cluster: Option<u128>,
    /// The node that was in-sync with this one; no other gets its place.
    pub(crate) peer: Option<NodeId>,
    /// A former other half that the operator has given up; it is not taken back.
    pub(crate) forgotten: Option<NodeId>,
    pub(crate) peer_address: Text,
    pub(crate) peer_policy: Policy,
    /// Highest epoch ever accepted (R1); never goes back.
    pub(crate) promised: Epoch,
    pub(crate) history: EpochHistory,
    pub(crate) standing: Standing,
    /// Lower bound of what is committed, as of the last save.
    pub(crate) commit: Lsn,
    /// A whole copy has begun and not ended; `true`: what was here before must be set aside.
    pub(crate) copying: Option<bool>,
}

impl View {
    /// The view that this start begins with.
    pub(crate) fn load(
        boot: &Boot,
        config: &PairConfig,
        random: &mut Random,
    ) -> Result<Self, ViewError> {
        let mut view = match boot.view.as_deref() {
            None if boot.log.last > Lsn::ZERO => return Err(ViewError::Missing),
            None => Self::new(config.role, random),
            Some([STANDALONE_TAG, rest @ ..]) if config.role == Role::Master => {
                Self::adopt_standalone(rest, boot.log.last, random)?
            }
            Some([STANDALONE_TAG, ..]) => return Err(ViewError::Standalone),
            Some(bytes) => Self::decode(bytes)?,
        };
        // The last mastership's first command may not have reached the disk.
        view.history.truncate_after(boot.log.last);
        Ok(view)
    }

    fn new(role: Role, random: &mut Random) -> Self {
        let node = NodeId(random.wide());
        let (cluster, standing) = match role {
            Role::Master => (Some(random.wide()), ALONE_FROM_THE_START),
            Role::Slave => (None, Standing::Empty),
        };
        Self {
            node,
            cluster,
            peer: None,
            forgotten: None,
            peer_address: Text::default(),
            peer_policy: Policy::default(),
            promised: Epoch::default(),
            history: EpochHistory::default(),
            standing,
            commit: Lsn::ZERO,
            copying: None,
        }
    }

    /// No other copy of a standalone broker's log exists, so one entry describes all of it.
    fn adopt_standalone(bytes: &[u8], last: Lsn, random: &mut Random) -> Result<Self, ViewError> {
        let mut r = Reader(bytes);
        let node = NodeId(r.u128()?);
        let epoch = get_epoch(&mut r)?;
        let start = EpochStart { epoch, first: Lsn(1), leader: node };
        Ok(Self {
            node,
            promised: epoch,
            history: EpochHistory(vec![start]),
            standing: Standing::Alone { epoch, since: last },
            ..Self::new(Role::Master, random)
        })
    }

    pub(crate) fn push_epoch(&mut self, start: EpochStart) {
        self.history.push(start);
        let surplus = self.history.0.len().saturating_sub(HISTORY_MAX);
        self.history.0.drain(..surplus);
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        w.u8(TAG);
        w.u8(FORMAT_VERSION);
        w.u128(self.node.0);
        put_option(w, self.cluster);
        put_option(w, self.peer.map(|peer| peer.0));
        put_option(w, self.forgotten.map(|node| node.0));
        w.text(&self.peer_address);
        put_policy(w, self.peer_policy);
        put_epoch(w, self.promised);
        self.history.encode(w);
        self.standing.encode(w);
        w.varint(self.commit.0);
        w.u8(self.copying.map_or(0, |set_aside| 1 + u8::from(set_aside)));
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut r = Reader(bytes);
        if r.u8()? != TAG {
            return Err(Malformed("view").into());
        }
        let version = r.u8()?;
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(ViewError::Version(version));
        }
        let view = Self {
            node: NodeId(r.u128()?),
            cluster: get_option(&mut r)?,
            peer: get_option(&mut r)?.map(NodeId),
            forgotten: if version < 2 { None } else { get_option(&mut r)?.map(NodeId) },
            peer_address: r.text()?,
            peer_policy: get_policy(&mut r)?,
            promised: get_epoch(&mut r)?,
            history: EpochHistory::decode(&mut r)?,
            standing: Standing::decode(&mut r)?,
            commit: Lsn(r.varint()?),
            copying: match r.u8()? {
                0 => None,
                flag => Some(flag == 2),
            },
        };
        r.finish()?;
        Ok(view)
    }
}

const ALONE_FROM_THE_START: Standing =
    Standing::Alone { epoch: Epoch { number: 0, generation: 0 }, since: Lsn::ZERO };

pub(crate) fn put_epoch(w: &mut Writer<'_>, epoch: Epoch) {
    w.varint(epoch.number);
    w.varint(epoch.generation);
}

pub(crate) fn get_epoch(r: &mut Reader<'_>) -> Result<Epoch, Malformed> {
    Ok(Epoch { number: r.varint()?, generation: r.varint()? })
}

pub(crate) fn put_option(w: &mut Writer<'_>, value: Option<u128>) {
    w.bool(value.is_some());
    w.u128(value.unwrap_or_default());
}

pub(crate) fn get_option(r: &mut Reader<'_>) -> Result<Option<u128>, Malformed> {
    let present = r.bool()?;
    let value = r.u128()?;
    Ok(present.then_some(value))
}

pub(crate) fn put_policy(w: &mut Writer<'_>, policy: Policy) {
    w.bool(policy.stops_without_master);
    w.bool(policy.stops_without_slave);
}

pub(crate) fn get_policy(r: &mut Reader<'_>) -> Result<Policy, Malformed> {
    Ok(Policy { stops_without_master: r.bool()?, stops_without_slave: r.bool()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reads_back_as_it_was_saved() {
        let mut view = View::new(Role::Master, &mut Random::new(&[1; 8]));
        let epoch = Epoch { number: 3, generation: 9 };
        view.peer = Some(NodeId(7));
        view.forgotten = Some(NodeId(8));
        view.peer_address = Text::from_static("b:1");
        view.copying = Some(true);
        view.push_epoch(EpochStart { epoch, first: Lsn(4), leader: view.node });
        for standing in [
            Standing::Empty,
            Standing::Lagging { epoch },
            Standing::Synced { epoch, led: true },
            Standing::Alone { epoch, since: Lsn(8) },
        ] {
            view.standing = standing;
            let bytes = view.encode();
            assert_eq!(View::decode(&bytes), Ok(view.clone()));
            for length in 0..bytes.len() {
                assert!(View::decode(&bytes[..length]).is_err());
            }
        }
    }
}
