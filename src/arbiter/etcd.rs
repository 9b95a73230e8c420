//! etcd as the arbiter, by the JSON gateway of its v3 API: no client library, so no protobuf compiler
//! to build with.
//!
//! Three keys below `/understudy/<register>/`: `register`, whose mod revision is the version; `lease`,
//! the leader's name, tied to an etcd lease, so that it goes when that ends; and `session/<node>`, a
//! random word that each swap compares: a swap that was given up and is carried out late finds
//! another one, and fails.

use crate::config::ArbiterSettings;
use crate::peer::Security;
use crate::tls::roots;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use understudy_model::{Epoch, NodeId};
use understudy_replication::{ArbiterAnswer, ArbiterCall, Held, Register};

const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A read of etcd's keys says that a lease is there, not for how long; only that matters.
const LEASED_MS: u64 = 1_000;

pub(super) struct Etcd {
    /// `host:port`, tried in turn.
    endpoints: Vec<String>,
    next: usize,
    tls: Option<Arc<ClientConfig>>,
    /// With the node's own certificate, as of now: instead of `tls`.
    security: Security,
    user: String,
    password: String,
    prefix: String,
    node: String,
    connection: Option<Connection>,
    /// The etcd lease that this process tied to the leader last.
    lease: Option<String>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
    session: String,
}

/// What the keys hold.
#[derive(Default)]
struct Keys {
    version: u64,
    register: Option<Register>,
    lease: Option<Lease>,
}

struct Lease {
    holder: Vec<u8>,
    /// As etcd names it.
    id: String,
}

impl Keys {
    fn answer(&self, done: bool) -> ArbiterAnswer {
        let lease_ms = if self.lease.is_some() { LEASED_MS } else { 0 };
        let held = |register| Held { version: self.version, register, lease_ms };
        ArbiterAnswer::Told { done, held: self.register.map(held) }
    }

    fn are_led_by(&self, leader: NodeId, epoch: Epoch) -> bool {
        self.register.is_some_and(|register| register.leader == leader && register.epoch == epoch)
    }
}

