//! What must hold in every state (docs/replication.md section 13), and what must be seen now and then.

use super::world::{REGISTER, World};
use crate::pair::code::Code;
use crate::pair::config::Survival;
use crate::pair::message::Message;
use crate::pair::state::State;
use crate::pair::tests::disk::Job;
use crate::pair::view::{Standing, View};
use crate::{ArbiterAnswer, ArbiterCall, Output, Register};
use std::collections::BTreeMap;
use std::ops::BitOrAssign;
use understudy_model::{Epoch, Lsn, Malformed};

type Mark = (Lsn, u128);

/// What clients and operators know, whatever becomes of the nodes.
#[derive(Clone, Default, Hash)]
pub(super) struct Ledger {
    /// Ends of groups that a leader has committed, with their chain hashes.
    pub(super) answered: Vec<Mark>,
    committers: BTreeMap<Epoch, usize>,
    /// Two sides may lead apart: under `both` one was silent, or an operator said so. From here on
    /// what was answered is on one of the two disks, and that is all.
    pub(super) apart: bool,
    /// Logs that a leader has taken in, by their chain hashes.
    reinjected: Vec<u128>,
    published: u8,
}

impl Ledger {
    pub(super) fn published(&mut self) -> u8 {
        self.published += 1;
        self.published
    }

    fn last(&self) -> Mark {
        self.answered.last().copied().unwrap_or_default()
    }
}

/// A set of [`Sight::NAMES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight(pub(super) u32);

macro_rules! sights {
    ($($name:ident $index:literal $text:literal,)*) => {
        impl Sight {
            $(pub(super) const $name: Self = Self(1 << $index);)*
            pub(super) const NAMES: &[&str] = &[$($text,)*];
        }
    };
}

sights! {
    TAKEOVER 0 "takeover",
    ALONE 1 "alone",
    BY_TAIL 2 "rejoin by tail",
    BY_COPY 3 "rejoin by copy",
    TRUNCATION 4 "truncation",
    PROMOTION 5 "promotion",
    SWITCHOVER 6 "switchover",
    LOST_SWAP 7 "lost swap",
    ELECTION 8 "election",
    EXPORT 9 "export",
    SET_ASIDE 10 "set aside",
    FORGOTTEN 11 "slave forgotten",
    RESYNC 12 "resync",
    STALE 13 "stale epoch refused",
    RESUMED 14 "resumed",
    CROSSED 15 "links crossed",
    APART 16 "led apart",
}

impl Sight {
    pub(super) fn index(self) -> usize {
        self.0.trailing_zeros() as usize
    }
}

impl BitOrAssign for Sight {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl World {
    fn claim(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(text());
        }
    }

    fn view(&self, host: usize) -> Option<&View> {
        self.nodes[host].view.as_deref()
    }

    fn standing(&self, host: usize) -> Standing {
        self.view(host).map_or(Standing::Empty, |view| view.standing)
    }

    pub(super) fn register(&self) -> Option<Register> {
        let mut registers = self.arbiter.as_ref()?.registers.clone();
        match registers.handle(self.now_ms[0], &REGISTER, &ArbiterCall::Read).0 {
            ArbiterAnswer::Told { held, .. } => held.map(|held| held.register),
            ArbiterAnswer::Silent => None,
        }
    }

    fn is_both_alone(&self) -> bool {
        let config = &self.configs[0];
        let stops = config.shutdown_on_master_failure || config.shutdown_on_slave_failure;
        !stops && config.arbiter.is_none()
    }

    /// In front of what a node asks for.
    pub(super) fn check_output(&mut self, host: usize, output: &Output) {
        match output {
            Output::Commit { through } => self.check_commit(host, *through),
            Output::Lead { epoch, .. } => self.check_lead(host, *epoch),
            Output::Truncate { after } => {
                let commit = self.process(host).map_or(Lsn::ZERO, |process| process.commit);
                self.claim(*after >= commit, || {
                    format!("host {host} cuts behind {after}, and had committed {commit} (R6)")
                });
                self.sights |= Sight::TRUNCATION;
            }
            Output::InstallSnapshot { first: true, set_aside, .. } => {
                self.check_wipe(host, *set_aside)
            }
            Output::Reinject { last: true, producer, .. } => {
                self.ledger_mut().reinjected.push(*producer);
                self.sights |= Sight::EXPORT;
            }
            Output::Log { text, .. } => {
                let by_silence = ["nobody answers: going on", "the slave is silent or makes no"];
                if self.is_both_alone() && by_silence.iter().any(|part| text.starts_with(part)) {
                    self.lead_apart();
                }
                self.note(text);
                self.say(|| format!("    host {host}: {text}"));
            }
            _ => {}
        }
        self.say_output(host, output);
    }

