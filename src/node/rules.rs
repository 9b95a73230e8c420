//! What the master does with messages by itself, at the end of a turn. A part of the node, sans-io.

use super::{Node, Outputs};
use understudy_broker::Decided;
use understudy_model::Lsn;

/// Messages are moved by rules only while no more than this waits for the disk.
const RULES_INFLIGHT_BYTES_MAX: usize = 16 << 20;

impl Node {
    pub(super) fn may_follow_rules(&self) -> bool {
        self.leading.is_some() && self.serving && self.inflight.bytes() <= RULES_INFLIGHT_BYTES_MAX
    }

    pub(super) fn on_time(&mut self) {
        let mut decided = Decided {
            open: &mut self.inflight.open,
            effects: &mut self.inflight.open_effects,
            depends_on: Lsn::ZERO,
            topology: false,
        };
        self.broker.on_time(&mut decided);
    }

    /// What was discarded or has expired is dead-lettered, what is due is routed. Put off while much waits for the disk.
    pub(super) fn follow_rules(&mut self, out: &mut Outputs) {
        if !self.may_follow_rules() {
            return;
        }
        let mut decided = Decided {
            open: &mut self.inflight.open,
            effects: &mut self.inflight.open_effects,
            depends_on: Lsn::ZERO,
            topology: false,
        };
        self.more_to_serve |= self.broker.bury(&mut self.cache, &mut decided, &mut out.reads)
            | self.broker.release_delayed(&mut self.cache, &mut decided, &mut out.reads);
    }
}
