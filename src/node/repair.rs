//! What the disk has lost is put back from the peer's: first the whole group in its place, else the
//! records that live, into the cold store. A read that hit the damage is made again then; meanwhile
//! only what it was for waits. If nobody has what lives, a slave takes a whole copy and a master
//! stops: a message is never skipped, and never handed out wrong. A part of the node, sans-io.

use super::{LogJob, Node, Outputs};
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy_broker::ReadAhead;
use understudy_model::{Damage, Lsn, Place, Repair};
use understudy_replication::{Found, Input as BackendInput, Wanted};

const ANSWER_TIMEOUT_MS: u64 = 10_000;
const RETRY_MS: u64 = 500;
/// A master waits so long for a peer to ask before it gives up.
const PEER_WAIT_MS: u64 = 60_000;
/// The peer may be ahead or behind: what it lacks may be settled here soon, or come there.
const MISSING_TRIES_MAX: u32 = 20;
/// With more damage than that, the disk is not to be trusted with repairs.
const DAMAGED_MAX: usize = 1_024;
/// What is damaged again after so many repairs will be so again.
const REPAIRS_OF_ONE_MAX: u32 = 3;
const RECORDS_PER_QUESTION_MAX: usize = 4_096;
const GIVE_UP_PAUSE_MS: u64 = 5_000;

/// A read that is made again after a repair.
#[derive(Debug)]
pub enum Blocked {
    Ahead(ReadAhead),
    Groups { after: Lsn, bytes_max: usize },
    Snapshot { lsns: Vec<Lsn> },
}

#[derive(Default)]
pub(super) struct Repairs {
    damaged: BTreeMap<Damage, Repairing>,
    blocked: Vec<Blocked>,
    /// How often each place was repaired since the start.
    repaired: BTreeMap<Damage, u32>,
    repaired_total: u64,
    questions: u64,
    /// A repair waits until state is saved through here.
    save_through: Lsn,
}

struct Repairing {
    /// No record behind this can be in the damaged piece.
    last: Lsn,
    what: String,
    step: Step,
    by_record: bool,
    records: BTreeMap<Lsn, Bytes>,
    missing_tries: u32,
    /// Since when this master has nobody to ask.
    alone_since_ms: Option<u64>,
}

enum Step {
    Due { at_ms: u64 },
    Asked { id: u64, until_ms: u64, lsns: Vec<Lsn> },
    Writing,
}

impl Repairs {
    /// One question or repair at a time.
    fn is_busy(&self) -> bool {
        self.damaged.values().any(|repairing| !matches!(repairing.step, Step::Due { .. }))
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let busy = self.is_busy();
        let due = |repairing: &Repairing| match repairing.step {
            Step::Due { at_ms } => (!busy).then_some(at_ms),
            Step::Asked { until_ms, .. } => Some(until_ms),
            Step::Writing => None,
        };
        self.damaged.values().filter_map(due).min()
    }

    pub(super) fn save_through(&self) -> Lsn {
        self.save_through
    }

    /// Whom the blocked reads were for is gone.
    pub(super) fn forget_reads(&mut self) {
        self.blocked.clear();
    }

    /// The log was cut behind `last`.
    pub(super) fn truncated(&mut self, last: Lsn) {
        self.damaged.retain(|damage, _| damage.lsn <= last);
    }

    fn put_off(&mut self, damage: Damage, at_ms: u64) {
        if let Some(repairing) = self.damaged.get_mut(&damage) {
            repairing.step = Step::Due { at_ms };
        }
    }
}

impl Node {
    /// Places on disk that cannot be read and are not repaired yet.
    pub fn damaged(&self) -> impl Iterator<Item = Damage> {
        self.repairs.damaged.keys().copied()
    }

    /// Repairs since the start.
    pub fn repaired(&self) -> u64 {
        self.repairs.repaired_total
    }

    pub(super) fn on_damage(
        &mut self,
        now_ms: u64,
        (damage, last): (Damage, Lsn),
        what: String,
        blocked: Option<Blocked>,
        out: &mut Outputs,
    ) {
        self.repairs.blocked.extend(blocked);
        if self.repairs.damaged.contains_key(&damage) {
            return;
        }
        let before = self.repairs.repaired.get(&damage).copied().unwrap_or(0);
        if before >= REPAIRS_OF_ONE_MAX || self.repairs.damaged.len() >= DAMAGED_MAX {
            let text =
                format!("{damage} is damaged again ({what}): the disk does not keep repairs");
            out.stop = Some(Err(text));
            return;
        }
        out.notices.push((true, format!("{damage} is damaged: {what}")));
        let repairing = Repairing {
            last,
            what,
            step: Step::Due { at_ms: now_ms },
            by_record: damage.place == Place::Cold || before > 0,
            records: BTreeMap::new(),
            missing_tries: 0,
            alone_since_ms: None,
        };
        self.repairs.damaged.insert(damage, repairing);
    }