    fn say_output(&mut self, host: usize, output: &Output) {
        self.say(|| match output {
            Output::SaveView { view, .. } => {
                let view = View::decode(view).map(|view| (view.standing, view.promised));
                format!("    host {host} has its view written: {view:?}")
            }
            Output::Send { .. } | Output::SendGroup { .. } | Output::Log { .. } => String::new(),
            Output::AskArbiter { call, .. } => {
                format!("    host {host} asks the arbiter: {call:?}")
            }
            other => format!("    host {host}: {other:?}").chars().take(160).collect(),
        });
    }

    pub(super) fn lead_apart(&mut self) {
        self.ledger_mut().apart = true;
        self.sights |= Sight::APART;
    }

    fn note(&mut self, text: &str) {
        for (part, sight) in [
            ("going on without a slave", Sight::ALONE),
            ("promoted by the operator", Sight::PROMOTION),
            ("is handed over", Sight::SWITCHOVER),
            ("has node", Sight::FORGOTTEN),
            ("resync by the operator", Sight::RESYNC),
            ("back in-sync with", Sight::RESUMED),
        ] {
            if text.contains(part) {
                self.sights |= sight;
            }
        }
    }

    fn check_commit(&mut self, host: usize, through: Lsn) {
        let Some(process) = self.process(host) else { return };
        let (leading, disk) = (process.leading, &self.nodes[host].disk);
        let mark = (through, disk.chain_at(through));
        let durable = disk.holds(mark) && mark.1 != 0;
        self.claim(durable, || format!("host {host} commits {through}, which is not on its disk"));
        let apart = self.ledger.apart;
        let Some(epoch) = leading else {
            let known = self.ledger.answered.contains(&mark);
            let other = self.ledger.answered.iter().any(|(lsn, _)| *lsn == through);
            return self.claim(apart || known || !other, || {
                format!("host {host} commits another {through} than was answered")
            });
        };
        let ledger = self.ledger_mut();
        let committer = *ledger.committers.entry(epoch).or_insert(host);
        self.claim(committer == host, || format!("two nodes commit in epoch {epoch}"));
        self.check_both_have(host, epoch, mark);
        let last = self.ledger.last();
        let disk = &self.nodes[host].disk;
        // What the next leader has, too, may be answered late.
        let complete =
            disk.holds(last) && last.0 <= through || self.ledger.answered.contains(&mark);
        let fresh: Vec<Mark> = disk
            .lineage
            .iter()
            .filter(|(lsn, _)| *lsn <= through)
            .filter(|mark| !self.ledger.answered.contains(mark))
            .copied()
            .collect();
        self.claim(apart || complete, || {
            format!("host {host} commits {through} on a log without the answered {}", last.0)
        });
        self.ledger_mut().answered.extend(fresh);
    }

    /// R2: whoever may lead next by what is on disk or in the register has what is answered.
    fn check_both_have(&mut self, host: usize, epoch: Epoch, mark: Mark) {
        let elsewhere = self.nodes[1 - host].disk.holds(mark);
        let synced = matches!(self.standing(host), Standing::Synced { .. });
        self.claim(!synced || elsewhere, || {
            format!("host {host} answers {}, which is on one disk, and is not alone on it", mark.0)
        });
        if let Some(register) = self.register() {
            let shared = register.epoch == epoch && register.slave.is_some();
            self.claim(!shared || elsewhere, || {
                format!("host {host} answers {}, and the register names a slave without it", mark.0)
            });
        }
    }

    fn check_lead(&mut self, host: usize, epoch: Epoch) {
        let last = self.ledger.last();
        let Some(process) = self.process(host) else { return };
        let pending = process.jobs.iter().any(|job| match job {
            Job::Append(group) => (group.last(), group.header().chain) == last,
            _ => false,
        });
        let complete = self.nodes[host].disk.holds(last) || pending || self.ledger.apart;
        let promised = self.view(host).map(|view| view.promised);
        let standing = self.standing(host);
        self.claim(complete, || format!("host {host} leads without the answered {}", last.0));
        self.claim(promised == Some(epoch), || {
            format!("host {host} leads epoch {epoch}, its disk has promised {promised:?} (R1)")
        });
        self.claim(matches!(standing, Standing::Alone { .. }), || {
            format!("host {host} leads, and its disk says {standing} (R3)")
        });
        if epoch.number > 1 {
            let links = !self.wires.is_empty();
            self.sights |= if links { Sight::ELECTION } else { Sight::TAKEOVER };
        }
    }

    fn check_wipe(&mut self, host: usize, set_aside: bool) {
        let Some(process) = self.process(host) else { return };
        let own = (process.commit, self.nodes[host].disk.chain_at(process.commit));
        let elsewhere = self.nodes[1 - host].disk.holds(own);
        self.claim(set_aside || elsewhere, || {
            format!("host {host} wipes {}, its only copy", own.0)
        });
        if set_aside {
            self.sights |= Sight::SET_ASIDE;
        }
        // A resync sets aside what the other has, too.
        let taken_in = self.ledger.reinjected.contains(&own.1);
        let answered = self.ledger.answered.contains(&own);
        self.claim(elsewhere || taken_in || !answered, || {
            format!("host {host} sets {} aside, and the leader has not taken it in", own.0)
        });
    }

