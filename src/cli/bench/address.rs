//! Where the brokers are: `amqp://user:password@host:port/vhost`, and the like for the others and
//! under TLS.

use crate::cli::complain;
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::str::FromStr;
use understudy_tls::{ClientFiles, Secure};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Amqp,
    Stomp,
    Native,
}

#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    /// Host and port.
    pub(super) place: String,
    /// Empty: the user that the client's certificate stands for.
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    /// By the scheme.
    tls: bool,
    files: ClientFiles,
    server_name: Option<String>,
    /// None: in clear.
    pub(super) secure: Option<Secure>,
}

/// Addresses with commas between, or a `failover:` string of them. The options for TLS are those of
/// `understudy publish`. This tool has ways of its own to go through a list, so the others are told
/// to have no effect.
///
/// # Errors
/// One that cannot be understood, or whose files cannot be used.
pub(super) fn list(text: &str) -> anyhow::Result<Vec<Address>> {
    let (inside, behind) = match text.strip_prefix("failover:") {
        None => (text, ""),
        Some(list) => match list.strip_prefix("//").unwrap_or(list).strip_prefix('(') {
            None => (list.strip_prefix("//").unwrap_or(list), ""),
            Some(list) => list.rsplit_once(')').context("a ')' is missing")?,
        },
    };
    let mut addresses: Vec<Address> = Vec::new();
    for one in inside.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let (address, own) = one.split_once('?').unwrap_or((one, ""));
        let mut address: Address = address.parse()?;
        for option in options(own) {
            if !address.option(option)? {
                has_no_effect(option);
            }
        }
        addresses.push(address);
    }
    for option in options(behind.strip_prefix('?').unwrap_or(behind)) {
        let mut known = false;
        if let Some(nested) = option.strip_prefix("nested.") {
            for address in &mut addresses {
                known = address.option(nested)?;
            }
        }
        if !known {
            has_no_effect(option);
        }
    }
    for address in &mut addresses {
        address.load()?;
    }
    Ok(addresses)
}

fn options(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|option| !option.is_empty())
}

fn has_no_effect(option: &str) {
    complain(&format!("the option {option} of an address has no effect on bench"));
}

impl Address {
    /// False: none that bench knows.
    fn option(&mut self, option: &str) -> anyhow::Result<bool> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = percent_decoded(value)?;
        match name {
            "cacertfile" => self.files.ca_file = Some(PathBuf::from(value)),
            "certfile" => self.files.certificate_file = Some(PathBuf::from(value)),
            "keyfile" => self.files.key_file = Some(PathBuf::from(value)),
            "server_name_indication" => self.server_name = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn load(&mut self) -> anyhow::Result<()> {
        if self.tls {
            let host = self.place.rsplit_once(':').map_or(&*self.place, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = self.server_name.as_deref().unwrap_or(host);
            let secure = Secure::load(&self.files, name);
            self.secure = Some(secure.with_context(|| format!("TLS to {}", self.place))?);
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").context("an address is SCHEME://HOST:PORT")?;
        let (protocol, tls, port) = match scheme {
            "amqp" => (Protocol::Amqp, false, 5672),
            "amqps" => (Protocol::Amqp, true, 5671),
            "stomp" => (Protocol::Stomp, false, 61613),
            "stomp+ssl" => (Protocol::Stomp, true, 61614),
            "tcp" | "nio" | "native" => (Protocol::Native, false, 61616),
            "ssl" | "tls" | "nio+ssl" => (Protocol::Native, true, 61617),
            _ => bail!(
                "{scheme}:// is none of amqp://, stomp://, tcp://; under TLS amqps://, \
                 stomp+ssl://, ssl://"
            ),
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
            tls,
            files: ClientFiles::default(),
            server_name: None,
            secure: None,
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
    fn addresses_under_tls_name_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["one".to_owned()]).unwrap();
        let ca = directory.path().join("c a.pem");
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        let ca = ca.to_str().unwrap().replace(' ', "%20");
        for secure in [
            format!("amqps://one?cacertfile={ca},amqps://two:7?cacertfile={ca}"),
            format!("failover:(stomp+ssl://one,stomp+ssl://[::1]:7)?nested.cacertfile={ca}"),
            format!(
                "failover:(ssl://one,nio+ssl://x_)?nested.cacertfile={ca}&nested.server_name_indication=y"
            ),
        ] {
            assert!(list(&secure).unwrap().iter().all(|address| address.secure.is_some()));
        }
        assert!(list(&format!("tcp://one?cacertfile={ca}")).unwrap()[0].secure.is_none());
        for (wrong, why) in [
            ("amqps://one".to_owned(), "cacertfile"),
            (format!("failover:(ssl://one?cacertfile={ca},ssl://two)"), "two:61617: name"),
            (format!("ssl://one?cacertfile={ca}&certfile={ca}"), "go together"),
            (format!("ssl://one?cacertfile={ca}.missing"), "c a.pem.missing"),
            (format!("ssl://one?cacertfile={ca}&server_name_indication=a b"), "'a b'"),
        ] {
            let error = format!("{:#}", list(&wrong).unwrap_err());
            assert!(error.contains(why), "{wrong}: {error}");
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
        assert_eq!(parse("amqps://one"), "Amqp one:5671 guest guest /");
        assert_eq!(parse("stomp+ssl://:@one"), "Stomp one:61614   /");
        assert_eq!(parse("ssl://one"), "Native one:61617 guest guest /");
        assert_eq!(parse("tcp://u%40v:p%3a@one/%2f"), "Native one:61616 u@v p: /");
        for wrong in ["one:5672", "http://one", "amqp://", "amqp://a%4@b"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
