//! Makes a node from what a data directory holds; the same for the process and for the simulator.

use crate::node::features::unknown_features;
use crate::node::{Node, NodeOptions, Outputs};
use bytes::Bytes;
use understudy_broker::Broker;
use understudy_model::{Features, Group, Lsn};
use understudy_replication::{Backend, Boot, LogEnd, Output};

/// What a data directory holds.
pub struct Found {
    pub view: Option<Bytes>,
    pub log: LogEnd,
    /// Why the log's end cannot be read.
    pub damage: Option<String>,
    /// Or why a slice of it cannot be read.
    pub state: Result<Vec<(Bytes, Bytes)>, String>,
}

/// Builds the node. `backend` makes the replication backend; `read_groups` gives the groups that
/// follow an LSN, none at the log's end.
///
/// Saved state that cannot be read is made anew from a log that is complete. If that is not so, or
/// what is to be replayed cannot be read, the backend is told, and may have the other node's copy
/// taken: memory is then empty and never served.
///
/// # Errors
/// What is on disk does not fit together or cannot be read: the node must not start.
pub fn boot(
    options: &NodeOptions,
    found: Found,
    now_ms: u64,
    random: [u64; 8],
    backend: impl Fn(&Boot, &mut Vec<Output>) -> Result<Box<dyn Backend>, String>,
    read_groups: impl FnMut(Lsn) -> Result<Vec<Group>, String>,
) -> Result<(Node, Outputs), String> {
    let mut boot = Boot {
        now_ms,
        view: found.view.clone(),
        log: found.log,
        applied: Lsn::ZERO,
        features: Features::NONE,
        damaged: None,
        random,
    };
    let mut out = Outputs::default();
    let why = match load(options, &found, &mut out) {
        Ok((broker, chain)) => {
            boot.applied = broker.applied();
            boot.features = broker.features();
            if !options.features.contains(boot.features) {
                return Err(unknown_features(boot.features.without(options.features)));
            }
            let mut first = Vec::new();
            let backend = backend(&boot, &mut first)?;
            let node = Node::new(options.clone(), broker, chain, backend);
            match replay(node, chain, found.log.last, &first, read_groups) {
                Ok((mut node, replayed)) => {
                    let notices = std::mem::take(&mut out.notices);
                    out = replayed;
                    out.notices.splice(..0, notices);
                    node.start(now_ms, first, &mut out);
                    out.effects.clear();
                    return Ok((node, out));
                }
                Err(why) => why,
            }
        }
        Err(why) => why,
    };
    (boot.applied, boot.features) = (Lsn::ZERO, Features::NONE);
    boot.damaged = Some(why);
    let mut first = Vec::new();
    let backend = backend(&boot, &mut first)?;
    let mut out = Outputs::default();
    let mut node = Node::new(options.clone(), Broker::new(options.limits), 0, backend);
    node.start(now_ms, first, &mut out);
    Ok((node, out))
}

/// State to begin the replay with, and the chain hash there.
fn load(options: &NodeOptions, found: &Found, out: &mut Outputs) -> Result<(Broker, u128), String> {
    if let Some(why) = &found.damage {
        return Err(why.clone());
    }
    let loaded = found.state.clone().and_then(|slices| {
        Broker::load(options.limits, &slices).map_err(|malformed| format!("saved {malformed}"))
    });
    let (broker, chain) = match loaded {
        Err(why) if found.log.base == Lsn::ZERO => {
            out.notices.push((true, format!("{why}: state is made anew from the log")));
            return Ok((Broker::new(options.limits), 0));
        }
        loaded => loaded?,
    };
    let (applied, end) = (broker.applied(), found.log);
    if applied > end.last && end.last == Lsn::ZERO {
        // State of a copy whose log was never completed: the copy begins anew.
        return Ok((Broker::new(options.limits), 0));
    }
    if applied > end.last {
        return Err(format!("saved state ends at LSN {applied}, but the log at {}", end.last));
    }
    if applied < end.base {
        return Err(format!(
            "saved state ends at LSN {applied}, but the log begins only behind {}",
            end.base
        ));
    }
    Ok((broker, chain))
}

fn replay(
    mut node: Node,
    mut chain: u128,
    last: Lsn,
    first: &[Output],
    mut read_groups: impl FnMut(Lsn) -> Result<Vec<Group>, String>,
) -> Result<(Node, Outputs), String> {
    let committed = first.iter().filter_map(|output| match output {
        Output::Commit { through } => Some(*through),
        _ => None,
    });
    let committed = committed.max().unwrap_or(Lsn::ZERO);
    let mut out = Outputs::default();
    loop {
        let groups = read_groups(node.appended())?;
        if groups.is_empty() {
            break;
        }
        for group in groups {
            group.verify_chain(chain).map_err(|error| error.to_string())?;
            chain = group.header().chain;
            node.replay(group);
        }
        node.replay_committed(committed, &mut out);
    }
    if node.appended() != last {
        let read = node.appended();
        return Err(format!("the log can be read up to LSN {read} only, it ends at {last}"));
    }
    Ok((node, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::AlarmPolicy;
    use understudy_broker::Limits;
    use understudy_model::{Text, UserRecord};
    use understudy_replication::Standalone;

    fn start(features: Features) -> Result<(), String> {
        let user = UserRecord {
            name: Text::from_static("guest"),
            password_hash: Text::default(),
            tags: Vec::new(),
        };
        let options = NodeOptions {
            limits: Limits::default(),
            group_bytes_max: 1 << 10,
            commit_interval_ms: 0,
            cache_bytes_max: 1 << 10,
            alarm_policy: AlarmPolicy::Block,
            save_after_bytes: 1 << 10,
            retain_bytes: 0,
            digest_interval_ms: 0,
            features,
            users: Vec::new(),
            default_user: user,
        };
        let state = vec![(Bytes::from_static(b"features"), Bytes::from_static(&[0b100]))];
        let found = Found { view: None, log: LogEnd::default(), damage: None, state: Ok(state) };
        let made = boot(
            &options,
            found,
            0,
            [1; 8],
            |boot, out| -> Result<Box<dyn Backend>, String> {
                Ok(Box::new(Standalone::new(boot, out).map_err(|error| error.to_string())?))
            },
            |_| Ok(Vec::new()),
        );
        made.map(|_| ())
    }

    #[test]
    fn data_of_a_newer_program_is_refused_by_an_older_one() {
        assert_eq!(start(Features(0b110)), Ok(()));
        let refusal = start(Features(0b010)).unwrap_err();
        assert!(refusal.contains("features 2"), "{refusal}");
    }
}
