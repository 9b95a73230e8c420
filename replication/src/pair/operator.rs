//! What the operator asks of a node: to lead, to hand over, to take a whole copy, to forget its slave. A
//! refusal is a line for the operator.

use crate::Output;
use crate::pair::machine::Pair;
use crate::pair::state::{Next, State};

impl Pair {
    pub(super) fn promote(&mut self, force: bool, out: &mut Vec<Output>) {
        let refused = match &mut self.state {
            State::Idle(idle) => idle.promote(&mut self.core, force, out),
            State::Follow(_) => Err("the master is here; a switchover swaps the roles"),
            State::Lead(_) | State::Stopped => Err("this is the master"),
        };
        if let Err(why) = refused {
            self.core.say(true, format!("promotion refused: {why}"), out);
        }
    }

    pub(super) fn resync(&mut self, out: &mut Vec<Output>) -> Next {
        let core = &mut self.core;
        let refused = match &self.state {
            State::Follow(follow) => match follow.resync(core, out) {
                Ok(next) => return Some(next),
                Err(why) => why,
            },
            State::Idle(_) => "no master is attached, so there is nothing to copy from",
            State::Lead(_) | State::Stopped => "this is the master",
        };
        core.say(true, format!("resync refused: {refused}"), out);
        None
    }

    pub(super) fn forget_slave(&mut self, force: bool, out: &mut Vec<Output>) {
        let refused = match &mut self.state {
            State::Lead(lead) => lead.forget_slave(&mut self.core, force, out),
            _ => Err("this is not the master"),
        };
        if let Err(why) = refused {
            self.core.say(true, format!("the slave is not forgotten: {why}"), out);
        }
    }

    pub(super) fn hand_over(&mut self, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Lead(lead) => lead.hand_over(&mut self.core, out),
            _ => self.core.say(true, "switchover refused: not the master".into(), out),
        }
    }
}
