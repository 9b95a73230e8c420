//! States of a pair that the search begins from, each reached by the real code.

use super::actions::{Action, Source};
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
            "both" => (false, false),
            _ => panic!("no policy is called {name}"),
        };
        Self { stops_without_master, stops_without_slave, arbiter }
    }

    pub(super) fn leads_apart(self) -> bool {
        !self.stops_without_master && !self.stops_without_slave && !self.arbiter
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
            redial_ms: 1_000 * UNIT_MS,
            redial_max_ms: 1_000 * UNIT_MS,
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

/// Time passes until the host serves.
fn until_serving(mut world: World, host: u8) -> World {
    for _ in 0..20 {
        if world.serves(host.into()) {
            return world;
        }
        world = after(world, &[Action::Tick { host, late: false }]);
    }
    panic!("host {host} does not serve");
}

pub(super) fn in_sync(setting: Setting) -> World {
    let world = after(setting.new_pair(), &[Action::Start(0)]);
    let world = after(until_serving(world, 0), &[Action::Publish(0), Action::Start(1)]);
    assert!(world.is_in_sync(), "{setting:?}");
    after(world, &[Action::Publish(0)])
}

/// The master's log holds one command that was never answered and is nowhere else.
pub(super) fn both_down(setting: Setting) -> World {
    let mut world = in_sync(setting);
    world.apply(Action::Publish(0));
    world.apply(Action::Run(Source::Disk(0)));
    for host in [0, 1] {
        world.apply(Action::Crash { host, applied: false });
    }
    world
}

/// The slave has left; what it lacks is not in the master's log any more.
pub(super) fn left_behind(setting: Setting) -> World {
    let mut world = after(in_sync(setting), &[Action::Stop(1)]);
    if world.process(0).is_none() {
        world = after(world, &[Action::Start(0)]);
    }
    after(until_serving(world, 0), &[Action::Publish(0), Action::Publish(0), Action::Reclaim(0)])
}

/// Either side has answered something alone.
pub(super) fn partition(setting: Setting) -> World {
    let world = after(in_sync(setting), &[Action::Cut]);
    let world = after(world, &[Action::Tick { host: 0, late: false }; 2]);
    let world = after(until_serving(world, 1), &[Action::Publish(0), Action::Publish(1)]);
    assert!(world.serves(0));
    world
}

/// The slave has taken over, and calls the former master, which is not there yet.
pub(super) fn taken_over(setting: Setting) -> World {
    let crash = Action::Crash { host: 0, applied: false };
    let mut world = until_serving(after(in_sync(setting), &[crash]), 1);
    world.apply(Action::Tick { host: 1, late: false });
    world.apply(Action::Delay(Source::Dial(1)));
    world
}

/// Until the arbiter is about to change the register for the host; nobody else's time passes.
fn until_swapping(mut world: World, host: u8) -> World {
    for _ in 0..200 {
        if world.is_swapping(host.into()) {
            return world;
        }
        match world.next() {
            Some(source) => world.apply(Action::Run(source)),
            None if world.lease_end_ms(host.into()).is_some() => {
                world.apply(Action::Tick { host, late: true });
            }
            None => world.apply(Action::Tick { host, late: false }),
        }
        assert_eq!(world.violation, None);
    }
    panic!("host {host} does not swap");
}

/// The master had asked to go on alone, and died before the arbiter carried that out; the slave leads.
pub(super) fn overtaken(setting: Setting) -> World {
    let mut world = in_sync(setting);
    world.apply(Action::Crash { host: 1, applied: false });
    let mut world = until_swapping(world, 0);
    world.apply(Action::Crash { host: 0, applied: false });
    let world = until_serving(after(world, &[Action::Start(1)]), 1);
    after(world, &[Action::Publish(1)])
}

/// The master did not run until its lease was over, and runs again while the slave, which has seen
/// that, asks for the role.
pub(super) fn slept(setting: Setting) -> World {
    let mut world = in_sync(setting);
    world.apply(Action::Cut);
    let mut world = until_swapping(world, 1);
    world.apply(Action::Silence { host: 1, done: false });
    world
}

/// The operator has asked for a switchover.
pub(super) fn handing_over(setting: Setting) -> World {
    let mut world = in_sync(setting);
    world.apply(Action::HandOver(0));
    world
}

pub(super) fn all(setting: Setting) -> Vec<Start> {
    let mut starts = vec![
        Start { name: "an in-sync pair", world: in_sync(setting) },
        Start { name: "a new pair", world: setting.new_pair() },
        Start { name: "a switchover was asked for", world: handing_over(setting) },
        Start { name: "both are down", world: both_down(setting) },
        Start { name: "the slave is left behind", world: left_behind(setting) },
    ];
    if !setting.stops_without_master {
        starts.push(Start { name: "the slave has taken over", world: taken_over(setting) });
    }
    if setting.leads_apart() {
        starts.push(Start { name: "a partition with two masters", world: partition(setting) });
    }
    starts
}
