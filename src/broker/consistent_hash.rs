//! `x-consistent-hash` exchanges: a binding's key is its weight, and each message goes to one of
//! the bindings, the same for the same key. Few messages move when a binding comes or goes, because
//! the binding with the highest score for the key wins (rendezvous hashing).

use understudy_model::{BindTarget, Binding};

/// A weight is a loop count.
const WEIGHT_MAX: u64 = 1_000;

pub(crate) fn choose<'a>(
    bindings: impl IntoIterator<Item = &'a Binding>,
    key: &str,
) -> Option<&'a BindTarget> {
    let hashed = fnv1a(key.as_bytes(), FNV_OFFSET);
    let score = |binding: &Binding| {
        let weight = binding.key.parse::<u64>().unwrap_or(1).min(WEIGHT_MAX);
        let target = match &binding.target {
            BindTarget::Queue(id) => mix(id.0.0),
            BindTarget::Exchange(name) => fnv1a(name.as_bytes(), FNV_OFFSET),
        };
        (0..weight).map(|n| mix(hashed ^ mix(target.wrapping_add(n)))).max()
    };
    let scored =
        bindings.into_iter().filter_map(|binding| Some((score(binding)?, &binding.target)));
    scored.max_by_key(|(score, _)| *score).map(|(_, target)| target)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

fn fnv1a(bytes: &[u8], start: u64) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::{Lsn, QueueId, Text};

    fn bindings(weights: &[(u64, &str)]) -> Vec<Binding> {
        let binding = |(queue, weight): &(u64, &str)| Binding {
            vhost: Text::from_static("/"),
            source: Text::from_static("x"),
            target: BindTarget::Queue(QueueId(Lsn(*queue))),
            key: Text::from(*weight),
            arguments: bytes::Bytes::new(),
        };
        weights.iter().map(binding).collect()
    }

    fn shares(bindings: &[Binding], queues: u64) -> Vec<usize> {
        let mut shares = vec![0; queues as usize];
        for n in 0..10_000 {
            let Some(BindTarget::Queue(id)) = choose(bindings, &format!("key {n}")) else {
                panic!("no target")
            };
            shares[id.0.0 as usize] += 1;
        }
        shares
    }

    #[test]
    fn weights_are_shares_and_few_keys_move() {
        let three = bindings(&[(0, "1"), (1, "1"), (2, "2")]);
        let before = shares(&three, 3);
        assert!(before[0].abs_diff(2_500) < 200 && before[2].abs_diff(5_000) < 250, "{before:?}");
        for n in 0..1_000 {
            let key = format!("key {n}");
            let (old, new) = (choose(&three, &key).unwrap(), choose(&three[..2], &key).unwrap());
            assert!(old == new || *old == three[2].target, "{key} moved though its queue stayed");
        }
        assert_eq!(choose(&[], "key"), None);
        assert_eq!(choose(&bindings(&[(0, "0")]), "key"), None);
    }
}
