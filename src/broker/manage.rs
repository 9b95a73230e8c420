//! An administrator's changes: decided like any other request, applied like any other command.

use crate::broker::Broker;
use crate::decide::Decided;
use crate::pattern::Pattern;
use understudy_model::{
    Change, Command, ConnectionId, Effect, Manage, PermissionRecord, PolicyRecord, QueueId,
    Refusal, RefusalKind, Reply, Text, UserRecord,
};

/// A user of the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredUser {
    pub record: UserRecord,
    /// None: everything in `/`, given when the user is made and left alone afterwards.
    pub permissions: Option<Vec<PermissionRecord>>,
}

/// Names of users and vhosts are no longer than this, bytes: they travel in AMQP short strings.
const NAME_BYTES_MAX: usize = 255;

impl Broker {
    pub(crate) fn manage(
        &self,
        connection: ConnectionId,
        manage: &Manage,
        decided: &mut Decided<'_>,
    ) {
        let result = self.decide_change(&manage.change, decided);
        decided.reply(connection, manage.token, result.map(|()| Reply::Done));
    }

    fn decide_change(&self, change: &Change, decided: &mut Decided<'_>) -> Result<(), Refusal> {
        let command = match change.clone() {
            Change::PutUser(user) => {
                check_name(&user.name)?;
                Command::PutUser(user)
            }
            Change::DeleteUser { name } => {
                self.need_user(&name)?;
                Command::DeleteUser { name }
            }
            Change::PutVhost { name } => {
                check_name(&name)?;
                if self.has_vhost(&name) {
                    return Ok(());
                }
                Command::PutVhost { name }
            }
            Change::DeleteVhost { name } => {
                self.need_vhost(&name)?;
                Command::DeleteVhost { name }
            }
            Change::PutPermission(permission) => {
                self.need_user(&permission.user)?;
                self.need_vhost(&permission.vhost)?;
                for pattern in [&permission.configure, &permission.write, &permission.read] {
                    Pattern::parse(pattern).map_err(|why| invalid(&why))?;
                }
                Command::PutPermission(permission)
            }
            Change::ClearPermission { user, vhost } => {
                self.need_user(&user)?;
                self.need_vhost(&vhost)?;
                Command::ClearPermission { user, vhost }
            }
            Change::PutPolicy(policy) => {
                check_name(&policy.name)?;
                self.need_vhost(&policy.vhost)?;
                crate::policy::check(&policy).map_err(|why| invalid(&why))?;
                Command::PutPolicy(policy)
            }
            Change::ClearPolicy { vhost, name } => {
                self.need_vhost(&vhost)?;
                if !self.access.policies.contains(&vhost, &name) {
                    return Err(missing(&format!("policy '{name}' in vhost '{vhost}'")));
                }
                Command::ClearPolicy { vhost, name }
            }
            Change::CloseConnection { connection, reason } => {
                if !self.clients.connections.contains_key(&connection) {
                    return Err(missing(&format!("connection {connection}")));
                }
                decided.effect(connection, Effect::Close { reason });
                return Ok(());
            }
        };
        decided.push(&command);
        decided.topology = true;
        Ok(())
    }

    fn need_user(&self, name: &Text) -> Result<(), Refusal> {
        if self.topology.users.contains_key(name) {
            return Ok(());
        }
        Err(missing(&format!("user '{name}'")))
    }

    fn need_vhost(&self, name: &Text) -> Result<(), Refusal> {
        if self.has_vhost(name) { Ok(()) } else { Err(missing(&format!("vhost '{name}'"))) }
    }

