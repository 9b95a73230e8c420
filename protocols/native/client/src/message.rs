//! Messages as a client publishes them.

use bytes::Bytes;
use understudy_native::{
    NAME_BYTES_MAX, Properties, Publish, PublishFlags, Table, Text, Value, check_table_depth,
};

use crate::Error;

/// Flags and list of a block with nothing but delivery mode 2.
const PERSISTENT: Bytes = Bytes::from_static(&[0x10, 0x00, 2]);

const PERSISTENT_MODE: u8 = 2;

/// A message to publish. Persistent unless its properties say otherwise.
#[derive(Clone, Debug)]
pub struct Message {
    exchange: Text,
    routing_key: Text,
    /// None: they cannot be encoded.
    properties: Option<Bytes>,
    body: Bytes,
    mandatory: bool,
    declare_missing: bool,
}

impl Message {
    /// To the queue of that name.
    pub fn to_queue(queue: impl Into<Text>, body: impl Into<Bytes>) -> Self {
        Self::to_exchange(Text::new(), queue, body)
    }

    /// To the queues that the exchange has bound for the routing key.
    pub fn to_exchange(
        exchange: impl Into<Text>,
        routing_key: impl Into<Text>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            properties: Some(PERSISTENT),
            body: body.into(),
            mandatory: false,
            declare_missing: false,
        }
    }

    /// Sets the AMQP properties. Without a delivery mode the message stays persistent. Texts and
    /// names of headers have at most 255 bytes: publishing says [`Error::Invalid`].
    #[must_use]
    pub fn properties(mut self, properties: &Properties) -> Self {
        let raw = match properties.delivery_mode {
            Some(_) => properties.to_bytes(),
            None => {
                let delivery_mode = Some(PERSISTENT_MODE);
                Properties { delivery_mode, ..properties.clone() }.to_bytes()
            }
        };
        // The broker would close the connection over what it cannot read.
        let is_good = fits(properties) && Properties::decode(&raw).is_ok();
        self.properties = is_good.then_some(raw);
        self
    }

    /// Asks that the publish fail with [`Error::Returned`] if no queue takes the message. Not for
    /// transactions.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Asks the broker to declare the queue, durable, if it is missing. Only of effect with
    /// [`Self::to_queue`].
    #[must_use]
    pub fn declare_missing(mut self) -> Self {
        self.declare_missing = true;
        self
    }

    /// Checked here, because the broker would close the connection over it.
    pub(crate) fn into_publish(self) -> Result<Publish, Error> {
        check_name(&self.exchange)?;
        check_name(&self.routing_key)?;
        let properties = self.properties;
        let properties = properties.ok_or(Error::Invalid("the properties cannot be encoded"))?;
        Ok(Publish {
            sequence: 0,
            flags: PublishFlags {
                confirm: true,
                mandatory: self.mandatory,
                declare_missing: self.declare_missing,
                dedup: true,
            },
            exchange: self.exchange,
            routing_key: self.routing_key,
            properties,
            body: self.body,
        })
    }
}

/// What is longer would be cut.
fn fits(properties: &Properties) -> bool {
    let texts = [
        &properties.content_type,
        &properties.content_encoding,
        &properties.correlation_id,
        &properties.reply_to,
        &properties.expiration,
        &properties.message_id,
        &properties.kind,
        &properties.user_id,
        &properties.app_id,
        &properties.cluster_id,
    ];
    texts.into_iter().flatten().all(|text| text.len() <= NAME_BYTES_MAX)
        && properties.headers.as_ref().is_none_or(names_fit)
}

fn names_fit(table: &Table) -> bool {
    table.0.iter().all(|(name, value)| name.len() <= NAME_BYTES_MAX && names_inside_fit(value))
}

fn names_inside_fit(value: &Value) -> bool {
    match value {
        Value::Table(table) => names_fit(table),
        Value::Array(values) => values.iter().all(names_inside_fit),
        _ => true,
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    match name.len() {
        0..=NAME_BYTES_MAX => Ok(()),
        _ => Err(Error::Invalid("a name or key is longer than 255 bytes")),
    }
}

pub(crate) fn checked_table(table: &Table) -> Result<Bytes, Error> {
    let bytes = table.to_bytes();
    match check_table_depth(&bytes) {
        Ok(()) if names_fit(table) => Ok(bytes),
        _ => Err(Error::Invalid("the arguments cannot be encoded")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(name: String, depth: usize) -> Table {
        let innermost = Table(vec![(Text::from(name), Value::Bool(true))]);
        (0..depth).fold(innermost, |inside, _| {
            Table(vec![("t".into(), Value::Array(vec![Value::Table(inside)]))])
        })
    }

    #[test]
    fn what_would_be_cut_or_not_read_is_refused() {
        let longest = "ü".repeat(127);
        let too_long = format!("{longest}xx");
        let publish = |properties: Properties| {
            let publish = Message::to_queue("q", "").properties(&properties).into_publish();
            publish.map(|publish| Properties::decode(&publish.properties).unwrap())
        };
        for (text, name, depth, is_good) in [
            (&longest, &longest, 3, true),
            (&too_long, &longest, 3, false),
            (&longest, &too_long, 0, false),
            (&longest, &too_long, 3, false),
            (&longest, &longest, 100, false),
        ] {
            let headers = nested(name.clone(), depth);
            let properties = Properties {
                correlation_id: Some(text.as_str().into()),
                headers: Some(headers.clone()),
                delivery_mode: Some(1),
                ..Properties::default()
            };
            match publish(properties.clone()) {
                Ok(published) => assert!(is_good && published == properties),
                Err(error) => assert!(!is_good && matches!(error, Error::Invalid(_))),
            }
            assert_eq!(checked_table(&headers).is_ok(), is_good || *text == too_long);
        }
    }
}
