//! The phases of an AMQP connection, as values: what one phase does not know cannot be asked of it.

use crate::{
    codec::{method_id, put_heartbeat},
    connection::{Connection, Identity, Next},
    fault::{Fault, ReplyCode},
    frame::{Frame, FrameKind},
    handshake::{
        FRAME_MIN_SIZE, HANDSHAKE_FRAME_MAX, PROTOCOL_HEADER, PROTOCOL_HEADER_0_9, Tuning,
        login_refused, put_start, put_tune,
    },
    login::{Client, credentials},
    method::{self, put_method, short},
    options::AmqpOptions,
    reply::Pending,
};
use amq_protocol::protocol::{
    AMQPClass,
    connection::{AMQPMethod, Close, CloseOk, Open, StartOk, TuneOk},
};
use bytes::{BufMut, BytesMut};
use understudy_model::{
    Connect, Effect, LoginOutcome, Outbox, Protocol, Request, Session, Text, Token,
};

enum Phase {
    /// The client speaks first: its protocol header.
    Header,
    /// `connection.start` is sent.
    Start,
    /// The broker checks the credentials.
    Login(Client),
    /// `connection.tune` is sent.
    Tune(Client, Identity),
    Open(Client, Identity, Tuning),
    Running(Box<Connection>),
    /// `connection.close` came; answered when what was asked before is committed.
    Leaving {
        token: Token,
        deadline_ms: u64,
    },
    /// `connection.close` is sent.
    Closing {
        deadline_ms: u64,
    },
    Closed,
}

pub struct AmqpSession {
    options: AmqpOptions,
    phase: Phase,
    /// The user that the client's certificate stands for.
    certified: Option<Text>,
    /// The handshake must be over by then.
    handshake_deadline_ms: u64,
    /// 0: no heartbeats.
    heartbeat_ms: u64,
    last_received_ms: u64,
    last_sent_ms: u64,
    /// When unacked deliveries are looked at next, if their time is limited.
    next_unacked_check_ms: u64,
}

/// As a frame: what ends a connection that we closed, whatever stands in front of it.
const CLOSE_OK_FRAME: [u8; 12] = [1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, 0xCE];

impl AmqpSession {
    pub fn new(mut options: AmqpOptions, now_ms: u64) -> Self {
        options.frame_max = options.frame_max.max(FRAME_MIN_SIZE);
        if options.channel_max == 0 {
            options.channel_max = u16::MAX;
        }
        Self {
            handshake_deadline_ms: now_ms + options.handshake_timeout_ms,
            options,
            phase: Phase::Header,
            certified: None,
            heartbeat_ms: 0,
            last_received_ms: now_ms,
            last_sent_ms: now_ms,
            next_unacked_check_ms: 0,
        }
    }

    /// Takes one step through the input; whether another may follow.
    fn step(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox) -> Result<bool, Fault> {
        match &mut self.phase {
            Phase::Running(connection) => {
                let Some(frame) = Frame::take(input, connection.tuning.frame_max)? else {
                    return Ok(false);
                };
                connection.now_ms = now_ms;
                let next = connection.on_frame(frame, out)?;
                self.follow(now_ms, next, out);
                Ok(true)
            }
            Phase::Header => Ok(self.on_protocol_header(input, out)),
            Phase::Login(_) => Ok(false),
            Phase::Start | Phase::Tune(..) | Phase::Open(..) => {
                self.on_handshake_frame(now_ms, input, out)
            }
            Phase::Closing { .. } => {
                self.await_close_ok(input, out);
                Ok(false)
            }
            Phase::Leaving { .. } | Phase::Closed => {
                input.clear();
                Ok(false)
            }
        }
    }

