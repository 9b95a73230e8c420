//! A world of a few hosts: clock, network, processes. One seed, one course of events.

use super::arbiter::Arbiter;
use super::disk::{Disk, Job};
use crate::pair::random::Random;
use crate::{
    ArbiterCall, Backend, Boot, Found, Input, LinkId, LogEnd, Output, Pair, PairConfig, Role,
};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use understudy_model::{Epoch, Features, Group, Lsn, OpenGroup, Text};

pub(super) struct Process {
    pub(super) pair: Pair,
    pub(super) jobs: VecDeque<Job>,
    pub(super) open: OpenGroup,
    pub(super) chain: u128,
    pub(super) leading: Option<Epoch>,
    pub(super) serving: bool,
    pub(super) spares_slave: bool,
    pub(super) commit: Lsn,
}

impl Process {
    pub(super) fn begin_at(&mut self, log: LogEnd) {
        self.open = OpenGroup::new(log.last.next());
        self.chain = log.last_chain;
    }
}

pub(super) struct Host {
    pub(super) config: PairConfig,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    pub(super) run: u64,
    pub(super) stopped: Option<Result<String, String>>,
    pub(super) logs: Vec<String>,
    /// Answers to what was asked of the peer.
    pub(super) fetched: Vec<(u64, Found)>,
    /// Nothing is synced before.
    pub(super) hangs_until_ms: u64,
    /// The process does not run before (SIGSTOP, a frozen machine); what comes for it waits.
    pub(super) sleeps_until_ms: u64,
}

pub(super) enum Event {
    Input { host: usize, run: u64, input: Input },
    JobDone { host: usize, run: u64 },
    Frame { to: LinkId, frame: Bytes },
    LinkLost { link: LinkId },
    Dialed { host: usize, run: u64, address: Text },
    AtArbiter { host: usize, run: u64, serial: u64, call: ArbiterCall },
}

struct End {
    host: usize,
    other: LinkId,
    /// Frames arrive in order.
    next_ms: u64,
}

pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) random: Random,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    ends: BTreeMap<LinkId, End>,
    pub(super) cut: bool,
    pub(super) arbiter: Arbiter,
    /// Longest delay of a frame and of a sync, milliseconds.
    pub(super) slowness_ms: u64,
    /// Newest thing that a leader has committed.
    pub(super) confirmed: (Lsn, u128),
    pub(super) committers: BTreeMap<Epoch, usize>,
    /// Two sides may have led apart: what one confirmed may be missing on the other.
    pub(super) excused: bool,
    pub(super) copies: usize,
    pub(super) truncations: usize,
    pub(super) leads: usize,
    /// Where in the log features were switched on.
    pub(super) switches: Vec<(Lsn, Features)>,
}

pub(super) fn config(role: Role) -> PairConfig {
    PairConfig { role, ..PairConfig::default() }
}

impl World {
    /// Nobody runs yet. Host 0 is configured as master, the others as slaves of it.
    pub(super) fn new(seed: u64, configs: Vec<PairConfig>) -> Self {
        let hosts = configs.into_iter().enumerate().map(|(index, mut config)| {
            config.advertised_address = address(index);
            if config.role == Role::Slave && config.peer_address.is_none() {
                config.peer_address = Some(address(0));
            }
            let disk = Disk::default();
            Host {
                config,
                disk,
                process: None,
                run: 0,
                stopped: None,
                logs: Vec::new(),
                fetched: Vec::new(),
                hangs_until_ms: 0,
                sleeps_until_ms: 0,
            }
        });
        Self {
            now_ms: 1_000,
            hosts: hosts.collect(),
            random: Random::new(&[seed; 8]),
            queue: BTreeMap::new(),
            serial: 0,
            ends: BTreeMap::new(),
            cut: false,
            arbiter: Arbiter::default(),
            slowness_ms: 3,
            confirmed: (Lsn::ZERO, 0),
            committers: BTreeMap::new(),
            excused: false,
            copies: 0,
            truncations: 0,
            leads: 0,
            switches: Vec::new(),
        }
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit.max(1)
    }

    pub(super) fn delay(&mut self) -> u64 {
        let slowness = self.slowness_ms;
        self.now_ms + 1 + self.below(slowness)
    }

    pub(super) fn at(&mut self, time_ms: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((time_ms, self.serial), event);
    }