    /// What a new store holds before its first client: the vhost `/`, users, what they may. Called
    /// by the master when its epoch begins.
    pub fn seed(
        &self,
        users: &[ConfiguredUser],
        default_user: &UserRecord,
        decided: &mut Decided<'_>,
    ) {
        if !self.has_vhost("/") && self.topology.users.is_empty() {
            decided.push(&Command::PutVhost { name: Text::from_static("/") });
        }
        for user in users {
            let known = self.topology.users.get(&user.record.name);
            if known != Some(&user.record) {
                decided.push(&Command::PutUser(user.record.clone()));
            }
            match &user.permissions {
                None if known.is_none() => self.permit_all(&user.record.name, decided),
                None => {}
                Some(permissions) => {
                    permissions.iter().for_each(|wanted| self.seed_permission(wanted, decided));
                }
            }
        }
        if users.is_empty() && self.topology.users.is_empty() {
            decided.push(&Command::PutUser(default_user.clone()));
            self.permit_all(&default_user.name, decided);
        }
    }

    fn permit_all(&self, user: &Text, decided: &mut Decided<'_>) {
        let all = Text::from_static(".*");
        let permission = PermissionRecord {
            user: user.clone(),
            vhost: Text::from_static("/"),
            configure: all.clone(),
            write: all.clone(),
            read: all,
        };
        self.seed_permission(&permission, decided);
    }

    fn seed_permission(&self, wanted: &PermissionRecord, decided: &mut Decided<'_>) {
        if self.access.permission(&wanted.user, &wanted.vhost) == Some(wanted) {
            return;
        }
        if !self.has_vhost(&wanted.vhost) {
            decided.push(&Command::PutVhost { name: wanted.vhost.clone() });
        }
        decided.push(&Command::PutPermission(wanted.clone()));
    }

    pub(crate) fn apply_access(
        &mut self,
        command: Command<'_>,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        self.access_dirty = true;
        match command {
            Command::PutUser(user) => {
                self.topology.users.insert(user.name.clone(), user);
            }
            Command::DeleteUser { name } => {
                self.topology.users.remove(&name);
                self.access.user_deleted(&name);
                let reason = format!("user '{name}' is deleted");
                self.close_connections(|state| state.user == name, &reason, effects);
            }
            Command::PutVhost { name } => self.topology.put_vhost(&name),
            Command::DeleteVhost { name } => {
                for id in self.topology.vhost_queues(&name) {
                    self.apply_delete_queue(id, effects);
                }
                for lsn in self.delayed.of_vhost(&name) {
                    self.delayed_gone(lsn);
                }
                self.topology.delete_vhost(&name);
                self.access.vhost_deleted(&name);
                let reason = format!("vhost '{name}' is deleted");
                self.close_connections(|state| state.vhost == name, &reason, effects);
            }
            Command::PutPermission(permission) => {
                let known = self.topology.users.contains_key(&permission.user)
                    && self.has_vhost(&permission.vhost);
                if known {
                    self.access.put_permission(permission);
                }
            }
            Command::ClearPermission { user, vhost } => self.access.clear_permission(user, vhost),
            Command::PutPolicy(policy) => self.apply_policy(policy),
            Command::ClearPolicy { vhost, name } => {
                self.access.policies.clear(&vhost, &name);
                self.policies_changed(&vhost);
            }
            _ => {}
        }
    }

    fn apply_policy(&mut self, policy: PolicyRecord) {
        if !self.has_vhost(&policy.vhost) {
            return;
        }
        let vhost = policy.vhost.clone();
        self.access.policies.put(policy);
        self.policies_changed(&vhost);
    }

    /// Policies of the vhost have changed: what they give to queues and exchanges follows.
    fn policies_changed(&mut self, vhost: &Text) {
        self.topology.apply_policies(vhost, &self.access.policies);
        let of_vhost = self.queues.iter().filter(|(_, queue)| queue.spec.vhost == *vhost);
        for id in of_vhost.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.follow_policy(id);
        }
    }

    fn follow_policy(&mut self, id: QueueId) {
        let rules = self.queues.get(&id).map(|queue| self.rules_of(&queue.spec));
        if let (Some(queue), Some(rules)) = (self.queues.get_mut(&id), rules) {
            queue.rules = rules;
            // Shorter limits hold for what is there already.
            self.to_serve.insert(id);
        }
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(invalid(&format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn invalid(why: &str) -> Refusal {
    Refusal::new(RefusalKind::PreconditionFailed, why)
}

fn missing(what: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("{what} does not exist"))
}
