//! From what the disk holds to a running node: saved state, the log behind it, the backend. The
//! same for the process and for the simulator.

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
    let boot = Boot { now_ms, view: found.view, log: found.log, applied, random };
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
