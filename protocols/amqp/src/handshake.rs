//! From the protocol header to `connection.tune-ok`: what the server says, and what it makes of
//! the answers.

use crate::{
    fault::{Fault, ReplyCode},
    login::{Client, MECHANISMS, MECHANISMS_BY_CERTIFICATE},
    method::{put_method, short},
    options::AmqpOptions,
};
use amq_protocol::{
    protocol::{
        AMQPClass,
        connection::{AMQPMethod, Start, Tune, TuneOk},
    },
    types::{AMQPValue, FieldTable},
};
use understudy_model::WriteBuffer;

pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// Of 0-9, whose methods are those of 0-9-1; 0-8 frames some of them differently.
pub(crate) const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\0\x09";

/// RabbitMQ announces these nine, and clients try nothing that is not announced.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// The smallest frame-max that the specification allows.
pub(crate) const FRAME_MIN_SIZE: u32 = 4096;
/// RabbitMQ takes 4096 before tune-ok; some clients send longer tables about themselves.
pub(crate) const HANDSHAKE_FRAME_MAX: u32 = 131_072;

/// `certified`: the client may log in with the certificate that it has shown.
pub(crate) fn put_start(out: &mut WriteBuffer, options: &AmqpOptions, certified: bool) {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut capabilities = FieldTable::default();
    for name in CAPABILITIES {
        capabilities.insert(short(name), AMQPValue::Boolean(true));
    }
    let mut server_properties = FieldTable::default();
    server_properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
    for (name, value) in [
        ("product", "Understudy"),
        ("version", &options.product_version),
        ("platform", "Rust"),
        ("cluster_name", &options.node_name),
        ("copyright", "The Understudy authors"),
        ("information", "Licensed under the Apache License 2.0"),
    ] {
        server_properties.insert(short(name), text(value));
    }
    let start = Start {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: if certified { MECHANISMS_BY_CERTIFICATE } else { MECHANISMS }.into(),
        locales: "en_US".into(),
    };
    put_method(out, 0, AMQPClass::Connection(AMQPMethod::Start(start)));
}

pub(crate) fn put_tune(out: &mut WriteBuffer, options: &AmqpOptions) {
    let tune = Tune {
        channel_max: options.channel_max,
        frame_max: options.frame_max,
        heartbeat: options.heartbeat_s,
    };
    put_method(out, 0, AMQPClass::Connection(AMQPMethod::Tune(tune)));
}

/// Text of the refusal of a login, as RabbitMQ words it.
pub(crate) fn login_refused(client: &Client) -> Fault {
    let text = format!(
        "Login was refused using authentication mechanism {}. \
         For details see the broker logfile.",
        client.mechanism
    );
    Fault::new(ReplyCode::ACCESS_REFUSED, text)
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
}

impl Tuning {
    pub(crate) fn agree(options: &AmqpOptions, answer: &TuneOk) -> Result<Self, Fault> {
        let channel_max =
            agree_limit("channel_max", options.channel_max.into(), 0, answer.channel_max.into())?;
        let frame_max =
            agree_limit("frame_max", options.frame_max, FRAME_MIN_SIZE, answer.frame_max)?;
        Ok(Self { channel_max: channel_max as u16, frame_max, heartbeat_s: answer.heartbeat })
    }
}

/// 0 in the client's answer: it has no limit of its own.
fn agree_limit(field: &str, ours: u32, minimum: u32, theirs: u32) -> Result<u32, Fault> {
    let (relation, limit) = match theirs {
        0 => return Ok(ours),
        _ if theirs > ours => ("higher than the maximum", ours),
        _ if theirs < minimum => ("lower than the minimum", minimum),
        _ => return Ok(theirs),
    };
    let text = format!("negotiated {field} = {theirs} is {relation} allowed value ({limit})");
    Err(Fault::new(ReplyCode::NOT_ALLOWED, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(channel_max: u16, frame_max: u32) -> Result<(u16, u32), String> {
        let answer = TuneOk { channel_max, frame_max, heartbeat: 0 };
        Tuning::agree(&AmqpOptions::default(), &answer)
            .map(|tuning| (tuning.channel_max, tuning.frame_max))
            .map_err(|fault| fault.reply_text())
    }

    #[test]
    fn clients_may_answer_lower_or_without_a_limit() {
        assert_eq!(agree(0, 0), Ok((2_047, 131_072)));
        assert_eq!(agree(16, 4_096), Ok((16, 4_096)));
        assert_eq!(
            agree(16, 4_095).unwrap_err(),
            "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"
        );
        assert!(agree(2_048, 0).unwrap_err().contains("channel_max = 2048 is higher"));
        assert!(agree(0, 131_073).is_err());
    }
}
