//! What a client did wrong: a reply code, a text, and the method it was.

use std::fmt::Write;
use understudy_model::Refusal;

/// Class and method number (AMQP 0-9-1 section 4.2.4); zeros where no method is to blame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MethodId {
    pub(crate) class: u16,
    pub(crate) method: u16,
}

impl MethodId {
    pub(crate) const NONE: Self = Self::new(0, 0);
    pub(crate) const CHANNEL_OPEN: Self = Self::new(20, 10);
    pub(crate) const CHANNEL_CLOSE: Self = Self::new(20, 40);
    pub(crate) const CHANNEL_CLOSE_OK: Self = Self::new(20, 41);
    pub(crate) const QOS: Self = Self::new(60, 10);
    pub(crate) const PUBLISH: Self = Self::new(60, 40);
    pub(crate) const ACK: Self = Self::new(60, 80);
    pub(crate) const REJECT: Self = Self::new(60, 90);
    pub(crate) const NACK: Self = Self::new(60, 120);

    pub(crate) const fn new(class: u16, method: u16) -> Self {
        Self { class, method }
    }
}

/// A reply code and its name (AMQP 0-9-1 section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyCode(pub(crate) u16, pub(crate) &'static str);

/// Those that the frontend finds itself.
impl ReplyCode {
    pub(crate) const CONNECTION_FORCED: Self = Self(320, "CONNECTION_FORCED");
    pub(crate) const ACCESS_REFUSED: Self = Self(403, "ACCESS_REFUSED");
    pub(crate) const NOT_FOUND: Self = Self(404, "NOT_FOUND");
    pub(crate) const PRECONDITION_FAILED: Self = Self(406, "PRECONDITION_FAILED");
    pub(crate) const FRAME_ERROR: Self = Self(501, "FRAME_ERROR");
    pub(crate) const SYNTAX_ERROR: Self = Self(502, "SYNTAX_ERROR");
    pub(crate) const COMMAND_INVALID: Self = Self(503, "COMMAND_INVALID");
    pub(crate) const CHANNEL_ERROR: Self = Self(504, "CHANNEL_ERROR");
    pub(crate) const UNEXPECTED_FRAME: Self = Self(505, "UNEXPECTED_FRAME");
    pub(crate) const RESOURCE_ERROR: Self = Self(506, "RESOURCE_ERROR");
    pub(crate) const NOT_ALLOWED: Self = Self(530, "NOT_ALLOWED");
    pub(crate) const NOT_IMPLEMENTED: Self = Self(540, "NOT_IMPLEMENTED");
    pub(crate) const INTERNAL_ERROR: Self = Self(541, "INTERNAL_ERROR");
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ReplyCode,
    /// Without the code's name in front.
    text: String,
    pub(crate) method: MethodId,
}

impl Fault {
    pub(crate) fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), method: MethodId::NONE }
    }

    pub(crate) fn precondition(text: impl Into<String>) -> Self {
        Self::new(ReplyCode::PRECONDITION_FAILED, text)
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let (code, name) = refusal.kind.code();
        Self::new(ReplyCode(code, name), &refusal.text[..])
    }

    /// Names the method to blame, unless one is named already.
    #[must_use]
    pub(crate) fn at(mut self, method: MethodId) -> Self {
        if self.method == MethodId::NONE {
            self.method = method;
        }
        self
    }

    /// Errors of the soft kind, the 400s, cost the channel only.
    pub(crate) fn closes_connection(&self) -> bool {
        !(400..500).contains(&self.code.0)
    }

    /// As clients see it; a short string, so at most 255 bytes.
    pub(crate) fn reply_text(&self) -> String {
        let mut text = format!("{} - {}", self.code.1, self.text);
        text.truncate(short_end(&text));
        text
    }
}

/// How much of the text fits a short string, whole characters.
pub(crate) fn short_end(text: &str) -> usize {
    let longest = text.len().min(255);
    (0..=longest).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0)
}

/// Bytes as RabbitMQ shows them in its reply texts: quoted if printable, else as numbers.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let ellipsis = if shown.len() < bytes.len() { "..." } else { "" };
    if shown.is_empty() {
        return "<<>>".to_owned();
    }
    if shown.iter().all(|octet| matches!(octet, b' '..=b'~')) {
        let quoted = String::from_utf8_lossy(shown).replace('\\', "\\\\").replace('"', "\\\"");
        return format!("<<\"{quoted}\"{ellipsis}>>");
    }
    let mut text = String::from("<<");
    for (index, octet) in shown.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{octet}");
    }
    text + ellipsis + ">>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_texts_fit_a_short_string_and_stay_utf8() {
        let fault = Fault::precondition("ä".repeat(300));
        let text = fault.reply_text();
        assert!(text.len() <= 255 && text.starts_with("PRECONDITION_FAILED - ä"));
    }

    #[test]
    fn bytes_are_shown_as_rabbitmq_shows_them() {
        assert_eq!(show_bytes(b""), "<<>>");
        assert_eq!(show_bytes(b"x"), "<<\"x\">>");
        assert_eq!(show_bytes(&[0, 20, 0, 10]), "<<0,20,0,10>>");
    }
}
