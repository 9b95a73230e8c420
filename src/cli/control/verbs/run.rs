//! Carries the verbs out: each is one or two calls of the node's HTTP API.

use super::{ControlVerb, Everywhere, Listing, Policy, WithPassword};
use crate::cli::control::client::{
    Client, EXIT_DATA, EXIT_NO_USER, EXIT_SOFTWARE, EXIT_USAGE, Problem, part,
};
use crate::cli::control::output::{Output, write};
use crate::cli::control::pair;
use crate::cli::control::table::{self, Columns};
use serde_json::{Value, json};
use std::path::Path;

impl ControlVerb {
    pub(in crate::cli::control) fn run(
        &self,
        client: &Client,
        out: &Output,
    ) -> Result<(), Problem> {
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
            columns.choose(&a.columns).map_err(|text| Problem::new(EXIT_USAGE, text))?;
            out.headline(&format!("Listing {kind} ..."));
            out.rows(columns, &a.columns, &client.get(&format!("/api/{kind}"))?)
        };
        let in_vhost = |a: &Listing, kind: &str, columns: &Columns| {
            columns.choose(&a.columns).map_err(|text| Problem::new(EXIT_USAGE, text))?;
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
        Problem::new(EXIT_NO_USER, format!("user '{name}' does not exist"))
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
    let answer = client.post("/api/definitions", &definitions)?;
    for left_out in answer["left_out"].as_array().into_iter().flatten() {
        eprintln!("understudy: left out: {}", left_out.as_str().unwrap_or_default());
    }
    Ok(())
}
