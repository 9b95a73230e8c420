//! The failure table (docs/replication.md section 14): what follows each event under each survival
//! policy, without and with an arbiter. A row is one test; its outcomes are data, and the world's checks hold at each step.

mod crashes;
mod disks;
mod links;
mod others;
mod words;

use super::arbiter::with_arbiter;
use super::world::{World, config};
use crate::pair::random::Random;
use crate::{Input, Role};
use understudy_model::Lsn;
use words::{LogIs, Outcome, now};

/// Courses of each row under each setting.
const SEEDS: u64 = 6;
/// Longer than every deadline of the pair: meeting, takeover, lease, and the pauses between them.
const SETTLE_MS: u64 = 20_000;

/// Who may go on alone by itself (docs/replication.md section 2), in the order of every row's outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survivor {
    Both,
    Slave,
    Master,
    Nobody,
}

use Survivor::{Both, Master, Nobody, Slave};

pub(super) const SURVIVORS: [Survivor; 4] = [Both, Slave, Master, Nobody];

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) survivor: Survivor,
    pub(super) arbiter: bool,
}

impl Setting {
    /// The slave may lead without its master.
    fn slave_may_lead(self) -> bool {
        matches!(self.survivor, Both | Slave)
    }

    fn world(self, seed: u64) -> World {
        let mut configs = vec![config(Role::Master), config(Role::Slave), config(Role::Slave)];
        for config in &mut configs {
            config.shutdown_on_master_failure = !self.slave_may_lead();
            config.shutdown_on_slave_failure = matches!(self.survivor, Slave | Nobody);
            if self.arbiter {
                with_arbiter(config);
            }
        }
        let mut world = World::new(1 + seed, configs);
        world.start(0);
        assert!(world.until(100, |w| w.serves(0)), "a new master serves");
        world.publish(0, 3);
        world.run(50);
        world
    }
}

/// Host 0 leads, host 1 is in-sync, both logs are equal.
fn pair_in_sync(setting: Setting, seed: u64) -> World {
    let mut world = setting.world(seed);
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    world.publish(0, 2);
    world.run(600);
    world
}

struct Row {
    begins: fn(Setting, u64) -> World,
    happens: fn(&mut World, Setting),
    /// In the order of [`SURVIVORS`]; none: the event needs an arbiter.
    without_arbiter: Option<[Outcome; 4]>,
    with_arbiter: [Outcome; 4],
}

impl Row {
    const fn new(
        happens: fn(&mut World, Setting),
        without_arbiter: [Outcome; 4],
        with_arbiter: [Outcome; 4],
    ) -> Self {
        let begins = pair_in_sync;
        Self { begins, happens, without_arbiter: Some(without_arbiter), with_arbiter }
    }

    /// An event at which nobody is asked who may go on alone.
    const fn same(happens: fn(&mut World, Setting), outcome: Outcome) -> Self {
        Self::new(happens, [outcome; 4], [outcome; 4])
    }

    fn check(&self) {
        let with = (true, Some(self.with_arbiter));
        for (arbiter, outcomes) in [(false, self.without_arbiter), with] {
            for (survivor, outcome) in SURVIVORS.into_iter().zip(outcomes.into_iter().flatten()) {
                for seed in 0..SEEDS {
                    let setting = Setting { survivor, arbiter };
                    let _told = ToldIfPanicking(setting, seed);
                    self.course(setting, seed, outcome);
                }
            }
        }
    }

    fn course(&self, setting: Setting, seed: u64, outcome: Outcome) {
        let mut world = (self.begins)(setting, seed);
        world.random = Random::new(&[seed; 8]);
        (world.copies, world.truncations) = (0, 0);
        (self.happens)(&mut world, setting);
        settle(&mut world);
        let found = [now(&world, 0), now(&world, 1)];
        let wanted = outcome.nodes.unwrap_or(found);
        assert_eq!(found, wanted, "{:#?} {:#?}", world.hosts[0].logs, world.hosts[1].logs);
        repair(&mut world);
        let leader = usize::from(world.serves(1));
        assert!(outcome.leader.is_none_or(|wanted| wanted == leader), "host {leader} leads");
        assert_eq!(log_is(&world, outcome.log), outcome.log, "{:#?}", world.hosts[1 - leader].logs);
        ends_equal(&mut world, leader);
    }
}

/// What a panic was about.
struct ToldIfPanicking(Setting, u64);

impl Drop for ToldIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}, seed {}", self.0, self.1);
        }
    }
}

/// Clients of whoever serves publish all the while.
fn settle(world: &mut World) {
    let end_ms = world.now_ms + SETTLE_MS;
    while world.now_ms < end_ms {
        for host in [0, 1] {
            if world.hosts[host].sleeps_until_ms <= world.now_ms {
                world.publish(host, 1);
            }
        }
        world.run(500);
    }
}

/// Network and arbiter work again, and a supervisor starts what has ended.
fn repair(world: &mut World) {
    world.heal();
    world.heal_arbiter();
    let mut whole = false;
    for _ in 0..6 {
        for host in [0, 1] {
            if world.process(host).is_none() {
                world.start(host);
            }
        }
        let serves = |w: &World| w.serves(0) || w.serves(1);
        whole = world.until(9_000, |w| w.in_sync_pair(0, 1) && serves(w));
        if whole {
            break;
        }
    }
    assert!(whole, "not in-sync again: {:#?} {:#?}", world.hosts[0].logs, world.hosts[1].logs);
}

/// How the logs came together since the event.
fn log_is(world: &World, wanted: LogIs) -> LogIs {
    match (world.hosts.iter().any(|host| !host.disk.aside.is_empty()), world.copies) {
        (true, _) => LogIs::SetAside,
        (false, _) if wanted == LogIs::Kept => LogIs::Kept,
        (false, 1..) => LogIs::Copied,
        (false, 0) if world.truncations > 0 => LogIs::Cut,
        (false, 0) => LogIs::Continued,
    }
}

/// What is answered from here on is on both disks, and both logs are one.
fn ends_equal(world: &mut World, leader: usize) {
    world.publish(leader, 2);
    world.run(1_000);
    let ends = [0, 1].map(|host| {
        let end = world.hosts[host].disk.end();
        (end.last, end.last_chain)
    });
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0], world.confirmed);
    let committed = |host: usize| world.process(host).map_or(Lsn::ZERO, |process| process.commit);
    assert_eq!([committed(0), committed(1)], [ends[0].0; 2]);
}

/// Until somebody else leads than host 0, by the policy or, where it says no, by the operator's word.
fn let_host_1_lead(world: &mut World) {
    world.until(SETTLE_MS, |w| w.serves(1) || w.process(1).is_none());
    if world.process(1).is_none() {
        world.start(1);
        world.run(SETTLE_MS / 2);
        if !world.serves(1) {
            world.input(1, Input::Promote { force: false });
        }
        world.run(100);
    }
    assert!(world.serves(1), "{:#?}", world.hosts[1].logs);
}
