//! The real process on free ports: durability, takeover, the `shutdown_on_…_failure` flags, protocols, admin.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/mod.rs"]
mod support;

mod access;
mod admin;
mod arbiter;
mod arbiter_tls;
mod bench;
mod client;
mod control;
mod disk_full;
mod disk_hang;
mod durability;
mod high_availability;
mod hostile;
mod metrics;
mod native;
mod network;
mod operator;
mod pair;
mod partition;
mod protocols;
mod repair;
mod selection;
mod shared_storage;
mod tls;
mod web_socket;
