//! PUT, POST and DELETE: each becomes a request like a client's and is answered once committed.

use super::Admin;
use super::body::Body;
use super::failure::Failure;
use super::listings::{self, accounts};
use super::principal::{Level, Principal};
use super::rows;
use crate::handle::{ClientEvent, Inspect};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use tokio::sync::oneshot;
use understudy_broker::BindingRow;
use understudy_model::{
    Bind, Change, ConnectionId, DeleteExchange, DeleteQueue, Login, LoginOutcome, PurgeQueue,
    Reply, Request, Text,
};

type Answer = Result<Response, Failure>;
type Admission = (State<Admin>, Extension<Principal>);

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/users/{user}", get(user).put(put_user).delete(delete_user))
        .route("/api/vhosts/{vhost}", get(vhost).put(put_vhost).delete(delete_vhost))
        .route(
            "/api/permissions/{vhost}/{user}",
            get(permission).put(put_permission).delete(clear_permission),
        )
        .route("/api/policies/{vhost}/{policy}", get(policy).put(put_policy).delete(clear_policy))
        .route(
            "/api/queues/{vhost}/{queue}",
            get(listings::queue).put(put_queue).delete(delete_queue),
        )
        .route("/api/queues/{vhost}/{queue}/contents", delete(purge_queue))
        .route(
            "/api/exchanges/{vhost}/{exchange}",
            get(listings::exchange).put(put_exchange).delete(delete_exchange),
        )
        .route(
            "/api/bindings/{vhost}/e/{source}/{kind}/{destination}",
            get(listings::between).post(bind),
        )
        .route("/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{key}", delete(unbind))
        .route("/api/connections/{name}", delete(close_connection).get(connection))
        .route("/api/connections/{name}/trace", put(trace_on).delete(trace_off))
        .route("/api/auth/hash_password/{password}", get(hash_password))
        .route("/api/auth/authenticate", put(authenticate).post(authenticate))
        .route("/api/vhosts/{vhost}/connections", delete(close_vhost_connections))
        .route("/api/ping", post(ping).get(ping))
}

fn changed(existed: bool) -> Response {
    if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED }.into_response()
}

fn gone() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

async fn ping(Extension(who): Extension<Principal>) -> Answer {
    who.need(Level::Management)?;
    Ok(Json(json!({"status": "ok"})).into_response())
}

