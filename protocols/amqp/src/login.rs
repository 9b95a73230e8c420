//! What a client says about itself in `connection.start-ok`: credentials and capabilities.

use crate::fault::{Fault, ReplyCode};
use bytes::Bytes;
use understudy_model::{Login, Table, Text, Value};

pub(crate) const MECHANISMS: &str = "PLAIN AMQPLAIN";
/// Offered to a client that has shown a certificate.
pub(crate) const MECHANISMS_BY_CERTIFICATE: &str = "EXTERNAL PLAIN AMQPLAIN";

/// What the client can do beyond the specification, and what it calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) mechanism: String,
    pub(crate) authentication_failure_close: bool,
    pub(crate) consumer_cancel_notify: bool,
    pub(crate) connection_blocked: bool,
    pub(crate) name: Text,
}

impl Client {
    /// `properties`: the inside of the client properties' table.
    pub(crate) fn decode(mechanism: &str, properties: &[u8]) -> Result<Self, Fault> {
        let properties = Table::decode(properties)
            .map_err(|malformed| Fault::new(ReplyCode::SYNTAX_ERROR, malformed.to_string()))?;
        let capability = |name: &str| match properties.get("capabilities") {
            Some(Value::Table(table)) => table.get(name).and_then(Value::as_bool).unwrap_or(false),
            _ => false,
        };
        Ok(Self {
            mechanism: mechanism.to_owned(),
            authentication_failure_close: capability("authentication_failure_close"),
            consumer_cancel_notify: capability("consumer_cancel_notify"),
            connection_blocked: capability("connection.blocked"),
            name: properties
                .get("connection_name")
                .and_then(Value::as_str)
                .map(Text::from)
                .unwrap_or_default(),
        })
    }
}

/// The credentials in a response, `None` if there are none to be found. `certified`: the user that
/// the client's certificate stands for.
pub(crate) fn credentials(
    mechanism: &str,
    response: &[u8],
    certified: Option<&Text>,
) -> Result<Option<Login>, Fault> {
    match (mechanism, certified) {
        ("EXTERNAL", Some(user)) => {
            Ok(Some(Login { user: user.clone(), password: Bytes::new(), by_certificate: true }))
        }
        _ => by_password(mechanism, response),
    }
}

fn by_password(mechanism: &str, response: &[u8]) -> Result<Option<Login>, Fault> {
    match mechanism {
        "PLAIN" => Ok(plain(response)),
        "AMQPLAIN" => amqplain(response),
        _ => {
            let text = format!("unknown authentication mechanism '{mechanism}'");
            Err(Fault::new(ReplyCode::COMMAND_INVALID, text))
        }
    }
}

/// RFC 4616: identity to act as (not used), user, password, with a zero octet between.
fn plain(response: &[u8]) -> Option<Login> {
    let mut parts = response.splitn(3, |octet| *octet == 0);
    let (_act_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    login(user, password)
}

/// The inside of a field table with LOGIN and PASSWORD.
fn amqplain(response: &[u8]) -> Result<Option<Login>, Fault> {
    let table = Table::decode(response)
        .map_err(|malformed| Fault::new(ReplyCode::SYNTAX_ERROR, malformed.to_string()))?;
    let string = |name: &str| match table.get(name) {
        Some(Value::String(bytes)) => Some(bytes),
        _ => None,
    };
    Ok(string("LOGIN").zip(string("PASSWORD")).and_then(|(user, password)| login(user, password)))
}

fn login(user: &[u8], password: &[u8]) -> Option<Login> {
    let user = Text::from(std::str::from_utf8(user).ok()?);
    Some(Login { user, password: Bytes::copy_from_slice(password), by_certificate: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_takes_user_and_password() {
        let login = credentials("PLAIN", b"\0guest\0se\0cret", None).unwrap().unwrap();
        assert_eq!(&login.user[..], "guest");
        assert_eq!(&login.password[..], b"se\0cret");
        assert_eq!(credentials("PLAIN", b"guest", None), Ok(None));
        assert_eq!(credentials("PLAIN", b"\0gu\xffest\0secret", None), Ok(None));
        assert!(credentials("EXTERNAL", b"", None).is_err());
        let certified = Text::from_static("orders");
        let login = credentials("EXTERNAL", b"", Some(&certified)).unwrap().unwrap();
        assert!(login.user == certified && login.by_certificate);
        let login = credentials("PLAIN", b"\0orders\0x", Some(&certified)).unwrap().unwrap();
        assert!(!login.by_certificate, "a password is checked all the same");
    }

    #[test]
    fn amqplain_takes_a_table() {
        let mut table = Table::default();
        table.push("PASSWORD", Value::text("secret"));
        assert_eq!(credentials("AMQPLAIN", &table.to_bytes(), None), Ok(None));
        table.push("LOGIN", Value::text("guest"));
        let login = credentials("AMQPLAIN", &table.to_bytes(), None).unwrap().unwrap();
        assert_eq!((&login.user[..], &login.password[..]), ("guest", &b"secret"[..]));
    }
}
