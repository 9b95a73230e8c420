//! `failover:` addresses in ActiveMQ's grammar, with its option names and defaults.

use crate::Error;
use std::{fmt, str::FromStr, time::Duration};

const DEFAULT_PORT: u16 = 61_616;
const DEFAULT_TLS_PORT: u16 = 61_617;

/// Options of a list that ActiveMQ's clients know: a slave takes no spare connections, and the
/// broker does not spread its clients.
const INEFFECTIVE: [&str; 5] =
    ["backup", "backupPoolSize", "updateURIsURL", "reconnectSupported", "rebalanceUpdateURIs"];
/// The same for one address. The client never waits in a read.
const INEFFECTIVE_OF_ONE: [&str; 2] = ["soTimeout", "soWriteTimeout"];

/// One broker: `tcp://user:password@host:port/vhost?options`, or the same with `ssl://`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// 61616 if not given, 61617 of `ssl://`.
    pub port: u16,
    /// `ssl://` or `tls://`.
    pub tls: bool,
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
    /// `wireFormat.maxFrameSize`, bytes: the longest frame taken from the broker.
    pub frame_bytes_max: Option<usize>,
    /// `cacertfile`: PEM file of those who sign the broker's certificate.
    pub ca_file: Option<String>,
    /// `certfile`: PEM file of the client's own certificate.
    pub certificate_file: Option<String>,
    /// `keyfile`: its key.
    pub key_file: Option<String>,
    /// `server_name_indication`: whom the broker's certificate must be for, if not `host`.
    pub server_name: Option<String>,
}

