//! Definitions: everything but messages as one JSON object in RabbitMQ's form, both ways.

use super::Admin;
use super::body::Body;
use super::failure::Failure;
use super::listings::{accounts, vhost_row};
use super::principal::{Level, Principal};
use super::rows;
use crate::handle::Inspect;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use understudy_model::{Bind, Change, DeclareExchange, DeclareQueue, Request, Text, Token};

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/api/definitions", get(export).post(import).put(import))
}

/// What lives with a connection or comes by itself is left out.
async fn export(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
) -> Result<Json<Value>, Failure> {
    who.need(Level::Administrator)?;
    let asker = admin.asker();
    let accounts = accounts(&admin).await?;
    let queues = asker.list(None, None, Inspect::Queues).await?;
    let exchanges = asker.list(None, None, Inspect::Exchanges).await?;
    let bindings = asker.list(None, None, Inspect::Bindings).await?;
    let queues: Vec<Value> = queues
        .iter()
        .filter(|row| !row.spec.exclusive)
        .map(|row| keep(rows::queue(row, ""), &QUEUE_FIELDS))
        .collect();
    let declared = exchanges.iter().filter(|row| !is_predeclared(&row.spec.name));
    let exchanges: Vec<Value> =
        declared.map(|row| keep(rows::exchange(row), &EXCHANGE_FIELDS)).collect();
    let bindings: Vec<Value> =
        bindings.iter().map(|row| keep(rows::binding(row), &BINDING_FIELDS)).collect();
    Ok(Json(json!({
        "rabbit_version": "3.10.8",
        "product_name": "Understudy",
        "product_version": env!("CARGO_PKG_VERSION"),
        "users": accounts.users.iter().map(rows::user).collect::<Vec<_>>(),
        "vhosts": accounts.vhosts.iter().map(|name| vhost_row(name)).collect::<Vec<_>>(),
        "permissions": accounts.permissions.iter().map(rows::permission).collect::<Vec<_>>(),
        "topic_permissions": [],
        "parameters": [],
        "global_parameters": [],
        "policies": accounts.policies.iter().map(rows::policy).collect::<Vec<_>>(),
        "queues": queues,
        "exchanges": exchanges,
        "bindings": bindings,
    })))
}

const QUEUE_FIELDS: [&str; 5] = ["name", "vhost", "durable", "auto_delete", "arguments"];
const EXCHANGE_FIELDS: [&str; 7] =
    ["name", "vhost", "type", "durable", "auto_delete", "internal", "arguments"];
const BINDING_FIELDS: [&str; 6] =
    ["source", "vhost", "destination", "destination_type", "routing_key", "arguments"];

fn keep(row: Value, fields: &[&str]) -> Value {
    let Value::Object(mut row) = row else { return row };
    row.retain(|name, _| fields.contains(&name.as_str()));
    Value::Object(row)
}

fn is_predeclared(exchange: &str) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

/// Entries of one section that are changed at once: their commits are one. Later sections need what
/// earlier ones make.
const IMPORTED_AT_ONCE: usize = 256;

/// Adds to what is there and overwrites users, permissions and policies of the same name. The first
/// entry that is refused ends it, and is named. 204, or 200 with `left_out`: what the file has and
/// a broker like this one has not.
async fn import(
    State(admin): State<Admin>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Response, Failure> {
    who.need(Level::Administrator)?;
    let definitions = Body::parse(&body)?;
    let sections =
        ["vhosts", "users", "permissions", "policies", "exchanges", "queues", "bindings"];
    for section in sections {
        let entries = match definitions.0.get(section) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(Failure::bad(format!("{section}: expected a list"))),
        };
        for (number, chunk) in entries.chunks(IMPORTED_AT_ONCE).enumerate() {
            import_chunk(&admin, section, number * IMPORTED_AT_ONCE, chunk).await?;
        }
    }
    let left_out = left_out(&definitions.0);
    if left_out.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(json!({ "left_out": left_out })).into_response())
}

/// All of them, and then the first that was refused.
async fn import_chunk(
    admin: &Admin,
    section: &'static str,
    first_index: usize,
    entries: &[Value],
) -> Result<(), Failure> {
    let changes: Vec<_> = entries
        .iter()
        .map(|entry| {
            let (admin, entry) = (admin.clone(), entry.clone());
            tokio::spawn(async move { import_one(&admin, section, &entry).await })
        })
        .collect();
    let mut outcome = Ok(());
    for (offset, change) in changes.into_iter().enumerate() {
        let done = change.await.unwrap_or_else(|_| Err(Failure::not_serving()));
        if let (Ok(()), Err(failure)) = (&outcome, done) {
            let reason = format!("{section}[{}]: {}", first_index + offset, failure.reason);
            outcome = Err(Failure { reason, ..failure });
        }
    }
    outcome
}