    /// Once a turn.
    pub(super) fn repair_some(&mut self, now_ms: u64, out: &mut Outputs) {
        if self.repairs.damaged.is_empty() {
            return;
        }
        let late = self.repairs.damaged.iter().find_map(|(damage, repairing)| {
            let Step::Asked { until_ms, .. } = repairing.step else { return None };
            (until_ms <= now_ms).then_some(*damage)
        });
        if let Some(damage) = late {
            self.nobody_answers(now_ms, damage, PEER_WAIT_MS, out);
        }
        if self.repairs.is_busy() {
            return;
        }
        let due = self.repairs.damaged.iter().find_map(|(damage, repairing)| {
            let due = matches!(repairing.step, Step::Due { at_ms } if at_ms <= now_ms);
            due.then_some((*damage, repairing.by_record))
        });
        match due {
            Some((damage, false)) => {
                let wanted = Wanted::Group { holding: damage.lsn };
                self.ask(now_ms, damage, wanted, Vec::new(), out);
            }
            Some((damage, true)) => self.repair_by_record(now_ms, damage, out),
            None => {}
        }
    }

    fn ask(
        &mut self,
        now_ms: u64,
        damage: Damage,
        wanted: Wanted,
        lsns: Vec<Lsn>,
        out: &mut Outputs,
    ) {
        self.repairs.questions += 1;
        let id = self.repairs.questions;
        if let Some(repairing) = self.repairs.damaged.get_mut(&damage) {
            let until_ms = now_ms + ANSWER_TIMEOUT_MS;
            repairing.step = Step::Asked { id, until_ms, lsns };
            self.backend_input(now_ms, BackendInput::Fetch { id, wanted }, out);
        }
    }

    /// What lives of the damaged piece and was not fetched yet.
    fn lacking(&self, damage: Damage) -> Vec<Lsn> {
        let Some(repairing) = self.repairs.damaged.get(&damage) else { return Vec::new() };
        let mut lsns = match damage.place {
            Place::Log => self.broker.live_messages(damage.lsn, repairing.last),
            Place::Cold => self.broker.live_cold_messages(damage.lsn, repairing.last),
        };
        lsns.retain(|lsn| !repairing.records.contains_key(lsn));
        lsns
    }

    fn repair_by_record(&mut self, now_ms: u64, damage: Damage, out: &mut Outputs) {
        let Some(repairing) = self.repairs.damaged.get(&damage) else { return };
        // What lives is known only of what is applied.
        if self.broker.applied() < repairing.last.min(self.inflight.durable()) {
            return self.repairs.put_off(damage, now_ms + RETRY_MS);
        }
        let mut lsns = self.lacking(damage);
        if lsns.is_empty() {
            return self.write_records(damage, out);
        }
        lsns.truncate(RECORDS_PER_QUESTION_MAX);
        self.ask(now_ms, damage, Wanted::Records(lsns.clone()), lsns, out);
    }

    fn write_records(&mut self, damage: Damage, out: &mut Outputs) {
        let saved = self.saved_through;
        if let Some(repairing) = self.repairs.damaged.get_mut(&damage) {
            repairing.step = Step::Writing;
            let records = repairing.records.clone().into_iter().collect();
            out.log.push(LogJob::RepairRecords { damage, records, saved });
        }
    }

    pub(super) fn fetched(&mut self, now_ms: u64, answered: u64, found: Found, out: &mut Outputs) {
        let asked = self.repairs.damaged.iter_mut().find_map(|(damage, repairing)| {
            match &mut repairing.step {
                Step::Asked { id, lsns, .. } if *id == answered => {
                    Some((*damage, std::mem::take(lsns)))
                }
                _ => None,
            }
        });
        let Some((damage, lsns)) = asked else { return };
        match found {
            Found::Nobody => self.nobody_answers(now_ms, damage, 0, out),
            Found::NoPeer => self.nobody_answers(now_ms, damage, PEER_WAIT_MS, out),
            Found::Group(group) => {
                if let Some(repairing) = self.repairs.damaged.get_mut(&damage) {
                    repairing.step = Step::Writing;
                    out.log.push(LogJob::RepairGroup { damage, group });
                }
            }
            Found::Records(records) => self.records_fetched(now_ms, damage, &lsns, records, out),
            Found::Nothing if lsns.is_empty() => {
                // Given back there, or damaged there too: perhaps what lives is elsewhere.
                if let Some(repairing) = self.repairs.damaged.get_mut(&damage) {
                    repairing.by_record = true;
                    repairing.step = Step::Due { at_ms: now_ms };
                }
            }
            Found::Nothing => self.records_fetched(now_ms, damage, &lsns, Vec::new(), out),
        }
    }

