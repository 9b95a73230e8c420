//! Asking the node: changes go the way that every client's requests go and are answered when they
//! are committed, on both nodes of a pair; listings come in pages between other work.

use crate::connection::Farewell;
use crate::handle::{ClientEvent, Connections, Inspect, NodeHandle, Peers};
use axum::http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use understudy_broker::{Cursor, Page, Query};
use understudy_model::{
    Change, Connect, ConnectionId, Effect, Manage, Protocol, Refusal, RefusalKind, Reply, Request,
    Text, Token,
};

use super::failure::Failure;

/// A change that is not committed by then is answered as such; it may still be.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
const ROWS_PER_PAGE: usize = 500;
const CONNECT: Token = Token(1);
const REQUEST: Token = Token(2);

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
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (effects, inbox) = mpsc::unbounded_channel();
        let opened = ClientEvent::Opened { connection, effects, peer: None };
        let events = &self.node.events;
        events.send(opened).await.map_err(|_| Failure::not_serving())?;
        let _farewell = Farewell { id: connection, events: events.clone() };
        let connect = Request::Connect(Connect {
            token: CONNECT,
            protocol: Protocol::Management,
            vhost: Text::from(vhost),
            user: user.cloned().unwrap_or_default(),
            client_name: Text::new(),
        });
        let requests = vec![connect, request(REQUEST)];
        let requests = ClientEvent::Requests { connection, requests };
        events.send(requests).await.map_err(|_| Failure::not_serving())?;
        match tokio::time::timeout(COMMIT_TIMEOUT, answer(inbox)).await {
            Ok(Ok(reply)) => Ok(reply?),
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let reason = "not committed in time; it may still be";
                Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, reason))
            }
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

/// The reply to the request, or to the connect if that was refused.
async fn answer(
    mut inbox: mpsc::UnboundedReceiver<Vec<Effect>>,
) -> Result<Result<Reply, Refusal>, Failure> {
    while let Some(effects) = inbox.recv().await {
        for effect in effects {
            match effect {
                Effect::Reply { token: CONNECT, result: Err(refusal) } => {
                    let refusal = match refusal.kind {
                        // What is a wrong argument to a client is a wrong path here.
                        RefusalKind::NotAllowed if refusal.text.ends_with("not found") => {
                            Refusal::new(RefusalKind::NotFound, refusal.text)
                        }
                        _ => refusal,
                    };
                    return Ok(Err(refusal));
                }
                Effect::Reply { token: REQUEST, result } => return Ok(result),
                Effect::Close { .. } => return Err(Failure::not_serving()),
                _ => {}
            }
        }
    }
    Err(Failure::not_serving())
}
