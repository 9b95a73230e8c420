//! The verbs.

use super::Common;
use super::client::{Client, EXIT_DATA, EXIT_SOFTWARE, Problem, part};
use super::output::{Output, write};
use super::pair;
use super::table::{self, Columns};
use super::trace::Trace;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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

    pub(super) fn run(&self, client: &Client, out: &Output) -> Result<(), Problem> {
        let api = |kind: &str, name: &str| format!("/api/{kind}/{}", part(name));
        let within = |kind: &str, vhost: &str, name: &str| {
            format!("/api/{kind}/{}/{}", part(vhost), part(name))
        };
        match self {
            Self::AddUser(_)
            | Self::ChangePassword(_)
            | Self::SetUserTags(_)
            | Self::AuthenticateUser(_)
            | Self::DeleteUser(_) => self.run_user(client, out),
            Self::AddVhost(a) => {
                out.headline(&format!("Adding vhost \"{}\" ...", a.name));
                client.put(&api("vhosts", &a.name), &json!({})).map(|_| ())
            }
            Self::DeleteVhost(a) => {
                out.headline(&format!("Deleting vhost \"{}\" ...", a.name));
                client.delete(&api("vhosts", &a.name), &[])
            }
            Self::SetPermissions(a) => {
                let body = json!({"configure": a.configure, "write": a.write, "read": a.read});
                let (user, vhost) = (&a.name, &a.at.vhost);
                out.headline(&format!(
                    "Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."
                ));
                client.put(&within("permissions", vhost, user), &body).map(|_| ())
            }
            Self::ClearPermissions(a) => {
                let (user, vhost) = (&a.name, &a.at.vhost);
                out.headline(&format!(
                    "Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."
                ));
                client.delete(&within("permissions", vhost, user), &[])
            }
            Self::SetPolicy(a) => set_policy(a, client, out),
            Self::ClearPolicy(a) => {
                out.headline(&format!(
                    "Clearing policy \"{}\" on vhost \"{}\" ...",
                    a.name, a.at.vhost
                ));
                client.delete(&within("policies", &a.at.vhost, &a.name), &[])
            }
            Self::PurgeQueue(a) => {
                let (name, vhost) = (&a.name, &a.at.vhost);
                out.headline(&format!("Purging queue '{name}' in vhost '{vhost}' ..."));
                let path = format!("{}/contents", within("queues", vhost, name));
                client.delete(&path, &[])
            }
            Self::DeleteQueue(a) => {
                let (name, vhost) = (&a.name, &a.at.vhost);
                out.headline(&format!("Deleting queue '{name}' in vhost '{vhost}' ..."));
                let path = within("queues", vhost, name);
                let (unused, empty) = (a.if_unused, a.if_empty);
                client.delete(&format!("{path}?if-unused={unused}&if-empty={empty}"), &[])
            }
            Self::CloseConnection(a) => {
                out.headline(&format!("Closing connection {}, reason: {} ...", a.name, a.reason));
                client.delete(&api("connections", &a.name), &[("X-Reason", &a.reason)])
            }
            Self::CloseAllConnections(a) => {
                let vhost = &a.at.vhost;
                out.headline(&format!("Closing all connections in vhost {vhost} ..."));
                let path = format!("{}/connections", api("vhosts", vhost));
                client.delete(&path, &[("X-Reason", &a.reason)])
            }
            Self::TraceConnection(a) => a.run(client, out),
            Self::ExportDefinitions(a) => export(&a.file, client),
            Self::ImportDefinitions(a) => import(&a.file, client, out),
            Self::HashPassword(a) => {
                let hashed = client.get(&api("auth/hash_password", &a.name))?;
                out.value(&hashed["ok"]);
                Ok(())
            }
            Self::Switchover(_) => pair::switchover(client, out),
            Self::Resync(_) => pair::resync(client, out),
            Self::ForgetSlave(a) => pair::forget_slave(a.force, client, out),
            Self::Promote(a) => pair::promote(a.force, client, out),
            Self::AwaitInSync(_) => pair::await_in_sync(client, out),
            Self::StateDigest(_) => pair::state_digest(client, out),
            Self::ReplicationStatus(_) => pair::replication_status(client, out),
            Self::Ping(_) => {
                client.get("/api/ping")?;
                out.headline("Ping succeeded");
                Ok(())
            }
            _ => self.run_list(client, out),
        }
    }

    fn run_user(&self, client: &Client, out: &Output) -> Result<(), Problem> {
        let path = |name: &str| format!("/api/users/{}", part(name));
        match self {
            Self::AddUser(a) => {
                out.headline(&format!("Adding user \"{}\" ...", a.name));
                match client.get(&path(&a.name)) {
                    Err(problem) if problem.code == EXIT_DATA => {}
                    Err(problem) => return Err(problem),
                    Ok(_) => {
                        let text = format!("user \"{}\" already exists", a.name);
                        return Err(Problem::new(EXIT_SOFTWARE, text));
                    }
                }
                let body = json!({"password": a.password()?, "tags": ""});
                client.put(&path(&a.name), &body).map(|_| ())
            }
            Self::ChangePassword(a) => {
                out.headline(&format!("Changing password for user \"{}\" ...", a.name));
                let known = known_user(client, &a.name)?;
                let body = json!({"password": a.password()?, "tags": known["tags"]});
                client.put(&path(&a.name), &body).map(|_| ())
            }
            Self::SetUserTags(a) => {
                let tags = a.tags.join(", ");
                out.headline(&format!("Setting tags for user \"{}\" to [{tags}] ...", a.name));
                let mut user = known_user(client, &a.name)?;
                user["tags"] = json!(a.tags);
                client.put(&path(&a.name), &user).map(|_| ())
            }
            Self::AuthenticateUser(a) => {
                out.headline(&format!("Authenticating user \"{}\" ...", a.name));
                let body = json!({"username": a.name, "password": a.password()?});
                match client.post("/api/auth/authenticate", &body) {
                    Err(problem) if problem.text.starts_with("the password") => {
                        let text = format!("failed to authenticate user \"{}\"", a.name);
                        Err(Problem::new(EXIT_DATA, text))
                    }
                    answer => answer.map(|_| out.headline("Success")),
                }
            }
            Self::DeleteUser(a) => {
                out.headline(&format!("Deleting user \"{}\" ...", a.name));
                client.delete(&path(&a.name), &[])
            }
            _ => Ok(()),
        }
    }

    fn run_list(&self, client: &Client, out: &Output) -> Result<(), Problem> {
        let everywhere = |a: &Everywhere, kind: &str, columns: &Columns| {
            columns
                .choose(&a.columns)
                .map_err(|text| Problem::new(super::client::EXIT_USAGE, text))?;
            out.headline(&format!("Listing {kind} ..."));
            out.rows(columns, &a.columns, &client.get(&format!("/api/{kind}"))?)
        };
        let in_vhost = |a: &Listing, kind: &str, columns: &Columns| {
            columns
                .choose(&a.columns)
                .map_err(|text| Problem::new(super::client::EXIT_USAGE, text))?;
            let vhost = &a.at.vhost;
            out.headline(&format!("Listing {kind} for vhost {vhost} ..."));
            let path = match kind {
                "permissions" => format!("/api/vhosts/{}/permissions", part(vhost)),
                _ => format!("/api/{kind}/{}", part(vhost)),
            };
            let rows = client.get(&path).map_err(|problem| match problem.text.as_str() {
                "Not Found" => Problem::new(EXIT_DATA, format!("vhost '{vhost}' does not exist")),
                _ => problem,
            })?;
            out.rows(columns, &a.columns, &rows)
        };
        match self {
            Self::ListUsers(a) => everywhere(a, "users", &table::USERS),
            Self::ListVhosts(a) => everywhere(a, "vhosts", &table::VHOSTS),
            Self::ListConnections(a) => everywhere(a, "connections", &table::CONNECTIONS),
            Self::ListPermissions(a) => in_vhost(a, "permissions", &table::PERMISSIONS),
            Self::ListPolicies(a) => in_vhost(a, "policies", &table::POLICIES),
            Self::ListQueues(a) => in_vhost(a, "queues", &table::QUEUES),
            Self::ListExchanges(a) => in_vhost(a, "exchanges", &table::EXCHANGES),
            Self::ListBindings(a) => in_vhost(a, "bindings", &table::BINDINGS),
            Self::ListConsumers(a) => in_vhost(a, "consumers", &table::CONSUMERS),
            Self::ListUserPermissions(a) => {
                known_user(client, &a.name)?;
                out.headline(&format!("Listing permissions for user \"{}\" ...", a.name));
                let rows = client.get(&format!("/api/users/{}/permissions", part(&a.name)))?;
                out.rows(&table::USER_PERMISSIONS, &[], &rows)
            }
            _ => Ok(()),
        }
    }
}

