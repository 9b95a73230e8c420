//! Asking the node: changes go the way that every client's requests go and are answered when they
//! are committed, on both nodes of a pair; listings come in pages between other work.

use crate::connection::Farewell;
use crate::handle::{ClientEvent, Connections, Inspect, NodeHandle, Peers};
use crate::mailbox::{EffectReceiver, mailbox};
use crate::trace::TraceSwitch;
use axum::http::StatusCode;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use understudy_broker::{Cursor, Page, Query};
use understudy_model::{
    Change, Connect, ConnectionId, Effect, Manage, Protocol, Refusal, RefusalKind, Reply, Request,
    Text, Token,
};

use super::failure::Failure;

/// A change that is not committed by then is answered as such; it may still be.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
const ROWS_PER_PAGE: usize = 500;

#[derive(Clone)]
pub(super) struct Asker {
    pub(super) node: NodeHandle,
    pub(super) next_connection: Arc<AtomicU64>,
}

impl Asker {
    /// One request on a connection of its own, as that user; none: the machine's own.
    /// `request` is given the token that it must carry.
    pub(super) async fn ask(
        &self,
        user: Option<&Text>,
        vhost: &str,
        request: impl FnOnce(Token) -> Request,
    ) -> Result<Reply, Failure> {
        let mut exchange = self.open(user, vhost).await?;
        let wanted = exchange.token();
        exchange.send(request(wanted)).await?;
        loop {
            if let Effect::Reply { token, result } = exchange.next().await?
                && token == wanted
            {
                return Ok(result?);
            }
        }
    }

    /// A connection of its own for several requests.
    pub(super) async fn open(&self, user: Option<&Text>, vhost: &str) -> Result<Exchange, Failure> {
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (effects, inbox) = mailbox();
        let opened =
            ClientEvent::Opened { connection, effects, peer: None, trace: TraceSwitch::default() };
        let events = &self.node.events;
        events.send(opened).await.map_err(|_| Failure::not_serving())?;
        let farewell = Farewell { id: connection, events: events.clone() };
        let mut exchange =
            Exchange { farewell, inbox, arrived: VecDeque::new(), last_token: Token(0) };
        let connect = Connect {
            token: exchange.token(),
            protocol: Protocol::Management,
            vhost: Text::from(vhost),
            vhost_else: None,
            user: user.cloned().unwrap_or_default(),
            client_name: Text::new(),
            producer: None,
        };
        exchange.send(Request::Connect(connect)).await?;
        match exchange.next().await? {
            // What is a wrong argument to a client is a wrong path here.
            Effect::Reply { result: Err(refusal), .. }
                if refusal.kind == RefusalKind::NotAllowed
                    && refusal.text.ends_with("not found") =>
            {
                Err(Refusal::new(RefusalKind::NotFound, refusal.text).into())
            }
            Effect::Reply { result: Err(refusal), .. } => Err(refusal.into()),
            _ => Ok(exchange),
        }
    }

    /// An administrator's change. That he may make it was checked before.
    pub(super) async fn change(&self, change: Change) -> Result<(), Failure> {
        let request = |token| Request::Manage(Box::new(Manage { token, change }));
        self.ask(None, "", request).await.map(|_| ())
    }

    pub(super) async fn inspect<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<T>) -> Inspect,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let event = ClientEvent::Inspect(make(answer));
        self.node.events.send(event).await.map_err(|_| Failure::not_serving())?;
        answered.await.map_err(|_| Failure::not_serving())
    }

    /// All rows, page by page.
    pub(super) async fn list<T>(
        &self,
        vhost: Option<&str>,
        name: Option<&str>,
        make: impl Fn(Query, oneshot::Sender<Page<T>>) -> Inspect,
    ) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        let mut after: Option<Cursor> = None;
        loop {
            let query = Query {
                vhost: vhost.map(Text::from),
                name: name.map(Text::from),
                after: after.take(),
                rows_max: ROWS_PER_PAGE,
            };
            let page = self.inspect(|answer| make(query, answer)).await?;
            rows.extend(page.rows);
            match page.next {
                // One by name is one row at most.
                Some(next) if name.is_none() || rows.is_empty() => after = Some(next),
                _ => return Ok(rows),
            }
        }
    }
}

impl Asker {
    pub(super) async fn connections(&self) -> Result<Connections, Failure> {
        let (mut rows, mut peers, mut after) = (Vec::new(), Peers::new(), None);
        loop {
            let query = Query { after, rows_max: ROWS_PER_PAGE, ..Query::default() };
            let (page, some) = self.inspect(|answer| Inspect::Connections(query, answer)).await?;
            rows.extend(page.rows);
            peers.extend(some);
            after = page.next;
            if after.is_none() {
                return Ok(Connections { rows, peers });
            }
        }
    }
}

/// A conversation with the driver, as a client's connection has it; over when it is dropped.
pub(super) struct Exchange {
    farewell: Farewell,
    inbox: EffectReceiver,
    arrived: VecDeque<Effect>,
    last_token: Token,
}

impl Exchange {
    pub(super) fn token(&mut self) -> Token {
        self.last_token = Token(self.last_token.0 + 1);
        self.last_token
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), Failure> {
        let requests = vec![request];
        self.tell(ClientEvent::Requests { connection: self.farewell.id, requests }).await
    }

    async fn tell(&self, event: ClientEvent) -> Result<(), Failure> {
        self.farewell.events.send(event).await.map_err(|_| Failure::not_serving())
    }

    /// The next effect, if it comes in time.
    pub(super) async fn next(&mut self) -> Result<Effect, Failure> {
        while self.arrived.is_empty() {
            match tokio::time::timeout(COMMIT_TIMEOUT, self.inbox.recv()).await {
                Ok(Some(effects)) => self.arrived.extend(effects),
                Ok(None) => return Err(Failure::not_serving()),
                Err(_) => {
                    let reason = "not committed in time; it may still be";
                    return Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, reason));
                }
            }
        }
        let effect = self.arrived.pop_front().ok_or_else(Failure::not_serving)?;
        match &effect {
            Effect::Moved { .. } | Effect::Close { .. } => return Err(Failure::not_serving()),
            // No socket has to take it: the account of unsent bytes is balanced at once.
            Effect::Got { delivery, .. } => {
                let (connection, bytes) = (self.farewell.id, delivery.record.len() as u64 + 64);
                self.tell(ClientEvent::Drained { connection, bytes }).await?;
            }
            _ => {}
        }
        Ok(effect)
    }
}
