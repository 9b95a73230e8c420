//! GET: what there is. Works on a slave too, for all that is replicated.

use super::Admin;
use super::failure::Failure;
use super::principal::{Level, Principal};
use super::rows;
use super::shape::Shape;
use crate::handle::{Connections, Inspect};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use understudy_broker::{Accounts, BindingRow};
use understudy_model::Text;

type Answer = Result<Json<Value>, Failure>;
type Asked = (State<Admin>, Extension<Principal>, Query<Shape>);

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/overview", get(overview))
        .route("/api/whoami", get(whoami))
        .route("/api/version", get(version))
        .route("/api/cluster-name", get(cluster_name))
        .route("/api/nodes", get(nodes))
        .route("/api/nodes/{name}", get(node))
        .route("/api/extensions", get(nothing))
        .route("/api/parameters", get(nothing))
        .route("/api/queues", get(|asked: Asked| queues(asked, None)))
        .route("/api/exchanges", get(|asked: Asked| exchanges(asked, None)))
        .route("/api/bindings", get(|asked: Asked| bindings(asked, None)))
        .route("/api/connections", get(connections))
        .route("/api/consumers", get(|asked: Asked| consumers(asked, None)))
        .route("/api/users", get(users))
        .route("/api/vhosts", get(vhosts))
        .route("/api/permissions", get(permissions))
        .route("/api/policies", get(|asked: Asked| policies(asked, None)))
        .route("/api/queues/{vhost}", get(|asked: Asked, Path(v)| queues(asked, Some(v))))
        .route("/api/exchanges/{vhost}", get(|asked: Asked, Path(v)| exchanges(asked, Some(v))))
        .route("/api/bindings/{vhost}", get(|asked: Asked, Path(v)| bindings(asked, Some(v))))
        .route("/api/consumers/{vhost}", get(|asked: Asked, Path(v)| consumers(asked, Some(v))))
        .route("/api/policies/{vhost}", get(|asked: Asked, Path(v)| policies(asked, Some(v))))
        .route("/api/queues/{vhost}/{queue}/bindings", get(queue_bindings))
        .route("/api/exchanges/{vhost}/{exchange}/bindings/{end}", get(exchange_bindings))
        .route("/api/vhosts/{vhost}/permissions", get(vhost_permissions))
        .route("/api/users/{user}/permissions", get(user_permissions))
}

pub(super) async fn accounts(admin: &Admin) -> Result<Accounts, Failure> {
    admin.asker().inspect(Inspect::Accounts).await
}

/// Refuses a vhost that is not there, or that the caller may not look into.
async fn enter(admin: &Admin, who: &Principal, vhost: Option<&str>) -> Result<Accounts, Failure> {
    who.need(Level::Management)?;
    let accounts = accounts(admin).await?;
    if let Some(vhost) = vhost {
        if !accounts.vhosts.iter().any(|known| known == vhost) {
            return Err(Failure::missing());
        }
        if !who.sees(vhost, &accounts) {
            return Err(Failure::unauthorised("User not authorised to access virtual host"));
        }
    }
    Ok(accounts)
}

async fn queues(
    (State(admin), Extension(who), Query(shape)): Asked,
    vhost: Option<String>,
) -> Answer {
    let accounts = enter(&admin, &who, vhost.as_deref()).await?;
    let all = admin.asker().list(vhost.as_deref(), None, Inspect::Queues).await?;
    let node = admin.node_name();
    let shown = all.iter().filter(|row| who.sees(&row.spec.vhost, &accounts));
    shape.apply(shown.map(|row| rows::queue(row, &node)).collect())
}

/// One queue; not there: 404.
pub(super) async fn queue(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Path((vhost, name)): Path<(String, String)>,
) -> Answer {
    enter(&admin, &who, Some(&vhost)).await?;
    let found = admin.asker().list(Some(&vhost), Some(&name), Inspect::Queues).await?;
    let row = found.first().ok_or_else(Failure::missing)?;
    Ok(Json(rows::queue(row, &admin.node_name())))
}

async fn exchanges(
    (State(admin), Extension(who), Query(shape)): Asked,
    vhost: Option<String>,
) -> Answer {
    let accounts = enter(&admin, &who, vhost.as_deref()).await?;
    let all = admin.asker().list(vhost.as_deref(), None, Inspect::Exchanges).await?;
    let shown = all.iter().filter(|row| who.sees(&row.spec.vhost, &accounts));
    shape.apply(shown.map(rows::exchange).collect())
}

