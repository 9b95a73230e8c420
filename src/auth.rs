//! Checking logins against the published users. Hashes are RabbitMQ's: base64 of a 4-byte salt
//! followed by SHA-256(salt + password), behind `sha256:`.

use crate::config::{Secret, UserSetting};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use understudy_model::{Login, LoginOutcome, Text, UserRecord};

const PREFIX: &str = "sha256:";
const SALT_BYTES: usize = 4;
/// Its password is known to everybody, so it is let in from this machine only.
const LOOPBACK_USER: &str = "guest";

#[derive(Clone)]
pub struct Authenticator {
    pub users: watch::Receiver<Arc<Vec<UserRecord>>>,
}

impl Authenticator {
    pub fn check(&self, login: &Login, from: IpAddr) -> LoginOutcome {
        let users = self.users.borrow().clone();
        let user = users.iter().find(|user| user.name == login.user);
        // An unknown user costs the same work, so that time does not tell which names exist.
        let hash = user.map_or("", |user| &user.password_hash);
        let right = matches(hash, &login.password);
        match user {
            Some(user)
                if right && (user.name != LOOPBACK_USER || from.to_canonical().is_loopback()) =>
            {
                LoginOutcome::Accepted { user: user.name.clone(), tags: user.tags.clone() }
            }
            _ => LoginOutcome::Refused,
        }
    }
}

fn digest(salt: &[u8], password: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().into()
}

fn matches(hash: &str, password: &[u8]) -> bool {
    let stored = hash.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok());
    let stored = stored.unwrap_or_default();
    let (salt, expected) = stored.split_at(SALT_BYTES.min(stored.len()));
    digest(salt, password).ct_eq(expected).into()
}

pub fn is_hash(text: &str) -> bool {
    let decoded = text.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok());
    decoded.is_some_and(|bytes| bytes.len() == SALT_BYTES + 32)
}

fn hash(password: &str, salt: [u8; SALT_BYTES]) -> Text {
    let mut bytes = salt.to_vec();
    bytes.extend_from_slice(&digest(&salt, password.as_bytes()));
    Text::from(format!("{PREFIX}{}", BASE64.encode(bytes)))
}

/// The record of a configured user. The salt follows from name and password, so that a restart
/// with the same file makes the same record and nothing is logged anew.
pub fn record(user: &UserSetting) -> UserRecord {
    let password_hash = match &user.secret {
        Secret::Hash(hash) => Text::from(hash.as_str()),
        Secret::Password(password) => {
            let seed = digest(user.name.as_bytes(), password.as_bytes());
            hash(password, [seed[0], seed[1], seed[2], seed[3]])
        }
    };
    UserRecord {
        name: Text::from(user.name.as_str()),
        password_hash,
        tags: user.tags.iter().map(|tag| Text::from(tag.as_str())).collect(),
    }
}

pub fn default_user() -> UserRecord {
    record(&UserSetting {
        name: LOOPBACK_USER.into(),
        secret: Secret::Password("guest".into()),
        tags: vec!["administrator".into()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn outcome(user: &str, password: &str, from: &str) -> bool {
        let named = UserSetting {
            name: "ann".into(),
            secret: Secret::Password("secret".into()),
            tags: vec![],
        };
        let (_keep, users) = watch::channel(Arc::new(vec![default_user(), record(&named)]));
        let login = Login { user: Text::from(user), password: Bytes::from(password.to_owned()) };
        let found = Authenticator { users }.check(&login, from.parse().unwrap());
        matches!(found, LoginOutcome::Accepted { .. })
    }

    #[test]
    fn logins() {
        assert!(outcome("ann", "secret", "10.0.0.1"));
        assert!(!outcome("ann", "Secret", "127.0.0.1"));
        assert!(!outcome("bob", "secret", "127.0.0.1"));
        assert!(outcome("guest", "guest", "127.0.0.1"));
        assert!(outcome("guest", "guest", "::ffff:127.0.0.1"));
        assert!(!outcome("guest", "guest", "10.0.0.1"));
        assert!(!outcome("guest", "", "127.0.0.1"));
    }

    #[test]
    fn rabbitmqs_own_example_is_understood() {
        // From RabbitMQ's documentation of its password hashes: user with password "test12".
        assert!(matches("sha256:kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", b"test12"));
        assert!(is_hash("sha256:kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"));
        assert!(!is_hash("sha256:abc") && !is_hash("plain"));
    }
}
