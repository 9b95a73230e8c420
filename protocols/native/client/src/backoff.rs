//! In which order and how soon addresses are tried.

use crate::Failover;
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const DELAY_MIN: Duration = Duration::from_millis(1);

/// Counts rounds through the list since there was a connection worth the name.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    rounds: u64,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.rounds = 0;
    }

    /// How long to wait before the next round. None before the first: whoever takes over is
    /// ready at once, and each millisecond counts.
    pub(crate) fn next_delay(&mut self, failover: &Failover) -> Duration {
        let before = self.rounds;
        self.rounds += 1;
        if before == 0 {
            return Duration::ZERO;
        }
        // From nothing it would not grow, and never rest.
        let first = failover.initial_reconnect_delay.max(DELAY_MIN);
        if !failover.use_exponential_back_off {
            return first.min(failover.max_reconnect_delay);
        }
        let exponent = i32::try_from(before - 1).unwrap_or(i32::MAX);
        let factor = failover.back_off_multiplier.powi(exponent);
        let limit = failover.max_reconnect_delay;
        Duration::try_from_secs_f64(first.as_secs_f64() * factor).unwrap_or(limit).min(limit)
    }

    pub(crate) fn should_warn(&self, failover: &Failover) -> bool {
        let each = failover.warn_after_reconnect_attempts;
        each > 0 && self.rounds > 0 && self.rounds.is_multiple_of(each)
    }
}

/// The order of one round: as listed, or shuffled; the address just lost goes last, those with
/// priority first.
pub(crate) fn round(failover: &Failover, lost: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..failover.addresses.len()).collect();
    if failover.randomize {
        for end in (1..order.len()).rev() {
            order.swap(end, random() as usize % (end + 1));
        }
    }
    order.sort_by_key(|&index| (!failover.is_preferred(index), Some(index) == lost));
    order
}

/// From the seed that std draws for its hash maps: good enough to be unique, not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

pub(crate) fn random_id() -> u128 {
    u128::from(random()) << 64 | u128::from(random())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(address: &str, count: usize) -> Vec<u64> {
        let failover = address.parse().unwrap();
        let mut backoff = Backoff::default();
        (0..count).map(|_| backoff.next_delay(&failover).as_millis() as u64).collect()
    }

    #[test]
    fn delays_grow_from_nothing_to_the_limit() {
        assert_eq!(delays("failover:(tcp://a)", 5), [0, 10, 20, 40, 80]);
        let limited = "failover:(tcp://a)?initialReconnectDelay=100&maxReconnectDelay=250";
        assert_eq!(delays(limited, 5), [0, 100, 200, 250, 250]);
        assert_eq!(delays("failover:(tcp://a)?useExponentialBackOff=false", 3), [0, 10, 10]);
        assert_eq!(delays("failover:(tcp://a)", 5_000).last(), Some(&30_000));
        let from_nothing = delays("failover:(tcp://a)?initialReconnectDelay=0", 5_000);
        assert_eq!(from_nothing[..4], [0, 1, 2, 4]);
        assert!(from_nothing.is_sorted() && from_nothing.last() == Some(&30_000));
    }

    #[test]
    fn a_round_holds_every_address_and_the_lost_one_last() {
        let ordered: Failover =
            "failover:(tcp://a,tcp://b,tcp://c)?randomize=false".parse().unwrap();
        assert_eq!(round(&ordered, None), [0, 1, 2]);
        assert_eq!(round(&ordered, Some(0)), [1, 2, 0]);
        let backup: Failover =
            "failover:(tcp://a,tcp://b,tcp://c)?priorityBackup=true&priorityURIs=tcp://c"
                .parse()
                .unwrap();
        assert!((0..50).all(|_| round(&backup, Some(2))[0] == 2));
        let shuffled: Failover = "failover:(tcp://a,tcp://b,tcp://c)".parse().unwrap();
        let mut seen = [0; 3];
        for _ in 0..300 {
            let mut order = round(&shuffled, None);
            seen[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert!(seen.iter().all(|&count| count > 30), "{seen:?}");
    }
}
