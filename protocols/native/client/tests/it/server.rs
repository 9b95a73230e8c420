//! A node of memory only: one queue, and what a test wants to happen to publishes.

use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use understudy_model::{
    AckMode, ConsumerNumber, Delivery, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, Publish,
    QueueId, Refusal, RefusalKind, Reply, Request, Returned, Session,
};
use understudy_native::{NativeOptions, NativeSession};

const QUEUE: QueueId = QueueId(Lsn(7));

/// What both nodes of the pair have, and how they behave.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) messages: BTreeMap<u64, Publish>,
    pub(crate) stored: Vec<String>,
    pub(crate) repeats: usize,
    pub(crate) consumes: usize,
    pub(crate) connects: usize,
    pub(crate) commits: BTreeSet<u64>,
    pub(crate) outcomes: usize,
    /// Of the queue: asked for, and never answered.
    pub(crate) deletes: usize,
    last_lsn: u64,
    last_sequence: u64,
    /// From here on publishes vanish, as if the master died before it stored them.
    pub(crate) stores_max: Option<usize>,
    /// Stored and settled, but the answer never comes.
    pub(crate) is_mute: bool,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(store: &Arc<Mutex<Store>>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), store).await
    }

    pub(crate) async fn start_at(address: SocketAddr, store: &Arc<Mutex<Store>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = store.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(serve(socket, store.clone()));
            }
        });
        Self { address, task }
    }

    /// As by `kill -9`: its sockets close, and then it refuses.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

async fn serve(mut socket: TcpStream, store: Arc<Mutex<Store>>) {
    let mut session = NativeSession::new(NativeOptions::default(), 0);
    let (mut input, mut out) = (BytesMut::new(), Outbox::default());
    let mut consumers = Vec::new();
    while !out.close {
        match socket.read_buf(&mut input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => session.on_bytes(0, &mut input, &mut out),
        }
        if let Some(login) = out.login.take() {
            let outcome = match &login.password[..] {
                b"guest" => LoginOutcome::Accepted { user: login.user, tags: Vec::new() },
                _ => LoginOutcome::Refused,
            };
            session.on_login(0, outcome, &mut out);
            session.on_bytes(0, &mut input, &mut out);
        }
        let mut effects = Vec::new();
        for request in std::mem::take(&mut out.requests) {
            store.lock().unwrap().on_request(request, &mut consumers, &mut effects);
        }
        session.on_effects(0, &mut effects, &mut out);
        if socket.write_all(&out.write.take_all()).await.is_err() {
            return;
        }
    }
    let _ = socket.shutdown().await;
}

impl Store {
    fn on_request(
        &mut self,
        request: Request,
        consumers: &mut Vec<ConsumerNumber>,
        effects: &mut Vec<Effect>,
    ) {
        let mut reply = |token, reply| effects.push(Effect::Reply { token, result: Ok(reply) });
        match request {
            Request::Connect(connect) => {
                self.connects += 1;
                reply(connect.token, Reply::Done);
            }
            Request::DeclareQueue(declare) => {
                let messages = self.messages.len() as u32;
                reply(declare.token, Reply::Queue { name: declare.name, messages, consumers: 0 });
            }
            Request::PurgeQueue(purge) => {
                let refusal = Refusal::new(RefusalKind::NotFound, "no queue");
                effects.push(Effect::Reply { token: purge.token, result: Err(refusal) });
            }
            Request::Publish(publish) => self.publish(publish, consumers, effects),
            Request::Transaction(transaction) => {
                let commit = transaction.commit.unwrap().sequence;
                let fresh = self.commits.insert(commit);
                if fresh {
                    transaction.publishes.iter().for_each(|publish| self.keep(publish));
                    for settled in transaction.settles {
                        self.messages.remove(&settled.lsn.0);
                    }
                }
                self.repeats += usize::from(!fresh);
                if !self.is_mute {
                    let answer = if fresh { Reply::Done } else { Reply::AlreadyCommitted };
                    reply(transaction.token, answer);
                }
            }
            Request::Outcome { token, commit } => {
                self.outcomes += 1;
                match self.commits.contains(&commit.sequence) {
                    true => reply(token, Reply::AlreadyCommitted),
                    false => {
                        let refusal = Refusal::new(RefusalKind::NotFound, "never");
                        effects.push(Effect::Reply { token, result: Err(refusal) });
                    }
                }
            }
            Request::Consume(consume) => {
                self.consumes += 1;
                reply(consume.token, Reply::Done);
                if consume.ack == AckMode::Manual {
                    consumers.push(consume.consumer);
                }
                let lsns = self.messages.keys();
                effects.extend(lsns.map(|&lsn| self.deliver(consume.consumer, lsn)));
            }
            Request::Get(get) => match self.messages.first_key_value() {
                None => reply(get.token, Reply::GetEmpty),
                Some((&lsn, _)) => {
                    let Effect::Deliver(delivery) = self.deliver(get.consumer, lsn) else { return };
                    effects.push(Effect::Got { token: get.token, delivery, remaining: 0 });
                }
            },
            Request::Settle { deliveries, token } => {
                deliveries.iter().for_each(|d| drop(self.messages.remove(&d.lsn.0)));
                if let Some(token) = token.filter(|_| !self.is_mute) {
                    reply(token, Reply::Done);
                }
            }
            Request::DeleteQueue(_) => self.deletes += 1,
            Request::Cancel { token, consumer } => {
                consumers.retain(|other| *other != consumer);
                reply(token, Reply::Done);
            }
            _ => {}
        }
    }

    fn publish(&mut self, publish: Publish, to: &[ConsumerNumber], effects: &mut Vec<Effect>) {
        if publish.mandatory {
            effects.push(Effect::Returned(Box::new(Returned {
                channel: 0,
                code: 312,
                text: "NO_ROUTE".into(),
                exchange: publish.exchange.clone(),
                routing_key: publish.routing_key.clone(),
                properties: publish.properties.clone(),
                body: publish.body.clone(),
            })));
        } else if self.store(&publish) {
            let lsn = self.last_lsn;
            effects.extend(to.first().map(|&consumer| self.deliver(consumer, lsn)));
        }
        if !self.is_mute {
            effects.extend(publish.confirm.map(|through| Effect::Confirm { channel: 0, through }));
        }
    }

    fn store(&mut self, publish: &Publish) -> bool {
        if self.stores_max.is_some_and(|max| self.stored.len() >= max) {
            return false;
        }
        let sequence = publish.producer.unwrap().sequence;
        if sequence <= self.last_sequence {
            self.repeats += 1;
            return false;
        }
        self.last_sequence = sequence;
        self.keep(publish);
        true
    }

    fn keep(&mut self, publish: &Publish) {
        self.last_lsn += 1;
        let body: Vec<u8> = publish.body.pieces().flat_map(|piece| piece.to_vec()).collect();
        self.stored.push(String::from_utf8(body).unwrap());
        self.messages.insert(self.last_lsn, publish.clone());
    }

    fn deliver(&self, consumer: ConsumerNumber, lsn: u64) -> Effect {
        let mut record = BytesMut::new();
        EnqueueView::encode(&[QUEUE], &self.messages[&lsn], &mut record);
        let record = record.freeze();
        Effect::Deliver(Delivery {
            consumer,
            queue: QUEUE,
            lsn: Lsn(lsn),
            redelivered: self.connects > 1,
            returns: 0,
            record,
        })
    }
}