async fn user((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    who.need(Level::Administrator)?;
    let accounts = accounts(&admin).await?;
    let user = accounts.users.iter().find(|user| user.name == name);
    Ok(Json(rows::user(user.ok_or_else(Failure::missing)?)).into_response())
}

async fn put_user(
    (State(admin), Extension(who)): Admission,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    who.need(Level::Administrator)?;
    let user = Body::parse(&body)?.user(&name, &admin.auth).await?;
    let existed = accounts(&admin).await?.users.iter().any(|known| known.name == name);
    admin.asker().change(Change::PutUser(user)).await?;
    Ok(changed(existed))
}

async fn delete_user(
    (State(admin), Extension(who)): Admission,
    Path(name): Path<String>,
) -> Answer {
    who.need(Level::Administrator)?;
    admin.asker().change(Change::DeleteUser { name: Text::from(name) }).await?;
    Ok(gone())
}

async fn vhost((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    who.need(Level::Management)?;
    let accounts = accounts(&admin).await?;
    if !accounts.vhosts.iter().any(|known| *known == name) || !who.sees(&name, &accounts) {
        return Err(Failure::missing());
    }
    Ok(Json(listings::vhost_row(&name)).into_response())
}

async fn put_vhost((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    who.need(Level::Administrator)?;
    let existed = accounts(&admin).await?.vhosts.iter().any(|known| *known == name);
    admin.asker().change(Change::PutVhost { name: Text::from(name) }).await?;
    Ok(changed(existed))
}

async fn delete_vhost(
    (State(admin), Extension(who)): Admission,
    Path(name): Path<String>,
) -> Answer {
    who.need(Level::Administrator)?;
    admin.asker().change(Change::DeleteVhost { name: Text::from(name) }).await?;
    Ok(gone())
}

async fn permission(
    (State(admin), Extension(who)): Admission,
    Path((vhost, user)): Path<(String, String)>,
) -> Answer {
    who.need(Level::Administrator)?;
    let accounts = accounts(&admin).await?;
    let found = accounts.permissions.iter().find(|p| p.vhost == vhost && p.user == user);
    Ok(Json(rows::permission(found.ok_or_else(Failure::missing)?)).into_response())
}

async fn put_permission(
    (State(admin), Extension(who)): Admission,
    Path((vhost, user)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Administrator)?;
    let permission = Body::parse(&body)?.permission(&user, &vhost)?;
    let before = accounts(&admin).await?.permissions;
    let existed = before.iter().any(|known| known.user == user && known.vhost == vhost);
    admin.asker().change(Change::PutPermission(permission)).await?;
    Ok(changed(existed))
}

async fn clear_permission(
    (State(admin), Extension(who)): Admission,
    Path((vhost, user)): Path<(String, String)>,
) -> Answer {
    who.need(Level::Administrator)?;
    let (user, vhost) = (Text::from(user), Text::from(vhost));
    admin.asker().change(Change::ClearPermission { user, vhost }).await?;
    Ok(gone())
}

async fn policy(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
) -> Answer {
    who.need(Level::Management)?;
    let accounts = accounts(&admin).await?;
    let found = accounts.policies.iter().find(|p| p.vhost == vhost && p.name == name);
    let found = found.filter(|_| who.sees(&vhost, &accounts)).ok_or_else(Failure::missing)?;
    Ok(Json(rows::policy(found)).into_response())
}

/// A policymaker needs access to the vhost, too.
async fn may_make_policies(
    admin: &Admin,
    who: &Principal,
    vhost: &str,
) -> Result<understudy_broker::Accounts, Failure> {
    who.need(Level::Policymaker)?;
    let accounts = accounts(admin).await?;
    if who.may(Level::Administrator) || who.sees(vhost, &accounts) {
        return Ok(accounts);
    }
    Err(Failure::unauthorised("User not authorised to access virtual host"))
}

async fn put_policy(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let before = may_make_policies(&admin, &who, &vhost).await?.policies;
    let policy = Body::parse(&body)?.policy(&vhost, &name)?;
    let existed = before.iter().any(|known| known.vhost == vhost && known.name == name);
    admin.asker().change(Change::PutPolicy(policy)).await?;
    Ok(changed(existed))
}

async fn clear_policy(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
) -> Answer {
    may_make_policies(&admin, &who, &vhost).await?;
    let (vhost, name) = (Text::from(vhost), Text::from(name));
    admin.asker().change(Change::ClearPolicy { vhost, name }).await?;
    Ok(gone())
}

#[derive(Deserialize)]
struct Conditions {
    #[serde(rename = "if-unused", default)]
    if_unused: bool,
    #[serde(rename = "if-empty", default)]
    if_empty: bool,
}

async fn put_queue(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Management)?;
    let body = Body::parse(&body)?;
    let declare = body.queue(understudy_model::Token(0), &name)?;
    let asker = admin.asker();
    let existed = !asker.list(Some(&vhost), Some(&name), Inspect::Queues).await?.is_empty();
    let request =
        |token| Request::DeclareQueue(understudy_model::DeclareQueue { token, ..declare });
    asker.ask(who.user.as_ref(), &vhost, request).await?;
    Ok(changed(existed))
}

/// Over HTTP what is not there is missing, though an AMQP client is told that it is deleted.
async fn delete_queue(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
    Query(conditions): Query<Conditions>,
) -> Answer {
    who.need(Level::Management)?;
    let asker = admin.asker();
    if asker.list(Some(&vhost), Some(&name), Inspect::Queues).await?.is_empty() {
        return Err(no_queue(&name, &vhost));
    }
    let Conditions { if_unused, if_empty } = conditions;
    let name = Text::from(name);
    let request = |token| Request::DeleteQueue(DeleteQueue { token, name, if_unused, if_empty });
    asker.ask(who.user.as_ref(), &vhost, request).await?;
    Ok(gone())
}

fn no_queue(name: &str, vhost: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("no queue '{name}' in vhost '{vhost}'"))
}

async fn purge_queue(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
) -> Answer {
    who.need(Level::Management)?;
    let name = Text::from(name);
    let request = |token| Request::PurgeQueue(PurgeQueue { token, name });
    let reply = admin.asker().ask(who.user.as_ref(), &vhost, request).await?;
    if let Reply::Removed { messages } = reply {
        tracing::info!(vhost, messages, "queue purged");
    }
    Ok(gone())
}

async fn put_exchange(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Management)?;
    let declare = Body::parse(&body)?.exchange(understudy_model::Token(0), &name)?;
    let asker = admin.asker();
    let existed = !asker.list(Some(&vhost), Some(&name), Inspect::Exchanges).await?.is_empty();
    let request =
        |token| Request::DeclareExchange(understudy_model::DeclareExchange { token, ..declare });
    asker.ask(who.user.as_ref(), &vhost, request).await?;
    Ok(changed(existed))
}

