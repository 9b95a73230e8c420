//! From what was typed to what is meant: every value checked, impossible combinations refused.

use super::given::{Arbiter, Given, Replication, User};
use super::layers::Origins;
use super::{
    ArbiterKind, ArbiterSettings, BackendKind, ConfigError, LinkTls, Listen, ReplicationSettings,
    Role, Secret, Settings, TlsSettings, UserSetting,
};
use crate::node::AlarmPolicy;
use crate::tls::LOGIN_FROM_COMMON_NAME;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

pub(super) fn check(given: Given, origins: &Origins) -> Result<Settings, ConfigError> {
    let checker = Checker { origins };
    let role = match given.broker.role.as_str() {
        "master" => Role::Master,
        "slave" => Role::Slave,
        other => {
            return checker.wrong("broker.role", &format!("{other:?} is neither master nor slave"));
        }
    };
    if given.broker.name.is_empty() {
        return checker.wrong("broker.name", "must not be empty");
    }
    if given.broker.data_dir.is_empty() {
        return checker.wrong("broker.data_dir", "must name a directory");
    }
    let listen = checker.listen(&given.listen)?;
    let replication = checker.replication(&given.replication, role, &listen)?;
    if replication.backend == BackendKind::Pair && listen.replication.is_none() {
        return checker.wrong("listen.replication", "backend = \"pair\" needs an address here");
    }
    let arbiter = checker.arbiter(&given.arbiter, &listen, &replication)?;
    checker.limits(&given)?;
    let alarm_policy = checker.alarm_policy(&given.storage.alarm_policy)?;
    checker.tls(&given.tls, &listen, &replication)?;
    let log_json = match given.log.format.as_str() {
        "text" => false,
        "json" => true,
        other => {
            return checker.wrong("log.format", &format!("{other:?} is neither text nor json"));
        }
    };
    if !is_log_level(&given.log.level) {
        let right = "expected error, warn, info, debug or trace, or such a filter as \
                     info,understudy::peer=debug";
        return checker.wrong("log.level", right);
    }
    let users = given.users.iter().map(|user| checker.user(user)).collect::<Result<_, _>>()?;
    checker.names_differ(&given.users)?;
    Ok(Settings {
        name: given.broker.name,
        data_dir: PathBuf::from(given.broker.data_dir),
        role,
        listen,
        replication,
        arbiter,
        users,
        limits: given.limits,
        amqp: given.amqp,
        stomp: given.stomp,
        storage: given.storage,
        alarm_policy,
        hooks: given.hooks,
        tls: given.tls,
        log_level: given.log.level,
        log_json,
    })
}

/// A word alone must be a level: `tracing` would take a misspelt one for the only target to log.
fn is_log_level(given: &str) -> bool {
    let is_level = |word: &str| word.trim().parse::<tracing::level_filters::LevelFilter>().is_ok();
    given.split(',').all(|part| part.contains('=') || is_level(part))
        && tracing_subscriber::EnvFilter::try_new(given).is_ok()
}

struct Checker<'a> {
    origins: &'a Origins,
}

