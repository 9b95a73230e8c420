//! Who asks over HTTP, and what the tags of a user let it ask.

use super::failure::Failure;
use crate::auth::Authenticator;
use crate::throttle::Throttle;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::net::IpAddr;
use understudy_broker::Accounts;
use understudy_model::{Login, LoginOutcome, Text};

/// Anybody can make logins fail; they must not fill the disk with the log of it.
static LOGIN_WARNINGS: Throttle = Throttle::new();

/// What a request needs; RabbitMQ's tags give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Management,
    Policymaker,
    Monitoring,
    Administrator,
}

#[derive(Clone, Debug)]
pub(super) struct Principal {
    /// None: came by the control socket, which only the node's own account can open.
    pub(super) user: Option<Text>,
    pub(super) tags: Vec<Text>,
}

impl Principal {
    pub(super) fn machine() -> Self {
        Self { user: None, tags: vec![Text::from_static("administrator")] }
    }

    /// From the request's Basic credentials.
    pub(super) async fn from_headers(
        headers: &HeaderMap,
        auth: &Authenticator,
        from: IpAddr,
        uptime_ms: u64,
    ) -> Result<Self, Failure> {
        let login = credentials(headers)
            .ok_or_else(|| Failure::unauthorised("name and password are needed"))?;
        match auth.verify(&login, from).await {
            LoginOutcome::Accepted { user, tags } => Ok(Self { user: Some(user), tags }),
            LoginOutcome::Refused => {
                if let Some(suppressed) = LOGIN_WARNINGS.pass(uptime_ms) {
                    tracing::warn!(%from, user = %login.user, suppressed, "HTTP login refused");
                }
                Err(Failure::unauthorised("Login failed"))
            }
        }
    }

    fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    pub(super) fn may(&self, level: Level) -> bool {
        let administrator = self.has("administrator");
        match level {
            Level::Administrator => administrator,
            Level::Monitoring => administrator || self.has("monitoring"),
            Level::Policymaker => administrator || self.has("policymaker"),
            Level::Management => ["administrator", "monitoring", "policymaker", "management"]
                .iter()
                .any(|tag| self.has(tag)),
        }
    }

    pub(super) fn need(&self, level: Level) -> Result<(), Failure> {
        if self.may(level) {
            return Ok(());
        }
        Err(Failure::unauthorised(match level {
            Level::Management => "Not management user",
            Level::Policymaker => "Not policymaker user",
            Level::Monitoring => "Not monitor user",
            Level::Administrator => "Not administrator user",
        }))
    }

    /// Whether it is shown what is in the vhost.
    pub(super) fn sees(&self, vhost: &str, accounts: &Accounts) -> bool {
        self.may(Level::Monitoring)
            || accounts
                .permissions
                .iter()
                .any(|p| Some(&p.user) == self.user.as_ref() && p.vhost == vhost)
    }
}

fn credentials(headers: &HeaderMap) -> Option<Login> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Login {
        user: Text::from(user),
        password: Bytes::from(password.to_owned()),
        by_certificate: false,
    })
}
