//! From what the disk holds to a running node: saved state, the log behind it, the backend. The
//! same for the process and for the simulator.

use crate::node::features::unknown_features;
use crate::node::{Node, NodeOptions, Outputs};
use bytes::Bytes;
use understudy_broker::Broker;
use understudy_model::{Group, Lsn};
use understudy_replication::{Backend, Boot, LogEnd, Output};

/// What a data directory holds.
pub struct Found {
    pub view: Option<Bytes>,
    pub log: LogEnd,
    pub state: Vec<(Bytes, Bytes)>,
}

/// Builds the node. `backend` makes the replication backend; `read_groups` gives the groups that
/// follow an LSN, none at the log's end.
///
/// # Errors
/// What is on disk does not fit together or cannot be read: the node must not start.
pub fn boot(
    options: NodeOptions,
    found: Found,
    now_ms: u64,
    random: [u64; 8],
    backend: impl FnOnce(&Boot, &mut Vec<Output>) -> Result<Box<dyn Backend>, String>,
    mut read_groups: impl FnMut(Lsn) -> Result<Vec<Group>, String>,
) -> Result<(Node, Outputs), String> {
    let loaded = Broker::load(options.limits, &found.state);
    let (mut broker, mut chain) = loaded.map_err(|m| format!("saved state: {m}"))?;
    if broker.applied() > found.log.last {
        // State of a copy whose log was never completed: the copy begins anew.
        (broker, chain) = (Broker::new(options.limits), 0);
    }
    let applied = broker.applied();
    if applied < found.log.base {
        return Err(format!(
            "saved state ends at LSN {applied}, but the log begins only behind {}",
            found.log.base
        ));
    }
    let features = broker.features();
    let supported = options.features;
    if !supported.contains(features) {
        return Err(unknown_features(features.without(supported)));
    }
    let boot = Boot { now_ms, view: found.view, log: found.log, applied, features, random };
    let mut first = Vec::new();
    let backend = backend(&boot, &mut first)?;
    let committed = first.iter().filter_map(|output| match output {
        Output::Commit { through } => Some(*through),
        _ => None,
    });
    let committed = committed.max().unwrap_or(Lsn::ZERO);
    let mut node = Node::new(options, broker, chain, backend);
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
    if node.appended() != found.log.last {
        let (read, last) = (node.appended(), found.log.last);
        return Err(format!("the log can be read up to LSN {read} only, it ends at {last}"));
    }
    node.start(now_ms, first, &mut out);
    out.effects.clear();
    Ok((node, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_broker::Limits;
    use understudy_model::{Features, Text, UserRecord};
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
            cache_bytes_max: 1 << 10,
            save_after_bytes: 1 << 10,
            retain_bytes: 0,
            features,
            users: Vec::new(),
            default_user: user,
        };
        let state = vec![(Bytes::from_static(b"features"), Bytes::from_static(&[0b100]))];
        let found = Found { view: None, log: LogEnd::default(), state };
        let made = boot(
            options,
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
