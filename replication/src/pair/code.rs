//! Why a node refuses a link. The numbers are the wire's (docs/replication.md section 5.5).

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Version,
    Unrelated,
    SameNode,
    SlotTaken,
    /// The other side had promised a newer epoch (R1).
    StaleEpoch,
    /// The operator said that this node is gone for good.
    Forgotten,
    Arbiter,
    /// One log may hold what the other's program cannot read.
    Feature,
    /// What only a newer program knows.
    Other,
}

impl Code {
    /// By number.
    pub(crate) const ALL: [Self; 9] = [
        Self::Version,
        Self::Unrelated,
        Self::SameNode,
        Self::SlotTaken,
        Self::StaleEpoch,
        Self::Forgotten,
        Self::Arbiter,
        Self::Feature,
        Self::Other,
    ];

    pub(crate) fn explain(self) -> &'static str {
        match self {
            Self::Version => "VERSION: the two programs speak different protocol versions",
            Self::Unrelated => "UNRELATED: the two data directories belong to different clusters",
            Self::SameNode => "SAME_NODE: both data directories carry the same node id",
            Self::SlotTaken => "SLOT_TAKEN: the master has its slave already; only one is allowed",
            Self::Forgotten => {
                "FORGOTTEN: the operator told the peer that this node is gone for good; it joins \
                 anew after `understudy join --discard-local-data`"
            }
            Self::Arbiter => "ARBITER: the two nodes' settings name different arbiters",
            Self::Other => "for a reason that only its newer program knows; see its log",
            Self::Feature => {
                "FEATURE: one node's log may hold what the other's program cannot read"
            }
            Self::StaleEpoch => "STALE_EPOCH: a newer mastership is known",
        }
    }

    /// A node that a sitting master refuses so will be refused until somebody changes something.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::StaleEpoch)
    }
}