pub(super) async fn exchange(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Path((vhost, name)): Path<(String, String)>,
) -> Answer {
    enter(&admin, &who, Some(&vhost)).await?;
    let found = admin.asker().list(Some(&vhost), Some(&name), Inspect::Exchanges).await?;
    Ok(Json(rows::exchange(found.first().ok_or_else(Failure::missing)?)))
}

/// As RabbitMQ: each queue is bound to the default exchange by its name.
async fn bindings(
    (State(admin), Extension(who), Query(shape)): Asked,
    vhost: Option<String>,
) -> Answer {
    let accounts = enter(&admin, &who, vhost.as_deref()).await?;
    let asker = admin.asker();
    let queues = asker.list(vhost.as_deref(), None, Inspect::Queues).await?;
    let all = asker.list(vhost.as_deref(), None, Inspect::Bindings).await?;
    let named = queues.iter().map(|row| default_binding(&row.spec.vhost, &row.spec.name));
    let shown = named.chain(all.iter().map(rows::binding));
    let seen = shown.filter(|row| who.sees(row["vhost"].as_str().unwrap_or_default(), &accounts));
    shape.apply(seen.collect())
}

fn default_binding(vhost: &Text, queue: &Text) -> Value {
    rows::binding(&BindingRow {
        vhost: vhost.clone(),
        source: Text::new(),
        destination: queue.clone(),
        to_exchange: false,
        key: queue.clone(),
        arguments: Bytes::new(),
    })
}

async fn queue_bindings(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Path((vhost, queue)): Path<(String, String)>,
) -> Answer {
    enter(&admin, &who, Some(&vhost)).await?;
    let asker = admin.asker();
    let found = asker.list(Some(&vhost), Some(&queue), Inspect::Queues).await?;
    found.first().ok_or_else(Failure::missing)?;
    let all = asker.list(Some(&vhost), None, Inspect::Bindings).await?;
    let own = all.iter().filter(|row| !row.to_exchange && row.destination == queue);
    let shown = std::iter::once(default_binding(&Text::from(vhost), &Text::from(&*queue)))
        .chain(own.map(rows::binding));
    Ok(Json(shown.collect()))
}

/// Those that leave the exchange (`source`), or lead to it (`destination`). The default exchange's
/// are each queue's own.
async fn exchange_bindings(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Path((vhost, exchange, end)): Path<(String, String, String)>,
) -> Answer {
    enter(&admin, &who, Some(&vhost)).await?;
    let asker = admin.asker();
    let known = asker.list(Some(&vhost), Some(&exchange), Inspect::Exchanges).await?;
    known.first().ok_or_else(Failure::missing)?;
    let all = asker.list(Some(&vhost), None, Inspect::Bindings).await?;
    let found: fn(&BindingRow, &str) -> bool = match &*end {
        "source" => |row, exchange| row.source == exchange,
        "destination" => |row, exchange| row.to_exchange && row.destination == exchange,
        _ => return Err(Failure::missing()),
    };
    Ok(Json(all.iter().filter(|row| found(row, &exchange)).map(rows::binding).collect()))
}

/// Between one exchange and one queue or exchange.
pub(super) async fn between(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    Path((vhost, source, kind, destination)): Path<(String, String, String, String)>,
) -> Answer {
    enter(&admin, &who, Some(&vhost)).await?;
    let to_exchange = super::changes::is_exchange(&kind)?;
    let all = admin.asker().list(Some(&vhost), None, Inspect::Bindings).await?;
    let found = all.iter().filter(|row| {
        row.source == source && row.to_exchange == to_exchange && row.destination == destination
    });
    Ok(Json(found.map(rows::binding).collect()))
}

pub(super) async fn connection_rows(admin: &Admin) -> Result<Vec<(Value, String)>, Failure> {
    let node = admin.node_name();
    let Connections { rows, peers } = admin.asker().connections().await?;
    let shown = rows.iter().map(|row| {
        let peer = peers.get(&row.id).copied();
        (rows::connection(row, peer, &node), row.user.to_string())
    });
    Ok(shown.collect())
}

async fn connections((State(admin), Extension(who), Query(shape)): Asked) -> Answer {
    who.need(Level::Management)?;
    let all = connection_rows(&admin).await?;
    let own = who.user.as_deref().unwrap_or_default();
    let shown = all.into_iter().filter(|(_, user)| who.may(Level::Monitoring) || user == own);
    shape.apply(shown.map(|(row, _)| row).collect())
}

async fn consumers(
    (State(admin), Extension(who), Query(shape)): Asked,
    vhost: Option<String>,
) -> Answer {
    let accounts = enter(&admin, &who, vhost.as_deref()).await?;
    let all = admin.asker().list(vhost.as_deref(), None, Inspect::Consumers).await?;
    let shown = all.iter().filter(|row| who.sees(&row.vhost, &accounts));
    shape.apply(shown.map(rows::consumer).collect())
}