    fn on_protocol_header(&mut self, input: &mut BytesMut, out: &mut Outbox) -> bool {
        let Some(header) = input.first_chunk::<8>() else { return false };
        if *header == PROTOCOL_HEADER || *header == PROTOCOL_HEADER_0_9 {
            let _ = input.split_to(PROTOCOL_HEADER.len());
            put_start(&mut out.write, &self.options, self.certified.is_some());
            self.phase = Phase::Start;
            return true;
        }
        out.complaint =
            Some(format!("unknown protocol header {:?}", header.escape_ascii().to_string()));
        out.write.tail().put_slice(&PROTOCOL_HEADER);
        self.hang_up(out);
        false
    }

    fn on_handshake_frame(
        &mut self,
        now_ms: u64,
        input: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<bool, Fault> {
        let frame_max = match &self.phase {
            Phase::Open(_, _, tuning) => tuning.frame_max,
            _ => HANDSHAKE_FRAME_MAX,
        };
        let Some(frame) = Frame::take(input, frame_max)? else { return Ok(false) };
        match frame.kind {
            FrameKind::Heartbeat if frame.channel == 0 => return Ok(true),
            FrameKind::Method if frame.channel == 0 => {}
            _ => return Err(frame.unexpected()),
        }
        let id = method_id(&frame.payload)?;
        let method = method::parse(&frame.payload)?;
        let AMQPClass::Connection(connection_method) = method.class else {
            return Err(self.out_of_order().at(id));
        };
        match (std::mem::replace(&mut self.phase, Phase::Closed), connection_method) {
            (_, AMQPMethod::Close(_)) => self.answer_close(out),
            (Phase::Start, AMQPMethod::StartOk(start_ok)) => {
                self.on_start_ok(now_ms, &start_ok, &method.table, out)
                    .map_err(|fault| fault.at(id))?;
            }
            (Phase::Tune(client, identity), AMQPMethod::TuneOk(tune_ok)) => {
                self.on_tune_ok(client, identity, &tune_ok).map_err(|fault| fault.at(id))?;
            }
            (Phase::Open(client, identity, tuning), AMQPMethod::Open(open)) => {
                self.on_open(client, identity, tuning, &open, out);
            }
            (phase, _) => {
                self.phase = phase;
                return Err(self.out_of_order().at(id));
            }
        }
        Ok(true)
    }

    fn out_of_order(&self) -> Fault {
        let state = match self.phase {
            Phase::Tune(..) => "tuning",
            Phase::Open(..) => "opening",
            _ => "starting",
        };
        let text = format!("unexpected method in connection state {state}");
        Fault::new(ReplyCode::CHANNEL_ERROR, text)
    }

    fn on_start_ok(
        &mut self,
        now_ms: u64,
        start_ok: &StartOk,
        properties: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let mechanism = start_ok.mechanism.as_str();
        let client = Client::decode(mechanism, properties)?;
        let response = start_ok.response.as_bytes();
        match credentials(mechanism, response, self.certified.as_ref())? {
            Some(login) => {
                out.login = Some(login);
                self.phase = Phase::Login(client);
            }
            None => self.refuse_login(now_ms, &client, out),
        }
        Ok(())
    }

    fn refuse_login(&mut self, now_ms: u64, client: &Client, out: &mut Outbox) {
        let fault = login_refused(client);
        if client.authentication_failure_close {
            self.close(now_ms, &fault, out);
        } else {
            out.complaint = Some(fault.reply_text());
            self.hang_up(out);
        }
    }

    fn on_tune_ok(
        &mut self,
        client: Client,
        identity: Identity,
        tune_ok: &TuneOk,
    ) -> Result<(), Fault> {
        let tuning = Tuning::agree(&self.options, tune_ok)?;
        self.heartbeat_ms = u64::from(tuning.heartbeat_s) * 1000;
        self.phase = Phase::Open(client, identity, tuning);
        Ok(())
    }

    fn on_open(
        &mut self,
        client: Client,
        identity: Identity,
        tuning: Tuning,
        open: &Open,
        out: &mut Outbox,
    ) {
        let vhost = method::text(&open.virtual_host);
        let (user, client_name) = (identity.user.clone(), client.name.clone());
        let options = self.options.clone();
        let mut connection = Connection::new(options, tuning, client, identity, vhost.clone());
        let token = connection.next_token();
        connection.pending.insert(token, Pending::Connect);
        let protocol = Protocol::Amqp;
        let connect =
            Connect { token, protocol, vhost, vhost_else: None, user, client_name, producer: None };
        out.requests.push(Request::Connect(connect));
        self.phase = Phase::Running(Box::new(connection));
    }

    fn follow(&mut self, now_ms: u64, next: Next, out: &mut Outbox) {
        match (next, &mut self.phase) {
            (Next::ClosedByClient, Phase::Running(connection)) if connection.is_accepted() => {
                let token = connection.next_token();
                out.requests.push(Request::Barrier { token });
                let deadline_ms = now_ms + self.options.close_timeout_ms;
                self.phase = Phase::Leaving { token, deadline_ms };
            }
            (Next::ClosedByClient, _) => self.answer_close(out),
            (Next::Forced(reason), _) => {
                let fault = Fault::new(ReplyCode::CONNECTION_FORCED, &reason[..]);
                put_close(&fault, out);
                self.hang_up(out);
            }
            (Next::Continue, _) => {}
        }
    }

    /// The client's mistake: says so and waits for the answer.
    fn close(&mut self, now_ms: u64, fault: &Fault, out: &mut Outbox) {
        put_close(fault, out);
        out.complaint = Some(fault.reply_text());
        self.phase = Phase::Closing { deadline_ms: now_ms + self.options.close_timeout_ms };
    }

    fn answer_close(&mut self, out: &mut Outbox) {
        let answer = AMQPMethod::CloseOk(CloseOk {});
        put_method(&mut out.write, 0, AMQPClass::Connection(answer));
        out.client_closes = true;
        self.hang_up(out);
    }

    fn hang_up(&mut self, out: &mut Outbox) {
        self.phase = Phase::Closed;
        out.close = true;
    }

    /// Frames are not told apart any more: the fault may have been in their borders.
    fn await_close_ok(&mut self, input: &mut BytesMut, out: &mut Outbox) {
        if input.windows(CLOSE_OK_FRAME.len()).any(|window| window == CLOSE_OK_FRAME) {
            input.clear();
            self.hang_up(out);
        } else {
            // The answer may be half here.
            let keep = input.len().min(CLOSE_OK_FRAME.len() - 1);
            let _ = input.split_to(input.len() - keep);
        }
    }

    fn note_sent(&mut self, now_ms: u64, out: &Outbox) {
        if !out.write.is_empty() {
            self.last_sent_ms = now_ms;
        }
    }

    fn beat(&mut self, now_ms: u64, out: &mut Outbox) {
        if self.heartbeat_ms == 0 {
            return;
        }
        if now_ms >= self.silence_deadline_ms() {
            let seconds = self.heartbeat_ms / 1000;
            out.complaint = Some(format!("missed heartbeats from client, timeout: {seconds}s"));
            self.hang_up(out);
        } else if now_ms >= self.next_beat_ms() {
            put_heartbeat(out.write.tail());
        }
    }

    /// As RabbitMQ, now and then: the timeout is minutes, and nobody counts its last ones.
    fn check_unacked(&mut self, now_ms: u64, out: &mut Outbox) {
        let timeout_ms = self.options.consumer_timeout_ms;
        if timeout_ms == 0 || now_ms < self.next_unacked_check_ms {
            return;
        }
        self.next_unacked_check_ms = now_ms + (timeout_ms / 10).clamp(100, 60_000);
        if let Phase::Running(connection) = &mut self.phase {
            connection.now_ms = now_ms;
            connection.expire_unacked(out);
        }
    }

    fn silence_deadline_ms(&self) -> u64 {
        self.last_received_ms + 2 * self.heartbeat_ms
    }

    fn next_beat_ms(&self) -> u64 {
        self.last_sent_ms + self.heartbeat_ms / 2
    }
}

fn put_close(fault: &Fault, out: &mut Outbox) {
    let close = Close {
        reply_code: fault.code.0,
        reply_text: short(&fault.reply_text()),
        class_id: fault.method.class,
        method_id: fault.method.method,
    };
    put_method(&mut out.write, 0, AMQPClass::Connection(AMQPMethod::Close(close)));
}

impl Session for AmqpSession {
    fn on_certificate(&mut self, user: &str) {
        self.certified = Some(Text::from(user));
    }

