//! The state of a small world that the search branches from: two nodes with their disks, what is on
//! its way between them, the arbiter, and what was answered so far. Cloning is cheap: a step
//! changes one node.

use super::actions::Source;
use super::print::{Printer, TIME_FROM_MS};
use super::rules::{Ledger, Sight};
use crate::pair::message::Message;
use crate::pair::tests::disk::{Disk, Job};
use crate::pair::view::View;
use crate::{
    ArbiterAnswer, ArbiterCall, Backend, Boot, Input, LinkId, Output, Pair, PairConfig, Registers,
    SnapshotCursor,
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use understudy_model::{Epoch, Features, Group, Lsn, OpenGroup, Text};

#[derive(Clone)]
pub(super) struct Process {
    pub(super) pair: Pair,
    pub(super) jobs: VecDeque<Job>,
    /// End of what was sealed or given to the log.
    pub(super) last: Lsn,
    pub(super) chain: u128,
    pub(super) leading: Option<Epoch>,
    pub(super) serving: bool,
    pub(super) commit: Lsn,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) disk: Disk,
    /// What the disk's view says.
    pub(super) view: Option<Rc<View>>,
    pub(super) process: Option<Process>,
    pub(super) dialing: bool,
    /// Processes so far.
    pub(super) run: u8,
    pub(super) stopped: bool,
    pub(super) print: u64,
}

/// What waits to be read at one end of a connection.
#[derive(Clone, Hash)]
pub(super) enum Item {
    Accept,
    Frame(Rc<Frame>),
}

pub(super) struct Frame {
    pub(super) bytes: Bytes,
    print: u64,
}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

#[derive(Clone, Default, Hash)]
pub(super) struct End {
    pub(super) open: bool,
    pub(super) inbox: VecDeque<Item>,
}

/// One connection; `ends` by host.
#[derive(Clone, Hash)]
pub(super) struct Wire {
    pub(super) id: u64,
    /// Was cut once: either end may give up at any time.
    pub(super) doomed: bool,
    pub(super) ends: [End; 2],
}

impl Wire {
    pub(super) fn link(&self, host: usize) -> LinkId {
        LinkId(2 * self.id + host as u64)
    }
}

#[derive(Clone)]
pub(super) struct Call {
    pub(super) serial: u64,
    pub(super) call: ArbiterCall,
    /// Carried out, and the answer is on its way.
    pub(super) answer: Option<ArbiterAnswer>,
    /// Of a process that is gone.
    pub(super) orphan: bool,
}

impl Hash for Call {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.call, &self.answer, self.orphan).hash(state);
    }
}

#[derive(Clone, Default, Hash)]
pub(super) struct ArbiterSide {
    pub(super) registers: Registers,
    pub(super) calls: [VecDeque<Call>; 2],
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) configs: Rc<[PairConfig; 2]>,
    pub(super) nodes: [Rc<Node>; 2],
    pub(super) wires: Vec<Wire>,
    pub(super) cut: bool,
    pub(super) arbiter: Option<Rc<ArbiterSide>>,
    /// Without an arbiter each node has a clock of its own, so that any deadline may pass at any time.
    pub(super) now_ms: [u64; 2],
    /// What comes behind everything else.
    pub(super) delayed: Vec<Source>,
    pub(super) ledger: Rc<Ledger>,
    /// What the last step has shown.
    pub(super) sights: Sight,
    pub(super) violation: Option<String>,
    /// What happens, in words; none while searching.
    pub(super) words: Option<Vec<String>>,
}

pub(super) const REGISTER: Text = Text::from_static("pair");

impl World {
    pub(super) fn new(configs: [PairConfig; 2]) -> Self {
        let arbiter = configs[0].arbiter.map(|_| Rc::default());
        let node = || {
            Rc::new(Node {
                disk: Disk::default(),
                view: None,
                process: None,
                dialing: false,
                run: 0,
                stopped: false,
                print: 0,
            })
        };
        Self {
            configs: Rc::new(configs),
            nodes: [node(), node()],
            wires: Vec::new(),
            cut: false,
            arbiter,
            now_ms: [TIME_FROM_MS; 2],
            delayed: Vec::new(),
            ledger: Rc::default(),
            sights: Sight::default(),
            violation: None,
            words: None,
        }
    }

    pub(super) fn node(&mut self, host: usize) -> &mut Node {
        let node = Rc::make_mut(&mut self.nodes[host]);
        node.print = 0;
        node
    }

    pub(super) fn process(&self, host: usize) -> Option<&Process> {
        self.nodes[host].process.as_ref()
    }

    pub(super) fn serves(&self, host: usize) -> bool {
        self.process(host).is_some_and(|process| process.serving)
    }

    pub(super) fn ledger_mut(&mut self) -> &mut Ledger {
        Rc::make_mut(&mut self.ledger)
    }