    /// R1: nothing of an epoch is said before it is promised on disk.
    pub(super) fn check_sent(&mut self, host: usize, message: &Result<Message, Malformed>) {
        let Ok(message) = message else {
            return self.claim(false, || format!("host {host} sends what cannot be read"));
        };
        let epoch = match message {
            Message::Hello(hello) => hello.leading,
            Message::Position(position) => Some(position.epoch),
            Message::Propose { epoch }
            | Message::Promise { epoch }
            | Message::Group { epoch, .. }
            | Message::Ack { epoch, .. }
            | Message::InSync { epoch, .. }
            | Message::InSyncOk { epoch }
            | Message::Beat { epoch, .. }
            | Message::HandoverOk { epoch }
            | Message::Handover { epoch } => Some(*epoch),
            _ => None,
        };
        let promised = self.view(host).map_or_else(Epoch::default, |view| view.promised);
        self.claim(epoch.is_none_or(|epoch| epoch <= promised), || {
            format!("host {host} speaks of epoch {epoch:?}, its disk has promised {promised} (R1)")
        });
        match message {
            Message::InSyncOk { .. } => {
                let copied = self.nodes[host].disk.base.0 > Lsn::ZERO;
                self.sights |= if copied { Sight::BY_COPY } else { Sight::BY_TAIL };
            }
            // A leader that hears so steps down and does not repeat the word.
            Message::Reject { code: Code::StaleEpoch, .. } => self.sights |= Sight::STALE,
            _ => {}
        }
    }

    /// A view is on disk in place of `before`.
    pub(super) fn check_view(&mut self, host: usize, before: Option<&View>) {
        let Some(view) = self.nodes[host].view.clone() else { return };
        if let Some(before) = before {
            self.claim(before.promised <= view.promised, || {
                format!(
                    "host {host}: the promise goes back from {} to {}",
                    before.promised, view.promised
                )
            });
        }
        let stale = match before.map(|before| before.standing) {
            Some(Standing::Lagging { .. } | Standing::Empty) => true,
            Some(_) => false,
            None => self.configs[host].role == crate::Role::Slave,
        };
        let register = self.register().is_some_and(|register| register.leader == view.node);
        let alone = matches!(view.standing, Standing::Alone { .. });
        self.claim(!(stale && alone) || register || self.ledger.apart, || {
            format!("host {host} takes the right to lead, and its copy may lack commands (R9)")
        });
    }

    /// After each step.
    pub(super) fn check_state(&mut self, log_changed: bool) {
        if log_changed {
            self.check_union();
        }
        if self.ledger.apart {
            return;
        }
        let rights = [0, 1].map(|host| self.has_right(host));
        let standings = [0, 1].map(|host| self.standing(host));
        self.claim(rights != [true, true], || {
            format!("both may lead alone: host 0 is {}, host 1 {}", standings[0], standings[1])
        });
        let last = self.ledger.last();
        let register = self.register();
        for host in [0, 1] {
            // A copy that is not whole keeps its node from leading whatever the register says.
            let node = self.view(host).filter(|view| view.copying.is_none()).map(|view| view.node);
            let named = register.is_some_and(|r| node.is_some_and(|node| r.is_in_sync(node)));
            let holds = self.nodes[host].disk.holds(last);
            self.claim(holds || !(rights[host] || named), || {
                format!("host {host} may lead alone, and lacks the answered {}", last.0)
            });
        }
        if self.arbiter.is_some() && [0, 1].map(|host| self.serves_now(host)) == [true, true] {
            self.claim(false, || "both nodes serve".to_owned());
        }
    }

    /// The survival right, by what is on disk and nothing else (docs/replication.md section 2).
    fn has_right(&self, host: usize) -> bool {
        let Some(view) = self.view(host) else { return false };
        let config = &self.configs[host];
        match view.standing {
            Standing::Alone { .. } => true,
            Standing::Synced { led, .. } if config.arbiter.is_none() && !self.is_both_alone() => {
                let policy = crate::pair::config::Policy::of(config);
                policy.boot(led, config.role) == Survival::Lead
            }
            _ => false,
        }
    }

    /// A node that has slept past its lease shuts its clients out before it does anything else.
    fn serves_now(&self, host: usize) -> bool {
        let Some(process) = self.process(host).filter(|process| process.serving) else {
            return false;
        };
        let mut core = process.pair.core.clone();
        core.now_ms = core.now_ms.max(self.now_ms[host]);
        match &process.pair.state {
            State::Lead(lead) => lead.holds_role(&core),
            _ => false,
        }
    }

    /// What was answered is somewhere.
    fn check_union(&mut self) {
        let kept = |mark: &Mark| {
            self.nodes.iter().any(|node| {
                node.disk.holds(*mark)
                    || node.disk.aside.iter().any(|lineage| lineage.contains(mark))
            })
        };
        let lost = self.ledger.answered.iter().find(|mark| !kept(mark)).map(|mark| mark.0);
        self.claim(lost.is_none(), || format!("{lost:?} was answered and is on no disk"));
    }
}