    fn on_bytes(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox) {
        self.last_received_ms = now_ms;
        while !input.is_empty() {
            match self.step(now_ms, input, out) {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => self.close(now_ms, &fault, out),
            }
        }
        self.note_sent(now_ms, out);
    }

    fn on_unread(&mut self, now_ms: u64) {
        self.last_received_ms = now_ms;
    }

    fn on_effects(&mut self, now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox) {
        if let Phase::Running(connection) = &mut self.phase {
            connection.now_ms = now_ms;
        }
        for effect in effects.drain(..) {
            match &mut self.phase {
                Phase::Running(connection) => match connection.on_effect(effect, out) {
                    Ok(next) => self.follow(now_ms, next, out),
                    Err(fault) => self.close(now_ms, &fault, out),
                },
                Phase::Leaving { token: awaited, .. } => match effect {
                    Effect::Reply { token, .. } if token == *awaited => self.answer_close(out),
                    Effect::Close { .. } => self.answer_close(out),
                    _ => {}
                },
                _ if matches!(effect, Effect::Close { .. }) => self.hang_up(out),
                _ => {}
            }
        }
        if let Phase::Running(connection) = &mut self.phase {
            connection.flush_confirms(out);
        }
        self.note_sent(now_ms, out);
    }

    fn on_login(&mut self, now_ms: u64, outcome: LoginOutcome, out: &mut Outbox) {
        match (std::mem::replace(&mut self.phase, Phase::Closed), outcome) {
            (Phase::Login(client), LoginOutcome::Accepted { user, tags }) => {
                let impersonator = tags.contains(&Text::from_static("impersonator"));
                put_tune(&mut out.write, &self.options);
                self.phase = Phase::Tune(client, Identity { user, impersonator });
            }
            (Phase::Login(client), LoginOutcome::Refused) => {
                self.refuse_login(now_ms, &client, out);
            }
            (phase, _) => self.phase = phase,
        }
        self.note_sent(now_ms, out);
    }

