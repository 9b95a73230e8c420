//! How a follower's log is made to continue the leader's (docs/replication.md section 7.1 and R6).

use crate::pair::core::Core;
use crate::pair::hello::Hello;
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use understudy_model::Lsn;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The log is a prefix of the leader's.
    Continue,
    /// The tail behind this point was never committed here and is not the leader's.
    Cut { after: Lsn },
    /// The log holds commands committed here behind this point that the leader lacks: it gets them
    /// first, then this node a whole copy.
    Export { common: Lsn },
    /// A whole copy. `set_aside`: the log holds committed commands that the leader lacks.
    Copy { set_aside: bool },
}

pub(crate) fn plan(core: &Core, leader: &Hello) -> Plan {
    let log = core.log;
    if let Some(set_aside) = core.view.copying {
        // Once the copy has begun to come in, what was here is set aside already.
        return Plan::Copy { set_aside: set_aside && log.appended > Lsn::ZERO };
    }
    // Hellos of crossing links may be older than what came on another one meanwhile; all that came
    // in the mastership that still leads is the leader's, whatever its hello says.
    let same = core.view.history.0.last().is_some_and(|s| leader.leading == Some(s.epoch));
    let leader_last = if same { leader.last.max(log.appended) } else { leader.last };
    let common = core.view.history.common_point(log.appended, &leader.history, leader_last);
    let common = common.unwrap_or(Lsn::ZERO);
    let corrupt = common == log.appended && common == leader.last && log.chain != leader.chain;
    #[cfg(test)]
    match () {
        () if common < core.commit && broken::is(Broken::CutsCommitted) => {
            return Plan::Cut { after: common };
        }
        () if common < log.appended && broken::is(Broken::KeepsTail) => return Plan::Continue,
        () => {}
    }
    if common < core.commit {
        return Plan::Export { common };
    }
    if corrupt {
        return Plan::Copy { set_aside: core.commit > Lsn::ZERO };
    }
    if common < leader.base || common < log.base {
        return Plan::Copy { set_aside: false };
    }
    if common < log.appended { Plan::Cut { after: common } } else { Plan::Continue }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::config::{PairConfig, Role};
    use crate::pair::view::Standing;
    use crate::{Boot, LogEnd};
    use understudy_model::{Epoch, EpochHistory, EpochStart, NodeId};

    fn history(starts: &[(u64, u64)]) -> EpochHistory {
        let start = |&(number, first)| EpochStart {
            epoch: Epoch { number, generation: number },
            first: Lsn(first),
            leader: NodeId(1),
        };
        EpochHistory(starts.iter().map(start).collect())
    }

    fn follower(last: u64, commit: u64) -> Core {
        let boot = Boot {
            now_ms: 0,
            view: None,
            log: LogEnd::default(),
            applied: Lsn::ZERO,
            features: understudy_model::Features::NONE,
            damaged: None,
            random: [1; 8],
        };
        let config = PairConfig { role: Role::Slave, ..PairConfig::default() };
        let mut core = Core::new(&boot, config).unwrap();
        core.view.history = history(&[(1, 1)]);
        core.log.appended = Lsn(last);
        core.commit = Lsn(commit);
        core
    }

    fn leader(core: &Core, base: u64, last: u64) -> Hello {
        Hello {
            protocols: crate::pair::upgrade::Protocols::OWN,
            features: understudy_model::Features::NONE,
            features_on: understudy_model::Features::NONE,
            leading: Some(Epoch { number: 2, generation: 2 }),
            process: 1,
            serial: 1,
            cluster: Some(1),
            node: NodeId(1),
            peer: None,
            forgotten: None,
            role: Role::Master,
            standing: Standing::Empty,
            promised: Epoch::default(),
            history: history(&[(1, 1), (2, 11)]),
            base: Lsn(base),
            last: Lsn(last),
            chain: core.log.chain,
            commit: Lsn(last),
            address: core.config.advertised_address.clone(),
            client_addresses: understudy_model::Text::default(),
            policy: core.policy(),
            arbiter: 0,
        }
    }

    #[test]
    fn each_relation_of_two_logs_has_its_plan() {
        for (last, commit, base, expected) in [
            (8, 8, 0, Plan::Continue),
            (0, 0, 0, Plan::Continue),
            (10, 4, 9, Plan::Continue),
            (13, 10, 0, Plan::Cut { after: Lsn(10) }),
            (13, 4, 0, Plan::Cut { after: Lsn(10) }),
            (8, 8, 9, Plan::Copy { set_aside: false }),
            (0, 0, 9, Plan::Copy { set_aside: false }),
            (13, 12, 0, Plan::Export { common: Lsn(10) }),
        ] {
            let core = follower(last, commit);
            assert_eq!(plan(&core, &leader(&core, base, 20)), expected, "{last} {commit} {base}");
        }
    }

    #[test]
    fn a_copy_that_was_cut_short_begins_again() {
        let mut core = follower(8, 8);
        core.view.copying = Some(true);
        assert_eq!(plan(&core, &leader(&core, 0, 20)), Plan::Copy { set_aside: true });
        core.log.appended = Lsn::ZERO;
        assert_eq!(plan(&core, &leader(&core, 0, 20)), Plan::Copy { set_aside: false });
    }

    #[test]
    fn a_hello_older_than_what_its_sender_has_written_since_parts_no_logs() {
        let mut core = follower(13, 12);
        let mut stale = leader(&core, 0, 11);
        core.view.history = stale.history.clone();
        assert_eq!(plan(&core, &stale), Plan::Continue);
        // Another mastership may have begun in front of that.
        stale.leading = Some(Epoch { number: 3, generation: 3 });
        stale.history = history(&[(1, 1), (2, 11), (3, 12)]);
        assert_eq!(plan(&core, &stale), Plan::Export { common: Lsn(11) });
    }

    #[test]
    fn equal_ends_with_unequal_chains_are_not_the_same_log() {
        let core = follower(10, 4);
        let mut leader = leader(&core, 0, 10);
        assert_eq!(plan(&core, &leader), Plan::Continue);
        leader.chain = 5;
        assert_eq!(plan(&core, &leader), Plan::Copy { set_aside: true });
    }
}
