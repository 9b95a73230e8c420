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
use serde_json::{Value, json};
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

/// Adds to what is there and overwrites users, permissions and policies of the same name. One
/// change after another: the first that is refused ends it, and is named.
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
        for (index, entry) in entries.iter().enumerate() {
            import_one(&admin, section, entry).await.map_err(|failure| {
                let reason = format!("{section}[{index}]: {}", failure.reason);
                Failure { reason, ..failure }
            })?;
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
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
            let policy = body.policy(&text("vhost")?, &text("name")?)?;
            asker.change(Change::PutPolicy(policy)).await
        }
        _ => import_topology(admin, section, &body, &text("vhost")?).await,
    }
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
            let declare = body.queue(none, &text("name")?)?;
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
