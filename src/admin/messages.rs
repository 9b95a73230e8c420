//! Publishing and getting single messages over HTTP, as RabbitMQ's tools do for a look: not a way
//! to run an application.

use super::Admin;
use super::body::Body;
use super::failure::Failure;
use super::principal::{Level, Principal};
use super::table_json::{from_json, to_json};
use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use understudy_model::{
    AckMode, ConsumerNumber, Delivery, DeliveryRef, Effect, Get, Properties, Publish, Reply,
    Request, Table, Text, Token,
};

type Answer = Result<Json<Value>, Failure>;
type Admission = (State<Admin>, Extension<Principal>);

/// More in one answer than a person looks at.
const MESSAGES_MAX: u64 = 1_000;

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/exchanges/{vhost}/{exchange}/publish", post(publish))
        .route("/api/queues/{vhost}/{queue}/get", post(get))
}

async fn publish(
    (State(admin), Extension(who)): Admission,
    Path((vhost, exchange)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Management)?;
    let body = Body::parse(&body)?;
    let payload = body.text("payload")?.ok_or_else(|| Failure::bad("payload is missing"))?;
    let payload = match body.text("payload_encoding")?.unwrap_or("string") {
        "string" => Bytes::from(payload.to_owned()),
        "base64" => {
            Bytes::from(BASE64.decode(payload).map_err(|_| Failure::bad("payload is not base64"))?)
        }
        _ => return Err(Failure::bad("payload_encoding: expected string or base64")),
    };
    let bytes_max = admin.message_bytes_max;
    if payload.len() as u64 > bytes_max {
        return Err(Failure::bad(format!("message larger than {bytes_max} bytes")));
    }
    // The API's name of the default exchange.
    let exchange = if exchange == "amq.default" { "" } else { &exchange };
    let publish = Publish {
        exchange: Text::from(exchange),
        routing_key: Text::from(body.text("routing_key")?.unwrap_or_default()),
        properties: properties(body.0.get("properties"))?.to_bytes(),
        body: payload.into(),
        confirm: Some(1),
        mandatory: true,
        ..Publish::default()
    };
    let mut routed = true;
    let mut exchange = admin.asker().open(who.user.as_ref(), &vhost).await?;
    exchange.send(Request::Publish(publish)).await?;
    loop {
        match exchange.next().await? {
            Effect::Returned(_) => routed = false,
            Effect::Confirm { .. } => return Ok(Json(json!({ "routed": routed }))),
            Effect::PublishRefused { refusal, .. } => return Err(refusal.into()),
            Effect::Nack { .. } => return Err(Failure::bad("the queue is full")),
            _ => {}
        }
    }
}

fn properties(given: Option<&Value>) -> Result<Properties, Failure> {
    let Some(Value::Object(given)) = given else { return Ok(Properties::default()) };
    let text = |key: &str| match given.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() < 256 => Ok(Some(Text::from(text.as_str()))),
        Some(_) => Err(Failure::bad(format!("{key}: expected a text of at most 255 bytes"))),
    };
    let small = |key: &str| match given.get(key) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
            number.map(Some).ok_or_else(|| Failure::bad(format!("{key}: expected 0 to 255")))
        }
    };
    let headers = match given.get("headers") {
        Some(Value::Object(headers)) => {
            let raw = from_json(headers).map_err(Failure::bad)?;
            Some(Table::decode(&raw).map_err(|error| Failure::bad(error.to_string()))?)
        }
        _ => None,
    };
    Ok(Properties {
        content_type: text("content_type")?,
        content_encoding: text("content_encoding")?,
        headers,
        delivery_mode: small("delivery_mode")?,
        priority: small("priority")?,
        correlation_id: text("correlation_id")?,
        reply_to: text("reply_to")?,
        expiration: text("expiration")?,
        message_id: text("message_id")?,
        timestamp: given.get("timestamp").and_then(Value::as_u64),
        kind: text("type")?,
        user_id: text("user_id")?,
        app_id: text("app_id")?,
        cluster_id: text("cluster_id")?,
    })
}

