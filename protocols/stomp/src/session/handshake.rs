//! CONNECT: versions, login, vhost, heart-beats, CONNECTED.

use super::{Pending, Result, State, StompSession};
use crate::{
    codec::{FRAME_END, Headers, Version},
    error::StompError,
    heartbeat::Heartbeat,
    options::Dialect,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;
use understudy_model::{
    Connect, Login, LoginOutcome, Outbox, Protocol, Refusal, RefusalKind, Request, Text,
};

/// What CONNECT asked for, until it is granted.
pub(super) struct Handshake {
    login: Text,
    vhost: Text,
    heart_beat: Option<Text>,
}

impl StompSession {
    pub(super) fn connect(&mut self, now_ms: u64, headers: &Headers, out: &mut Outbox) -> Result {
        let accepted = headers.get("accept-version");
        let Some(version) = Version::negotiate(accepted.map(|list| &**list)) else {
            let body = format!("Supported versions are {}\n", Version::SUPPORTED);
            return Err(StompError::new("Version mismatch", body));
        };
        // The decoder does not trim a CONNECT: it cannot know the version yet.
        // Copied: a slice would keep all that was read with it for as long as the connection lives.
        let value = |name: &str| {
            let value = headers.get(name)?;
            Some(Text::from(if version == Version::V10 { value.trim_start() } else { value }))
        };
        let login = match (value("login"), value("passcode"), &self.certified) {
            (Some(user), Some(passcode), _) => {
                Login { user, password: passcode.as_bytes().clone(), by_certificate: false }
            }
            (None, None, Some(user)) => {
                Login { user: user.clone(), password: Bytes::new(), by_certificate: true }
            }
            _ => {
                let body = "The headers 'login' and 'passcode' are required\n";
                return Err(StompError::new("Bad CONNECT", body));
            }
        };
        let heart_beat = value("heart-beat");
        // Checked now, agreed when CONNECTED is sent.
        Heartbeat::agree(heart_beat.as_deref(), &self.options, now_ms)?;
        let host = value("host").filter(|host| !host.is_empty() && !names_a_machine(host));
        let vhost = host.unwrap_or_else(|| self.options.default_vhost.clone());
        self.client_id = value("client-id").unwrap_or_default();
        self.version = version;
        self.decoder.version = version;
        let user = login.user.clone();
        out.login = Some(login);
        self.state = State::LoggingIn(Box::new(Handshake { login: user, vhost, heart_beat }));
        Ok(())
    }

    pub(super) fn logged_in(&mut self, outcome: LoginOutcome, out: &mut Outbox) {
        let State::LoggingIn(handshake) = std::mem::replace(&mut self.state, State::Waiting) else {
            // Timed out meanwhile.
            return self.close(out);
        };
        match outcome {
            LoginOutcome::Refused => {
                let body = format!("Access refused for user '{}'\n", handshake.login);
                self.fail(&StompError::new("Bad CONNECT", body), None, out);
            }
            LoginOutcome::Accepted { user, .. } => {
                self.user = user.clone();
                let token = self.await_reply(Pending::Connect);
                // ActiveMQ ignores `host`, and its clients say what machine they connect to.
                let vhost_else = match self.options.dialect {
                    Dialect::Rabbitmq => None,
                    Dialect::Activemq => Some(self.options.default_vhost.clone()),
                };
                out.requests.push(Request::Connect(Connect {
                    token,
                    protocol: Protocol::Stomp,
                    vhost: handshake.vhost.clone(),
                    vhost_else,
                    user,
                    client_name: self.client_id.clone(),
                    producer: None,
                }));
                self.state = State::Connecting(handshake);
            }
        }
    }

    pub(super) fn connect_answered(
        &mut self,
        now_ms: u64,
        refusal: Option<&Refusal>,
        out: &mut Outbox,
    ) {
        let State::Connecting(handshake) = std::mem::replace(&mut self.state, State::Open) else {
            return;
        };
        if let Some(refusal) = refusal {
            let error = connect_error(refusal, &handshake.vhost);
            return self.fail(&error, None, out);
        }
        let wish = handshake.heart_beat.as_deref();
        match Heartbeat::agree(wish, &self.options, now_ms) {
            Ok(heartbeat) => {
                self.put_connected(heartbeat.offered, out.write.tail());
                self.heartbeat = Some(heartbeat);
            }
            Err(error) => return self.fail(&error, None, out),
        }
        let mut held = std::mem::take(&mut self.held);
        self.read(now_ms, &mut held, out);
        if !held.is_empty() {
            self.held = held;
        }
    }

    /// Never escaped, so that 1.0 clients can read it.
    fn put_connected(&self, (can, wants): (u64, u64), out: &mut BytesMut) {
        // Writing to a buffer cannot fail.
        let _ = write!(
            out,
            "CONNECTED\nserver:{}\nsession:{}\nheart-beat:{can},{wants}\nversion:{}\n\n",
            self.options.server,
            self.session_id,
            self.version.name()
        );
        out.put_slice(FRAME_END);
    }
}

fn connect_error(refusal: &Refusal, vhost: &str) -> StompError {
    let denied = matches!(
        refusal.kind,
        RefusalKind::AccessRefused | RefusalKind::NotFound | RefusalKind::NotAllowed
    );
    let body = if denied {
        format!("Virtual host '{vhost}' access denied")
    } else {
        format!("{}\n", refusal.text)
    };
    StompError::new("Bad CONNECT", body)
}

/// Several clients (stomp.py, as ActiveMQ ignores the header) put the address they connect to
/// into `host` unless told otherwise; no vhost is called like that.
fn names_a_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok()
}
