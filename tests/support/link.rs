//! The way between two processes of a test, which can be cut.

use super::network::Cable;
use super::wire::{Way, Wire};

pub enum Link {
    /// Proxies, each to the end of its number; the other end dials.
    Wires(Vec<Wire>),
    Cable(Cable),
}

impl Link {
    /// Where the process at that end, which listens on `port` of its machine, is found.
    pub fn address(&self, end: usize, port: u16) -> String {
        match self {
            Self::Wires(wires) => wires[end].address.clone(),
            Self::Cable(cable) => format!("{}:{port}", cable.addresses[end]),
        }
    }

    pub fn cut(&self) {
        match self {
            Self::Wires(wires) => wires.iter().for_each(Wire::cut),
            Self::Cable(cable) => cable.cut(),
        }
    }

    /// Nothing comes to that end any more, while what it sends arrives.
    pub fn cut_towards(&self, end: usize) {
        match self {
            Self::Wires(wires) => {
                for (target, wire) in wires.iter().enumerate() {
                    wire.hold_back(if target == end { Way::ToTarget } else { Way::FromTarget });
                }
            }
            Self::Cable(cable) => cable.lose_towards(end),
        }
    }

    pub fn slow_down(&self, delay_ms: u64) {
        match self {
            Self::Wires(wires) => wires.iter().for_each(|wire| wire.slow_down(delay_ms)),
            Self::Cable(cable) => cable.slow_down(delay_ms),
        }
    }

    pub fn heal(&self) {
        match self {
            Self::Wires(wires) => wires.iter().for_each(Wire::heal),
            Self::Cable(cable) => cable.heal(),
        }
    }
}
