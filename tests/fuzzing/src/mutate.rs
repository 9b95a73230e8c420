//! A new input from old ones: frames are doubled, dropped, moved and taken from other inputs, and
//! bytes within them changed. Now and then the borders between frames are hurt, too.

use crate::Random;
use std::ops::Range;

const BYTES: [u8; 9] = [0, 1, 2, 0x7f, 0x80, 0xff, b'\n', 0xce, b'/'];
const ROUNDS_MAX: usize = 6;
const REPEATS_MAX: usize = 40;

type Frames = fn(&[u8]) -> Vec<Range<usize>>;

pub(crate) fn mutate(
    corpus: &[&[u8]],
    frames: Frames,
    bytes_max: usize,
    random: &mut Random,
) -> Vec<u8> {
    let mut input = random.pick(corpus).to_vec();
    for _ in 0..1 + random.below(ROUNDS_MAX) {
        let borders = frames(&input);
        if borders.is_empty() || random.one_in(8) {
            change_anywhere(&mut input, random);
        } else if random.one_in(2) {
            change_within(&mut input, random.pick(&borders).clone(), random);
        } else {
            let other = *random.pick(corpus);
            rearrange(&mut input, &borders, other, &frames(other), random);
        }
        input.truncate(bytes_max);
    }
    input
}

/// Keeps the length, and so the frame's borders where a length gives them.
fn change_within(input: &mut [u8], frame: Range<usize>, random: &mut Random) {
    let frame = &mut input[frame];
    if frame.is_empty() {
        return;
    }
    for _ in 0..1 + random.below(3) {
        let at = random.below(frame.len());
        frame[at] = match random.below(4) {
            0 => *random.pick(&BYTES),
            1 => frame[at] ^ (1 << random.below(8)),
            2 => frame[at].wrapping_add(1 + random.below(3) as u8),
            _ => random.number() as u8,
        };
    }
    if frame.len() > 8 && random.one_in(4) {
        let (from, to) = (random.below(frame.len() - 4), random.below(frame.len() - 4));
        frame.copy_within(from..from + 4, to);
    }
}

fn rearrange(
    input: &mut Vec<u8>,
    borders: &[Range<usize>],
    other: &[u8],
    other_borders: &[Range<usize>],
    random: &mut Random,
) {
    let frame = random.pick(borders).clone();
    let at = random.pick(borders).start;
    let mut insert = |at: usize, bytes: &[u8]| drop(input.splice(at..at, bytes.iter().copied()));
    match random.below(5) {
        0 => drop(input.drain(frame)),
        1 => {
            let copy = input[frame].to_vec();
            drop(input.splice(at..at, copy));
        }
        2 => {
            let copy = input[frame.clone()].repeat(1 + random.below(REPEATS_MAX));
            drop(input.splice(frame.start..frame.start, copy));
        }
        3 if !other_borders.is_empty() => {
            insert(at, &other[random.pick(other_borders).clone()]);
        }
        // The other input's end from some frame on.
        _ if !other_borders.is_empty() => {
            let from = random.pick(other_borders).start;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {}
    }
}

fn change_anywhere(input: &mut Vec<u8>, random: &mut Random) {
    if input.is_empty() {
        input.push(random.number() as u8);
        return;
    }
    let at = random.below(input.len());
    match random.below(4) {
        0 => input[at] = random.number() as u8,
        1 => input.insert(at, *random.pick(&BYTES)),
        2 => drop(input.remove(at)),
        _ => input.truncate(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_differ_and_keep_their_length_limit() {
        let frames: Frames = |input| (0..input.len() / 4).map(|n| 4 * n..4 * n + 4).collect();
        let corpus: [&[u8]; 2] = [b"aaaabbbbccccdddd", b"00001111"];
        let mut random = Random::new(1);
        let made: std::collections::BTreeSet<Vec<u8>> =
            (0..1000).map(|_| mutate(&corpus, frames, 100, &mut random)).collect();
        assert!(made.len() > 800, "{}", made.len());
        assert!(made.iter().all(|input| input.len() <= 100));
    }
}
