//! Password hashes. New ones are Argon2id; RabbitMQ's (base64 of a 4-byte salt followed by
//! SHA-256(salt + password)) are understood, so that its users can be brought along.

use argon2::Argon2;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use understudy_model::Text;

pub const SHA256: &str = "sha256:";
/// Followed by `m=…,t=…,p=…:` and salt and hash in base64, with a colon between.
pub const ARGON2ID: &str = "argon2id:";
const SHA256_SALT_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// OWASP's recommendation: 19 MiB, two passes, one lane; some 20 ms of one core.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// A record with more would let an import eat the machine.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;

/// Whether checking it takes long enough to keep it off the threads that serve sockets.
pub fn is_slow(hash: &str) -> bool {
    hash.starts_with(ARGON2ID)
}

/// Whether this version can check logins against it.
pub fn is_hash(text: &str) -> bool {
    parse_sha256(text).is_some() || parse_argon2(text).is_some()
}

/// Takes tens of milliseconds.
pub fn argon2id(password: &[u8], salt: [u8; SALT_BYTES]) -> Text {
    let hash = argon2_digest(password, &salt, MEMORY_KIB, PASSES).unwrap_or([0; HASH_BYTES]);
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Text::from(format!("{ARGON2ID}m={MEMORY_KIB},t={PASSES},p=1:{salt}:{hash}"))
}

/// A salt that follows from what it is for: the same configuration makes the same record.
pub fn derived_salt(name: &str, password: &str) -> [u8; SALT_BYTES] {
    let digest = sha256_digest(name.as_bytes(), password.as_bytes());
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&digest[..SALT_BYTES]);
    salt
}

/// RabbitMQ's form, for a password that is no secret.
pub fn sha256(password: &[u8], salt: [u8; SHA256_SALT_BYTES]) -> Text {
    let mut bytes = salt.to_vec();
    bytes.extend_from_slice(&sha256_digest(&salt, password));
    Text::from(format!("{SHA256}{}", BASE64.encode(bytes)))
}

/// Whether it is the password. An unknown form is nobody's.
pub fn matches(hash: &str, password: &[u8]) -> bool {
    if let Some((salt, expected)) = parse_sha256(hash) {
        return sha256_digest(&salt, password).ct_eq(&expected).into();
    }
    let Some(stored) = parse_argon2(hash) else { return false };
    argon2_digest(password, &stored.salt, stored.memory_kib, stored.passes)
        .is_some_and(|found| found.ct_eq(&stored.hash).into())
}

fn sha256_digest(salt: &[u8], password: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().into()
}

fn argon2_digest(
    password: &[u8],
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Option<[u8; HASH_BYTES]> {
    let params = argon2::Params::new(memory_kib, passes, 1, Some(HASH_BYTES)).ok()?;
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut out = [0; HASH_BYTES];
    argon2.hash_password_into(password, salt, &mut out).ok()?;
    Some(out)
}

fn parse_sha256(text: &str) -> Option<([u8; SHA256_SALT_BYTES], [u8; HASH_BYTES])> {
    let bytes = BASE64.decode(text.strip_prefix(SHA256)?).ok()?;
    let (salt, hash) = bytes.split_first_chunk::<SHA256_SALT_BYTES>()?;
    Some((*salt, hash.try_into().ok()?))
}

struct Argon2Hash {
    memory_kib: u32,
    passes: u32,
    salt: Vec<u8>,
    hash: [u8; HASH_BYTES],
}

fn parse_argon2(text: &str) -> Option<Argon2Hash> {
    let mut parts = text.strip_prefix(ARGON2ID)?.split(':');
    let (params, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut params = params.split(',');
    let mut number = |name: &str| params.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (memory_kib, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let bounded = memory_kib <= MEMORY_KIB_MAX && passes <= PASSES_MAX && lanes == 1;
    if parts.next().is_some() || !bounded {
        return None;
    }
    let salt = STANDARD_NO_PAD.decode(salt).ok()?;
    let hash = STANDARD_NO_PAD.decode(hash).ok()?.try_into().ok()?;
    Some(Argon2Hash { memory_kib, passes, salt, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmqs_own_example_is_understood() {
        // From RabbitMQ's documentation of its password hashes: user with password "test12".
        let hash = "sha256:kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        assert!(matches(hash, b"test12") && !matches(hash, b"test13"));
        assert!(is_hash(hash));
        assert!(!is_hash("sha256:abc") && !is_hash("plain") && !is_hash(""));
    }

    #[test]
    fn argon2id_matches_its_password_only() {
        let hash = argon2id(b"secret", derived_salt("ann", "secret"));
        assert!(is_hash(&hash) && is_slow(&hash));
        assert!(matches(&hash, b"secret") && !matches(&hash, b"Secret"));
        assert_eq!(hash, argon2id(b"secret", derived_salt("ann", "secret")));
        let greedy = hash.replace("m=19456", "m=999999999");
        assert!(!is_hash(&greedy) && !matches(&greedy, b"secret"));
    }
}