    pub(super) fn arbiter(&mut self) -> Option<&mut ArbiterSide> {
        self.arbiter.as_mut().map(Rc::make_mut)
    }

    pub(super) fn is_in_sync(&self) -> bool {
        let in_sync = |host| self.process(host).is_some_and(|p| p.pair.status().in_sync);
        in_sync(0) && in_sync(1) && (self.serves(0) || self.serves(1))
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(words) = &mut self.words {
            words.push(text());
        }
    }

    pub(super) fn print(&mut self) -> u64 {
        for host in [0, 1] {
            if self.nodes[host].print == 0 {
                let print = self.print_node(host);
                Rc::make_mut(&mut self.nodes[host]).print = print;
            }
        }
        let mut printer = Printer::new(self.now_ms[0], 0);
        let Self { nodes, wires, cut, arbiter, delayed, ledger, .. } = self;
        (nodes[0].print, nodes[1].print, &*wires, *cut, arbiter, delayed).hash(&mut printer);
        ledger.hash(&mut printer);
        printer.finish()
    }

    fn print_node(&self, host: usize) -> u64 {
        let node = &self.nodes[host];
        let saved = node.process.as_ref().map_or(0, |process| process.pair.core.saved());
        let mut printer = Printer::new(self.now_ms[host], saved);
        (&node.disk, node.dialing).hash(&mut printer);
        if let Some(process) = &node.process {
            let Process { pair, jobs, last, chain, leading, serving, commit } = process;
            (&pair.core, &pair.state, jobs, last, chain, leading, serving, commit)
                .hash(&mut printer);
        }
        printer.finish() | 1
    }

    pub(super) fn start(&mut self, host: usize) {
        let config = self.configs[host].clone();
        let now_ms = self.now_ms[host];
        let node = self.node(host);
        node.run += 1;
        node.stopped = false;
        let log = node.disk.end();
        let seed = seed(host, node.run);
        let boot = Boot {
            now_ms,
            view: node.disk.view.clone(),
            log,
            applied: node.disk.applied,
            features: Features::NONE,
            damaged: None,
            random: [seed; 8],
        };
        let mut out = Vec::new();
        match Pair::new(&boot, config, &mut out) {
            Ok(pair) => {
                node.process = Some(Process {
                    pair,
                    jobs: VecDeque::new(),
                    last: log.last,
                    chain: log.last_chain,
                    leading: None,
                    serving: false,
                    commit: node.disk.applied,
                });
            }
            Err(error) => self.violation = Some(format!("host {host} cannot start: {error}")),
        }
        self.outputs(host, out);
    }

    /// The process is gone, and what it had given to the disk and not heard of.
    pub(super) fn end_process(&mut self, host: usize) {
        let node = self.node(host);
        node.process = None;
        node.dialing = false;
        for wire in &mut self.wires {
            wire.ends[host] = End::default();
        }
        self.sweep();
        if let Some(arbiter) = self.arbiter() {
            let calls = &mut arbiter.calls[host];
            calls.retain(|call| {
                call.answer.is_none() && matches!(call.call, ArbiterCall::Swap { .. })
            });
            calls.iter_mut().for_each(|call| call.orphan = true);
        }
    }

    pub(super) fn sweep(&mut self) {
        self.wires.retain(|wire| wire.ends[0].open || wire.ends[1].open);
    }

    pub(super) fn connect(&mut self, host: usize) {
        let free = |id: &u64| self.wires.iter().all(|wire| wire.id != *id);
        let id = (1..).find(free).unwrap_or(0);
        let mut ends = [End::default(), End::default()];
        ends.iter_mut().for_each(|end| end.open = true);
        ends[1 - host].inbox.push_back(Item::Accept);
        let wire = Wire { id, doomed: self.cut, ends };
        let link = wire.link(host);
        self.wires.push(wire);
        self.input(host, Input::Linked { link, dialed: true });
    }

