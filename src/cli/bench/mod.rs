//! `understudy bench`: load for any AMQP 0-9-1, STOMP or native broker, ours and others; cheap in
//! CPU next to what it measures. Threads of its own, one loop each ([`worker`]), over sans-io
//! protocols ([`wire`]); nothing is allocated for a message.

mod address;
mod amqp;
mod arguments;
mod connection;
mod consumer;
mod load;
mod meter;
mod native;
mod phase;
mod process;
mod producer;
mod progress;
mod report;
mod seen;
mod stomp;
mod stream;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

pub(super) use arguments::BenchArguments;

use super::complain;
use super::exit::EXIT_USAGE;
use anyhow::Context;
use arguments::Plan;
use phase::{PhaseResult, Run};
use report::Verdict;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use wire::Purpose;

/// Success: everything that was confirmed came, in order, and once unless connections were lost.
///
/// # Errors
/// A broker refused or could not be reached.
pub(super) fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let plan = match check(arguments) {
        Ok(plan) => plan,
        Err(error) => {
            complain(&format!("{error:#}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let load = Arc::new(plan.load.clone());
    connection::run_errand(&load, &Purpose::Prepare).context("preparing the queues")?;
    let (results, lost) = run_phases(&plan, &load, arguments)?;
    if plan.removes {
        connection::run_errand(&load, &Purpose::Remove).context("removing the queues")?;
    }
    let verdict = Verdict::of(&load, lost, &results);
    let report = report::json_report(&load, &results, &verdict);
    let shown = if arguments.json { format!("{report:#}") } else { report::table(&report) };
    // A reader that has seen enough, such as `head`, is no failure; the verdict counts.
    let _ = writeln!(std::io::stdout(), "{shown}");
    let good = verdict.is_good(report::reconnects(&results));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// # Errors
/// The arguments contradict each other.
fn check(arguments: &BenchArguments) -> anyhow::Result<Plan> {
    for &pid in &arguments.server_pids {
        process::cpu(pid).with_context(|| format!("--server-pid {pid}"))?;
    }
    arguments.plan()
}

fn run_phases(
    plan: &Plan,
    load: &Arc<load::Load>,
    arguments: &BenchArguments,
) -> anyhow::Result<(Vec<PhaseResult>, u64)> {
    let new_run = |load: &Arc<load::Load>| Run {
        ledger: Arc::new(seen::Ledger::new(load.producers, load.queues, load.fanout)),
        load: Arc::clone(load),
        epoch: Instant::now(),
        threads: plan.threads,
        server_pids: arguments.server_pids.clone(),
        shows_progress: !arguments.quiet,
        next_sequences: vec![Vec::new(); load.producers],
        backlog: 0,
        published: false,
    };
    if plan.warm_up > 0 {
        let warm = load::Load {
            messages: plan.warm_up,
            rate: None,
            duration: None,
            run: load.run.wrapping_add(1),
            ..(**load).clone()
        };
        new_run(&Arc::new(warm)).phase(load::PhaseKind::Flow).context("warm-up")?;
    }
    let mut run = new_run(load);
    let mut results = Vec::new();
    for &kind in &plan.phases {
        results.push(run.phase(kind).context(kind.name())?);
    }
    let lost = match plan.ends_drained() {
        false => 0,
        true if run.published => run.ledger.lost(),
        // Which ones another run filled in is not known, only how many.
        true => run.backlog,
    };
    Ok((results, lost))
}
