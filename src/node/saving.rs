//! When state is saved, and what of the log may go then.

use super::{Node, Outputs};
use understudy_model::Lsn;

impl Node {
    pub(super) fn save_some(&mut self, out: &mut Outputs) {
        // Only what is saved may be given back.
        let after = if self.alarm.low_space { 1 } else { self.options.save_after_bytes };
        let awaited = self.repairs.save_through();
        let due = self.upkeep.bytes_since_save() >= after
            || self.saved_through < awaited && awaited <= self.broker.applied();
        if !self.upkeep.is_saving() && due {
            self.upkeep.begin(&mut self.broker, self.applied_chain);
        }
        let (slices, ends) = self.upkeep.some_slices(&mut self.broker);
        out.save.extend(slices);
        out.save_ends = out.save_ends.or(ends);
    }

    pub(super) fn state_saved(&mut self, replay_after: Lsn, out: &mut Outputs) {
        self.upkeep.saved();
        self.saved_through = self.saved_through.max(replay_after);
        let retain = self.backend.retain_after().unwrap_or(replay_after);
        let floor = replay_after.min(retain);
        let retain_bytes = if self.alarm.low_space { 0 } else { self.options.retain_bytes };
        for job in self.upkeep.reclaim(&mut self.broker, floor, retain_bytes) {
            out.log.push(job);
        }
    }
}
