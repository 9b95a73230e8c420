//! What came of it: a table for people, JSON for programs.

use super::load::Load;
use super::meter::Counters;
use super::phase::PhaseResult;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)];

/// Microseconds.
fn latency(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let us = |at: f64| histogram.value_at_percentile(at) as f64 / 1e3;
    let pairs = PERCENTILES.iter().map(|(name, at)| ((*name).to_owned(), json!(us(*at))));
    Value::Object(pairs.collect::<Map<_, _>>())
}

pub(super) struct Verdict {
    pub(super) verified: bool,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) duplicates_unflagged: u64,
    pub(super) out_of_order: u64,
    pub(super) complete: bool,
}

impl Verdict {
    pub(super) fn of(load: &Load, lost: u64, results: &[PhaseResult]) -> Self {
        let sum = |get: fn(&Counters) -> u64| {
            results.iter().map(|result| get(&result.counters)).sum::<u64>()
        };
        let verified = load.is_stamped();
        Self {
            verified,
            // Without a stamp it is not known what came, only how much: `complete` looks at that.
            lost: if verified { lost } else { 0 },
            duplicates: sum(|counters| Counters::get(&counters.duplicates)),
            duplicates_unflagged: sum(|counters| Counters::get(&counters.duplicates_unflagged)),
            out_of_order: sum(|counters| Counters::get(&counters.out_of_order)),
            complete: results.iter().all(|result| result.complete),
        }
    }

    /// Duplicates are allowed where connections were lost: that is at-least-once.
    pub(super) fn is_good(&self, reconnects: u64) -> bool {
        let once = self.duplicates == 0 || reconnects > 0;
        self.complete && self.lost == 0 && self.out_of_order == 0 && once
    }
}

pub(super) fn reconnects(results: &[PhaseResult]) -> u64 {
    results.iter().map(|result| Counters::get(&result.counters.reconnects)).sum()
}

fn phase_json(result: &PhaseResult) -> Value {
    let counters = &result.counters;
    let get = Counters::get;
    let per_second = |count: u64| count as f64 / result.seconds;
    let messages = result.messages().max(1) as f64;
    let us_per_message = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / messages;
    let servers: Vec<Value> = result
        .servers
        .iter()
        .map(|server| {
            json!({
                "pid": server.pid,
                "cpu_us_per_message": us_per_message(server.cpu),
                "resident_bytes_peak": server.peak.resident,
                "anonymous_bytes_peak": server.peak.anonymous,
            })
        })
        .collect();
    let server_cpu = result.servers.iter().map(|server| server.cpu).reduce(|a, b| a + b);
    json!({
        "phase": result.kind.name(),
        "complete": result.complete,
        "seconds": result.seconds,
        "published": get(&counters.published),
        "sent_again": get(&counters.sent_again),
        "due_not_sent": result.not_sent,
        "confirmed": get(&counters.confirmed),
        "nacked": get(&counters.nacked),
        "received": get(&counters.received),
        "messages_per_second": per_second(result.messages()),
        "published_per_second": per_second(get(&counters.published)),
        "confirmed_per_second": per_second(get(&counters.confirmed)),
        "received_per_second": per_second(get(&counters.received)),
        "first_tenth_per_second": result.tenths.map(|tenths| tenths.0),
        "last_tenth_per_second": result.tenths.map(|tenths| tenths.1),
        "confirm_us": latency(&result.latencies.confirm),
        "end_to_end_us": latency(&result.latencies.end_to_end),
        "confirm_gap_ms_max": get(&counters.confirm_gap_ns) as f64 / 1e6,
        "reconnects": get(&counters.reconnects),
        "of_other_runs": get(&counters.foreign),
        "server_cpu_us_per_message": server_cpu.map(us_per_message),
        "servers": servers,
        "client_cpu_us_per_message": us_per_message(result.client_cpu),
    })
}

