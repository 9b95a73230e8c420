//! Checking logins against the published users, off the threads that serve sockets where that
//! takes long.

pub mod hash;

use crate::config::{PermissionSetting, Secret, UserSetting};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot, watch};
use understudy_broker::ConfiguredUser;
use understudy_model::{Login, LoginOutcome, PermissionRecord, Text, UserRecord};

/// Its password is known to everybody, so it is let in from this machine only.
const LOOPBACK_USER: &str = "guest";
/// Slow checks at a time: with 19 MiB and a core each, more would only hurt the clients.
const SLOW_CHECKS_MAX: usize = 2;
/// Logins remembered as right. When so many are known, all are forgotten.
const VERIFIED_MAX: usize = 4_096;

#[derive(Clone)]
pub struct Authenticator {
    users: watch::Receiver<Arc<Vec<UserRecord>>>,
    slow: Arc<Semaphore>,
    verified: Arc<Verified>,
}

/// Logins that a slow check has found right: a hash under a key of this process, of name,
/// password and the stored hash, so that a changed password is checked anew.
struct Verified {
    key: [u8; 32],
    known: Mutex<BTreeSet<[u8; 32]>>,
}

/// What a check says: at once, or when it is done.
pub enum Checked {
    Now(LoginOutcome),
    Later(oneshot::Receiver<LoginOutcome>),
}

impl Authenticator {
    /// # Errors
    /// The machine has no randomness to give.
    pub fn new(users: watch::Receiver<Arc<Vec<UserRecord>>>) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let verified = Arc::new(Verified { key, known: Mutex::default() });
        Ok(Self { users, slow: Arc::new(Semaphore::new(SLOW_CHECKS_MAX)), verified })
    }

    /// Checks a login. Needs a runtime for those that take long.
    pub fn check(&self, login: &Login, from: IpAddr) -> Checked {
        let users = self.users.borrow().clone();
        let user = users.iter().find(|user| user.name == login.user);
        let Some(user) = user.filter(|user| may_come_from(&user.name, from)).cloned() else {
            // An unknown user costs a digest, so that time does not tell which names exist where
            // hashes are fast. A slow check for names out of nowhere would be a gift to attackers.
            let _ = hash::matches(&default_user().password_hash, &login.password);
            return Checked::Now(LoginOutcome::Refused);
        };
        if login.by_certificate {
            return Checked::Now(outcome(true, &user));
        }
        if !hash::is_slow(&user.password_hash) {
            let right = hash::matches(&user.password_hash, &login.password);
            return Checked::Now(outcome(right, &user));
        }
        let seen = self.verified.digest(&user, &login.password);
        if self.verified.is_known(&seen) {
            return Checked::Now(outcome(true, &user));
        }
        let (answer, later) = oneshot::channel();
        let (slow, verified, password) =
            (self.slow.clone(), self.verified.clone(), login.password.clone());
        tokio::spawn(async move {
            let Ok(_permit) = slow.acquire_owned().await else { return };
            // Who waited in front may have been the same login: many connections of one program.
            if verified.is_known(&seen) {
                let _ = answer.send(outcome(true, &user));
                return;
            }
            let stored = user.password_hash.clone();
            let check = move || hash::matches(&stored, &password);
            let right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
            if right {
                verified.remember(seen);
            }
            let _ = answer.send(outcome(right, &user));
        });
        Checked::Later(later)
    }

    /// The same for callers that can wait.
    pub async fn verify(&self, login: &Login, from: IpAddr) -> LoginOutcome {
        match self.check(login, from) {
            Checked::Now(outcome) => outcome,
            Checked::Later(later) => later.await.unwrap_or(LoginOutcome::Refused),
        }
    }

    /// The stored form of a new password.
    ///
    /// # Errors
    /// The machine has no randomness to give.
    pub async fn hash(&self, password: Vec<u8>) -> Result<Text, String> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let _permit = self.slow.acquire().await.map_err(|error| error.to_string())?;
        let hashing = tokio::task::spawn_blocking(move || hash::argon2id(&password, salt));
        hashing.await.map_err(|error| error.to_string())
    }
}