async fn delete_exchange(
    (State(admin), Extension(who)): Admission,
    Path((vhost, name)): Path<(String, String)>,
    Query(conditions): Query<Conditions>,
) -> Answer {
    who.need(Level::Management)?;
    let asker = admin.asker();
    if asker.list(Some(&vhost), Some(&name), Inspect::Exchanges).await?.is_empty() {
        return Err(Failure::missing());
    }
    let (name, if_unused) = (Text::from(name), conditions.if_unused);
    let request = |token| Request::DeleteExchange(DeleteExchange { token, name, if_unused });
    asker.ask(who.user.as_ref(), &vhost, request).await?;
    Ok(gone())
}

/// `q` or `e` in a binding's path.
pub(super) fn is_exchange(kind: &str) -> Result<bool, Failure> {
    match kind {
        "q" => Ok(false),
        "e" => Ok(true),
        _ => Err(Failure::missing()),
    }
}

async fn bind(
    (State(admin), Extension(who)): Admission,
    Path((vhost, source, kind, destination)): Path<(String, String, String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Management)?;
    let to_exchange = is_exchange(&kind)?;
    let token = understudy_model::Token(0);
    let bind = Body::parse(&body)?.bind(token, &source, &destination, to_exchange)?;
    let row = BindingRow {
        vhost: Text::from(vhost.as_str()),
        source: bind.source.clone(),
        destination: bind.destination.clone(),
        to_exchange,
        key: bind.key.clone(),
        arguments: bind.arguments.clone(),
    };
    let request = |token| Request::Bind(Bind { token, ..bind });
    admin.asker().ask(who.user.as_ref(), &vhost, request).await?;
    let mut headers = HeaderMap::new();
    if let Ok(key) = rows::binding_location(&row).parse() {
        headers.insert(axum::http::header::LOCATION, key);
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

async fn unbind(
    (State(admin), Extension(who)): Admission,
    Path((vhost, source, kind, destination, key)): Path<(String, String, String, String, String)>,
) -> Answer {
    who.need(Level::Management)?;
    let to_exchange = is_exchange(&kind)?;
    let asker = admin.asker();
    let all = asker.list(Some(&vhost), None, Inspect::Bindings).await?;
    let found = all.into_iter().find(|row| {
        row.source == source
            && row.to_exchange == to_exchange
            && row.destination == destination
            && rows::properties_key(row) == key
    });
    let row = found.ok_or_else(Failure::missing)?;
    let request = |token| {
        Request::Unbind(Bind {
            token,
            source: row.source,
            destination: row.destination,
            to_exchange,
            key: row.key,
            arguments: row.arguments,
        })
    };
    asker.ask(who.user.as_ref(), &vhost, request).await?;
    Ok(gone())
}

async fn connection((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    who.need(Level::Monitoring)?;
    let all = listings::connection_rows(&admin).await?;
    let found = all.into_iter().find(|(row, _)| row["name"] == name.as_str());
    Ok(Json(found.ok_or_else(Failure::missing)?.0).into_response())
}

fn reason(headers: &HeaderMap) -> Text {
    let given = headers.get("x-reason").and_then(|value| value.to_str().ok());
    Text::from(given.unwrap_or("closed via management interface"))
}

async fn close_connection(
    (State(admin), Extension(who)): Admission,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    who.need(Level::Administrator)?;
    let connection = ConnectionId(name.parse().map_err(|_| Failure::missing())?);
    let reason = reason(&headers);
    admin.asker().change(Change::CloseConnection { connection, reason }).await?;
    Ok(gone())
}

async fn trace_on((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    trace(&admin, &who, &name, true).await
}

async fn trace_off((State(admin), Extension(who)): Admission, Path(name): Path<String>) -> Answer {
    trace(&admin, &who, &name, false).await
}

/// What is logged then holds messages: as much as an administrator may read.
async fn trace(admin: &Admin, who: &Principal, name: &str, on: bool) -> Answer {
    who.need(Level::Administrator)?;
    let connection = ConnectionId(name.parse().map_err(|_| Failure::missing())?);
    let (answer, answered) = oneshot::channel();
    let event = ClientEvent::Trace { connection, on, answer };
    admin.node.events.send(event).await.map_err(|_| Failure::not_serving())?;
    if !answered.await.map_err(|_| Failure::not_serving())? {
        let reason = format!("connection '{connection}' does not exist");
        return Err(Failure::new(StatusCode::NOT_FOUND, reason));
    }
    tracing::info!(%connection, on, "frame tracing");
    Ok(gone())
}

async fn close_vhost_connections(
    (State(admin), Extension(who)): Admission,
    Path(vhost): Path<String>,
    headers: HeaderMap,
) -> Answer {
    who.need(Level::Administrator)?;
    let asker = admin.asker();
    let mut closed = 0;
    for row in asker.connections().await?.rows.iter().filter(|row| row.vhost == vhost) {
        let (connection, reason) = (row.id, reason(&headers));
        match asker.change(Change::CloseConnection { connection, reason }).await {
            Ok(()) => closed += 1,
            // It went by itself.
            Err(failure) if failure.status == StatusCode::NOT_FOUND => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Json(json!({ "closed": closed })).into_response())
}

async fn hash_password(
    (State(admin), Extension(who)): Admission,
    Path(password): Path<String>,
) -> Answer {
    who.need(Level::Management)?;
    let hash = admin.auth.hash(password.into_bytes()).await.map_err(Failure::bad)?;
    let (algorithm, hash) = rows::hash_parts(&hash);
    Ok(Json(json!({ "ok": hash, "hashing_algorithm": algorithm })).into_response())
}

/// Whether a name and a password belong together.
async fn authenticate((State(admin), Extension(who)): Admission, body: Bytes) -> Answer {
    who.need(Level::Administrator)?;
    let body = Body::parse(&body)?;
    let login = Login {
        user: Text::from(body.text("username")?.unwrap_or_default()),
        password: Bytes::from(body.text("password")?.unwrap_or_default().to_owned()),
        by_certificate: false,
    };
    match admin.auth.verify(&login, IpAddr::V4(Ipv4Addr::LOCALHOST)).await {
        LoginOutcome::Accepted { tags, .. } => {
            let tags: Value = tags.iter().map(|tag| tag.to_string()).collect();
            Ok(Json(json!({ "name": &*login.user, "tags": tags })).into_response())
        }
        LoginOutcome::Refused => {
            Err(Failure::new(StatusCode::FORBIDDEN, "the password is not right"))
        }
    }
}
