//! Management over HTTP: status, health and the node's metrics for everybody, RabbitMQ's API for users with its tags,
//! and the same API on a socket in the data directory, where nobody is asked for a name because
//! only the node's own account can open it.

mod ask;
mod body;
mod changes;
mod definitions;
mod failure;
mod health;
mod listings;
mod messages;
mod metrics;
mod pair;
mod principal;
mod rows;
mod shape;
mod table_json;

use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::handle::NodeHandle;
use ask::Asker;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use failure::Failure;
use principal::Principal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::net::{TcpListener, UnixListener};

/// Definitions of a large broker; anything longer is refused.
const BODY_BYTES_MAX: usize = 64 << 20;
/// In the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// What the management interface needs of the process.
#[derive(Clone)]
pub struct Admin {
    pub node: NodeHandle,
    pub auth: Authenticator,
    pub clock: Clock,
    pub next_connection: Arc<AtomicU64>,
    pub message_bytes_max: u64,
}

impl Admin {
    fn asker(&self) -> Asker {
        Asker { node: self.node.clone(), next_connection: self.next_connection.clone() }
    }

    fn node_name(&self) -> String {
        self.node.overview.borrow().name.clone()
    }
}

/// Serves until the listener fails.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let api = api().layer(middleware::from_fn_with_state(admin.clone(), authenticate));
    let router = api.merge(open()).with_state(admin);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// The same for who can open the socket: trusted without a name.
///
/// # Errors
/// The listener's.
pub async fn serve_control(listener: UnixListener, admin: Admin) -> std::io::Result<()> {
    let api = api().layer(middleware::from_fn(trust));
    axum::serve(listener, api.merge(open()).with_state(admin)).await
}

/// Opens the control socket for the node's own account only.
///
/// # Errors
/// The file cannot be made: its path is too long for a socket, or the directory is not ours.
pub fn bind_control(data_dir: &Path) -> std::io::Result<(UnixListener, PathBuf)> {
    use std::os::unix::fs::PermissionsExt;
    let path = data_dir.join(CONTROL_SOCKET);
    // What an earlier run left behind: the directory is locked, so nobody else uses it.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, path))
}

/// What is asked by load balancers and the `status` verb, which have no password.
fn open() -> Router<Admin> {
    Router::new()
        .route("/api/replication", get(health::replication))
        .route("/api/health/ready", get(health::ready))
        .route("/api/health/live", get(health::live))
        .route("/metrics", get(metrics::of_node))
        .fallback(missing)
}

fn api() -> Router<Admin> {
    listings::routes()
        .merge(changes::routes())
        .merge(definitions::routes())
        .merge(messages::routes())
        .merge(health::checks())
        .merge(pair::routes())
        .merge(metrics::of_objects())
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(failure::as_json))
}

async fn authenticate(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let uptime_ms = admin.clock.uptime_ms();
    match Principal::from_headers(request.headers(), &admin.auth, peer.ip(), uptime_ms).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn trust(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Principal::machine());
    next.run(request).await
}

async fn missing() -> Failure {
    Failure::missing()
}

#[cfg(test)]
mod tests;
