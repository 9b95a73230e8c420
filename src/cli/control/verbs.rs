//! The verbs and their arguments.

mod run;

use super::Common;
use super::trace::Trace;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Plain {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Promote {
    /// Even if this copy may lack commands that were answered to clients: they are lost.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetSlave {
    /// Even if it is attached: it is dropped, and only this node's copy is left.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct WithPassword {
    name: String,
    /// Read from standard input if left out, so that it stands in no history.
    password: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct InVhost {
    /// The vhost meant.
    #[arg(short = 'p', long, default_value = "/")]
    vhost: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct NamedInVhost {
    name: String,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Args, Debug)]
pub(crate) struct Listing {
    /// Columns, in this order.
    columns: Vec<String>,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Args, Debug)]
pub(crate) struct Everywhere {
    /// Columns, in this order.
    columns: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Tags {
    name: String,
    /// administrator, monitoring, policymaker, management, impersonator, or any word; none: no tag.
    tags: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Permissions {
    name: String,
    /// Regular expressions on names; an empty one permits nothing.
    configure: String,
    write: String,
    read: String,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Args, Debug)]
pub(crate) struct Policy {
    name: String,
    /// Regular expression on names, not anchored.
    pattern: String,
    /// As JSON, e.g. {"max-length": 1000}
    definition: String,
    /// Of the policies that match a name the one with the highest counts.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// queues, exchanges or all
    #[arg(long, default_value = "all")]
    apply_to: String,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteQueue {
    name: String,
    /// Only if no message is ready.
    #[arg(short = 'e', long)]
    if_empty: bool,
    /// Only if it has no consumer.
    #[arg(short = 'u', long)]
    if_unused: bool,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Args, Debug)]
pub(crate) struct File {
    /// `-`: standard output or input.
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Close {
    /// As list_connections names it.
    name: String,
    /// Told to the client.
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct CloseAll {
    /// Told to the clients.
    reason: String,
    #[command(flatten)]
    at: InVhost,
}

#[derive(Subcommand, Debug)]
#[command(rename_all = "snake_case")]
pub(crate) enum ControlVerb {
    /// Make a user, without permissions.
    AddUser(WithPassword),
    /// Delete a user; its connections are closed.
    DeleteUser(Named),
    /// Replace a user's password; its connections stay open.
    ChangePassword(WithPassword),
    /// Replace a user's tags.
    SetUserTags(Tags),
    /// Say whether a password is a user's.
    AuthenticateUser(WithPassword),
    /// List users and their tags.
    ListUsers(Everywhere),
    /// Make a vhost, with the predeclared exchanges.
    AddVhost(Named),
    /// Delete a vhost with all that is in it; its connections are closed.
    DeleteVhost(Named),
    /// List vhosts.
    ListVhosts(Everywhere),
    /// Say what a user may configure, write and read in a vhost.
    SetPermissions(Permissions),
    /// Take away all that a user may do in a vhost.
    ClearPermissions(NamedInVhost),
    /// List who may do what in a vhost.
    ListPermissions(Listing),
    /// List what a user may do, in each vhost.
    ListUserPermissions(Named),
    /// Lay optional arguments over all queues or exchanges with such names.
    SetPolicy(Policy),
    /// Delete a policy.
    ClearPolicy(NamedInVhost),
    /// List the policies of a vhost.
    ListPolicies(Listing),
    /// List the queues of a vhost, with their messages and consumers.
    ListQueues(Listing),
    /// List the exchanges of a vhost.
    ListExchanges(Listing),
    /// List the bindings of a vhost.
    ListBindings(Listing),
    /// List client connections.
    ListConnections(Everywhere),
    /// List the consumers of a vhost's queues.
    ListConsumers(Listing),
    /// Delete a queue's ready messages.
    PurgeQueue(NamedInVhost),
    /// Delete a queue with its messages.
    DeleteQueue(DeleteQueue),
    /// Close one connection.
    CloseConnection(Close),
    /// Close all connections of a vhost.
    CloseAllConnections(CloseAll),
    /// Log what a connection reads and writes, until it is switched off or the connection ends.
    TraceConnection(Trace),
    /// Write users, vhosts, permissions, policies, queues, exchanges, bindings as RabbitMQ's JSON.
    ExportDefinitions(File),
    /// Add what such a file holds.
    ImportDefinitions(File),
    /// Print the stored form of a password.
    HashPassword(Named),
    /// Let the in-sync slave lead and this master follow it, without loss.
    Switchover(Plain),
    /// Let this node lead: the operator says that its peer is dead.
    Promote(Promote),
    /// Have this slave take a whole new copy; what it holds is set aside in its data directory.
    Resync(Plain),
    /// Tell this master that its slave is gone for good: a new node may take its place.
    ForgetSlave(ForgetSlave),
    /// Wait until the other node's copy holds everything that was answered.
    AwaitInSync(Plain),
    /// Print role, state, epoch, cursors and peer.
    ReplicationStatus(Plain),
    /// Print the applied LSN and a hash of the state there: equal on both nodes.
    StateDigest(Plain),
    /// Say whether a node answers.
    Ping(Plain),
}

impl ControlVerb {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::AddUser(a) | Self::ChangePassword(a) | Self::AuthenticateUser(a) => &a.common,
            Self::DeleteUser(a)
            | Self::AddVhost(a)
            | Self::DeleteVhost(a)
            | Self::ListUserPermissions(a)
            | Self::HashPassword(a) => &a.common,
            Self::SetUserTags(a) => &a.common,
            Self::ListUsers(a) | Self::ListVhosts(a) | Self::ListConnections(a) => &a.common,
            Self::SetPermissions(a) => &a.at.common,
            Self::ClearPermissions(a) | Self::ClearPolicy(a) | Self::PurgeQueue(a) => &a.at.common,
            Self::ListPermissions(a)
            | Self::ListPolicies(a)
            | Self::ListQueues(a)
            | Self::ListExchanges(a)
            | Self::ListBindings(a)
            | Self::ListConsumers(a) => &a.at.common,
            Self::SetPolicy(a) => &a.at.common,
            Self::DeleteQueue(a) => &a.at.common,
            Self::CloseConnection(a) => &a.common,
            Self::CloseAllConnections(a) => &a.at.common,
            Self::TraceConnection(a) => &a.common,
            Self::ExportDefinitions(a) | Self::ImportDefinitions(a) => &a.common,
            Self::Ping(a)
            | Self::Switchover(a)
            | Self::Resync(a)
            | Self::AwaitInSync(a)
            | Self::StateDigest(a)
            | Self::ReplicationStatus(a) => &a.common,
            Self::Promote(a) => &a.common,
            Self::ForgetSlave(a) => &a.common,
        }
    }
}
