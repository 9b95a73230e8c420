//! Effects on their way out of a turn.

use super::Outputs;
use understudy_model::{ConnectionId, Effect};

pub(super) fn push_effect(out: &mut Outputs, connection: ConnectionId, effect: Effect) {
    let effects = out.effects.entry(connection).or_default();
    if let (Some(Effect::Confirm { channel, through }), Effect::Confirm { channel: c, through: t }) =
        (effects.last_mut(), &effect)
        && channel == c
    {
        *through = *t;
        return;
    }
    effects.push(effect);
}