    fn records_fetched(
        &mut self,
        now_ms: u64,
        damage: Damage,
        asked: &[Lsn],
        found: Vec<(Lsn, Bytes)>,
        out: &mut Outputs,
    ) {
        // An answer ends early at a size: what was not found behind its last record was not sought.
        let last = found.last().map_or(Lsn(u64::MAX), |(lsn, _)| *lsn);
        let Some(repairing) = self.repairs.damaged.get_mut(&damage) else { return };
        let asked_for = |lsn: &Lsn| asked.binary_search(lsn).is_ok();
        repairing.records.extend(found.into_iter().filter(|(lsn, _)| asked_for(lsn)));
        repairing.step = Step::Due { at_ms: now_ms };
        repairing.alone_since_ms = None;
        let missing = self.lacking(damage).into_iter().find(|lsn| asked_for(lsn) && *lsn <= last);
        let (Some(missing), Some(repairing)) = (missing, self.repairs.damaged.get_mut(&damage))
        else {
            return;
        };
        repairing.missing_tries += 1;
        repairing.step = Step::Due { at_ms: now_ms + RETRY_MS };
        if repairing.missing_tries >= MISSING_TRIES_MAX {
            repairing.missing_tries = 0;
            self.give_up(now_ms, damage, &format!("the peer does not have LSN {missing}"), out);
        }
    }

    /// Nobody to ask. A slave waits for its master, a master only so long, and never for what is
    /// dead.
    fn nobody_answers(&mut self, now_ms: u64, damage: Damage, wait_ms: u64, out: &mut Outputs) {
        let leads = self.leading.is_some();
        let Some(repairing) = self.repairs.damaged.get_mut(&damage) else { return };
        repairing.step = Step::Due { at_ms: now_ms + RETRY_MS };
        if !leads {
            repairing.alone_since_ms = None;
            return;
        }
        let since_ms = *repairing.alone_since_ms.get_or_insert(now_ms);
        let applied = self.broker.applied() >= repairing.last.min(self.inflight.durable());
        if now_ms < since_ms + wait_ms || !applied {
            return;
        }
        if self.lacking(damage).is_empty() {
            self.write_records(damage, out);
        } else {
            self.give_up(now_ms, damage, "there is no other node to fetch it from", out);
        }
    }

    fn give_up(&mut self, now_ms: u64, damage: Damage, why: &str, out: &mut Outputs) {
        let lacking = self.lacking(damage);
        let Some(repairing) = self.repairs.damaged.get_mut(&damage) else { return };
        let what = &repairing.what;
        if self.leading.is_none() {
            repairing.step = Step::Due { at_ms: now_ms + GIVE_UP_PAUSE_MS };
            let text = format!("{damage} is damaged ({what}), and {why}: a whole copy is taken");
            out.notices.push((true, text));
            return self.backend_input(now_ms, BackendInput::Resync, out);
        }
        let first = lacking.first().copied().unwrap_or(damage.lsn);
        let queues = self.broker.queues_holding(first);
        let text = format!(
            "{damage} is damaged ({what}), and {why}: message {first} of {} cannot be handed out. \
             Start the other node, or restore the data directory from a copy; or accept the loss: \
             start again and purge the queue before its messages are consumed",
            if queues.is_empty() { "no queue".to_owned() } else { queues.join(", ") }
        );
        out.stop = Some(Err(text));
    }

    /// The log writer has tried.
    pub(super) fn repair_written(
        &mut self,
        now_ms: u64,
        damage: Damage,
        repair: Repair,
        out: &mut Outputs,
    ) {
        match repair {
            Repair::Done { base } => {
                if self.repairs.damaged.remove(&damage).is_some() {
                    *self.repairs.repaired.entry(damage).or_default() += 1;
                    self.repairs.repaired_total += 1;
                    out.notices.push((true, format!("{damage} is repaired")));
                }
                self.backend_input(now_ms, BackendInput::Reclaimed { base }, out);
                self.read_again(out);
            }
            Repair::Unfit(why) => self.give_up(now_ms, damage, &why, out),
            Repair::Blocked => self.repairs.put_off(damage, now_ms + RETRY_MS),
            Repair::NotSaved { until } => {
                self.repairs.save_through = until;
                self.repairs.put_off(damage, now_ms + RETRY_MS);
            }
        }
    }

    /// Those that hit other damage will be back.
    fn read_again(&mut self, out: &mut Outputs) {
        for blocked in self.repairs.blocked.drain(..) {
            match blocked {
                Blocked::Ahead(read) => out.reads.push(read),
                Blocked::Groups { after, bytes_max } => {
                    out.read_groups.get_or_insert((after, bytes_max));
                }
                Blocked::Snapshot { lsns } => {
                    out.snapshot_read.get_or_insert(lsns);
                }
            }
        }
    }
}
