//! Where the brokers are: `amqp://user:password@host:port/vhost`, and the like for the others.

use crate::cli::complain;
use anyhow::{Context, bail};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Amqp,
    Stomp,
    Native,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    /// Host and port.
    pub(super) place: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
}

/// Addresses with commas between, or a `failover:` string of them. This tool has ways of its own to go
/// through a list, so options are told to have no effect, wherever they stand.
///
/// # Errors
/// One that cannot be understood.
pub(super) fn list(text: &str) -> anyhow::Result<Vec<Address>> {
    let (inside, behind) = match text.strip_prefix("failover:") {
        None => (text, ""),
        Some(list) => match list.strip_prefix("//").unwrap_or(list).strip_prefix('(') {
            None => (list.strip_prefix("//").unwrap_or(list), ""),
            Some(list) => list.rsplit_once(')').context("a ')' is missing")?,
        },
    };
    let mut options: Vec<&str> = behind.strip_prefix('?').unwrap_or(behind).split('&').collect();
    let mut addresses = Vec::new();
    for one in inside.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let (address, own) = one.split_once('?').unwrap_or((one, ""));
        addresses.push(address.parse()?);
        options.extend(own.split('&'));
    }
    for option in options.into_iter().filter(|option| !option.is_empty()) {
        complain(&format!("the option {option} of an address has no effect on bench"));
    }
    Ok(addresses)
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").context("an address is SCHEME://HOST:PORT")?;
        let (protocol, port) = match scheme {
            "amqp" => (Protocol::Amqp, 5672),
            "stomp" => (Protocol::Stomp, 61613),
            "tcp" | "native" => (Protocol::Native, 61616),
            _ => bail!("{scheme}:// is none of amqp://, stomp://, tcp://"),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        if place.is_empty() {
            bail!("{text} names no host");
        }
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self {
            protocol,
            place: if has_port { place.to_owned() } else { format!("{place}:{port}") },
            user: percent_decoded(user)?,
            password: percent_decoded(password)?,
            vhost: if path.is_empty() { "/".to_owned() } else { percent_decoded(path)? },
        })
    }
}

fn percent_decoded(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let octet = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(octet.with_context(|| format!("%{part} in an address is no octet"))?);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8(bytes).context("an address is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_and_without_failover() {
        for text in [
            "tcp://one,tcp://two:7/x",
            "failover:(tcp://one,tcp://two:7/x)?randomize=false&timeout=5",
            "failover://(tcp://one?keepAlive=true, tcp://two:7/x?soTimeout=1)",
            "failover:tcp://one,tcp://two:7/x?randomize=false",
            "failover://tcp://one,tcp://two:7/x",
        ] {
            let addresses = list(text).unwrap();
            let places = addresses.iter().map(|a| format!("{} {}", a.place, a.vhost));
            assert_eq!(places.collect::<Vec<_>>(), ["one:61616 /", "two:7 x"], "{text}");
        }
        for wrong in ["failover:(tcp://one", "failover:(http://one)"] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_have_the_defaults_of_their_protocol() {
        let parse = |text: &str| {
            let address: Address = text.parse().unwrap();
            format!(
                "{:?} {} {} {} {}",
                address.protocol, address.place, address.user, address.password, address.vhost
            )
        };
        assert_eq!(parse("amqp://one"), "Amqp one:5672 guest guest /");
        assert_eq!(parse("stomp://a:b@one:7/x"), "Stomp one:7 a b x");
        assert_eq!(parse("tcp://u%40v:p%3a@one/%2f"), "Native one:61616 u@v p: /");
        for wrong in ["one:5672", "http://one", "amqp://", "amqp://a%4@b"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