impl WithPassword {
    fn password(&self) -> Result<String, Problem> {
        if let Some(password) = &self.password {
            return Ok(password.clone());
        }
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        read.map_err(|error| Problem::new(EXIT_DATA, format!("standard input: {error}")))?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn known_user(client: &Client, name: &str) -> Result<Value, Problem> {
    client.get(&format!("/api/users/{}", part(name))).map_err(|problem| {
        if problem.code != EXIT_DATA {
            return problem;
        }
        Problem::new(super::client::EXIT_NO_USER, format!("user '{name}' does not exist"))
    })
}

fn set_policy(policy: &Policy, client: &Client, out: &Output) -> Result<(), Problem> {
    let definition: Value = serde_json::from_str(&policy.definition)
        .map_err(|error| Problem::new(EXIT_DATA, format!("the definition is no JSON: {error}")))?;
    let body = json!({
        "pattern": policy.pattern,
        "definition": definition,
        "priority": policy.priority,
        "apply-to": policy.apply_to,
    });
    let (name, vhost) = (&policy.name, &policy.at.vhost);
    out.headline(&format!(
        "Setting policy \"{name}\" for pattern \"{}\" in vhost \"{vhost}\" ...",
        policy.pattern
    ));
    client.put(&format!("/api/policies/{}/{}", part(vhost), part(name)), &body).map(|_| ())
}

fn export(file: &Path, client: &Client) -> Result<(), Problem> {
    let definitions = client.get("/api/definitions")?;
    let text = serde_json::to_string_pretty(&definitions).unwrap_or_default() + "\n";
    if file == Path::new("-") {
        write(&text);
        return Ok(());
    }
    // It holds password hashes.
    let written = private_file(file).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Problem::new(EXIT_SOFTWARE, format!("{}: {error}", file.display())))
}

fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn import(file: &Path, client: &Client, out: &Output) -> Result<(), Problem> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let wrong = |why: String| Problem::new(EXIT_DATA, format!("{}: {why}", file.display()));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let definitions = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    out.headline(&format!("Importing definitions from \"{}\" ...", file.display()));
    client.post("/api/definitions", &definitions).map(|_| ())
}
