//! Metrics for Prometheus: of the node as it published them last, so that a scrape asks it nothing;
//! of queues, page by page, for who may list them. Names as RabbitMQ's where the meaning is the
//! same (rabbitmq-prometheus, metrics.md).

mod exposition;
mod node;
mod traffic;

use super::Admin;
use super::failure::Failure;
use super::principal::{Level, Principal};
use crate::handle::{Inspect, Overview};
use crate::process::ProcessUsage;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use exposition::{CONTENT_TYPE, Exposition, Kind};
use std::sync::Arc;
use understudy_broker::QueueRow;

const PREFIX: &str = "understudy";
const PREFIX_BYTES_MAX: usize = 32;

/// Parameters may be repeated.
type Parameters = Query<Vec<(String, String)>>;

/// Listings of what others declared are for users.
pub(super) fn of_objects() -> Router<Admin> {
    Router::new()
        .route("/metrics/per-object", get(per_object))
        .route("/metrics/detailed", get(detailed))
}

/// Aggregated.
pub(super) async fn of_node(
    State(admin): State<Admin>,
    Query(parameters): Parameters,
) -> Result<Response, Failure> {
    let mut page = Exposition::new(prefix(&parameters)?);
    let overview = whole_node(&admin, &mut page).await;
    if is_known(&overview) {
        page.gauge("queue_messages_ready", READY, overview.messages_ready);
        page.gauge("queue_messages_unacked", UNACKED, overview.messages_unacked);
        page.gauge("queue_messages", MESSAGES, overview.messages);
    }
    Ok(answer(page))
}

/// The same, but messages and consumers for each queue.
async fn per_object(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Query(parameters): Parameters,
) -> Result<Response, Failure> {
    who.need(Level::Monitoring)?;
    let mut page = Exposition::new(prefix(&parameters)?);
    whole_node(&admin, &mut page).await;
    let rows = admin.asker().list(None, None, Inspect::Queues).await?;
    queue_messages(&rows, &mut page);
    queue_consumers(&rows, &mut page);
    Ok(answer(page))
}

/// The families that are asked for, of the vhosts that are asked for, or of all. Families that are
/// not known, or of which nothing is counted here, are ignored.
async fn detailed(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Query(parameters): Parameters,
) -> Result<Response, Failure> {
    who.need(Level::Monitoring)?;
    let prefix = format!("{}_detailed", prefix(&parameters)?);
    let mut page = Exposition::new(&prefix);
    let wants = |family: &str| all(&parameters, "family").any(|wanted| wanted == family);
    if wants("connection_churn_metrics") {
        traffic::churn(&admin.node.overview.borrow().traffic, &mut page);
    }
    let (messages, consumers) = (wants("queue_coarse_metrics"), wants("queue_consumer_count"));
    if messages || consumers {
        let rows = queues_of(&admin, &parameters).await?;
        if messages {
            queue_messages(&rows, &mut page);
        }
        if consumers {
            queue_consumers(&rows, &mut page);
        }
    }
    Ok(answer(page))
}

async fn queues_of(
    admin: &Admin,
    parameters: &[(String, String)],
) -> Result<Vec<QueueRow>, Failure> {
    let mut vhosts: Vec<&str> = all(parameters, "vhost").collect();
    vhosts.sort_unstable();
    vhosts.dedup();
    if vhosts.is_empty() {
        return admin.asker().list(None, None, Inspect::Queues).await;
    }
    let mut rows = Vec::new();
    for vhost in vhosts {
        rows.extend(admin.asker().list(Some(vhost), None, Inspect::Queues).await?);
    }
    Ok(rows)
}

/// Not while another process owns the data directory: its numbers are not this one's.
fn is_known(overview: &Overview) -> bool {
    !overview.replication.node_id.is_empty()
}

/// Returns what it was made from: a page is of one moment.
async fn whole_node(admin: &Admin, page: &mut Exposition) -> Arc<Overview> {
    // Files that are open are listed one by one.
    let usage = tokio::task::spawn_blocking(ProcessUsage::read).await.unwrap_or_default();
    let overview = admin.node.overview.borrow().clone();
    node::identity(&overview, page);
    node::process(&usage, admin.clock.uptime_ms(), page);
    node::role(&overview, admin.node.is_ready(), page);
    if !is_known(&overview) {
        return overview;
    }
    node::counts(&overview, page);
    node::pair(&overview, admin.clock.now_ms(), page);
    node::store(&overview, &admin.node.measured, page);
    traffic::churn(&overview.traffic, page);
    traffic::messages(&overview.traffic, page);
    overview
}

const READY: &str = "Messages that are ready to be handed out.";
const UNACKED: &str = "Messages that are handed out and not settled.";
const MESSAGES: &str = "Messages, ready and not settled.";

fn queue_messages(rows: &[QueueRow], page: &mut Exposition) {
    for_each_queue(rows, page, "queue_messages_ready", READY, |row| row.ready);
    for_each_queue(rows, page, "queue_messages_unacked", UNACKED, |row| row.unacked);
    for_each_queue(rows, page, "queue_messages", MESSAGES, |row| row.ready + row.unacked);
}

fn queue_consumers(rows: &[QueueRow], page: &mut Exposition) {
    let help = "Consumers of the queue.";
    for_each_queue(rows, page, "queue_consumers", help, |row| row.consumers);
}

fn for_each_queue(
    rows: &[QueueRow],
    page: &mut Exposition,
    name: &str,
    help: &str,
    value: impl Fn(&QueueRow) -> u64,
) {
    let mut family = page.family(Kind::Gauge, name, help);
    for row in rows {
        let labels = [("vhost", &*row.spec.vhost), ("queue", &*row.spec.name)];
        family.sample(&labels, value(row));
    }
}

fn all<'a>(parameters: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    let found = parameters.iter().filter(move |(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// `?prefix=`: what names begin with, e.g. `rabbitmq` for dashboards that know no other.
fn prefix(parameters: &[(String, String)]) -> Result<&str, Failure> {
    let prefix = all(parameters, "prefix").last().unwrap_or(PREFIX);
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let good = prefix.len() <= PREFIX_BYTES_MAX
        && prefix.bytes().next().is_some_and(letter)
        && prefix.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
    if !good {
        let reason = format!(
            "prefix: at most {PREFIX_BYTES_MAX} letters, digits and underscores, no digit first"
        );
        return Err(Failure::bad(reason));
    }
    Ok(prefix)
}

fn answer(page: Exposition) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.into_text()).into_response()
}
