//! Which session serves which port.

use crate::config::Settings;
use crate::listener::SessionFactory;
use std::sync::Arc;
use understudy_amqp::{AmqpOptions, AmqpSession};
use understudy_model::Text;
use understudy_native::{NativeOptions, NativeSession};
use understudy_stomp::{Dialect, StompOptions, StompSession};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn amqp(settings: &Settings) -> SessionFactory {
    let options = AmqpOptions {
        product_version: VERSION.to_owned(),
        node_name: settings.name.clone(),
        frame_max: settings.amqp.frame_max_bytes,
        channel_max: settings.amqp.channel_max,
        heartbeat_s: settings.amqp.heartbeat_s,
        message_bytes_max: settings.limits.message_bytes_max,
        handshake_timeout_ms: settings.amqp.handshake_timeout_ms,
        consumer_timeout_ms: settings.amqp.consumer_timeout_ms,
        ..AmqpOptions::default()
    };
    Arc::new(move |_, now_ms| {
        // Names of reply queues are made of it: unique on both nodes, and not to be guessed.
        let connection_seed = getrandom::u64()?;
        let options = AmqpOptions { connection_seed, ..options.clone() };
        Ok(Box::new(AmqpSession::new(options, now_ms)))
    })
}

/// `dialect` is that of the listener.
pub(super) fn stomp(settings: &Settings, dialect: &str) -> SessionFactory {
    let options = Arc::new(StompOptions {
        server: format!("Understudy/{VERSION}"),
        dialect: if dialect == "activemq" { Dialect::Activemq } else { Dialect::Rabbitmq },
        message_bytes_max: settings.limits.message_bytes_max as usize,
        handshake_timeout_ms: settings.stomp.handshake_timeout_ms,
        prefetch_default: settings.stomp.prefetch_default,
        default_persistent: settings.stomp.default_persistent,
        ..StompOptions::default()
    });
    Arc::new(move |id, now_ms| {
        // Names of temporary queues are made of the session id: unique on both nodes, for ever, and not
        // to be guessed from another connection's.
        let session_id = format!("session-{:016x}{:08x}", getrandom::u64()?, id.0);
        Ok(Box::new(StompSession::new(options.clone(), session_id, now_ms)))
    })
}

pub(super) fn native(settings: &Settings) -> SessionFactory {
    let options = NativeOptions {
        node_name: Text::from(settings.name.as_str()),
        version: Text::from_static(VERSION),
        message_bytes_max: settings.limits.message_bytes_max as usize,
        ..NativeOptions::default()
    };
    Arc::new(move |_, now_ms| Ok(Box::new(NativeSession::new(options.clone(), now_ms))))
}
