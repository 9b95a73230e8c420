//! What is listened on: HTTP and the control socket at once, the clients' ports while the node serves.

use super::sessions;
use crate::admin::{self, Admin};
use crate::config::Settings;
use crate::listener::{Listener, SessionFactory, Shared, announce, bind_to_clients};
use crate::tls::Tls;
use anyhow::Context;
use std::path::Path;
use tokio::sync::mpsc;

/// Headers that may stand in one WebSocket message with a body.
const WEB_SOCKET_OVERHEAD_BYTES: usize = 1 << 20;

/// None: no listener is under TLS.
///
/// # Errors
/// A file of `[tls]` cannot be used.
pub(super) fn start_tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    if settings.listen.under_tls().iter().all(|address| address.is_none()) {
        return Ok(None);
    }
    Tls::new(&settings.tls).map(Some)
}

/// The clients' listeners that are configured.
pub(super) fn of_clients(settings: &Settings, tls: Option<&Tls>) -> Vec<Listener> {
    let (listen, stomp) = (&settings.listen, &settings.stomp);
    let message_bytes_max = settings.limits.message_bytes_max as usize;
    let web_socket = Some(message_bytes_max + WEB_SOCKET_OVERHEAD_BYTES);
    let mut listeners = Vec::new();
    let mut add = |protocol,
                   address: &Option<String>,
                   sessions: SessionFactory,
                   tls: Option<&Tls>,
                   web_socket_bytes_max| {
        listeners.extend(address.clone().map(|address| Listener {
            protocol,
            address,
            sessions,
            tls: tls.cloned(),
            web_socket_bytes_max,
        }));
    };
    let dialect = |dialect| sessions::stomp(settings, dialect);
    add("amqp", &listen.amqp, sessions::amqp(settings), None, None);
    add("stomp", &listen.stomp, dialect(&stomp.dialect), None, None);
    add("native", &listen.native, sessions::native(settings), None, None);
    add("amqp_tls", &listen.amqp_tls, sessions::amqp(settings), tls, None);
    add("stomp_tls", &listen.stomp_tls, dialect(&stomp.dialect_tls), tls, None);
    add("native_tls", &listen.native_tls, sessions::native(settings), tls, None);
    add("stomp_ws", &listen.stomp_ws, dialect(&stomp.dialect_ws), None, web_socket);
    add("stomp_wss", &listen.stomp_wss, dialect(&stomp.dialect_wss), tls, web_socket);
    listeners
}

/// Opens HTTP and the control socket now, and each of `clients` when the node serves. What fails
/// later is told on the returned channel.
///
/// # Errors
/// The HTTP address cannot be bound.
pub(super) async fn start(
    settings: &Settings,
    shared: &Shared,
    clients: Vec<Listener>,
) -> anyhow::Result<mpsc::UnboundedReceiver<anyhow::Error>> {
    let (failed, failures) = mpsc::unbounded_channel();
    let admin = Admin {
        node: shared.node.clone(),
        auth: shared.auth.clone(),
        clock: shared.clock,
        next_connection: shared.next_connection.clone(),
        message_bytes_max: settings.limits.message_bytes_max,
    };
    start_control(&settings.data_dir, admin.clone());
    if let Some(address) = &settings.listen.http {
        start_http(address, admin, shared, failed.clone()).await?;
    }
    for listener in clients {
        let (shared, failed) = (shared.clone(), failed.clone());
        tokio::spawn(async move {
            if let Err(error) = listener.run(shared).await {
                let _ = failed.send(error);
            }
        });
    }
    Ok(failures)
}

async fn start_http(
    address: &str,
    admin: Admin,
    shared: &Shared,
    failed: mpsc::UnboundedSender<anyhow::Error>,
) -> anyhow::Result<()> {
    let listener = bind_to_clients(address, shared.unreachable_s)
        .await
        .with_context(|| format!("listen.http: {address}"))?;
    let bound = listener.local_addr()?;
    announce(&shared.opened, "http", Some(bound));
    tracing::info!(protocol = "http", address = %bound, "listening");
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, admin).await {
            let _ = failed.send(error.into());
        }
    });
    Ok(())
}

/// Without the control socket the node serves its clients all the same.
fn start_control(data_dir: &Path, admin: Admin) {
    match admin::bind_control(data_dir) {
        Ok((listener, path)) => {
            tokio::spawn(async move {
                if let Err(error) = admin::serve_control(listener, admin).await {
                    tracing::error!("control socket {}: {error}", path.display());
                }
            });
        }
        Err(error) => tracing::warn!("no control socket in {}: {error}", data_dir.display()),
    }
}
