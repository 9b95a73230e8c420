//! For tests: a node without threads, clock or disk.

use super::*;
use crate::boot::{Found, boot};
use understudy_broker::Limits;
use understudy_model::{Connect, DeclareQueue, Effect, Protocol, Publish, Request, Text, Token};
use understudy_replication::{LogEnd, Standalone};

pub(crate) const CLIENT: ConnectionId = ConnectionId(1);

/// A node by itself, whose disk does at once what it is told, unless it is held.
pub(super) struct Alone {
    pub(super) node: Node,
    pub(super) now_ms: u64,
    /// Jobs are kept in here instead.
    pub(super) held: Option<Vec<LogJob>>,
}

/// A new standalone node, and what its start wants done.
pub(crate) fn standalone(alarm_policy: AlarmPolicy, commit_interval_ms: u64) -> (Node, Outputs) {
    let options = NodeOptions {
        limits: Limits::default(),
        group_bytes_max: 1 << 10,
        commit_interval_ms,
        cache_bytes_max: 1 << 16,
        alarm_policy,
        save_after_bytes: 1 << 20,
        retain_bytes: 0,
        digest_interval_ms: 0,
        features: Features::KNOWN,
        users: Vec::new(),
        default_user: UserRecord {
            name: Text::from_static("guest"),
            password_hash: Text::default(),
            tags: Vec::new(),
        },
    };
    let found = Found { view: None, log: LogEnd::default(), damage: None, state: Ok(Vec::new()) };
    let made = boot(
        &options,
        found,
        0,
        [1; 8],
        |boot, out| -> Result<Box<dyn Backend>, String> {
            Ok(Box::new(Standalone::new(boot, out).map_err(|error| error.to_string())?))
        },
        |_| Ok(Vec::new()),
    );
    made.unwrap()
}

/// A client's first requests: it connects and declares the queue `q`.
pub(crate) fn connect() -> [Request; 2] {
    let connect = Connect {
        token: Token(1),
        protocol: Protocol::Amqp,
        vhost: Text::from_static("/"),
        vhost_else: None,
        user: Text::from_static("guest"),
        client_name: Text::new(),
        producer: None,
    };
    let name = Text::from_static("q");
    let declare = DeclareQueue { token: Token(2), name, durable: true, ..DeclareQueue::default() };
    [Request::Connect(connect), Request::DeclareQueue(declare)]
}

impl Alone {
    pub(super) fn new(alarm_policy: AlarmPolicy, commit_interval_ms: u64) -> Self {
        let (node, out) = standalone(alarm_policy, commit_interval_ms);
        let mut alone = Self { node, now_ms: 0, held: None };
        alone.carry_out(out);
        assert!(alone.node.is_serving());
        alone.ask(connect());
        alone
    }

    pub(super) fn turn(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Outputs::default();
        self.node.on_input(self.now_ms, input, &mut out);
        self.carry_out(out)
    }

    fn carry_out(&mut self, mut out: Outputs) -> Vec<Effect> {
        loop {
            self.node.end_turn(self.now_ms, &mut out);
            let mut jobs = std::mem::take(&mut out.log);
            if let Some(held) = &mut self.held {
                held.append(&mut jobs);
            }
            if jobs.is_empty() {
                return out.effects.remove(&CLIENT).unwrap_or_default();
            }
            for job in jobs {
                let done = match job {
                    LogJob::Append(group) => Input::Durable { through: group.last() },
                    LogJob::SaveView { version, .. } => {
                        Input::Backend(BackendInput::ViewSaved { version })
                    }
                    other => panic!("{other:?}"),
                };
                self.node.on_input(self.now_ms, done, &mut out);
            }
        }
    }

    pub(super) fn ask(&mut self, requests: impl Into<Vec<Request>>) -> Vec<Effect> {
        self.turn(Input::Requests { connection: CLIENT, requests: requests.into() })
    }

    pub(super) fn ready(&self) -> u64 {
        self.node.broker().counts().ready
    }
}

pub(crate) fn publish(number: u64) -> Publish {
    Publish {
        routing_key: Text::from_static("q"),
        properties: Bytes::from_static(&[0, 0]),
        channel: 3,
        confirm: Some(number),
        ..Publish::default()
    }
}
