//! `cargo run --release -p simulation -- --seeds 1000 [--from 1]`

use clap::Parser;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
}

#[expect(clippy::print_stdout, reason = "the result is what the program is for")]
fn main() {
    let arguments = Arguments::parse();
    let (mut confirmed, mut duplicates, mut failed) = (0, 0, 0);
    let (mut rotten, mut repaired, mut restored) = (0, 0, 0);
    let mut seen = BTreeMap::<&str, u64>::new();
    for seed in arguments.from..arguments.from + arguments.seeds {
        let run = AssertUnwindSafe(|| simulation::run_seed(seed));
        let outcome = catch_unwind(run).unwrap_or_else(|panic| {
            println!("seed {seed} panics");
            resume_unwind(panic)
        });
        confirmed += outcome.confirmed;
        duplicates += outcome.duplicates;
        rotten += outcome.sometimes.rotten;
        repaired += outcome.sometimes.repaired;
        restored += outcome.sometimes.restored;
        outcome.seen.iter().for_each(|(name, count)| *seen.entry(*name).or_default() += count);
        if !outcome.violations.is_empty() {
            failed += 1;
            println!("seed {seed}: {:#?}", outcome.violations);
            if arguments.seeds == 1 {
                println!("{}", outcome.log.join("\n"));
            }
        }
    }
    println!("{rotten} places rotted, {repaired} repaired, {restored} disks restored by hand");
    println!(
        "{} seeds, {confirmed} messages confirmed, {duplicates} duplicates, {failed} seeds failed",
        arguments.seeds
    );
    println!("{seen:#?}");
    if failed > 0 {
        std::process::exit(1);
    }
}