async fn import_one(admin: &Admin, section: &str, entry: &Value) -> Result<(), Failure> {
    let Value::Object(entry) = entry else { return Err(Failure::bad("expected an object")) };
    let body = Body(entry.clone());
    let text = |key: &str| {
        let missing = || Failure::bad(format!("{key} is missing"));
        body.text(key)?.map(str::to_owned).ok_or_else(missing)
    };
    let asker = admin.asker();
    match section {
        "vhosts" => asker.change(Change::PutVhost { name: Text::from(text("name")?) }).await,
        "users" => {
            let user = body.user(&text("name")?, &admin.auth).await?;
            asker.change(Change::PutUser(user)).await
        }
        "permissions" => {
            let permission = body.permission(&text("user")?, &text("vhost")?)?;
            asker.change(Change::PutPermission(permission)).await
        }
        "policies" => {
            let (vhost, name) = (text("vhost")?, text("name")?);
            let Some(rest) = without_mirroring(entry) else { return Ok(()) };
            asker.change(Change::PutPolicy(Body(rest).policy(&vhost, &name)?)).await
        }
        _ => import_topology(admin, section, &body, &text("vhost")?).await,
    }
}

/// A policy without RabbitMQ's settings of mirrored queues, which mean nothing where a pair
/// replicates every queue; none if nothing else is in it.
fn without_mirroring(policy: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut policy = policy.clone();
    if let Some(Value::Object(definition)) = policy.get_mut("definition") {
        let before = definition.len();
        definition.retain(|key, _| !key.starts_with("ha-"));
        if definition.is_empty() && before > 0 {
            return None;
        }
    }
    Some(policy)
}

/// A line for each part of the file that is not taken over.
fn left_out(definitions: &Map<String, Value>) -> Vec<String> {
    let entries = |section: &str| match definitions.get(section) {
        Some(Value::Array(entries)) => entries.clone(),
        _ => Vec::new(),
    };
    let mut lines = Vec::new();
    for section in ["topic_permissions", "parameters", "global_parameters"] {
        // RabbitMQ makes this one by itself.
        let count =
            entries(section).iter().filter(|entry| entry["name"] != "internal_cluster_id").count();
        if count > 0 {
            lines.push(format!("{section}: {count}"));
        }
    }
    let limited = entries("users");
    let limited =
        limited.iter().filter(|user| user["limits"].as_object().is_some_and(|l| !l.is_empty()));
    lines.extend(limited.map(|user| format!("limits of user {}", user["name"])));
    let policies = entries("policies");
    let mirrored = policies.iter().filter(|policy| {
        let definition = policy["definition"].as_object();
        definition.is_some_and(|keys| keys.keys().any(|key| key.starts_with("ha-")))
    });
    lines.extend(mirrored.map(|policy| {
        format!(
            "ha-* of policy {} in vhost {}: a pair replicates every queue",
            policy["name"], policy["vhost"]
        )
    }));
    lines
}

async fn import_topology(
    admin: &Admin,
    section: &str,
    body: &Body,
    vhost: &str,
) -> Result<(), Failure> {
    let text = |key: &str| -> Result<String, Failure> {
        Ok(body.text(key)?.unwrap_or_default().to_owned())
    };
    let none = Token(0);
    let request: Box<dyn FnOnce(Token) -> Request + Send> = match section {
        "exchanges" => {
            let declare = body.exchange(none, &text("name")?)?;
            Box::new(move |token| Request::DeclareExchange(DeclareExchange { token, ..declare }))
        }
        "queues" => {
            // A queue that a broker named for its client is exported, too.
            let declare =
                DeclareQueue { named_by_frontend: true, ..body.queue(none, &text("name")?)? };
            Box::new(move |token| Request::DeclareQueue(DeclareQueue { token, ..declare }))
        }
        _ => {
            let to_exchange = text("destination_type")? == "exchange";
            let (source, destination) = (text("source")?, text("destination")?);
            let bind = body.bind(none, &source, &destination, to_exchange)?;
            Box::new(move |token| Request::Bind(Bind { token, ..bind }))
        }
    };
    admin.asker().ask(None, vhost, request).await.map(|_| ())
}
