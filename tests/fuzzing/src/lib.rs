//! A fuzz target as an ordinary test: every file of a stored corpus is replayed, then inputs that
//! mutation makes of them are run until the time is up.
//!
//! Coverage feedback needs a nightly compiler, which is not to be had here. What it would find
//! must stand in the corpus instead: whole sessions of real clients, and hostile samples. They are
//! mutated frame by frame, so that most of a session stays understood.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test tool: a panic is the report"
)]

mod mutate;
mod random;

pub use random::Random;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Seconds of mutation, unless `UNDERSTUDY_FUZZ_S` says otherwise.
const MUTATION_S: u64 = 4;
/// The same inputs in the same order, unless `UNDERSTUDY_FUZZ_SEED` says otherwise: a number, or
/// `clock` for new ones each time.
const SEED: u64 = 0x5eed;

pub struct Target<'a> {
    /// A folder of inputs, one a file.
    pub corpus: &'a Path,
    /// Where an input that failed is left.
    pub findings: &'a Path,
    /// The borders of an input's frames; what is in no frame stays as it is.
    pub frames: fn(&[u8]) -> Vec<Range<usize>>,
    pub input_bytes_max: usize,
}

impl Target<'_> {
    /// `run` panics if the input does harm. The [`Random`] is the input's own: the same bytes run
    /// the same way.
    ///
    /// `UNDERSTUDY_FUZZ_INPUT` names a file that is run alone.
    ///
    /// # Panics
    /// At the first input that does harm, after leaving it in `findings`.
    pub fn fuzz(&self, run: impl Fn(&[u8], &mut Random)) {
        if let Ok(file) = std::env::var("UNDERSTUDY_FUZZ_INPUT") {
            let input = std::fs::read(file).unwrap();
            return run(&input, &mut Random::of(&input));
        }
        let corpus = self.read_corpus();
        for (name, input) in &corpus {
            self.run_one(name, input, &run);
        }
        let seed = seed();
        let duration = Duration::from_secs(seconds());
        println!("{} corpus files replayed; mutating for {duration:?}, seed {seed}", corpus.len());
        let inputs: Vec<&[u8]> = corpus.iter().map(|(_, input)| &input[..]).collect();
        let mut random = Random::new(seed);
        let (start, mut count) = (Instant::now(), 0_u64);
        while start.elapsed() < duration {
            let input = mutate::mutate(&inputs, self.frames, self.input_bytes_max, &mut random);
            self.run_one(&format!("mutation {count} of seed {seed}"), &input, &run);
            count += 1;
        }
        println!("{count} mutations did no harm");
    }

    fn read_corpus(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.corpus).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", self.corpus.display());
        let read = |path: PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        };
        files.into_iter().map(read).collect()
    }

    fn run_one(&self, name: &str, input: &[u8], run: &impl Fn(&[u8], &mut Random)) {
        let result = catch_unwind(AssertUnwindSafe(|| run(input, &mut Random::of(input))));
        if let Err(panic) = result {
            std::fs::create_dir_all(self.findings).unwrap();
            let file = self.findings.join(format!("{:016x}", random::hash(input)));
            std::fs::write(&file, input).unwrap();
            println!("{name} does harm: UNDERSTUDY_FUZZ_INPUT={}", file.display());
            resume_unwind(panic);
        }
    }
}

fn seconds() -> u64 {
    std::env::var("UNDERSTUDY_FUZZ_S").map_or(MUTATION_S, |given| given.parse().unwrap())
}

fn seed() -> u64 {
    match std::env::var("UNDERSTUDY_FUZZ_SEED").as_deref() {
        Ok("clock") => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        Ok(number) => number.parse().unwrap(),
        Err(_) => SEED,
    }
}

/// Bytes of the heap that dropping the value frees.
pub fn held_bytes<T>(value: T) -> usize {
    let freed = allocation_counter::measure(|| drop(value));
    usize::try_from(-freed.bytes_current).unwrap_or(0)
}

/// How often the heap is asked for memory meanwhile, by this thread.
pub fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_value_holds_is_counted() {
        assert_eq!(held_bytes(vec![0_u8; 1000]), 1000);
        assert_eq!(held_bytes(5), 0);
        assert_eq!(allocations(|| drop(Box::new([0_u64; 9]))), 1);
    }

    #[test]
    fn an_input_that_does_harm_is_left_and_named() {
        let folder = std::env::temp_dir().join(format!("fuzzing-{}", std::process::id()));
        let (corpus, findings) = (folder.join("corpus"), folder.join("findings"));
        std::fs::create_dir_all(&corpus).unwrap();
        std::fs::write(corpus.join("sample"), b"abcd").unwrap();
        let target = Target {
            corpus: &corpus,
            findings: &findings,
            frames: |input| std::iter::once(0..input.len()).collect(),
            input_bytes_max: 64,
        };
        let run = |input: &[u8], _: &mut Random| assert!(!input.contains(&0xff), "harm");
        let harm = catch_unwind(AssertUnwindSafe(|| target.fuzz(run)));
        let left: Vec<_> = std::fs::read_dir(&findings).unwrap().collect();
        let input = std::fs::read(left[0].as_ref().unwrap().path()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(harm.is_err() && left.len() == 1 && input.contains(&0xff));
    }
}
