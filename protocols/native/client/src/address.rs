//! `failover:` addresses in ActiveMQ's grammar, with its option names and defaults.

use crate::Error;
use std::{str::FromStr, time::Duration};

const DEFAULT_PORT: u16 = 61_616;

/// One broker: `tcp://user:password@host:port/vhost?options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// 61616 if not given.
    pub port: u16,
    /// Percent-decoded.
    pub user: Option<String>,
    /// Percent-decoded.
    pub password: Option<String>,
    /// Percent-decoded; none if the path is empty or `/`.
    pub vhost: Option<String>,
    /// `connectionTimeout`, milliseconds. If not given: 30 s for a single address; 2 s where
    /// there are others to go on to.
    pub connection_timeout: Option<Duration>,
    /// `keepAlive`, false.
    pub keep_alive: bool,
    /// `tcpNoDelay`, true.
    pub no_delay: bool,
    /// `wireFormat.maxInactivityDuration`, milliseconds, 0 for none: the silence after which the
    /// connection is dead.
    pub inactivity_max: Option<Duration>,
}

/// A list of brokers and how to go through it.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// At least one.
    pub addresses: Vec<Address>,
    /// `randomize`, true: shuffle the list for each round.
    pub randomize: bool,
    /// `initialReconnectDelay`, 10 ms: before the second round through the list. The first is
    /// made at once.
    pub initial_reconnect_delay: Duration,
    /// `maxReconnectDelay`, 30 s.
    pub max_reconnect_delay: Duration,
    /// `useExponentialBackOff`, true.
    pub use_exponential_back_off: bool,
    /// `backOffMultiplier` or `reconnectDelayExponent`, 2.0.
    pub back_off_multiplier: f64,
    /// `maxReconnectAttempts`, -1: rounds through the list after a loss; -1 for no end, 0 for
    /// none. 0 is the default of an address without `failover:`.
    pub max_reconnect_attempts: i64,
    /// `startupMaxReconnectAttempts`, -1: the same for the first connection; -1 for as many as
    /// after a loss.
    pub startup_max_reconnect_attempts: i64,
    /// `timeout`, -1 for none: how long publishes and requests wait without a connection.
    pub timeout: Option<Duration>,
    /// `warnAfterReconnectAttempts`, 10: log a warning each so many rounds. 0: never.
    pub warn_after_reconnect_attempts: u64,
    /// Options that are not known, in the order of the address.
    pub unknown_options: Vec<String>,
}

impl Failover {
    fn new(reconnects: bool) -> Self {
        Self {
            addresses: Vec::new(),
            randomize: true,
            initial_reconnect_delay: Duration::from_millis(10),
            max_reconnect_delay: Duration::from_secs(30),
            use_exponential_back_off: true,
            back_off_multiplier: 2.0,
            max_reconnect_attempts: if reconnects { -1 } else { 0 },
            startup_max_reconnect_attempts: -1,
            timeout: None,
            warn_after_reconnect_attempts: 10,
            unknown_options: Vec::new(),
        }
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name.strip_prefix("transport.").unwrap_or(name) {
            "randomize" => self.randomize = flag(name, value)?,
            "initialReconnectDelay" => self.initial_reconnect_delay = millis(name, value)?,
            "maxReconnectDelay" => self.max_reconnect_delay = millis(name, value)?,
            "useExponentialBackOff" => self.use_exponential_back_off = flag(name, value)?,
            "backOffMultiplier" | "reconnectDelayExponent" => {
                let multiplier: f64 = number(name, value)?;
                if !(1.0..=1_000.0).contains(&multiplier) {
                    return Err(wrong(name, value));
                }
                self.back_off_multiplier = multiplier;
            }
            "maxReconnectAttempts" => self.max_reconnect_attempts = number(name, value)?,
            "startupMaxReconnectAttempts" => {
                self.startup_max_reconnect_attempts = number(name, value)?;
            }
            "timeout" => {
                let ms: i64 = number(name, value)?;
                self.timeout = u64::try_from(ms).ok().map(Duration::from_millis);
            }
            "warnAfterReconnectAttempts" => {
                self.warn_after_reconnect_attempts = number::<i64>(name, value)?.max(0) as u64;
            }
            // Unconfirmed publishes are always kept, within the publish window.
            "trackMessages" | "maxCacheSize" => {}
            _ => match name.strip_prefix("nested.") {
                Some(nested) => self.nested(nested, value)?,
                None => self.unknown_options.push(name.into()),
            },
        }
        Ok(())
    }

