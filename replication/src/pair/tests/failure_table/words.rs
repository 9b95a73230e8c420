//! The words in which a row says what follows.

use super::super::world::World;
use crate::Backend;
use crate::pair::view::Standing;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Leads, and its frontends are open.
    Serves,
    /// Leads, shut: it answers nobody.
    Holds,
    InSync,
    /// Follows, and is not in-sync.
    CatchesUp,
    /// Knows no leader, and may not be one.
    Waits,
    /// Ended by itself, as its settings tell it to.
    Stopped,
    /// Ended with an error.
    Refused,
    /// Killed.
    Dead,
}

/// What its disk says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Alone,
    /// In-sync, as the leader of its epoch.
    Led,
    /// In-sync, as the follower.
    Followed,
    Lagging,
    Empty,
}

/// How the logs come together again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogIs {
    /// One is a prefix of the other.
    Continued,
    /// What one had written and not answered is cut off.
    Cut,
    /// Nobody had answered anything apart: one of the two above, as the last frames went.
    Kept,
    Copied,
    /// What one had answered is brought in and kept.
    SetAside,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Of hosts 0 and 1 when all deadlines are over; none: one of the two serves, as it comes.
    pub(super) nodes: Option<[(Node, Disk); 2]>,
    /// Once everything works again; none: whichever has the higher epoch.
    pub(super) leader: Option<usize>,
    pub(super) log: LogIs,
}

impl Outcome {
    pub(super) const fn of(
        master: (Node, Disk),
        slave: (Node, Disk),
        leader: usize,
        log: LogIs,
    ) -> Self {
        Self { nodes: Some([master, slave]), leader: Some(leader), log }
    }

    pub(super) const fn led_by_either(self) -> Self {
        Self { leader: None, ..self }
    }

    pub(super) const fn as_it_comes() -> Self {
        Self { nodes: None, leader: None, log: LogIs::Kept }
    }
}

/// As before the event.
pub(super) const UNCHANGED: Outcome =
    Outcome::of((Node::Serves, Disk::Led), (Node::InSync, Disk::Followed), 0, LogIs::Continued);

/// The other way round.
pub(super) const SWAPPED: Outcome =
    Outcome::of((Node::InSync, Disk::Followed), (Node::Serves, Disk::Led), 1, LogIs::Continued);

pub(super) fn now(world: &World, host: usize) -> (Node, Disk) {
    let disk = match world.hosts[host].disk.standing() {
        Standing::Empty => Disk::Empty,
        Standing::Lagging { .. } => Disk::Lagging,
        Standing::Synced { led: true, .. } => Disk::Led,
        Standing::Synced { led: false, .. } => Disk::Followed,
        Standing::Alone { .. } => Disk::Alone,
    };
    (node(world, host), disk)
}

fn node(world: &World, host: usize) -> Node {
    let Some(process) = world.process(host) else {
        return match &world.hosts[host].stopped {
            Some(Ok(_)) => Node::Stopped,
            Some(Err(_)) => Node::Refused,
            None => Node::Dead,
        };
    };
    let status = process.pair.status();
    match (status.role, status.state) {
        _ if process.serving => Node::Serves,
        ("master", _) => Node::Holds,
        (_, "in-sync") => Node::InSync,
        (_, "waiting" | "orphan" | "taking-over" | "awaiting-copy") => Node::Waits,
        _ => Node::CatchesUp,
    }
}
