//! What the operator decides about the pair.

use crate::pair::upgrade::Protocols;
use understudy_model::{Features, Text};

/// What the file says a node should be at the first meeting: a preference, not a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Master,
    Slave,
}

#[derive(Clone, Debug)]
pub struct PairConfig {
    pub role: Role,
    /// Where the peer's replication listener is, as far as the file says.
    pub peer_address: Option<Text>,
    /// The own replication listener, as the peer can dial it.
    pub advertised_address: Text,
    /// Told to the master's clients at a switchover to this node.
    pub client_addresses: Text,
    pub shutdown_on_master_failure: bool,
    pub shutdown_on_slave_failure: bool,
    /// Frontends stay closed until a slave was in-sync once.
    pub wait_for_slave: bool,
    /// 0: wait for ever.
    pub wait_for_slave_timeout_ms: u64,
    /// How long a starting in-sync node looks for its peer before its policy decides.
    pub meet_timeout_ms: u64,
    pub beat_ms: u64,
    /// A peer without a sign of life or durable progress for so long is taken as lost.
    pub suspect_ms: u64,
    /// A master without any answer for so long is replaced.
    pub takeover_ms: u64,
    pub redial_ms: u64,
    pub redial_max_ms: u64,
    /// Bytes of groups that may be on their way to the slave and not yet on its disk.
    pub window_bytes_max: usize,
    /// What this program speaks and can read.
    pub protocols: Protocols,
    pub features: Features,
    /// None: the pair decides by itself.
    pub arbiter: Option<ArbiterConfig>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArbiterConfig {
    /// Tells one arbiter and register from another: both nodes must name the same. Not 0.
    pub id: u64,
    /// How long a leader relies on a lease. The arbiter keeps it half as long again and a second
    /// more, for clocks that differ; so long a takeover waits for a silent master.
    pub lease_ms: u64,
}

impl Default for PairConfig {
    fn default() -> Self {
        Self {
            role: Role::Master,
            peer_address: None,
            advertised_address: Text::from_static(""),
            client_addresses: Text::from_static(""),
            shutdown_on_master_failure: false,
            shutdown_on_slave_failure: false,
            wait_for_slave: false,
            wait_for_slave_timeout_ms: 0,
            meet_timeout_ms: 5_000,
            beat_ms: 250,
            suspect_ms: 2_000,
            takeover_ms: 4_000,
            redial_ms: 100,
            redial_max_ms: 1_000,
            window_bytes_max: 4 * 1024 * 1024,
            arbiter: None,
            protocols: Protocols::OWN,
            features: Features::KNOWN,
        }
    }
}

/// Who may go on alone by itself (docs/replication.md section 2).
///
/// A flag that either node's file sets holds for both: the stricter reading is the safe one, and
/// each flag is naturally written into the file of the node that it stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    pub stops_without_master: bool,
    pub stops_without_slave: bool,
}

/// What a node without its peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    Lead,
    Wait,
    Stop,
}

impl Policy {
    pub(crate) fn of(config: &PairConfig) -> Self {
        Self {
            stops_without_master: config.shutdown_on_master_failure,
            stops_without_slave: config.shutdown_on_slave_failure,
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            stops_without_master: self.stops_without_master || other.stops_without_master,
            stops_without_slave: self.stops_without_slave || other.stops_without_slave,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match (self.stops_without_master, self.stops_without_slave) {
            (false, true) => "slave_survives",
            (true, false) => "master_survives",
            (true, true) => "none",
            (false, false) => "both",
        }
    }

    /// An in-sync slave whose master is gone or silent.
    pub(crate) fn orphan(self) -> Survival {
        if self.stops_without_master { Survival::Stop } else { Survival::Lead }
    }

    /// An in-sync node that started and found nobody; `led` tells whether it led its last epoch.
    pub(crate) fn boot(self, led: bool, role: Role) -> Survival {
        let right = match (self.stops_without_master, self.stops_without_slave) {
            (false, true) => !led,
            (true, false) => led,
            (true, true) => false,
            (false, false) => role == Role::Master,
        };
        if right { Survival::Lead } else { Survival::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_of_a_safe_pair_survives_a_start_alone() {
        for stops in [(false, true), (true, false), (true, true)] {
            let policy = Policy { stops_without_master: stops.0, stops_without_slave: stops.1 };
            for role in [Role::Master, Role::Slave] {
                let rights = [true, false].map(|led| policy.boot(led, role) == Survival::Lead);
                assert!(rights != [true, true], "{}", policy.name());
            }
        }
    }

    #[test]
    fn with_both_the_file_decides_who_starts_alone() {
        let both = Policy::default();
        assert_eq!(both.boot(false, Role::Master), Survival::Lead);
        assert_eq!(both.boot(true, Role::Slave), Survival::Wait);
        assert_eq!(both.orphan(), Survival::Lead);
        assert_eq!(both.name(), "both");
    }
}