impl Verified {
    fn digest(&self, user: &UserRecord, password: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!());
        for part in [user.name.as_bytes(), user.password_hash.as_bytes(), password] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn is_known(&self, digest: &[u8; 32]) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= VERIFIED_MAX {
            known.clear();
        }
        known.insert(digest);
    }
}

fn may_come_from(user: &str, from: IpAddr) -> bool {
    user != LOOPBACK_USER || from.to_canonical().is_loopback()
}

fn outcome(right: bool, user: &UserRecord) -> LoginOutcome {
    if !right {
        return LoginOutcome::Refused;
    }
    LoginOutcome::Accepted { user: user.name.clone(), tags: user.tags.clone() }
}

/// A configured user. The salt follows from name and password, so that a restart with the same
/// file makes the same record and nothing is logged anew.
pub fn configured(user: &UserSetting) -> ConfiguredUser {
    let password_hash = match &user.secret {
        Secret::Hash(hash) => Text::from(hash.as_str()),
        Secret::Password(password) => {
            hash::argon2id(password.as_bytes(), hash::derived_salt(&user.name, password))
        }
    };
    let name = Text::from(user.name.as_str());
    let tags = user.tags.iter().map(|tag| Text::from(tag.as_str())).collect();
    let permission = |given: &PermissionSetting| PermissionRecord {
        user: name.clone(),
        vhost: Text::from(given.vhost.as_str()),
        configure: Text::from(given.configure.as_str()),
        write: Text::from(given.write.as_str()),
        read: Text::from(given.read.as_str()),
    };
    let permissions = user.permissions.as_ref().map(|given| given.iter().map(permission).collect());
    ConfiguredUser { record: UserRecord { name, password_hash, tags }, permissions }
}

/// `guest`, whose password everybody knows: no slow hash would make it one.
pub fn default_user() -> UserRecord {
    UserRecord {
        name: Text::from_static(LOOPBACK_USER),
        password_hash: hash::sha256(LOOPBACK_USER.as_bytes(), *b"open"),
        tags: vec![Text::from_static("administrator")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn login(user: &str, password: &str) -> Login {
        Login {
            user: Text::from(user),
            password: Bytes::from(password.to_owned()),
            by_certificate: false,
        }
    }

    fn ann(password: &str) -> UserRecord {
        let secret = Secret::Password(password.into());
        let name = "ann".into();
        configured(&UserSetting { name, secret, tags: vec![], permissions: None }).record
    }

    #[tokio::test]
    async fn logins() {
        let (_keep, users) = watch::channel(Arc::new(vec![default_user(), ann("secret")]));
        let auth = Authenticator::new(users).unwrap();
        for (user, password, from, expected) in [
            ("ann", "secret", "10.0.0.1", true),
            ("ann", "Secret", "127.0.0.1", false),
            ("bob", "secret", "127.0.0.1", false),
            ("guest", "guest", "127.0.0.1", true),
            ("guest", "guest", "::ffff:127.0.0.1", true),
            ("guest", "guest", "10.0.0.1", false),
            ("guest", "", "127.0.0.1", false),
        ] {
            let found = auth.verify(&login(user, password), from.parse().unwrap()).await;
            assert_eq!(matches!(found, LoginOutcome::Accepted { .. }), expected, "{user} {from}");
        }
    }

    #[tokio::test]
    async fn a_slow_login_is_remembered_until_the_password_changes() {
        let (change, users) = watch::channel(Arc::new(vec![ann("secret")]));
        let auth = Authenticator::new(users).unwrap();
        let from = "127.0.0.1".parse().unwrap();
        let login = login("ann", "secret");
        assert!(matches!(auth.check(&login, from), Checked::Later(_)));
        assert!(matches!(auth.verify(&login, from).await, LoginOutcome::Accepted { .. }));
        assert!(matches!(auth.check(&login, from), Checked::Now(LoginOutcome::Accepted { .. })));
        change.send_replace(Arc::new(vec![ann("other")]));
        assert_eq!(auth.verify(&login, from).await, LoginOutcome::Refused);
    }
}
