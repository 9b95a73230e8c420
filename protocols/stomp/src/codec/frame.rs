//! Frames of a client: commands, headers, body.

use crate::error::StompError;
use bytes::Bytes;
use std::str::FromStr;
use understudy_model::Text;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V10,
    V11,
    V12,
}

impl Version {
    pub(crate) const SUPPORTED: &'static str = "1.0,1.1,1.2";

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The highest that both sides speak. A client that names none speaks 1.0.
    pub(crate) fn negotiate(accepted: Option<&str>) -> Option<Self> {
        let Some(accepted) = accepted else { return Some(Self::V10) };
        let known = accepted.split(',').filter_map(|name| match name.trim() {
            "1.0" => Some(Self::V10),
            "1.1" => Some(Self::V11),
            "1.2" => Some(Self::V12),
            _ => None,
        });
        known.max()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Connect,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
    Unknown(Text),
}

impl Command {
    /// `SUB` and `UNSUB` are ActiveMQ's short forms.
    pub(crate) fn parse(line: &str) -> Self {
        match line.trim_end() {
            "CONNECT" | "STOMP" => Self::Connect,
            "SEND" => Self::Send,
            "SUBSCRIBE" | "SUB" => Self::Subscribe,
            "UNSUBSCRIBE" | "UNSUB" => Self::Unsubscribe,
            "ACK" => Self::Ack,
            "NACK" => Self::Nack,
            "BEGIN" => Self::Begin,
            "COMMIT" => Self::Commit,
            "ABORT" => Self::Abort,
            "DISCONNECT" => Self::Disconnect,
            other => Self::Unknown(Text::from(other)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) command: Command,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

/// Each name once: of repeated headers the first counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Headers(Vec<(Text, Text)>);

impl Headers {
    pub(crate) fn get(&self, name: &str) -> Option<&Text> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The first of `names` that is there, for headers that brokers spell differently.
    pub(crate) fn any<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &Text)> {
        names.iter().find_map(|&name| Some((name, self.get(name)?)))
    }

    pub(crate) fn insert_first(&mut self, name: Text, value: Text) {
        if self.get(&name).is_none() {
            self.0.push((name, value));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Text, Text)> {
        self.0.iter()
    }

    /// Booleans are taken in any case: Python clients send `True`.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, StompError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(StompError::invalid_header(name, "true or false")),
        }
    }

    pub(crate) fn number<T: FromStr>(&self, names: &[&str]) -> Result<Option<T>, StompError> {
        let Some((name, value)) = self.any(names) else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(StompError::invalid_header(name, "a number in range")),
        }
    }

    pub(crate) fn receipt(&self) -> Option<Text> {
        self.get("receipt").cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        assert_eq!(Version::negotiate(None), Some(Version::V10));
        assert_eq!(Version::negotiate(Some("1.0,1.1")), Some(Version::V11));
        assert_eq!(Version::negotiate(Some("1.2, 1.0,9.9")), Some(Version::V12));
        assert_eq!(Version::negotiate(Some("2.0")), None);
        assert_eq!(Version::negotiate(Some("")), None);
    }

    #[test]
    fn booleans_are_taken_in_any_case_and_nothing_else() {
        let mut headers = Headers::default();
        headers.insert_first(Text::from("a"), Text::from("True"));
        headers.insert_first(Text::from("a"), Text::from("false"));
        headers.insert_first(Text::from("b"), Text::from("yes"));
        assert_eq!(headers.bool("a"), Ok(Some(true)));
        assert_eq!(headers.bool("c"), Ok(None));
        assert!(headers.bool("b").is_err());
    }
}