/// Without the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls, user, vhost, .. } = self;
        let mut shown = f.debug_struct("Address");
        shown.field("host", host).field("port", port).field("tls", tls);
        shown.field("user", user).field("vhost", vhost).finish_non_exhaustive()
    }
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
    /// `timeout`, milliseconds, 0 or -1 for none: how long each publish, request and subscription
    /// waits without a connection, from when it was made or the connection was lost.
    pub timeout: Option<Duration>,
    /// `warnAfterReconnectAttempts`, 10: log a warning each so many rounds. 0: never.
    pub warn_after_reconnect_attempts: u64,
    /// `updateURIsSupported`, true: go where the broker says at a switchover, even if that is not
    /// in the list.
    pub update_uris_supported: bool,
    /// `priorityBackup`, false: the first address, or those of `priorityURIs`, are tried before
    /// the others, however the list is shuffled. Nothing is left for a better address while it
    /// works: only one node of a pair lets clients in.
    pub priority_backup: bool,
    /// `priorityURIs`, with commas between: see there.
    pub priority_uris: Vec<String>,
    /// Options that are not known, in the order of the address.
    pub unknown_options: Vec<String>,
    /// Options of ActiveMQ's that mean nothing here, likewise.
    pub ineffective_options: Vec<String>,
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
            update_uris_supported: true,
            priority_backup: false,
            priority_uris: Vec::new(),
            unknown_options: Vec::new(),
            ineffective_options: Vec::new(),
        }
    }

    /// Whether the address goes before the others.
    pub(crate) fn is_preferred(&self, index: usize) -> bool {
        let Some(address) = self.addresses.get(index).filter(|_| self.priority_backup) else {
            return false;
        };
        match self.priority_uris.is_empty() {
            true => index == 0,
            false => self.priority_uris.contains(&format!("{}:{}", address.host, address.port)),
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
                let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
                self.timeout = ms.map(Duration::from_millis);
            }
            "warnAfterReconnectAttempts" => {
                self.warn_after_reconnect_attempts = number::<i64>(name, value)?.max(0) as u64;
            }
            // Unconfirmed publishes are always kept, within the publish window.
            "trackMessages" | "maxCacheSize" => {}
            "updateURIsSupported" => self.update_uris_supported = flag(name, value)?,
            "priorityBackup" => self.priority_backup = flag(name, value)?,
            "priorityURIs" => {
                for uri in value.split(',').filter(|uri| !uri.is_empty()) {
                    let Address { host, port, .. } = Address::parse(uri)?;
                    self.priority_uris.push(format!("{host}:{port}"));
                }
            }
            _ if INEFFECTIVE.contains(&name) => self.ineffective_options.push(name.into()),
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
            self.not_effective(name, format!("nested.{name}"));
        }
        Ok(())
    }

    fn not_effective(&mut self, name: &str, as_given: String) {
        match INEFFECTIVE_OF_ONE.contains(&name) {
            true => self.ineffective_options.push(as_given),
            false => self.unknown_options.push(as_given),
        }
    }

    /// `inside`: addresses with commas between. Returns the options behind them that are not an
    /// address's.
    fn list<'a>(&mut self, inside: &'a str) -> Result<Vec<(&'a str, &'a str)>, Error> {
        let mut others = Vec::new();
        for text in inside.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (base, query) = split_query(text);
            let mut address = Address::parse(base)?;
            for (name, value) in options(query) {
                if !address.option(name, value)? {
                    others.push((name, value));
                }
            }
            self.addresses.push(address);
        }
        match self.addresses.is_empty() {
            true => Err(Error::Address("no broker is named".into())),
            false => Ok(others),
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
            for (name, _) in plain.list(text)? {
                plain.not_effective(name, name.into());
            }
            return Ok(plain);
        };
        let list = list.strip_prefix("//").unwrap_or(list);
        let mut failover = Self::new(true);
        let Some(list) = list.strip_prefix('(') else {
            // Options stand behind an address here: ActiveMQ gives it all of them, also those that
            // can only be meant for the list.
            for (name, value) in failover.list(list)? {
                failover.option(name, value)?;
            }
            return Ok(failover);
        };
        let (inside, rest) =
            list.rsplit_once(')').ok_or_else(|| Error::Address("a ')' is missing".into()))?;
        for (name, _) in failover.list(inside)? {
            failover.not_effective(name, name.into());
        }
        let query = rest.strip_prefix('?').or_else(|| rest.is_empty().then_some(""));
        let query = query
            .ok_or_else(|| Error::Address(format!("'{rest}' behind the list is not understood")))?;
        for (name, value) in options(query) {
            failover.option(name, value)?;
        }
        Ok(failover)
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Address(format!("'{text}': {why}"));
        let (tls, rest) = match text.split_once("://") {
            Some(("tcp" | "nio", rest)) => (false, rest),
            Some(("ssl" | "tls" | "nio+ssl", rest)) => (true, rest),
            _ => return Err(wrong("tcp://host:port or ssl://host:port is expected")),
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
            None if tls => DEFAULT_TLS_PORT,
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| wrong("the port is no number"))?,
        };
        Ok(Self {
            host: host.into(),
            port,
            tls,
            user,
            password,
            vhost: Some(decode(path)?).filter(|vhost| !vhost.is_empty()),
            connection_timeout: None,
            keep_alive: false,
            no_delay: true,
            inactivity_max: None,
            frame_bytes_max: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            server_name: None,
        })
    }

    /// The address among `uris` (commas between) of the same kind, with the login and the options
    /// of this one.
    pub(crate) fn moved_to(&self, uris: &str) -> Option<Self> {
        let addresses = uris.split(',').filter_map(|uri| Self::parse(uri.trim()).ok());
        let Self { host, port, .. } = addresses.into_iter().find(|new| new.tls == self.tls)?;
        Some(Self { host, port, ..self.clone() })
    }

    /// False: the option is not known.
    fn option(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        match name {
            "connectionTimeout" => self.connection_timeout = Some(millis(name, value)?),
            "keepAlive" => self.keep_alive = flag(name, value)?,
            "tcpNoDelay" => self.no_delay = flag(name, value)?,
            "wireFormat.maxInactivityDuration" => self.inactivity_max = Some(millis(name, value)?),
            "wireFormat.maxFrameSize" => self.frame_bytes_max = Some(number(name, value)?),
            "cacertfile" => self.ca_file = Some(decode(value)?),
            "certfile" => self.certificate_file = Some(decode(value)?),
            "keyfile" => self.key_file = Some(decode(value)?),
            "server_name_indication" => self.server_name = Some(value.into()),
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

/// In any case of letters, as Java takes it; what is neither is more likely a mistake than a "false".
fn flag(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
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
        let (digits, tail) = tail.split_at_checked(2).ok_or_else(|| wrong("percent sign", text))?;
        let digits = std::str::from_utf8(digits).ok();
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong("percent sign", text))?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| wrong("percent sign", text))
}