async fn users((State(admin), Extension(who), Query(shape)): Asked) -> Answer {
    who.need(Level::Administrator)?;
    shape.apply(accounts(&admin).await?.users.iter().map(rows::user).collect())
}

async fn vhosts((State(admin), Extension(who), Query(shape)): Asked) -> Answer {
    let accounts = enter(&admin, &who, None).await?;
    let shown = accounts.vhosts.iter().filter(|vhost| who.sees(vhost, &accounts));
    shape.apply(shown.map(|vhost| vhost_row(vhost)).collect())
}

pub(super) fn vhost_row(name: &str) -> Value {
    json!({ "name": name, "description": "", "tags": [], "tracing": false })
}

async fn permissions((State(admin), Extension(who), Query(shape)): Asked) -> Answer {
    who.need(Level::Administrator)?;
    shape.apply(accounts(&admin).await?.permissions.iter().map(rows::permission).collect())
}

async fn vhost_permissions(
    (State(admin), Extension(who), Query(shape)): Asked,
    Path(vhost): Path<String>,
) -> Answer {
    who.need(Level::Administrator)?;
    let accounts = enter(&admin, &who, Some(&vhost)).await?;
    let shown = accounts.permissions.iter().filter(|permission| permission.vhost == vhost);
    shape.apply(shown.map(rows::permission).collect())
}

async fn user_permissions(
    (State(admin), Extension(who), Query(shape)): Asked,
    Path(user): Path<String>,
) -> Answer {
    who.need(Level::Administrator)?;
    let accounts = accounts(&admin).await?;
    if !accounts.users.iter().any(|known| known.name == user) {
        return Err(Failure::missing());
    }
    let shown = accounts.permissions.iter().filter(|permission| permission.user == user);
    shape.apply(shown.map(rows::permission).collect())
}

async fn policies(
    (State(admin), Extension(who), Query(shape)): Asked,
    vhost: Option<String>,
) -> Answer {
    let accounts = enter(&admin, &who, vhost.as_deref()).await?;
    let shown = accounts.policies.iter().filter(|policy| {
        who.sees(&policy.vhost, &accounts) && vhost.as_ref().is_none_or(|v| policy.vhost == *v)
    });
    shape.apply(shown.map(rows::policy).collect())
}

async fn overview(State(admin): State<Admin>, Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    let overview = admin.node.overview.borrow().clone();
    let mut json = json!(admin.node.overview_json(admin.clock.uptime_ms()));
    let listeners: Vec<Value> = admin.node.listeners.borrow().iter().map(listener).collect();
    let more = json!({
        "product_name": "Understudy",
        "product_version": env!("CARGO_PKG_VERSION"),
        // Whose HTTP API this follows.
        "rabbitmq_version": "3.10.8",
        "cluster_name": overview.name,
        "node": overview.name,
        "object_totals": {
            "connections": overview.connections,
            "consumers": overview.consumers,
            "queues": overview.queues,
        },
        "queue_totals": {
            "messages": overview.messages,
            "messages_ready": overview.messages_ready,
            "messages_unacknowledged": overview.messages_unacked,
        },
        "listeners": listeners,
    });
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    Ok(Json(json))
}

fn listener((protocol, address): &(&'static str, String)) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    json!({ "protocol": protocol, "ip_address": host, "port": port.parse::<u16>().ok() })
}

async fn whoami(Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    let tags: Vec<&str> = who.tags.iter().map(|tag| &**tag).collect();
    Ok(Json(json!({ "name": who.user.as_deref().unwrap_or_default(), "tags": tags })))
}

async fn version(Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    Ok(Json(json!(env!("CARGO_PKG_VERSION"))))
}

async fn cluster_name(State(admin): State<Admin>, Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    Ok(Json(json!({ "name": admin.node_name() })))
}

async fn nodes(State(admin): State<Admin>, Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Monitoring)?;
    Ok(Json(json!([{
        "name": admin.node_name(),
        "type": "disc",
        "running": true,
        "uptime": admin.clock.uptime_ms(),
    }])))
}

async fn node(asked: (State<Admin>, Extension<Principal>), Path(name): Path<String>) -> Answer {
    let Json(nodes) = nodes(asked.0, asked.1).await?;
    match nodes.get(0) {
        Some(node) if node["name"] == name.as_str() => Ok(Json(node.clone())),
        _ => Err(Failure::missing()),
    }
}

/// Kinds of things that there are none of here.
async fn nothing(Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    Ok(Json(json!([])))
}
