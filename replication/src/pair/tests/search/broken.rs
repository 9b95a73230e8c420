//! The real code with one rule taken out, to see that the search would find it. Each variant has its
//! place in the code under `#[cfg(test)]`: a product is built without any of it.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// R4: the slave is told that it is in-sync before the master's own right is given up on disk.
    InvitesEarly,
    /// R2: clients are answered before the slave has it on disk.
    AnswersEarly,
    /// A slave whose copy may lack commands serves when it starts alone.
    StaleServes,
    /// R3: the master goes on alone before its disk says so.
    AloneEarly,
    /// R1, R5: the election's winner leads before its promise is on disk.
    LeadsEarly,
    /// R6: what the leader lacks is cut off although it was committed here.
    CutsCommitted,
    /// R6: a tail that the leader does not have stays, and nobody compares chain hashes.
    KeepsTail,
    /// The shorter of two logs leads, whatever may be missing in it.
    ShorterLeads,
    /// A swap that the arbiter did not carry out counts as won.
    LostSwapCounts,
    /// The arbiter writes whatever has been written since the caller read.
    IgnoresVersion,
    /// The arbiter lets another node lead while the leader's lease lives.
    IgnoresLease,
    /// R9: a node without any data leads.
    EmptyLeads,
    /// R4: who loses the election promises, and keeps its own right to lead on disk.
    KeepsClaim,
    /// The master hands over before its own right is given up on disk.
    HandsOverEarly,
    /// A slave that stops says goodbye before its own right is given up on disk.
    LeavesEarly,
    /// With an arbiter: the master goes on alone without asking.
    ShrinksUnasked,
    /// R4: a hello that says that a slave gave up its claim is believed, however old it is.
    TrustsHello,
}

thread_local! {
    static BROKEN: Cell<Option<Broken>> = const { Cell::new(None) };
}

/// Whether this thread's nodes run without the rule.
pub(crate) fn is(rule: Broken) -> bool {
    BROKEN.get() == Some(rule)
}

pub(super) fn set(rule: Option<Broken>) {
    BROKEN.set(rule);
}
