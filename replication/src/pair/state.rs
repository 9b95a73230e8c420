//! What a node is doing, and how it changes.

use crate::Output;
use crate::pair::code::Code;
use crate::pair::core::Core;
use crate::pair::follow::Follow;
use crate::pair::idle::Idle;
use crate::pair::lead::Lead;

#[derive(Clone, Debug, Hash)]
pub(crate) enum State {
    Idle(Idle),
    Follow(Box<Follow>),
    Lead(Box<Lead>),
    Stopped,
}

/// The state to go on in, if it changes. Outputs that belong to the change are given already.
pub(crate) type Next = Option<State>;

impl State {
    pub(crate) fn stop(outcome: Result<String, String>, out: &mut Vec<Output>) -> Self {
        out.push(Output::Stop { outcome });
        Self::Stopped
    }
}

/// A node that does not lead was refused, by the peer or by its own reading of the hellos.
pub(crate) fn rejected(
    core: &mut Core,
    code: Code,
    by_leader: bool,
    out: &mut Vec<Output>,
) -> Next {
    let text = format!("refused by the peer: {}", code.explain());
    core.say(true, text.clone(), out);
    (by_leader && code.is_final()).then(|| State::stop(Err(text), out))
}