    pub(super) fn start(&mut self, host: usize) {
        assert!(self.hosts[host].process.is_none());
        let random = std::array::from_fn(|_| self.random.next());
        let h = &mut self.hosts[host];
        h.run += 1;
        h.stopped = None;
        let end = h.disk.end();
        let boot = Boot {
            now_ms: self.now_ms,
            view: h.disk.view.clone(),
            log: end,
            applied: h.disk.applied,
            features: h.disk.features,
            damaged: h.disk.damaged.take(),
            random,
        };
        let mut out = Vec::new();
        let pair = Pair::new(&boot, h.config.clone(), &mut out).unwrap();
        h.process = Some(Process {
            pair,
            jobs: VecDeque::new(),
            open: OpenGroup::new(end.last.next()),
            chain: end.last_chain,
            leading: None,
            serving: false,
            spares_slave: false,
            commit: h.disk.applied,
        });
        self.outputs(host, out);
    }

    /// The process is gone at once; what was not synced is lost.
    pub(super) fn crash(&mut self, host: usize) {
        let saved = self.below(2) == 0;
        let h = &mut self.hosts[host];
        if let Some(process) = h.process.take()
            && saved
        {
            h.disk.applied = h.disk.applied.max(process.commit.min(h.disk.end().last));
        }
        self.close_links_of(host);
    }

    /// What is on its way may arrive or not.
    fn close_links_of(&mut self, host: usize) {
        let lossy = self.below(2) == 0;
        let own: Vec<LinkId> =
            self.ends.iter().filter(|(_, end)| end.host == host).map(|(id, _)| *id).collect();
        for link in own {
            let other = self.ends.get(&link).map(|end| end.other);
            if let Some(other) = other.and_then(|other| self.ends.get_mut(&other))
                && lossy
            {
                other.next_ms = 0;
            }
            self.close(link);
        }
    }

    /// One end is closed; the other hears of it behind the frames that are on their way.
    fn close(&mut self, link: LinkId) {
        let Some(end) = self.ends.remove(&link) else { return };
        let after = self.delay().max(self.ends.get(&end.other).map_or(0, |other| other.next_ms));
        if !self.cut {
            self.at(after, Event::LinkLost { link: end.other });
        }
    }

    /// Nothing passes any more; the ends notice sooner or later, or never.
    pub(super) fn cut(&mut self) {
        self.cut = true;
        for link in self.ends.keys().copied().collect::<Vec<_>>() {
            let after = self.now_ms + self.below(3_000);
            self.at(after, Event::LinkLost { link });
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut = false;
        // What was connected before is dead for good.
        for link in self.ends.keys().copied().collect::<Vec<_>>() {
            self.at(self.now_ms, Event::LinkLost { link });
        }
    }

    pub(super) fn process(&self, host: usize) -> Option<&Process> {
        self.hosts[host].process.as_ref()
    }

    pub(super) fn serves(&self, host: usize) -> bool {
        self.process(host).is_some_and(|process| process.serving)
    }

    pub(super) fn is_in_sync(&self, host: usize) -> bool {
        self.process(host).is_some_and(|process| process.pair.status().in_sync)
    }

    /// Seals one group with `records` commands, if the host serves.
    pub(super) fn publish(&mut self, host: usize, records: u64) {
        let size = 1 + self.below(60) as usize;
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.leading.is_some() && process.serving {
            for _ in 0..records {
                process.open.push(|out| out.extend_from_slice(&vec![7; size]));
            }
            self.seal(host);
        }
    }

    fn seal(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        let epoch = process.leading.unwrap_or_default();
        let group = process.open.seal(epoch.number, self.now_ms, process.chain);
        process.chain = group.header().chain;
        self.job(host, Job::Append(group.clone()));
        self.input(host, Input::Sealed(group));
    }

    fn last_sealed(&self, host: usize) -> Lsn {
        self.process(host).map_or(Lsn::ZERO, |process| process.open.next_lsn().prev())
    }

    /// The state of `host` now holds everything up to `through`.
    pub(super) fn applied(&mut self, host: usize, through: Lsn) {
        let mut on = self.hosts[host].disk.features;
        for (_, features) in self.switches.iter().filter(|(lsn, _)| *lsn <= through) {
            on = on.with(*features);
        }
        self.hosts[host].disk.features = on;
        if let Some(process) = &mut self.hosts[host].process {
            process.pair.features_on(on);
        }
    }

    pub(super) fn input(&mut self, host: usize, input: Input) {
        let mut out = Vec::new();
        let Some(process) = &mut self.hosts[host].process else { return };
        process.pair.handle(self.now_ms, input, &mut out);
        self.outputs(host, out);
    }

    pub(super) fn later(&mut self, host: usize, input: Input) {
        let (run, at) = (self.hosts[host].run, self.delay());
        self.at(at, Event::Input { host, run, input });
    }

    fn outputs(&mut self, host: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.output(host, output);
        }
    }

