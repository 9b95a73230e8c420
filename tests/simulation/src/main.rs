//! `cargo run --release -p simulation -- --seeds 1000 [--from 1]`

use clap::Parser;

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
    for seed in arguments.from..arguments.from + arguments.seeds {
        let outcome = simulation::run_seed(seed);
        confirmed += outcome.confirmed;
        duplicates += outcome.duplicates;
        rotten += outcome.sometimes.rotten;
        repaired += outcome.sometimes.repaired;
        restored += outcome.sometimes.restored;
        if !outcome.violations.is_empty() {
            failed += 1;
            println!("seed {seed}: {:#?}", outcome.violations);
        }
    }
    println!("{rotten} places rotted, {repaired} repaired, {restored} disks restored by hand");
    println!(
        "{} seeds, {confirmed} messages confirmed, {duplicates} duplicates, {failed} seeds failed",
        arguments.seeds
    );
    if failed > 0 {
        std::process::exit(1);
    }
}