    fn nested(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let mut known = true;
        for address in &mut self.addresses {
            known = address.option(name, value)?;
        }
        if !known {
            self.unknown_options.push(format!("nested.{name}"));
        }
        Ok(())
    }

    /// `inside`: addresses with commas between.
    fn list(&mut self, inside: &str) -> Result<(), Error> {
        for text in inside.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (base, query) = split_query(text);
            let mut address = Address::parse(base)?;
            for (name, value) in options(query) {
                if !address.option(name, value)? {
                    self.unknown_options.push(name.into());
                }
            }
            self.addresses.push(address);
        }
        match self.addresses.is_empty() {
            true => Err(Error::Address("no broker is named".into())),
            false => Ok(()),
        }
    }
}

impl FromStr for Failover {
    type Err = Error;

    /// Takes `failover:(…)?options`, `failover://(…)?options`, `failover:` with a bare list, one
    /// `tcp://` address, or several with commas between.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let Some(list) = text.strip_prefix("failover:") else {
            let mut plain = Self::new(text.contains(','));
            plain.list(text)?;
            return Ok(plain);
        };
        let list = list.strip_prefix("//").unwrap_or(list);
        let mut failover = Self::new(true);
        let query = match list.strip_prefix('(') {
            Some(list) => {
                let (inside, rest) = list
                    .rsplit_once(')')
                    .ok_or_else(|| Error::Address("a ')' is missing".into()))?;
                failover.list(inside)?;
                rest.strip_prefix('?').or_else(|| rest.is_empty().then_some("")).ok_or_else(
                    || Error::Address(format!("'{rest}' behind the list is not understood")),
                )?
            }
            // Without parentheses the options cannot be told from the last address's own: as in
            // ActiveMQ they are the list's.
            None => {
                let (inside, query) = split_query(list);
                failover.list(inside)?;
                query
            }
        };
        for (name, value) in options(query) {
            failover.option(name, value)?;
        }
        Ok(failover)
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Address(format!("'{text}': {why}"));
        let rest = match text.split_once("://") {
            Some(("tcp" | "nio", rest)) => rest,
            Some(("ssl" | "tls", _)) => return Err(wrong("TLS is not supported yet")),
            _ => return Err(wrong("tcp://host:port is expected")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(|| wrong("']' is missing"))?;
                (host, port.strip_prefix(':'))
            }
            None => match place.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| wrong("the port is no number"))?,
        };
        Ok(Self {
            host: host.into(),
            port,
            user,
            password,
            vhost: Some(decode(path)?).filter(|vhost| !vhost.is_empty()),
            connection_timeout: None,
            keep_alive: false,
            no_delay: true,
            inactivity_max: None,
        })
    }

    /// False: the option is not known.
    fn option(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        match name {
            "connectionTimeout" => self.connection_timeout = Some(millis(name, value)?),
            "keepAlive" => self.keep_alive = flag(name, value)?,
            "tcpNoDelay" => self.no_delay = flag(name, value)?,
            "wireFormat.maxInactivityDuration" => self.inactivity_max = Some(millis(name, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

fn options(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn wrong(name: &str, value: &str) -> Error {
    Error::Address(format!("{name}: '{value}' is not understood"))
}

fn flag(name: &str, value: &str) -> Result<bool, Error> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(name, value)),
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| wrong(name, value))
}

fn millis(name: &str, value: &str) -> Result<Duration, Error> {
    number(name, value).map(Duration::from_millis)
}

fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong("percent sign", text))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong("percent sign", text))
}