    fn output(&mut self, host: usize, output: Output) {
        self.check_before(host, &output);
        if let Some(job) = Job::of(&output) {
            self.job(host, job);
        }
        let Some(process) = &mut self.hosts[host].process else { return };
        match output {
            Output::Dial { address } => {
                let (run, at) = (self.hosts[host].run, self.delay());
                self.at(at, Event::Dialed { host, run, address });
            }
            Output::Send { link, frame } => self.send(link, frame),
            Output::SendGroup { link, head, group } => {
                let mut frame = BytesMut::from(&head[..]);
                frame.extend_from_slice(group.bytes());
                self.send(link, frame.freeze());
            }
            Output::HangUp { link } => self.close(link),
            Output::Append(group) => {
                process.chain = group.header().chain;
                process.open = OpenGroup::new(group.last().next());
            }
            Output::Commit { through } => self.commit(host, through),
            Output::Lead { epoch, .. } => {
                process.leading = Some(epoch);
                process.open.push(|out| out.extend_from_slice(b"new epoch"));
                self.seal(host);
            }
            Output::SwitchOn { features } => {
                process.open.push(|out| out.extend_from_slice(b"features on"));
                self.seal(host);
                let last = self.last_sealed(host);
                self.switches.push((last, features));
            }
            Output::SlaveSpace { low } => process.spares_slave = low,
            Output::OpenFrontends => process.serving = true,
            Output::CloseFrontends { .. } => process.serving = false,
            Output::Follow => process.leading = None,
            Output::ReadGroups { after, bytes_max } => self.read_groups(host, after, bytes_max),
            Output::ReadFetch { link, id, wanted } => {
                let found = self.hosts[host].disk.find(&wanted);
                self.later(host, Input::FetchRead { link, id, found });
            }
            Output::Digest(_) => {}
            Output::Fetched { id, found } => self.hosts[host].fetched.push((id, found)),
            // What the records are is the node's matter; one part stands for all.
            Output::ReadSnapshot { cursor, .. } => self.read_snapshot(host, cursor),
            Output::Reinject { .. } => {
                let (run, at) = (self.hosts[host].run, self.delay());
                self.at(at, Event::Input { host, run, input: Input::Reinjected });
            }
            Output::AskArbiter { serial, call } => self.ask_arbiter(host, serial, call),
            Output::Log { text, .. } => {
                // Under `both` silence may make two masters; a policy that forbids it must hold.
                let config = &self.hosts[host].config;
                let both = !config.shutdown_on_master_failure && !config.shutdown_on_slave_failure;
                self.excused |= both && text.starts_with("nobody answers: going on");
                let line = format!("{} host {host}: {text}", self.now_ms);
                self.hosts[host].logs.push(line);
            }
            Output::Stop { outcome } => {
                self.hosts[host].stopped = Some(outcome);
                let own = self.ends.iter().filter(|(_, end)| end.host == host);
                // A process that ends by itself sends what it has said.
                for link in own.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.close(link);
                }
                self.crash(host);
            }
            Output::SaveView { .. } | Output::Truncate { .. } | Output::InstallSnapshot { .. } => {}
        }
    }

    fn send(&mut self, link: LinkId, frame: Bytes) {
        let at = self.delay();
        let Some(other) = self.ends.get(&link).map(|end| end.other) else { return };
        if let Some(end) = self.ends.get_mut(&other) {
            end.next_ms = end.next_ms.max(at);
            let at = end.next_ms;
            self.at(at, Event::Frame { to: other, frame });
        }
    }

    fn dialed(&mut self, host: usize, address: &Text) {
        let target = self.hosts.iter().position(|h| h.config.advertised_address == *address);
        let up = target.filter(|target| self.hosts[*target].process.is_some());
        if self.cut {
            let (run, at) = (self.hosts[host].run, self.now_ms + 500 + self.below(700));
            self.at(at, Event::Input { host, run, input: Input::DialFailed { refused: false } });
            return;
        }
        let Some(target) = up else {
            return self.later(host, Input::DialFailed { refused: true });
        };
        self.serial += 2;
        let (near, far) = (LinkId(self.serial), LinkId(self.serial + 1));
        self.ends.insert(near, End { host, other: far, next_ms: 0 });
        self.ends.insert(far, End { host: target, other: near, next_ms: 0 });
        let at = self.delay();
        if let Some(end) = self.ends.get_mut(&far) {
            end.next_ms = at;
        }
        let run = self.hosts[target].run;
        let accepted = Input::Linked { link: far, dialed: false };
        self.at(at, Event::Input { host: target, run, input: accepted });
        self.input(host, Input::Linked { link: near, dialed: true });
    }

    /// Whom an event reaches.
    fn host_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Input { host, .. }
            | Event::JobDone { host, .. }
            | Event::Dialed { host, .. } => Some(*host),
            Event::AtArbiter { .. } => None,
            Event::Frame { to: link, .. } | Event::LinkLost { link } => {
                self.ends.get(link).map(|end| end.host)
            }
        }
    }

    fn event(&mut self, event: Event) {
        let wakes_ms = self.host_of(&event).map_or(0, |host| self.hosts[host].sleeps_until_ms);
        if wakes_ms > self.now_ms {
            // Timers are due at once, sockets have yet to be read.
            return self.at(wakes_ms + 2, event);
        }
        match event {
            Event::AtArbiter { host, run, serial, call } => {
                self.at_arbiter(host, run, serial, &call);
            }
            Event::Input { host, run, input } if self.hosts[host].run == run => {
                self.input(host, input);
            }
            Event::JobDone { host, run } if self.hosts[host].run == run => self.jobs_done(host),
            Event::Dialed { host, run, address }
                if self.hosts[host].run == run && self.process(host).is_some() =>
            {
                self.dialed(host, &address);
            }
            Event::Frame { to, frame } if !self.cut => {
                if let Some(host) = self.ends.get(&to).map(|end| end.host) {
                    self.input(host, Input::Received { link: to, frame });
                }
            }
            Event::LinkLost { link } => {
                if let Some(end) = self.ends.remove(&link) {
                    self.input(end.host, Input::LinkLost { link });
                }
            }
            _ => {}
        }
    }

    /// Runs until the condition holds; false if it does not within `limit_ms`.
    pub(super) fn until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end_ms = self.now_ms + limit_ms;
        let mut steps_at_once = 0;
        while !done(self) {
            let event_ms = self.queue.first_key_value().map(|((at, _), _)| *at);
            let ticks = self.hosts.iter().enumerate().filter_map(|(index, host)| {
                let due_ms = host.process.as_ref()?.pair.deadline_ms()?;
                Some((due_ms.max(self.now_ms).max(host.sleeps_until_ms), index))
            });
            let tick = ticks.min();
            let next = [event_ms, tick.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end_ms) else {
                self.now_ms = end_ms;
                return false;
            };
            steps_at_once = if next > self.now_ms { 0 } else { steps_at_once + 1 };
            assert!(steps_at_once < 10_000, "somebody is busy without end");
            self.now_ms = next;
            if event_ms == Some(next) {
                if let Some((_, event)) = self.queue.pop_first() {
                    self.event(event);
                }
            } else if let Some((_, host)) = tick {
                self.input(host, Input::Tick);
            }
            self.check_one_serves();
        }
        true
    }

    pub(super) fn run(&mut self, for_ms: u64) {
        self.until(for_ms, |_| false);
    }

    pub(super) fn in_sync_pair(&self, host: usize, other: usize) -> bool {
        self.is_in_sync(host) && self.is_in_sync(other)
    }

    pub(super) fn last_group(&self, host: usize) -> Option<&Group> {
        self.hosts[host].disk.groups.last()
    }
}

fn address(host: usize) -> Text {
    Text::from(format!("host-{host}:1"))
}
