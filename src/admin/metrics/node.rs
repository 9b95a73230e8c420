//! The node itself: who it is, its pair, its store, its process.

use super::exposition::{Exposition, Kind};
use super::traffic::clients;
use crate::handle::{Measured, Overview};
use crate::process::ProcessUsage;

pub(super) fn identity(overview: &Overview, page: &mut Exposition) {
    let status = &overview.replication;
    // Dashboards group by it. Who stands alone is a cluster of one.
    let cluster = match status.cluster_id.as_str() {
        "" => &overview.name,
        cluster => cluster,
    };
    let version = env!("CARGO_PKG_VERSION");
    let labels = [("product_name", "Understudy"), ("product_version", version)];
    page.family(Kind::Gauge, "build_info", "Program and version.").sample(&labels, 1);
    let [node, of, permanent] = ["node", "cluster", "cluster_permanent_id"].map(|l| page.label(l));
    let labels = [(&*node, &*overview.name), (&*of, cluster), (&*permanent, cluster)];
    page.family(Kind::Gauge, "identity_info", "Name of the node, id of its pair.")
        .sample(&labels, 1);
}

pub(super) fn process(usage: &ProcessUsage, uptime_ms: u64, page: &mut Exposition) {
    let help = "Time since the start.";
    page.gauge("uptime_seconds", help, uptime_ms as f64 / 1_000.0);
    if let Some(bytes) = usage.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Memory that the process has.", bytes);
    }
    if let Some(open) = usage.open_fds {
        page.gauge("process_open_fds", "Open files and sockets.", open);
    }
    if let Some(max) = usage.max_fds {
        page.gauge("process_max_fds", "Files and sockets that may be open.", max);
    }
}

pub(super) fn role(overview: &Overview, serving: bool, page: &mut Exposition) {
    page.gauge("serving", "Clients are let in: 1.", u8::from(serving));
    let status = &overview.replication;
    let mut family = page.family(Kind::Gauge, "replication_role", "What the node is now: 1.");
    for role in ["master", "slave"] {
        family.sample(&[("role", role)], u8::from(status.role == role));
    }
    let help = "The state, as in /api/replication: 1. The others are not told.";
    page.family(Kind::Gauge, "replication_state", help).sample(&[("state", status.state)], 1);
}

pub(super) fn counts(overview: &Overview, page: &mut Exposition) {
    let traffic = &overview.traffic;
    let connections = clients(traffic, |counted| counted.opened - counted.closed);
    page.gauge("connections", "Clients that are logged in.", connections);
    page.gauge("consumers", "Consumers of all queues.", overview.consumers);
    page.gauge("queues", "Queues.", overview.queues);
    let help = "The store or the slave's is low on disk, publishers wait: 1.";
    page.gauge("alarms_free_disk_space_watermark", help, u8::from(overview.disk_alarm));
}

pub(super) fn pair(overview: &Overview, now_ms: u64, page: &mut Exposition) {
    let status = &overview.replication;
    page.gauge("replication_epoch", "Number of the mastership that the node knows.", status.epoch);
    let help = "How often the node has become the master since its start.";
    page.counter("replication_masterships_total", help, overview.masterships);
    if status.arbiter != "none" {
        let help = "The arbiter answers: 1.";
        page.gauge("replication_arbiter_answers", help, u8::from(status.arbiter == "answers"));
    }
    if status.peer_node_id.is_empty() {
        return;
    }
    let help = "The slave's copy holds everything that was answered: 1.";
    page.gauge("replication_in_sync", help, u8::from(status.in_sync));
    let help = "Whole copies that were begun since the start, taken or given.";
    page.counter("replication_copies_total", help, status.copies_begun);
    lag(overview, now_ms, page);
    page.counter(
        "replication_digests_compared_total",
        "Parts of the state that were compared with the other node's.",
        overview.digest.compared,
    );
    let differs = u8::from(overview.digest.differs_at.is_some());
    page.gauge("replication_digest_differs", "The nodes' states differ: 1.", differs);
}

/// Of the slave, as far as this node knows.
fn lag(overview: &Overview, now_ms: u64, page: &mut Exposition) {
    let status = &overview.replication;
    let is_heard_of = status.peer_durable > 0;
    if is_heard_of {
        let help = "The other node's log: at the master what it has on disk, at the slave its end.";
        page.gauge("replication_peer_lsn", help, status.peer_durable);
    }
    let records = overview.slave_behind.map(|behind| behind.records);
    if let Some(records) = records.or(is_heard_of.then_some(status.lag)) {
        page.gauge("replication_lag_records", "Commands that the slave lacks.", records);
    }
    let Some(behind) = &overview.slave_behind else { return };
    page.gauge("replication_lag_bytes", "Log that the slave lacks, estimated.", behind.bytes);
    let help = "Age of the oldest command that the slave lacks, within 0.1 s.";
    let lasts_ms = behind.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
    page.gauge("replication_lag_seconds", help, lasts_ms as f64 / 1_000.0);
}

pub(super) fn store(overview: &Overview, measured: &Measured, page: &mut Exposition) {
    let help = "Last command that was given to the disk.";
    page.gauge("log_appended_lsn", help, overview.appended);
    page.gauge("log_durable_lsn", "Last command on disk.", overview.durable);
    let committed = overview.replication.commit;
    page.gauge("log_committed_lsn", "Last command that may be answered.", committed);
    page.gauge("log_applied_lsn", "Last command that the state holds.", overview.applied);
    let help = "Log that was given to the disk since the start.";
    page.counter("log_appended_bytes_total", help, overview.appended_bytes);
    commits(measured, page);
    if let Some((map_bytes, disk_bytes)) = measured.left.bytes() {
        page.gauge("disk_space_available_bytes", "Free bytes of the file system.", disk_bytes);
        let help = "Free bytes of the log's map (storage.map_bytes_max).";
        page.gauge("store_map_available_bytes", help, map_bytes);
        let help = "With less, publishers wait (storage.free_bytes_min).";
        let limit = measured.left.free_bytes_min;
        page.gauge("disk_space_available_limit_bytes", help, limit);
    }
    let help = "Places on disk that are damaged and not repaired yet.";
    page.gauge("store_damaged_places", help, overview.repair.damaged);
    page.counter("store_repairs_total", "Damage that was repaired.", overview.repair.repaired);
    let scrub = measured.scrubbed.json();
    page.counter("scrub_passes_total", "Scrubs of the whole log that ended.", scrub.passes);
    page.counter("scrub_damage_found_total", "Damage that a scrub has found.", scrub.damaged);
}

fn commits(measured: &Measured, page: &mut Exposition) {
    let times = &measured.commits;
    let help = "Time that commits of the log took, with their sync to disk. One a batch.";
    let mut family = page.family(Kind::Histogram, "log_commit_seconds", help);
    let mut count = 0;
    for (bound_s, below) in times.cumulated() {
        family.part("_bucket", &[("le", &bound_s.to_string())], below);
        count = below;
    }
    count += times.longest();
    family.part("_bucket", &[("le", "+Inf")], count);
    family.part("_sum", &[], times.sum_s());
    family.part("_count", &[], count);
}
