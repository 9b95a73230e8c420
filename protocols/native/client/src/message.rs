use bytes::Bytes;
use understudy_native::{
    NAME_BYTES_MAX, Properties, Publish, PublishFlags, Text, check_table_depth,
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
    properties: Bytes,
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
            properties: PERSISTENT,
            body: body.into(),
            mandatory: false,
            declare_missing: false,
        }
    }

    /// Sets the AMQP properties. Without a delivery mode the message stays persistent.
    #[must_use]
    pub fn properties(mut self, properties: &Properties) -> Self {
        self.properties = match properties.delivery_mode {
            Some(_) => properties.to_bytes(),
            None => {
                let delivery_mode = Some(PERSISTENT_MODE);
                Properties { delivery_mode, ..properties.clone() }.to_bytes()
            }
        };
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
        if self.properties != PERSISTENT {
            check_properties(&self.properties)?;
        }
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
            properties: self.properties,
            body: self.body,
        })
    }
}

fn check_properties(raw: &[u8]) -> Result<(), Error> {
    let checked = Properties::decode(raw);
    checked.map(|_| ()).map_err(|_| Error::Invalid("the properties cannot be encoded"))
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    match name.len() {
        0..=NAME_BYTES_MAX => Ok(()),
        _ => Err(Error::Invalid("a name or key is longer than 255 bytes")),
    }
}

pub(crate) fn checked_table(table: &understudy_native::Table) -> Result<Bytes, Error> {
    let bytes = table.to_bytes();
    check_table_depth(&bytes).map_err(|_| Error::Invalid("the arguments cannot be encoded"))?;
    Ok(bytes)
}
