//! A node's connection to `understudy arbiter`.

use super::wire::{Opening, invalid, read_frame, write_frame};
use crate::config::ArbiterSettings;
use crate::peer::{Secret, Security, Side, Socket, prove};
use std::io;
use tokio::net::TcpStream;
use understudy_model::Text;
use understudy_replication::{ArbiterAnswer, ArbiterCall};

pub(super) struct Client {
    address: String,
    secret: Secret,
    security: Security,
    opening: Opening,
    socket: Option<Socket>,
}

impl Client {
    pub(super) fn new(
        settings: &ArbiterSettings,
        address: &str,
        security: Security,
        node: &str,
    ) -> Self {
        let register = Text::from(settings.register.as_str());
        Self {
            address: address.to_owned(),
            secret: Secret::of_arbiter(&settings.user, &settings.password),
            security,
            opening: Opening { register, node: Text::from(node) },
            socket: None,
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    /// # Errors
    /// Nobody answers, or not as an arbiter does. Whether the call was carried out is not known.
    pub(super) async fn call(&mut self, call: &ArbiterCall) -> io::Result<ArbiterAnswer> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect(&self.address).await?;
                socket.set_nodelay(true)?;
                let mut socket = self.security.dial(&self.address, socket).await?;
                prove(socket.as_duplex(), &self.secret, Side::Dialer).await?;
                write_frame(socket.as_duplex(), &self.opening.encode()).await?;
                // Answered before the first call: from here on, older connections count no more.
                read_frame(socket.as_duplex()).await?;
                self.socket.insert(socket)
            }
        };
        write_frame(socket.as_duplex(), &call.encode()).await?;
        let answer = read_frame(socket.as_duplex()).await?;
        ArbiterAnswer::decode(&answer).map_err(invalid)
    }
}
