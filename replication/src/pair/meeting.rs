//! Who leads, decided alike by both sides from the two hellos of a link (docs/replication.md section 6).

use crate::pair::code::Code;
use crate::pair::config::Role;
use crate::pair::hello::Hello;
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::upgrade::can_pair;
use crate::pair::view::Standing;
use std::cmp::Ordering;
use understudy_model::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Lead,
    Follow,
    /// I lead, but the peer has promised a newer epoch: I need one above it (R5).
    Renew,
    /// Neither can lead, or not yet.
    Wait(&'static str),
    Reject(Code),
}

/// The outcome for `me`; `meet(peer, me)` is its mirror image.
pub(crate) fn meet(me: &Hello, peer: &Hello) -> Meeting {
    if let Some(code) = unfit(me, peer) {
        return Meeting::Reject(code);
    }
    match (me.leading, peer.leading) {
        (Some(mine), Some(theirs)) if mine > theirs => Meeting::Lead,
        (Some(_), Some(_)) => Meeting::Follow,
        (Some(mine), None) if peer.promised > mine => Meeting::Renew,
        (Some(_), None) => Meeting::Lead,
        (None, Some(theirs)) if me.promised > theirs => {
            Meeting::Wait("the master has to take a newer epoch first")
        }
        (None, Some(_)) => Meeting::Follow,
        (None, None) => elect(me, peer),
    }
}

fn unfit(me: &Hello, peer: &Hello) -> Option<Code> {
    if me.node == peer.node {
        return Some(Code::SameNode);
    }
    if let (Some(mine), Some(theirs)) = (me.cluster, peer.cluster)
        && mine != theirs
    {
        return Some(Code::Unrelated);
    }
    if !can_pair(me, peer) {
        return Some(Code::Feature);
    }
    if me.forgotten == Some(peer.node) || peer.forgotten == Some(me.node) {
        return Some(Code::Forgotten);
    }
    if me.arbiter != peer.arbiter {
        return Some(Code::Arbiter);
    }
    let mine_is_another = me.peer.is_some_and(|node| node != peer.node);
    let theirs_is_another = peer.peer.is_some_and(|node| node != me.node);
    let replaced = replaces_the_slave(me, peer) || replaces_the_slave(peer, me);
    ((mine_is_another || theirs_is_another) && !replaced).then_some(Code::SlotTaken)
}

/// A leader that is alone on disk needs its former slave for nothing, so a node that is new may
/// take the place: how a machine that died for good is replaced. One that is attached keeps it.
/// New is also a node that had begun to copy from this leader when one of the two died: it has
/// noted the leader, who notes it only once it is in-sync.
fn replaces_the_slave(leader: &Hello, new: &Hello) -> bool {
    let is_new = match new.standing {
        Standing::Empty => new.peer.is_none(),
        Standing::Lagging { .. } => new.peer == Some(leader.node),
        Standing::Synced { .. } | Standing::Alone { .. } => false,
    };
    is_new && leader.leading.is_some() && matches!(leader.standing, Standing::Alone { .. })
}

/// Nobody leads. The one whose copy is sure to hold everything answered does (R9), the longer one
/// of two such copies.
fn elect(me: &Hello, peer: &Hello) -> Meeting {
    if rank(me.standing).max(rank(peer.standing)) < rank_of_synced() {
        return Meeting::Wait("neither copy can prove that it is current");
    }
    let claim = |hello: &Hello| {
        let in_set = match hello.standing {
            Standing::Empty | Standing::Lagging { .. } => Epoch::default(),
            standing => standing.epoch(),
        };
        // Who led goes on leading: a restart of both undoes no takeover and no switchover.
        let led = matches!(hello.standing, Standing::Synced { led: true, .. });
        let master = hello.role == Role::Master;
        (rank(hello.standing), in_set, hello.log_epoch(), hello.last, led, master)
    };
    #[cfg(test)]
    if broken::is(Broken::ShorterLeads) {
        return if me.last.cmp(&peer.last).then(me.node.cmp(&peer.node)).is_lt() {
            Meeting::Lead
        } else {
            Meeting::Follow
        };
    }
    // The lower node id wins the last tie.
    match claim(me).cmp(&claim(peer)).then(peer.node.cmp(&me.node)) {
        Ordering::Less => Meeting::Follow,
        Ordering::Equal | Ordering::Greater => Meeting::Lead,
    }
}

fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Empty => 0,
        Standing::Lagging { .. } => 1,
        Standing::Synced { .. } => rank_of_synced(),
        Standing::Alone { .. } => 3,
    }
}

const fn rank_of_synced() -> u8 {
    2
}

/// What one side of a link knows once both hellos are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeted<'a> {
    pub(crate) dialed: bool,
    pub(crate) mine: &'a Hello,
    pub(crate) theirs: &'a Hello,
}

/// Two links between the same two nodes: whether the `new` one is to be kept. Both sides decide
/// alike, whichever link each of them saw first.
pub(crate) fn prefer_new(old: Greeted<'_>, new: Greeted<'_>) -> bool {
    if old.theirs.process != new.theirs.process {
        return true;
    }
    let mine_newer = new.mine.serial > old.mine.serial;
    let theirs_newer = new.theirs.serial > old.theirs.serial;
    if mine_newer == theirs_newer {
        // Not crossing: the peer lost the older one, or will notice.
        return mine_newer;
    }
    let i_am_lower = new.mine.node < new.theirs.node;
    new.dialed == i_am_lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::config::Policy;
    use understudy_model::{EpochHistory, EpochStart, Lsn, NodeId, Text};

    const fn epoch(number: u64) -> Epoch {
        Epoch { number, generation: 7 }
    }

    fn hello(node: u128, standing: Standing) -> Hello {
        Hello {
            protocols: crate::pair::upgrade::Protocols::OWN,
            features: understudy_model::Features::NONE,
            features_on: understudy_model::Features::NONE,
            leading: None,
            process: node as u64,
            serial: 1,
            cluster: Some(1),
            node: NodeId(node),
            peer: None,
            forgotten: None,
            role: if node == 1 { Role::Master } else { Role::Slave },
            standing,
            promised: standing.epoch(),
            history: EpochHistory(vec![EpochStart {
                epoch: epoch(1),
                first: Lsn(1),
                leader: NodeId(1),
            }]),
            base: Lsn(0),
            last: Lsn(10),
            chain: 0,
            commit: Lsn(0),
            address: Text::default(),
            client_addresses: Text::default(),
            policy: Policy::default(),
            arbiter: 0,
        }
    }

    fn both_ways(a: &Hello, b: &Hello) -> (Meeting, Meeting) {
        (meet(a, b), meet(b, a))
    }

    const ALONE: Standing = Standing::Alone { epoch: epoch(1), since: Lsn(0) };
    const SYNCED: Standing = Standing::Synced { epoch: epoch(1), led: false };
    const LAGGING: Standing = Standing::Lagging { epoch: epoch(1) };

    #[test]
    fn the_table_when_nobody_leads() {
        let order = [Standing::Empty, LAGGING, SYNCED, ALONE];
        for (high, mine) in order.into_iter().enumerate() {
            for (low, theirs) in order.into_iter().enumerate().take(high) {
                let met = both_ways(&hello(2, mine), &hello(1, theirs));
                if high < 2 {
                    assert!(matches!(met, (Meeting::Wait(_), Meeting::Wait(_))), "{high} {low}");
                } else {
                    assert_eq!(met, (Meeting::Lead, Meeting::Follow), "{high} {low}");
                }
            }
        }
        let stale = both_ways(&hello(1, LAGGING), &hello(2, LAGGING));
        assert!(matches!(stale, (Meeting::Wait(_), Meeting::Wait(_))));
    }

    #[test]
    fn of_two_in_sync_copies_the_longer_leads_then_the_configured_master() {
        let (one, mut two) = (hello(1, SYNCED), hello(2, SYNCED));
        assert_eq!(both_ways(&one, &two), (Meeting::Lead, Meeting::Follow));
        two.last = Lsn(11);
        assert_eq!(both_ways(&one, &two), (Meeting::Follow, Meeting::Lead));
        // Before the file's word comes who led.
        let led = hello(2, Standing::Synced { epoch: epoch(1), led: true });
        assert_eq!(both_ways(&one, &led), (Meeting::Follow, Meeting::Lead));
        let mut twin = hello(3, SYNCED);
        twin.last = Lsn(11);
        assert_eq!(both_ways(&two, &twin), (Meeting::Lead, Meeting::Follow));
    }

    #[test]
    fn a_sitting_leader_leads_whoever_returns() {
        for standing in [Standing::Empty, LAGGING, SYNCED] {
            let mut leader = hello(2, ALONE);
            leader.leading = Some(epoch(1));
            let mut returning = hello(1, standing);
            returning.last = Lsn(99);
            assert_eq!(both_ways(&leader, &returning), (Meeting::Lead, Meeting::Follow));
            returning.promised = epoch(2);
            let met = both_ways(&leader, &returning);
            assert!(matches!(met, (Meeting::Renew, Meeting::Wait(_))));
        }
    }

    #[test]
    fn of_two_leaders_the_higher_epoch_leads_also_by_generation() {
        let (mut one, mut two) = (hello(1, ALONE), hello(2, ALONE));
        one.leading = Some(epoch(2));
        two.leading = Some(epoch(3));
        assert_eq!(both_ways(&one, &two), (Meeting::Follow, Meeting::Lead));
        one.leading = Some(Epoch { number: 3, generation: 8 });
        assert_eq!(both_ways(&one, &two), (Meeting::Lead, Meeting::Follow));
    }

    /// Every state in which a node may say hello, within two epochs and two lengths of log.
    fn all_hellos(node: u128) -> Vec<Hello> {
        let mut standings = vec![Standing::Empty];
        for epoch in [epoch(1), epoch(2)] {
            standings.push(Standing::Lagging { epoch });
            standings.push(Standing::Synced { epoch, led: false });
            standings.push(Standing::Synced { epoch, led: true });
            standings.push(Standing::Alone { epoch, since: Lsn(0) });
        }
        let mut all = Vec::new();
        for standing in standings {
            let may_lead = rank(standing) >= rank_of_synced();
            let leading = if may_lead { Some(standing.epoch()) } else { None };
            for leading in [None, leading] {
                for (promised, last) in [(1, 10), (1, 11), (2, 10), (2, 11), (3, 10), (3, 11)] {
                    let promised = standing.epoch().max(epoch(promised));
                    for role in [Role::Master, Role::Slave] {
                        let last = Lsn(last);
                        all.push(Hello { leading, promised, last, role, ..hello(node, standing) });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn no_two_hellos_make_two_leaders_or_a_leader_of_the_lesser_copy() {
        let mut pairs = 0;
        for one in all_hellos(1) {
            for two in all_hellos(2) {
                if one.leading.is_some() && one.leading == two.leading {
                    continue;
                }
                let met = both_ways(&one, &two);
                let (leader, other) = match met {
                    (Meeting::Lead | Meeting::Renew, _) => (&one, &two),
                    _ => (&two, &one),
                };
                match met {
                    (Meeting::Lead, Meeting::Follow) | (Meeting::Follow, Meeting::Lead) => {
                        let first = leader.leading.is_none() && other.leading.is_none();
                        assert!(rank(leader.standing) >= rank_of_synced(), "{one:?} {two:?}");
                        assert!(!first || rank(leader.standing) >= rank(other.standing));
                        assert!(leader.leading >= other.leading, "{one:?} {two:?}");
                    }
                    // Whoever leads needs an epoch above the other's promise first.
                    (Meeting::Renew, Meeting::Wait(_)) | (Meeting::Wait(_), Meeting::Renew) => {
                        assert!(leader.leading < Some(other.promised), "{one:?} {two:?}");
                    }
                    (Meeting::Wait(_), Meeting::Wait(_)) => {
                        let best = rank(one.standing).max(rank(two.standing));
                        assert!(best < rank_of_synced(), "{one:?} {two:?}");
                    }
                    _ => panic!("{met:?}: {one:?} {two:?}"),
                }
                pairs += 1;
            }
        }
        assert!(pairs > 30_000, "{pairs}");
    }

    #[test]
    fn strangers_are_refused_by_both_sides() {
        let mut leader = hello(1, ALONE);
        leader.leading = Some(epoch(1));
        let mut other = hello(2, Standing::Empty);
        other.cluster = Some(2);
        let unrelated = Meeting::Reject(Code::Unrelated);
        assert_eq!(both_ways(&leader, &other), (unrelated, unrelated));
        other.cluster = None;
        assert_eq!(both_ways(&leader, &other), (Meeting::Lead, Meeting::Follow));
        // Alone on disk, the leader needs its former slave for nothing: a new node may follow.
        leader.peer = Some(NodeId(3));
        assert_eq!(both_ways(&leader, &other), (Meeting::Lead, Meeting::Follow));
        // So may it when it had begun before one of the two died.
        let begun = Hello { peer: Some(leader.node), ..hello(2, LAGGING) };
        assert_eq!(both_ways(&leader, &begun), (Meeting::Lead, Meeting::Follow));
        let taken = Meeting::Reject(Code::SlotTaken);
        let begun_elsewhere = Hello { peer: Some(NodeId(4)), ..hello(2, LAGGING) };
        assert_eq!(both_ways(&leader, &begun_elsewhere), (taken, taken));
        leader.standing = SYNCED;
        assert_eq!(both_ways(&leader, &other), (taken, taken));
        assert_eq!(both_ways(&leader, &begun), (taken, taken));
        // Not so one that was a slave of this cluster before.
        leader.standing = ALONE;
        let former = hello(2, SYNCED);
        assert_eq!(both_ways(&leader, &former), (taken, taken));
        leader.forgotten = Some(NodeId(2));
        let forgotten = Meeting::Reject(Code::Forgotten);
        assert_eq!(both_ways(&leader, &former), (forgotten, forgotten));
        let same = Meeting::Reject(Code::SameNode);
        assert_eq!(both_ways(&leader, &leader), (same, same));
    }

    #[test]
    fn both_sides_keep_the_same_one_of_two_links() {
        let numbered = |node, serial| Hello { serial, ..hello(node, SYNCED) };
        // x is dialed by node 1, y by node 2; serials as (node 1's, node 2's).
        for (x, y, x_is_kept) in [
            ((1, 2), (2, 1), true),
            ((2, 1), (1, 2), true),
            ((1, 1), (2, 2), false),
            ((2, 2), (1, 1), true),
        ] {
            let hellos = [x, y].map(|(one, two)| (numbered(1, one), numbered(2, two)));
            let at_one =
                |n: usize| Greeted { dialed: n == 0, mine: &hellos[n].0, theirs: &hellos[n].1 };
            let at_two =
                |n: usize| Greeted { dialed: n == 1, mine: &hellos[n].1, theirs: &hellos[n].0 };
            for (x_link, y_link) in [(at_one(0), at_one(1)), (at_two(0), at_two(1))] {
                assert_eq!(prefer_new(y_link, x_link), x_is_kept, "{x:?} {y:?}");
                assert_eq!(prefer_new(x_link, y_link), !x_is_kept, "{x:?} {y:?}");
            }
        }
    }
}
