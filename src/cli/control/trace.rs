//! The verb that has one connection's reads and writes logged.

use super::Common;
use super::client::{Client, Problem, part};
use super::output::Output;
use clap::{Args, ValueEnum};
use serde_json::json;

#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// As list_connections names it.
    connection: String,
    turn: Turn,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Turn {
    On,
    Off,
}

impl Trace {
    pub(super) fn run(&self, client: &Client, out: &Output) -> Result<(), Problem> {
        let name = &self.connection;
        let path = format!("/api/connections/{}/trace", part(name));
        match self.turn {
            Turn::On => {
                out.headline(&format!("Tracing connection {name} ..."));
                client.put(&path, &json!({})).map(|_| ())
            }
            Turn::Off => {
                out.headline(&format!("No longer tracing connection {name} ..."));
                client.delete(&path, &[])
            }
        }
    }
}
