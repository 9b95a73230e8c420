//! What clients did and saw, and what of it breaks a promise: a total-queue checker.
//!
//! Each confirmed publish is delivered; nothing comes from nowhere; a body comes as it was sent;
//! each repetition has a reason; what one consumer sees of one publisher is in order.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Fate {
    bytes: usize,
    /// Sent again after an unknown outcome, without a sequence that the broker knows it by.
    resent: bool,
    confirmed: bool,
    /// The broker has confirmed that it is finished.
    settled: bool,
    deliveries: u32,
}

/// Why a message came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Repetition {
    /// Its publisher had sent it twice.
    Resent,
    /// It was not settled and came with the flag.
    Redelivered,
    /// Two masters had it.
    Partition,
}

/// A breach if nobody served beside the master meanwhile; judged at a round's end.
#[derive(Debug)]
struct Doubt {
    kind: DoubtKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DoubtKind {
    AgainWithoutFlag,
    AgainAfterSettle,
    OutOfOrder,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: BTreeMap<String, Fate>,
    /// Confirmed and not delivered yet.
    missing: std::collections::BTreeSet<String>,
    doubts: Vec<Doubt>,
    repetitions: BTreeMap<Repetition, u64>,
    pub(crate) confirmed: u64,
    pub(crate) deliveries: u64,
    pub(crate) violations: Vec<String>,
}

/// Highest first delivery of each publisher, for one consumer's connection.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, u64>);

/// Publisher and number, in front of what fills the body up.
fn name_of(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == b' ').unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// The content depends on name and length alone, so that a changed byte is seen.
pub(crate) fn body(name: &str, bytes: usize) -> Vec<u8> {
    let mut body = format!("{name} ").into_bytes();
    let mut state = name.bytes().fold(7_u32, |sum, b| sum.wrapping_mul(31) + u32::from(b));
    while body.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        body.push(b'a' + (state >> 24) as u8 % 26);
    }
    body
}

impl Ledger {
    pub(crate) fn sent(&mut self, name: &str, bytes: usize) {
        self.fates.insert(name.to_owned(), Fate { bytes, ..Fate::default() });
    }

    fn fate(&mut self, name: &str) -> &mut Fate {
        self.fates.get_mut(name).expect("sent before")
    }

    /// Returns the length of its body.
    pub(crate) fn resent(&mut self, name: &str) -> usize {
        let fate = self.fate(name);
        fate.resent = true;
        fate.bytes
    }

    pub(crate) fn confirmed(&mut self, name: &str) {
        self.confirmed += 1;
        let fate = self.fate(name);
        fate.confirmed = true;
        if fate.deliveries == 0 {
            self.missing.insert(name.to_owned());
        }
    }

    /// Returns the message's name.
    pub(crate) fn received(
        &mut self,
        content: &[u8],
        redelivered: bool,
        seen: &mut Seen,
    ) -> String {
        let name = name_of(content);
        self.deliveries += 1;
        let Some(fate) = self.fates.get_mut(&name) else {
            self.violations.push(format!("{name:?} came from nowhere"));
            return name;
        };
        if content != body(&name, fate.bytes) {
            let text = format!("{name} came with another content, {} bytes", content.len());
            self.violations.push(text);
        }
        fate.deliveries += 1;
        let (first, resent) = (fate.deliveries == 1, fate.resent);
        self.missing.remove(&name);
        if first {
            self.check_order(&name, redelivered || resent, seen);
        } else if resent {
            *self.repetitions.entry(Repetition::Resent).or_default() += 1;
        } else {
            if self.fates[&name].settled {
                self.doubt(DoubtKind::AgainAfterSettle, name.clone());
            } else if redelivered {
                *self.repetitions.entry(Repetition::Redelivered).or_default() += 1;
            } else {
                self.doubt(DoubtKind::AgainWithoutFlag, name.clone());
            }
        }
        name
    }

    /// Whatever was returned or sent twice may come later than its successors.
    fn check_order(&mut self, name: &str, excused: bool, seen: &mut Seen) {
        let Some((publisher, number)) = name.rsplit_once('-') else { return };
        let number = number.parse().unwrap_or(0);
        let highest = seen.0.entry(publisher.to_owned()).or_default();
        if number < *highest && !excused {
            let message = format!("{name} behind {highest}");
            self.doubts.push(Doubt { kind: DoubtKind::OutOfOrder, message });
        }
        *highest = number.max(*highest);
    }

    fn doubt(&mut self, kind: DoubtKind, message: String) {
        self.doubts.push(Doubt { kind, message });
    }

    pub(crate) fn settled(&mut self, name: &str) {
        if let Some(fate) = self.fates.get_mut(name) {
            fate.settled = true;
        }
    }

    /// Confirmed, and not delivered so far.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.missing.iter().cloned().collect()
    }

    /// The end of a round. `apart`: two nodes may have served at the same time, which permits
    /// repetitions and another order, and nothing else.
    pub(crate) fn judge(&mut self, apart: bool) {
        for doubt in std::mem::take(&mut self.doubts) {
            if !apart {
                self.violations.push(format!("{:?}: {}", doubt.kind, doubt.message));
            } else if doubt.kind != DoubtKind::OutOfOrder {
                *self.repetitions.entry(Repetition::Partition).or_default() += 1;
            }
        }
    }

    pub(crate) fn repetitions(&self) -> &BTreeMap<Repetition, u64> {
        &self.repetitions
    }
}