impl Checker<'_> {
    fn wrong<T>(&self, key: &str, problem: &str) -> Result<T, ConfigError> {
        Err(ConfigError {
            origin: self.origins.of(key).to_owned(),
            key: key.to_owned(),
            problem: problem.to_owned(),
        })
    }

    fn listen(&self, given: &super::given::Listen) -> Result<Listen, ConfigError> {
        let addresses = [
            ("listen.amqp", &given.amqp),
            ("listen.stomp", &given.stomp),
            ("listen.native", &given.native),
            ("listen.amqp_tls", &given.amqp_tls),
            ("listen.stomp_tls", &given.stomp_tls),
            ("listen.native_tls", &given.native_tls),
            ("listen.stomp_ws", &given.stomp_ws),
            ("listen.stomp_wss", &given.stomp_wss),
            ("listen.http", &given.http),
            ("listen.replication", &given.replication),
            ("listen.arbiter", &given.arbiter),
        ];
        for (index, (key, address)) in addresses.iter().enumerate() {
            let before = addresses[..index].iter().find(|(_, other)| other == address);
            if let Some((other, _)) = before
                && !address.is_empty()
                && !address.ends_with(":0")
            {
                return self.wrong(key, &format!("{address} is already taken by {other}"));
            }
        }
        Ok(Listen {
            amqp: self.address("listen.amqp", &given.amqp)?,
            stomp: self.address("listen.stomp", &given.stomp)?,
            native: self.address("listen.native", &given.native)?,
            amqp_tls: self.address("listen.amqp_tls", &given.amqp_tls)?,
            stomp_tls: self.address("listen.stomp_tls", &given.stomp_tls)?,
            native_tls: self.address("listen.native_tls", &given.native_tls)?,
            stomp_ws: self.address("listen.stomp_ws", &given.stomp_ws)?,
            stomp_wss: self.address("listen.stomp_wss", &given.stomp_wss)?,
            http: self.address("listen.http", &given.http)?,
            replication: self.address("listen.replication", &given.replication)?,
            arbiter: self.address("listen.arbiter", &given.arbiter)?,
        })
    }

    fn address(&self, key: &str, address: &str) -> Result<Option<String>, ConfigError> {
        if address.is_empty() {
            return Ok(None);
        }
        match address.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(_)) => Ok(Some(address.to_owned())),
            _ => {
                let problem = format!("{address:?} is no address: expected host:port, or \"\"");
                self.wrong(key, &problem)
            }
        }
    }

    /// `tcp://host:port`. The name need not resolve yet: the other node may come later.
    fn uri(&self, key: &str, uri: &str) -> Result<Option<String>, ConfigError> {
        if uri.is_empty() {
            return Ok(None);
        }
        let address = uri.strip_prefix("tcp://").map(|rest| rest.trim_end_matches('/'));
        let port = address.and_then(|a| a.rsplit_once(':')).map(|(_, port)| port.parse::<u16>());
        match (address, port) {
            (Some(address), Some(Ok(1..))) => Ok(Some(address.to_owned())),
            _ => self.wrong(key, &format!("{uri:?}: expected tcp://host:port")),
        }
    }

    /// Not given: what the listeners' addresses say, if others can use them.
    fn client_uris(&self, uris: &str, listen: &Listen) -> Result<String, ConfigError> {
        let key = "replication.client_uris";
        for uri in uris.split(',').filter(|uri| !uri.is_empty()) {
            self.uri(key, &uri.replacen("ssl://", "tcp://", 1))?;
        }
        if !uris.is_empty() {
            return Ok(uris.to_owned());
        }
        let is_usable = |address: &&String| {
            !address.ends_with(":0")
                && !address.starts_with("0.0.0.0:")
                && !address.starts_with("[::]:")
        };
        let listeners = [("tcp", &listen.native), ("ssl", &listen.native_tls)];
        let found = listeners.iter().filter_map(|(scheme, address)| {
            address.as_ref().filter(is_usable).map(|address| format!("{scheme}://{address}"))
        });
        Ok(found.collect::<Vec<_>>().join(","))
    }

    fn replication(
        &self,
        given: &Replication,
        role: Role,
        listen: &Listen,
    ) -> Result<ReplicationSettings, ConfigError> {
        let backend = match given.backend.as_str() {
            "standalone" => BackendKind::Standalone,
            "pair" => BackendKind::Pair,
            "shared_storage" => BackendKind::SharedStorage,
            other => {
                let problem =
                    format!("{other:?}: expected \"pair\", \"standalone\" or \"shared_storage\"");
                return self.wrong("replication.backend", &problem);
            }
        };
        let master_address = self.uri("replication.master_uri", &given.master_uri)?;
        let advertised_address = self.uri("replication.advertised_uri", &given.advertised_uri)?;
        if role == Role::Slave && backend != BackendKind::Pair {
            return self.wrong("broker.role", "a slave needs [replication] backend = \"pair\"");
        }
        if role == Role::Slave && master_address.is_none() {
            let problem = "a slave needs its master's address: tcp://host:port";
            return self.wrong("replication.master_uri", problem);
        }
        if backend != BackendKind::Pair {
            // Silently alone would be the worst answer to a file that speaks of a pair.
            let pair_only = [
                ("replication.master_uri", master_address.is_some()),
                ("replication.wait_for_slave", given.wait_for_slave),
                ("replication.shutdown_on_slave_failure", given.shutdown_on_slave_failure),
                ("replication.shutdown_on_master_failure", given.shutdown_on_master_failure),
            ];
            if let Some((key, _)) = pair_only.iter().find(|(_, is_given)| *is_given) {
                return self.wrong(key, "makes sense in a pair only: backend = \"pair\"");
            }
        }
        for (key, value) in
            [("replication.user", &given.user), ("replication.password", &given.password)]
        {
            if backend == BackendKind::Pair && value.is_empty() {
                return self.wrong(key, "a pair needs the same user and password on both nodes");
            }
        }
        if given.beat_ms == 0 || given.beat_ms > given.suspect_ms / 2 {
            return self.wrong("replication.beat_ms", "must be 1 to half of suspect_ms");
        }
        if given.takeover_ms < given.suspect_ms {
            return self.wrong("replication.takeover_ms", "must not be below suspect_ms");
        }
        Ok(ReplicationSettings {
            backend,
            master_address,
            advertised_address,
            client_uris: self.client_uris(&given.client_uris, listen)?,
            user: given.user.clone(),
            password: given.password.clone(),
            tls: self.link_tls("replication", &given.tls, &given.tls_ca_file)?,
            shutdown_on_master_failure: given.shutdown_on_master_failure,
            shutdown_on_slave_failure: given.shutdown_on_slave_failure,
            wait_for_slave: given.wait_for_slave,
            wait_for_slave_timeout_ms: given.wait_for_slave_timeout,
            meet_timeout_ms: given.meet_timeout_ms,
            beat_ms: given.beat_ms,
            suspect_ms: given.suspect_ms,
            takeover_ms: given.takeover_ms,
            digest_interval_ms: given.digest_interval_ms,
        })
    }

    fn link_tls(
        &self,
        section: &str,
        tls: &str,
        ca_file: &str,
    ) -> Result<Option<LinkTls>, ConfigError> {
        let mutual = match tls {
            "off" => return Ok(None),
            "server" => false,
            "mutual" => true,
            other => {
                let problem = format!("{other:?}: expected \"off\", \"server\" or \"mutual\"");
                return self.wrong(&format!("{section}.tls"), &problem);
            }
        };
        let ca_key = format!("{section}.tls_ca_file");
        if ca_file.is_empty() {
            let problem = "needed to check the other side's certificate: a PEM file";
            return self.wrong(&ca_key, problem);
        }
        Ok(Some(LinkTls { ca_key, ca_file: ca_file.to_owned(), mutual }))
    }

    fn etcd(&self, given: &Arbiter) -> Result<ArbiterKind, ConfigError> {
        let expected = "expected http://host:port, or https://host:port, one or more with commas";
        let is_tls = given.uri.starts_with("https://");
        let scheme = if is_tls { "https://" } else { "http://" };
        let mut endpoints = Vec::new();
        for uri in given.uri.split(',') {
            let address = uri.trim().strip_prefix(scheme).map(|rest| rest.trim_end_matches('/'));
            let port =
                address.and_then(|a| a.rsplit_once(':')).map(|(_, port)| port.parse::<u16>());
            match (address, port) {
                (Some(address), Some(Ok(1..))) => endpoints.push(address.to_owned()),
                _ => return self.wrong("arbiter.uri", expected),
            }
        }
        if is_tls && given.tls_ca_file.is_empty() {
            let problem = "needed to check etcd's certificate: a PEM file";
            return self.wrong("arbiter.tls_ca_file", problem);
        }
        if given.tls != "off" && !(is_tls && given.tls == "mutual") {
            let problem =
                "etcd's uri says https:// or not; \"mutual\" shows it this node's certificate";
            return self.wrong("arbiter.tls", problem);
        }
        Ok(ArbiterKind::Etcd { endpoints, ca_file: is_tls.then(|| given.tls_ca_file.clone()) })
    }

    fn arbiter(
        &self,
        given: &Arbiter,
        listen: &Listen,
        replication: &ReplicationSettings,
    ) -> Result<ArbiterSettings, ConfigError> {
        let kind = match given.kind.as_str() {
            "none" if given.uri.is_empty() => ArbiterKind::None,
            "none" => return self.wrong("arbiter.kind", "an arbiter.uri needs a kind"),
            "understudy" => match self.uri("arbiter.uri", &given.uri)? {
                Some(address) => ArbiterKind::Understudy { address },
                None => return self.wrong("arbiter.uri", "expected tcp://host:port"),
            },
            "etcd" => self.etcd(given)?,
            other => {
                let problem = format!("{other:?}: expected \"none\", \"understudy\" or \"etcd\"");
                return self.wrong("arbiter.kind", &problem);
            }
        };
        if kind != ArbiterKind::None && replication.backend != BackendKind::Pair {
            return self.wrong("arbiter.kind", "makes sense in a pair only: backend = \"pair\"");
        }
        if !(1..=255).contains(&given.register.len()) {
            return self.wrong("arbiter.register", "must be a name of 1 to 255 bytes");
        }
        let proves = matches!(kind, ArbiterKind::Understudy { .. }) || listen.arbiter.is_some();
        for (key, value) in [("arbiter.user", &given.user), ("arbiter.password", &given.password)] {
            if proves && value.is_empty() {
                return self.wrong(key, "the arbiter and its pairs share a user and a password");
            }
        }
        if given.lease_ms < 4 * replication.beat_ms || given.lease_ms > 600_000 {
            return self.wrong("arbiter.lease_ms", "must be four times beat_ms to 600000");
        }
        Ok(ArbiterSettings {
            kind,
            register: given.register.clone(),
            user: given.user.clone(),
            password: given.password.clone(),
            tls: self.link_tls("arbiter", &given.tls, &given.tls_ca_file)?,
            lease_ms: given.lease_ms,
        })
    }

    fn limits(&self, given: &Given) -> Result<(), ConfigError> {
        let limits = &given.limits;
        for (key, value) in [
            ("limits.connections_max", limits.connections_max as u64),
            ("limits.outbound_bytes_max", limits.outbound_bytes_max),
            ("amqp.channel_max", given.amqp.channel_max.into()),
            ("amqp.handshake_timeout_ms", given.amqp.handshake_timeout_ms),
            ("stomp.handshake_timeout_ms", given.stomp.handshake_timeout_ms),
            ("storage.save_after_bytes", given.storage.save_after_bytes),
            ("hooks.timeout_ms", given.hooks.timeout_ms),
        ] {
            if value == 0 {
                return self.wrong(key, "must be at least 1");
            }
        }
        for (key, dialect) in [
            ("stomp.dialect", &given.stomp.dialect),
            ("stomp.dialect_tls", &given.stomp.dialect_tls),
            ("stomp.dialect_ws", &given.stomp.dialect_ws),
            ("stomp.dialect_wss", &given.stomp.dialect_wss),
        ] {
            if !matches!(dialect.as_str(), "rabbitmq" | "activemq") {
                return self.wrong(key, "must be rabbitmq or activemq");
            }
        }
        if given.storage.commit_interval_ms > 1_000 {
            return self.wrong("storage.commit_interval_ms", "must be 0 to 1000");
        }
        if limits.unreachable_s > 65_534 {
            return self.wrong("limits.unreachable_s", "must be 0 to 65534 s");
        }
        if !(1..=64).contains(&limits.worker_threads) {
            return self.wrong("limits.worker_threads", "must be 1 to 64");
        }
        if !(1_024..=512 << 20).contains(&limits.message_bytes_max) {
            return self.wrong("limits.message_bytes_max", "must be 1024 to 536870912 bytes");
        }
        if !(4_096..=64 << 20).contains(&limits.group_bytes_max) {
            return self.wrong("limits.group_bytes_max", "must be 4096 to 67108864 bytes");
        }
        if limits.inflight_bytes_max < limits.group_bytes_max {
            return self.wrong("limits.inflight_bytes_max", "must not be below group_bytes_max");
        }
        if !(4_096..=16 << 20).contains(&given.amqp.frame_max_bytes) {
            return self.wrong("amqp.frame_max_bytes", "must be 4096 to 16777216 bytes");
        }
        if (1..1_000).contains(&given.amqp.consumer_timeout_ms) {
            return self.wrong("amqp.consumer_timeout_ms", "must be 0 or at least 1000 ms");
        }
        if given.storage.map_bytes_max < 16 << 20
            || !given.storage.map_bytes_max.is_multiple_of(4_096)
        {
            let problem = "must be at least 16777216 bytes and a multiple of 4096";
            return self.wrong("storage.map_bytes_max", problem);
        }
        if !(400..=600_000).contains(&given.storage.owner_lease_ms) {
            return self.wrong("storage.owner_lease_ms", "must be 400 to 600000");
        }
        if !matches!(given.storage.disk_stall_ms, 0 | 100..=600_000) {
            return self.wrong("storage.disk_stall_ms", "must be 0, or 100 to 600000");
        }
        let free_bytes_min = given.storage.free_bytes_min;
        if free_bytes_min != 0 && free_bytes_min < 4 * limits.inflight_bytes_max as u64 {
            // What is decided when the alarm comes is still written.
            let problem = "must be 0 or at least four times limits.inflight_bytes_max";
            return self.wrong("storage.free_bytes_min", problem);
        }
        if free_bytes_min > given.storage.map_bytes_max as u64 / 2 {
            return self.wrong("storage.free_bytes_min", "must not be above half of map_bytes_max");
        }
        Ok(())
    }

    fn alarm_policy(&self, given: &str) -> Result<AlarmPolicy, ConfigError> {
        match given {
            "block" => Ok(AlarmPolicy::Block),
            "reject" => Ok(AlarmPolicy::Reject),
            other => {
                let problem = format!("{other:?}: expected \"block\" or \"reject\"");
                self.wrong("storage.alarm_policy", &problem)
            }
        }
    }

    fn tls(
        &self,
        given: &TlsSettings,
        listen: &Listen,
        replication: &ReplicationSettings,
    ) -> Result<(), ConfigError> {
        let wanted =
            listen.under_tls().iter().any(|address| address.is_some()) || replication.tls.is_some();
        let files =
            [("tls.certificate_file", &given.certificate_file), ("tls.key_file", &given.key_file)];
        for (key, file) in files {
            if wanted && file.is_empty() {
                return self.wrong(key, "a listener or link with TLS needs a PEM file here");
            }
        }
        if given.require_client_certificate && given.client_ca_file.is_empty() {
            let problem = "needs client_ca_file: who has signed the certificates";
            return self.wrong("tls.require_client_certificate", problem);
        }
        if !["1.2", "1.3"].contains(&given.min_version.as_str()) {
            return self.wrong("tls.min_version", "expected \"1.2\" or \"1.3\"");
        }
        if !["distinguished_name", LOGIN_FROM_COMMON_NAME].contains(&given.login_from.as_str()) {
            let problem = "expected \"distinguished_name\" or \"common_name\"";
            return self.wrong("tls.login_from", problem);
        }
        Ok(())
    }

    fn user(&self, user: &User) -> Result<UserSetting, ConfigError> {
        if user.name.is_empty() {
            return self.wrong("users.name", "must not be empty");
        }
        let secret = match (&user.password, &user.password_hash) {
            (Some(password), None) => Secret::Password(password.clone()),
            (None, Some(hash)) if crate::auth::hash::is_hash(hash) => Secret::Hash(hash.clone()),
            (None, Some(_)) => {
                let problem = "expected sha256: and base64 of salt and SHA-256(salt + password)";
                return self.wrong("users.password_hash", problem);
            }
            _ => {
                let problem =
                    format!("user {:?} needs either a password or a password_hash", user.name);
                return self.wrong("users.password", &problem);
            }
        };
        for permission in user.permissions.iter().flatten() {
            let parts = [&permission.configure, &permission.write, &permission.read];
            for pattern in parts {
                if let Err(why) = understudy_broker::check_pattern(pattern) {
                    return self.wrong("users.permissions", &format!("{pattern:?}: {why}"));
                }
            }
            if permission.vhost.is_empty() {
                return self.wrong("users.permissions", "vhost must not be empty");
            }
        }
        Ok(UserSetting {
            name: user.name.clone(),
            secret,
            tags: user.tags.clone(),
            permissions: user.permissions.clone(),
        })
    }

    fn names_differ(&self, users: &[User]) -> Result<(), ConfigError> {
        for (index, user) in users.iter().enumerate() {
            if users[..index].iter().any(|before| before.name == user.name) {
                return self.wrong("users.name", &format!("{:?} is given twice", user.name));
            }
        }
        Ok(())
    }
}
