//! States of a pair that the search begins from, each reached by the real code.

use super::actions::Action;
use super::explore::Start;
use super::world::World;
use crate::{ArbiterConfig, PairConfig, Role};
use understudy_model::Text;

/// The unit of time. Each deadline is a multiple of it.
const UNIT_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) stops_without_master: bool,
    pub(super) stops_without_slave: bool,
    pub(super) arbiter: bool,
}

impl Setting {
    pub(super) fn new(name: &str, arbiter: bool) -> Self {
        let (stops_without_master, stops_without_slave) = match name {
            "slave_survives" => (false, true),
            "master_survives" => (true, false),
            "none" => (true, true),
            _ => (false, false),
        };
        Self { stops_without_master, stops_without_slave, arbiter }
    }

    fn config(self, role: Role) -> PairConfig {
        let (own, peer) = (Text::from_static("host-0:1"), Text::from_static("host-1:1"));
        let master = role == Role::Master;
        PairConfig {
            role,
            peer_address: (!master).then(|| own.clone()),
            advertised_address: if master { own } else { peer },
            shutdown_on_master_failure: self.stops_without_master,
            shutdown_on_slave_failure: self.stops_without_slave,
            beat_ms: UNIT_MS,
            suspect_ms: 2 * UNIT_MS,
            takeover_ms: 3 * UNIT_MS,
            meet_timeout_ms: 3 * UNIT_MS,
            // An attempt ends when the search has it end; a new one needs another reason.
            redial_ms: 10 * UNIT_MS,
            redial_max_ms: 10 * UNIT_MS,
            arbiter: self.arbiter.then_some(ArbiterConfig { id: 7, lease_ms: 4 * UNIT_MS }),
            ..PairConfig::default()
        }
    }

    /// Nothing was ever started.
    pub(super) fn new_pair(self) -> World {
        World::new([self.config(Role::Master), self.config(Role::Slave)])
    }
}

/// Carried out in order, each followed by all that goes on by itself.
fn after(mut world: World, actions: &[Action]) -> World {
    for action in actions {
        world.apply(*action);
        world.calm();
        assert_eq!(world.violation, None, "{action}");
    }
    world
}

fn in_sync(setting: Setting) -> World {
    let world =
        after(setting.new_pair(), &[Action::Start(0), Action::Publish(0), Action::Start(1)]);
    assert!(world.is_in_sync(), "{setting:?}");
    after(world, &[Action::Publish(0)])
}

const CRASH_0: Action = Action::Crash { host: 0, applied: false };
const CRASH_1: Action = Action::Crash { host: 1, applied: false };

pub(super) fn trial(setting: Setting) -> Vec<Start> {
    vec![Start { name: "in-sync", world: in_sync(setting) }]
}
