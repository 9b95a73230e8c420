//! What a selector sees of a message.

use understudy_model::{FieldView, PropertiesView, fields};

/// JMS gives this to a message that says nothing about it (JMS 2.0 section 7.5.1).
const PRIORITY_DEFAULT: i64 = 4;

/// A message that selectors are asked about: its properties, looked up once for all of them.
#[derive(Debug)]
pub struct Candidate<'a> {
    properties: PropertiesView<'a>,
    headers: Vec<(&'a [u8], FieldView<'a>)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// Not there, or of a type that JMS does not have.
    Null,
    Bool(bool),
    Exact(i64),
    Approximate(f64),
    Text(&'a str),
}

impl<'a> Candidate<'a> {
    /// `properties` is the raw block of AMQP's basic properties. One that is malformed has none.
    pub fn new(properties: &'a [u8]) -> Self {
        let properties = PropertiesView::decode(properties).unwrap_or_default();
        let headers = properties.headers.map(|inside| fields(inside).collect());
        Self { properties, headers: headers.unwrap_or_default() }
    }

    /// JMS's header fields and the properties it defines are AMQP's properties; any other name is
    /// an own header's. Of headers with one name the first counts.
    pub(crate) fn get(&self, name: &str) -> Operand<'a> {
        let of = &self.properties;
        match name {
            "JMSMessageID" => text(of.message_id),
            "JMSCorrelationID" => text(of.correlation_id),
            "JMSType" => text(of.kind),
            "JMSReplyTo" => text(of.reply_to),
            "JMSTimestamp" => of.timestamp.map_or(Operand::Null, exact),
            "JMSPriority" => Operand::Exact(of.priority.map_or(PRIORITY_DEFAULT, i64::from)),
            "JMSDeliveryMode" => Operand::Text(match of.delivery_mode {
                Some(2) => "PERSISTENT",
                _ => "NON_PERSISTENT",
            }),
            "JMSXUserID" => text(of.user_id),
            "JMSXAppID" => text(of.app_id),
            _ => {
                let named = |(given, _): &&(&[u8], FieldView<'a>)| *given == name.as_bytes();
                self.headers.iter().find(named).map_or(Operand::Null, |(_, value)| operand(*value))
            }
        }
    }
}

fn text(bytes: Option<&[u8]>) -> Operand<'_> {
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.map_or(Operand::Null, Operand::Text)
}

fn exact(number: u64) -> Operand<'static> {
    i64::try_from(number).map_or(Operand::Null, Operand::Exact)
}

fn operand(value: FieldView<'_>) -> Operand<'_> {
    match value {
        FieldView::Bool(value) => Operand::Bool(value),
        FieldView::Integer(value) => Operand::Exact(value),
        FieldView::Timestamp(value) => exact(value),
        FieldView::Float(value) => Operand::Approximate(value),
        FieldView::Text(bytes) => text(Some(bytes)),
        FieldView::Other => Operand::Null,
    }
}