/// `count` messages at most, taken out or given back as `ackmode` says. Given back ones are flagged
/// redelivered from then on: it is a look that leaves a trace, as with RabbitMQ.
async fn get(
    (State(admin), Extension(who)): Admission,
    Path((vhost, queue)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    who.need(Level::Management)?;
    let body = Body::parse(&body)?;
    let count = match body.0.get("count") {
        None => Some(1),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    let count = count.filter(|count| (1..=MESSAGES_MAX).contains(count));
    let count =
        count.ok_or_else(|| Failure::bad(format!("count: expected 1 to {MESSAGES_MAX}")))?;
    let finish = finish(body.text("ackmode")?.unwrap_or("ack_requeue_true"))?;
    let base64 = body.text("encoding")? == Some("base64");
    let mut exchange = admin.asker().open(who.user.as_ref(), &vhost).await?;
    let (mut messages, mut held) = (Vec::new(), Vec::new());
    while (messages.len() as u64) < count {
        let token = exchange.token();
        let queue = Text::from(queue.as_str());
        let consumer = ConsumerNumber(1);
        let get = Get { token, queue, ack: AckMode::Manual, consumer };
        exchange.send(Request::Get(get)).await?;
        match exchange.next().await? {
            Effect::Got { delivery, remaining, .. } => {
                messages.push(message(&delivery, remaining, base64)?);
                let Delivery { consumer, queue, lsn, .. } = delivery;
                held.push(DeliveryRef { consumer, queue, lsn });
            }
            Effect::Reply { result: Ok(Reply::GetEmpty), .. } => break,
            Effect::Reply { result: Err(refusal), .. } => return Err(refusal.into()),
            _ => {}
        }
    }
    if let Some(finish) = finish.filter(|_| !held.is_empty()) {
        let token = exchange.token();
        exchange.send(finish(held, Some(token))).await?;
        while !matches!(exchange.next().await?, Effect::Reply { .. }) {}
    }
    Ok(Json(Value::Array(messages)))
}

type Finish = fn(Vec<DeliveryRef>, Option<Token>) -> Request;

/// None: the messages go back, with the end of the connection that got them.
fn finish(ackmode: &str) -> Result<Option<Finish>, Failure> {
    match ackmode {
        "ack_requeue_true" | "reject_requeue_true" => Ok(None),
        "ack_requeue_false" => Ok(Some(|deliveries, token| Request::Settle { deliveries, token })),
        "reject_requeue_false" => {
            Ok(Some(|deliveries, token| Request::Discard { deliveries, token }))
        }
        _ => {
            let right = "ack_requeue_true, ack_requeue_false, reject_requeue_true or \
                         reject_requeue_false";
            Err(Failure::bad(format!("ackmode: expected {right}")))
        }
    }
}

fn message(delivery: &Delivery, remaining: u32, base64: bool) -> Result<Value, Failure> {
    let message = delivery.message().map_err(|error| Failure::bad(error.to_string()))?;
    let text = std::str::from_utf8(message.body).ok().filter(|_| !base64);
    let (payload, encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (BASE64.encode(message.body), "base64"),
    };
    Ok(json!({
        "payload": payload,
        "payload_bytes": message.body.len(),
        "payload_encoding": encoding,
        "redelivered": delivery.redelivered,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "message_count": remaining,
        "properties": properties_json(message.properties),
    }))
}

fn properties_json(raw: &[u8]) -> Value {
    let properties = Properties::decode(raw).unwrap_or_default();
    let mut json = Map::new();
    let texts = [
        ("content_type", properties.content_type),
        ("content_encoding", properties.content_encoding),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message_id", properties.message_id),
        ("type", properties.kind),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
    ];
    for (name, value) in texts {
        json.extend(value.map(|value| (name.to_owned(), value.to_string().into())));
    }
    let numbers = [
        ("delivery_mode", properties.delivery_mode.map(u64::from)),
        ("priority", properties.priority.map(u64::from)),
        ("timestamp", properties.timestamp),
    ];
    for (name, value) in numbers {
        json.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    let headers = properties.headers.map(|table| to_json(&table.to_bytes()));
    json.extend(headers.map(|headers| ("headers".to_owned(), headers)));
    Value::Object(json)
}
