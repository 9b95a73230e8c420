//! The operator has a slave take a whole new copy: it gives up its claim and its log on disk, breaks
//! with the master, and meets it again as a node whose copy has begun and not ended.

use crate::Output;
use crate::pair::core::Core;
use crate::pair::follow::{Follow, Stage};
use crate::pair::idle::Idle;
use crate::pair::state::State;
use crate::pair::view::Standing;
use understudy_model::EpochHistory;

/// Copies of the whole state that were begun in this run, taken or given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies {
    pub(crate) begun: u64,
    /// Of the last one.
    pub(crate) bytes: u64,
}

impl Copies {
    pub(crate) fn chunk(&mut self, first: bool, bytes: usize) {
        if first {
            self.begun += 1;
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }
}

impl Core {
    /// What is here counts no more and will be replaced by the master's copy; `set_aside`: after it
    /// was kept elsewhere in the data directory.
    pub(crate) fn disown_log(&mut self, set_aside: bool, out: &mut Vec<Output>) -> u64 {
        self.view.standing = Standing::Lagging { epoch: self.view.promised };
        self.view.history = EpochHistory::default();
        self.view.copying = Some(set_aside);
        self.save(out)
    }
}

impl Follow {
    /// The master of a slave that was in-sync sees it come back without its claim, and goes on alone
    /// under every policy.
    pub(crate) fn resync(
        &self,
        core: &mut Core,
        out: &mut Vec<Output>,
    ) -> Result<State, &'static str> {
        if self.is_leaving() {
            return Err("this node is about to stop or to lead");
        }
        match self.stage {
            Stage::Tail | Stage::Joining { .. } | Stage::Synced => {}
            Stage::Promising { .. } | Stage::Exporting(_) => {
                return Err("the master does not have yet what this node had committed alone");
            }
            Stage::Clearing { .. } | Stage::Copying { .. } | Stage::Installing => {
                return Err("a whole copy is being taken already");
            }
            Stage::Accepting { .. } | Stage::Cutting | Stage::Adopting { .. } => {
                return Err("the master is being met; try again");
            }
        }
        core.say(true, "resync by the operator: a whole copy is taken anew".into(), out);
        core.disown_log(true, out);
        core.taking = None;
        core.drop_link(self.link, out);
        Ok(State::Idle(Idle::orphan(core, self.heard_ms)))
    }
}
