//! What an ERROR frame says. Words as RabbitMQ's, which clients' tests compare.

use crate::codec::Headers;
use std::{borrow::Cow, fmt::Display};
use understudy_model::{Refusal, Text};

#[derive(Debug, PartialEq)]
pub(crate) struct StompError {
    pub(crate) message: Cow<'static, str>,
    pub(crate) body: String,
    /// The subscription that it is about.
    pub(crate) subscription: Option<Text>,
    /// The receipt that a frame asked for which could not be read.
    pub(crate) receipt: Option<Text>,
}

impl StompError {
    pub(crate) fn new(message: &'static str, body: impl Into<String>) -> Self {
        Self {
            message: Cow::Borrowed(message),
            body: body.into(),
            subscription: None,
            receipt: None,
        }
    }

    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        let (_, name) = refusal.kind.code();
        Self {
            message: Cow::Owned(name.to_ascii_lowercase()),
            body: format!("{name} - {}\n", refusal.text),
            subscription: None,
            receipt: None,
        }
    }

    /// It is about the frame with these headers.
    pub(crate) fn of(self, headers: &Headers) -> Self {
        Self { receipt: headers.receipt(), ..self }
    }

    pub(crate) fn malformed(body: impl Into<String>) -> Self {
        Self::new("Malformed frame", body)
    }

    pub(crate) fn invalid_header(name: &str, wanted: impl Display) -> Self {
        Self::new("Invalid header", format!("'{name}' must be {wanted}.\n"))
    }

    pub(crate) fn missing_header(command: &str, name: &str) -> Self {
        Self::new("Missing header", format!("'{command}' must include the '{name}' header\n"))
    }
}