impl Etcd {
    /// # Errors
    /// The authority's certificate cannot be read.
    pub(super) fn new(
        settings: &ArbiterSettings,
        endpoints: &[String],
        ca_file: Option<&str>,
        security: Security,
        node: &str,
    ) -> anyhow::Result<Self> {
        let tls = match ca_file {
            Some(file) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(Arc::new(roots("arbiter.tls_ca_file", file)?))
                    .with_no_client_auth();
                Some(Arc::new(config))
            }
            None => None,
        };
        Ok(Self {
            endpoints: endpoints.to_vec(),
            next: 0,
            tls,
            security,
            user: settings.user.clone(),
            password: settings.password.clone(),
            prefix: format!("/understudy/{}", settings.register),
            node: node.to_owned(),
            connection: None,
            lease: None,
        })
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.next += 1;
    }

    /// # Errors
    /// Nobody answers, or not as etcd does. Whether the call was carried out is not known.
    pub(super) async fn call(&mut self, call: &ArbiterCall) -> io::Result<ArbiterAnswer> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        match *call {
            ArbiterCall::Read => Ok(self.read().await?.answer(true)),
            ArbiterCall::Swap { expected, register, lease_ms, force } => {
                self.swap(expected, register, lease_ms, force).await
            }
            ArbiterCall::Renew { leader, epoch, lease_ms } => {
                self.renew(leader, epoch, lease_ms).await
            }
            ArbiterCall::Release { leader, epoch } => self.release(leader, epoch).await,
        }
    }

    async fn connect(&mut self) -> io::Result<()> {
        let host = self.endpoints[self.next % self.endpoints.len()].clone();
        let socket = TcpStream::connect(&host).await?;
        socket.set_nodelay(true)?;
        let config = self.security.dial_config().or_else(|| self.tls.clone());
        let sender = match config {
            None => begin(TokioIo::new(socket)).await?,
            Some(config) => {
                let name = host.rsplit_once(':').map_or(&host[..], |(name, _)| name);
                let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(name).map_err(other)?;
                let stream = TlsConnector::from(config).connect(name, socket).await?;
                begin(TokioIo::new(stream)).await?
            }
        };
        let session = getrandom::u64().map_err(other)?.to_string();
        self.connection = Some(Connection { sender, host, token: None, session: session.clone() });
        if !self.user.is_empty() {
            let login = json!({ "name": self.user, "password": self.password });
            let answer = self.post("/v3/auth/authenticate", &login).await?;
            let token = answer["token"].as_str().map(str::to_owned);
            if let Some(connection) = &mut self.connection {
                connection.token = token;
            }
        }
        let put = json!({ "key": self.session_key(), "value": BASE64_STANDARD.encode(session) });
        self.post("/v3/kv/put", &put).await?;
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        BASE64_STANDARD.encode(format!("{}/{name}", self.prefix))
    }

    fn session_key(&self) -> String {
        self.key(&format!("session/{}", self.node))
    }

    async fn read(&mut self) -> io::Result<Keys> {
        let ranges = self.ranges();
        let answer = self.post("/v3/kv/txn", &json!({ "success": ranges })).await?;
        keys_of(&answer["responses"], 0)
    }

    fn ranges(&self) -> Value {
        let range = |name| json!({ "request_range": { "key": self.key(name) } });
        json!([range("register"), range("lease")])
    }

    async fn swap(
        &mut self,
        expected: u64,
        register: Register,
        lease_ms: u64,
        force: bool,
    ) -> io::Result<ArbiterAnswer> {
        let keys = self.read().await?;
        let leader = register.leader.to_string();
        let others = keys.lease.as_ref().is_some_and(|lease| lease.holder != leader.as_bytes());
        if keys.version != expected || others && !force {
            return Ok(keys.answer(false));
        }
        let put = json!({ "request_put": {
            "key": self.key("register"),
            "value": BASE64_STANDARD.encode(register.to_bytes()),
        }});
        let (done, keys) = self.write(&keys, &leader, lease_ms, force, Some(put)).await?;
        Ok(keys.answer(done))
    }

    /// In this order: a member that has been cut off keeps leases alive for a moment that its
    /// successor lets end, but it cannot answer a read. And a read before it could show a lease that
    /// the other node takes over meanwhile.
    async fn renew(
        &mut self,
        leader: NodeId,
        epoch: Epoch,
        lease_ms: u64,
    ) -> io::Result<ArbiterAnswer> {
        let kept = self.keep_alive().await?;
        let keys = self.read().await?;
        if !keys.are_led_by(leader, epoch) {
            return Ok(keys.answer(false));
        }
        if kept.is_some() && kept == keys.lease.as_ref().map(|lease| lease.id.clone()) {
            return Ok(keys.answer(true));
        }
        // It ended, and nobody took the role; or a swap without answer has tied another one.
        let (done, keys) = self.write(&keys, &leader.to_string(), lease_ms, false, None).await?;
        if !done && keys.are_led_by(leader, epoch) {
            // Not to be taken for "replaced".
            return Err(other("etcd: the lease changed while it was renewed"));
        }
        Ok(keys.answer(done))
    }

    async fn release(&mut self, leader: NodeId, epoch: Epoch) -> io::Result<ArbiterAnswer> {
        let keys = self.read().await?;
        if !keys.are_led_by(leader, epoch) {
            return Ok(keys.answer(false));
        }
        if let Some(lease) = &keys.lease {
            // One that has ended meanwhile is what was wanted; the read tells.
            let _ = self.post("/v3/lease/revoke", &json!({ "ID": lease.id })).await;
        }
        let keys = self.read().await?;
        Ok(keys.answer(keys.lease.is_none()))
    }

    /// Ties a fresh lease to the leader and puts `more`, if nothing has changed since `keys`. Returns
    /// whether it did, and what is there now.
    async fn write(
        &mut self,
        keys: &Keys,
        leader: &str,
        lease_ms: u64,
        force: bool,
        more: Option<Value>,
    ) -> io::Result<(bool, Keys)> {
        // etcd counts whole seconds.
        let grant = json!({ "TTL": lease_ms.div_ceil(1_000) });
        let granted = self.post("/v3/lease/grant", &grant).await?;
        let lease = granted["ID"].as_str().ok_or_else(|| other("etcd grants no lease"))?.to_owned();
        let session = self.connection.as_ref().map(|c| c.session.clone()).unwrap_or_default();
        let (register, lease_key) = (self.key("register"), self.key("lease"));
        let mut compare = vec![
            json!({ "key": register, "target": "MOD", "result": "EQUAL",
                "mod_revision": keys.version.to_string() }),
            json!({ "key": self.session_key(), "target": "VALUE", "result": "EQUAL",
                "value": BASE64_STANDARD.encode(session) }),
        ];
        if !force {
            compare.push(match &keys.lease {
                Some(Lease { holder, .. }) => {
                    json!({ "key": lease_key, "target": "VALUE", "result": "EQUAL",
                    "value": BASE64_STANDARD.encode(holder) })
                }
                None => json!({ "key": lease_key, "target": "CREATE", "result": "EQUAL",
                    "create_revision": "0" }),
            });
        }
        let tie = json!({ "request_put": { "key": lease_key, "lease": lease,
            "value": BASE64_STANDARD.encode(leader) }});
        let mut success: Vec<Value> = more.into_iter().collect();
        success.push(tie);
        let puts = success.len();
        let ranges = self.ranges();
        success.extend(ranges.as_array().cloned().unwrap_or_default());
        let txn = json!({ "compare": compare, "success": success, "failure": ranges });
        let answer = self.post("/v3/kv/txn", &txn).await?;
        let done = answer["succeeded"] == true;
        if done {
            self.lease = Some(lease);
        } else {
            let _ = self.post("/v3/lease/revoke", &json!({ "ID": lease })).await;
            // The session may be what differs: an older connection's first write that came late.
            self.connection = None;
        }
        Ok((done, keys_of(&answer["responses"], if done { puts } else { 0 })?))
    }

    /// The lease, if there still is one.
    async fn keep_alive(&mut self) -> io::Result<Option<String>> {
        let Some(lease) = self.lease.clone() else { return Ok(None) };
        let answer = self.post("/v3/lease/keepalive", &json!({ "ID": lease })).await?;
        Ok((number(&answer["result"]["TTL"]) > 0).then_some(lease))
    }

    async fn post(&mut self, path: &str, body: &Value) -> io::Result<Value> {
        let Some(connection) = &mut self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut request = Request::post(path)
            .header("host", &connection.host)
            .header("content-type", "application/json");
        if let Some(token) = &connection.token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::new(body.to_string().into())).map_err(other)?;
        connection.sender.ready().await.map_err(other)?;
        let answer = connection.sender.send_request(request).await.map_err(other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(other)?.to_bytes();
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(other(format!("etcd: {path}: {status}: {}", text.trim())));
        }
        serde_json::from_slice(&body).map_err(other)
    }
}

async fn begin<S>(stream: TokioIo<S>) -> io::Result<SendRequest<Full<Bytes>>>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await.map_err(other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Of the two ranges behind `skip` other responses.
fn keys_of(responses: &Value, skip: usize) -> io::Result<Keys> {
    let first = |at: usize| &responses[at]["response_range"]["kvs"][0];
    let value = |kv: &Value| {
        let text = kv["value"].as_str().unwrap_or_default();
        BASE64_STANDARD.decode(text).map_err(other)
    };
    let mut keys = Keys::default();
    let register = first(skip);
    if register.is_object() {
        keys.version = number(&register["mod_revision"]);
        keys.register = Some(Register::from_bytes(&value(register)?).map_err(other)?);
    }
    let lease = first(skip + 1);
    if lease.is_object() {
        let id = lease["lease"].as_str().unwrap_or_default().to_owned();
        keys.lease = Some(Lease { holder: value(lease)?, id });
    }
    Ok(keys)
}

/// The gateway writes 64-bit numbers as text.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).or(value.as_u64()).unwrap_or_default()
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests;