    pub(super) fn input(&mut self, host: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now_ms = self.now_ms[host];
            let node = self.node(host);
            let seed = seed(host, node.run);
            let Some(process) = &mut node.process else { return };
            process.pair.core.reseed(seed);
            let mut out = Vec::new();
            process.pair.handle(now_ms, input, &mut out);
            for output in out {
                self.output(host, output, &mut inputs);
            }
        }
    }

    fn outputs(&mut self, host: usize, out: Vec<Output>) {
        let mut inputs = VecDeque::new();
        for output in out {
            self.output(host, output, &mut inputs);
        }
        for input in inputs {
            self.input(host, input);
        }
    }

    fn output(&mut self, host: usize, output: Output, answers: &mut VecDeque<Input>) {
        self.check_output(host, &output);
        let job = Job::of(&output);
        let node = self.node(host);
        let Some(process) = &mut node.process else { return };
        process.jobs.extend(job);
        match output {
            Output::Dial { .. } => node.dialing = true,
            Output::Send { link, frame } => self.send(host, link, frame),
            Output::SendGroup { link, head, group } => {
                let mut frame = BytesMut::from(&head[..]);
                frame.extend_from_slice(group.bytes());
                self.send(host, link, frame.freeze());
            }
            Output::HangUp { link } => self.hang_up(host, link),
            Output::Append(group) => {
                process.last = group.last();
                process.chain = group.header().chain;
            }
            Output::Commit { through } => process.commit = process.commit.max(through),
            Output::Lead { epoch, .. } => {
                process.leading = Some(epoch);
                let record = [&b"epoch"[..], &epoch.generation.to_be_bytes()].concat();
                answers.push_back(self.seal(host, &record));
            }
            Output::OpenFrontends => process.serving = true,
            Output::CloseFrontends { .. } => process.serving = false,
            Output::Follow => process.leading = None,
            Output::ReadGroups { after, .. } => {
                let groups = node.disk.groups.iter().filter(|group| group.first() > after);
                let groups =
                    if after < node.disk.base.0 { Vec::new() } else { groups.cloned().collect() };
                answers.push_back(Input::GroupsRead { after, groups });
            }
            Output::ReadSnapshot { cursor, .. } => answers.push_back(read_snapshot(node, cursor)),
            Output::Reinject { .. } => answers.push_back(Input::Reinjected),
            Output::AskArbiter { serial, call } => {
                if let Some(arbiter) = self.arbiter() {
                    let call = Call { serial, call, answer: None, orphan: false };
                    arbiter.calls[host].push_back(call);
                }
            }
            Output::Stop { .. } => {
                self.end_process(host);
                self.node(host).stopped = true;
            }
            _ => {}
        }
    }

    pub(super) fn seal(&mut self, host: usize, record: &[u8]) -> Input {
        let node = self.node(host);
        let mut group = None;
        if let Some(process) = &mut node.process {
            let mut open = OpenGroup::new(process.last.next());
            open.push(|out| out.extend_from_slice(record));
            let epoch = process.leading.unwrap_or_default();
            let sealed = open.seal(epoch.number, 0, process.chain);
            process.last = sealed.last();
            process.chain = sealed.header().chain;
            process.jobs.push_back(Job::Append(sealed.clone()));
            group = Some(sealed);
        }
        group.map_or(Input::Tick, Input::Sealed)
    }

    fn send(&mut self, host: usize, link: LinkId, bytes: Bytes) {
        let protocols = self.configs[host].protocols;
        let message = Message::decode(&bytes, protocols);
        self.check_sent(host, &message);
        self.say(|| format!("    host {host} sends {}", in_words(&message)));
        let print = match &message {
            Ok(Message::Hello(hello)) => Printer::of(hello),
            _ => Printer::of(&bytes),
        };
        let wire = self.wires.iter_mut().find(|wire| wire.link(host) == link);
        if let Some(end) = wire.map(|wire| &mut wire.ends[1 - host]).filter(|end| end.open) {
            end.inbox.push_back(Item::Frame(Rc::new(Frame { bytes, print })));
        }
    }

    fn hang_up(&mut self, host: usize, link: LinkId) {
        if let Some(wire) = self.wires.iter_mut().find(|wire| wire.link(host) == link) {
            wire.ends[host] = End::default();
        }
        self.sweep();
    }
}

/// Draws depend on nothing but the process, so that states which differ in the number of draws are
/// one. Within a process the number of an epoch is never used twice, so epochs stay unique.
fn seed(host: usize, run: u8) -> u64 {
    0x5851_f42d_4c95_7f2d_u64.wrapping_mul(2 * u64::from(run) + host as u64 + 7)
}

/// Two chunks: what is there, and the end.
fn read_snapshot(node: &Node, cursor: SnapshotCursor) -> Input {
    let commit = node.process.as_ref().map_or(Lsn::ZERO, |process| process.commit);
    let (begun, at) = if cursor.0 == 0 { (false, commit) } else { (true, Lsn(cursor.0 - 1)) };
    let whole = node.disk.snapshot(at);
    let (chunk, next) = if begun {
        (whole.slice(whole.len() / 2..), None)
    } else {
        (whole.slice(..whole.len() / 2), Some(SnapshotCursor(at.0 + 1)))
    };
    Input::SnapshotRead { at, chain: node.disk.chain_at(at), chunk, next }
}

fn in_words(message: &Result<Message, understudy_model::Malformed>) -> String {
    match message {
        Ok(Message::Hello(hello)) => format!(
            "hello: {}, promised {}, log to {}, leading {:?}",
            hello.standing, hello.promised, hello.last, hello.leading
        ),
        Ok(Message::Group { epoch, commit, group }) => {
            let group = Group::decode(group.clone());
            format!("{group:?} of epoch {epoch}, commit {commit}")
        }
        Ok(message) => format!("{message:?}"),
        Err(malformed) => malformed.to_string(),
    }
}