pub(super) fn json_report(load: &Load, results: &[PhaseResult], verdict: &Verdict) -> Value {
    json!({
        "run": load.run,
        "servers": load.servers.iter().map(|server| server.place.clone()).collect::<Vec<_>>(),
        "protocol": format!("{:?}", load.servers[0].protocol).to_lowercase(),
        "tls": load.servers.iter().any(|server| server.secure.is_some()),
        "producers": load.producers,
        "consumers": load.consumers,
        "queues": load.queues,
        "fanout": load.fanout,
        "size_bytes": load.size,
        "persistent": load.persistent,
        "window": load.window,
        "ack": format!("{:?}", load.ack).to_lowercase(),
        "ack_every": load.ack_every,
        "prefetch": load.prefetch,
        "rate_per_second": load.rate,
        "phases": results.iter().map(phase_json).collect::<Vec<_>>(),
        "verification": {
            "verified": verdict.verified,
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "duplicates_not_flagged_redelivered": verdict.duplicates_unflagged,
            "out_of_order": verdict.out_of_order,
            "good": verdict.is_good(reconnects(results)),
        },
    })
}

/// The same figures, one a line.
pub(super) fn table(report: &Value) -> String {
    let mut lines = Vec::new();
    let number = |value: &Value| match value.as_f64() {
        None => "–".to_owned(),
        Some(number) if number.fract() == 0.0 || number >= 1_000.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.2}"),
    };
    let phases = report["phases"].as_array().map_or(&[][..], |phases| phases);
    for phase in phases {
        lines.push(format!("{}:", phase["phase"].as_str().unwrap_or_default()));
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<34} {value}"));
        if phase["complete"] == Value::Bool(false) {
            row("NOT COMPLETE", "nothing more came for as long as --patience".to_owned());
        }
        for (name, key) in [
            ("seconds", "seconds"),
            ("messages/s", "messages_per_second"),
            ("messages/s, first tenth", "first_tenth_per_second"),
            ("messages/s, last tenth", "last_tenth_per_second"),
            ("published", "published"),
            ("… of them sent again", "sent_again"),
            ("due, but not sent", "due_not_sent"),
            ("confirmed", "confirmed"),
            ("nacked", "nacked"),
            ("received", "received"),
            ("received, of other runs", "of_other_runs"),
            ("longest gap between confirms, ms", "confirm_gap_ms_max"),
            ("reconnects", "reconnects"),
            ("CPU of the servers, µs/message", "server_cpu_us_per_message"),
            ("CPU of this tool, µs/message", "client_cpu_us_per_message"),
        ] {
            if !phase[key].is_null() {
                row(name, number(&phase[key]));
            }
        }
        for (name, key) in
            [("confirm latency, µs", "confirm_us"), ("end-to-end latency, µs", "end_to_end_us")]
        {
            if phase[key].is_object() {
                let parts =
                    PERCENTILES.iter().map(|(at, _)| format!("{at} {}", number(&phase[key][at])));
                row(name, parts.collect::<Vec<_>>().join("  "));
            }
        }
        for server in phase["servers"].as_array().map_or(&[][..], |servers| servers) {
            let mb = |key: &str| server[key].as_f64().unwrap_or(0.0) / 1e6;
            row(
                &format!("process {}", server["pid"]),
                format!(
                    "{} µs/message, resident {:.0} MB at most ({:.0} MB without file pages)",
                    number(&server["cpu_us_per_message"]),
                    mb("resident_bytes_peak"),
                    mb("anonymous_bytes_peak")
                ),
            );
        }
    }
    let verification = &report["verification"];
    lines.push(if verification["verified"] == Value::Bool(true) {
        format!(
            "verification: lost {}, duplicates {} ({} not flagged redelivered), out of order {}",
            verification["lost"],
            verification["duplicates"],
            verification["duplicates_not_flagged_redelivered"],
            verification["out_of_order"]
        )
    } else {
        "verification: none, the bodies are too short".to_owned()
    });
    lines.join("\n")
}