    fn on_timer(&mut self, now_ms: u64, out: &mut Outbox) {
        match self.phase {
            Phase::Running(_) => {
                self.beat(now_ms, out);
                self.check_unacked(now_ms, out);
            }
            Phase::Leaving { deadline_ms, .. } if now_ms >= deadline_ms => self.answer_close(out),
            Phase::Closing { deadline_ms } if now_ms >= deadline_ms => self.hang_up(out),
            Phase::Leaving { .. } | Phase::Closing { .. } | Phase::Closed => {}
            _ if now_ms >= self.handshake_deadline_ms => {
                out.complaint = Some("handshake not finished in time".to_owned());
                self.hang_up(out);
            }
            _ => {}
        }
        self.note_sent(now_ms, out);
    }

    fn deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Running(_) => {
                let beat = self.silence_deadline_ms().min(self.next_beat_ms());
                let beat = (self.heartbeat_ms > 0).then_some(beat);
                let timeout = self.options.consumer_timeout_ms > 0;
                beat.into_iter().chain(timeout.then_some(self.next_unacked_check_ms)).min()
            }
            Phase::Leaving { deadline_ms, .. } | Phase::Closing { deadline_ms } => {
                Some(deadline_ms)
            }
            Phase::Closed => None,
            _ => Some(self.handshake_deadline_ms),
        }
    }
}
