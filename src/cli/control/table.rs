//! The columns of each list: rabbitmqctl's names, and where the API's rows have them.

pub(super) struct Columns {
    /// Shown without being asked for.
    pub(super) usual: &'static [&'static str],
    /// Name and JSON pointer.
    all: &'static [(&'static str, &'static str)],
}

impl Columns {
    /// # Errors
    /// A name that is none of ours, said together with those that are.
    pub(super) fn choose(
        &self,
        wanted: &[String],
    ) -> Result<Vec<(&'static str, &'static str)>, String> {
        let wanted: Vec<&str> = if wanted.is_empty() {
            self.usual.to_vec()
        } else {
            wanted.iter().map(String::as_str).collect()
        };
        let find = |name: &str| {
            self.all.iter().find(|(known, _)| *known == name).copied().ok_or_else(|| {
                let known: Vec<&str> = self.all.iter().map(|(name, _)| *name).collect();
                format!("no column {name:?}; there are {}", known.join(", "))
            })
        };
        wanted.into_iter().map(find).collect()
    }
}

pub(super) const QUEUES: Columns = Columns {
    usual: &["name", "messages"],
    all: &[
        ("name", "/name"),
        ("messages", "/messages"),
        ("messages_ready", "/messages_ready"),
        ("messages_unacknowledged", "/messages_unacknowledged"),
        ("consumers", "/consumers"),
        ("durable", "/durable"),
        ("auto_delete", "/auto_delete"),
        ("exclusive", "/exclusive"),
        ("arguments", "/arguments"),
        ("policy", "/policy"),
        ("type", "/type"),
        ("state", "/state"),
        ("vhost", "/vhost"),
        ("owner_pid", "/owner_pid_details/name"),
    ],
};

pub(super) const EXCHANGES: Columns = Columns {
    usual: &["name", "type"],
    all: &[
        ("name", "/name"),
        ("type", "/type"),
        ("durable", "/durable"),
        ("auto_delete", "/auto_delete"),
        ("internal", "/internal"),
        ("arguments", "/arguments"),
        ("policy", "/policy"),
        ("vhost", "/vhost"),
    ],
};

pub(super) const BINDINGS: Columns = Columns {
    usual: &["source_name", "destination_name", "destination_kind", "routing_key", "arguments"],
    all: &[
        ("source_name", "/source"),
        ("destination_name", "/destination"),
        ("destination_kind", "/destination_type"),
        ("routing_key", "/routing_key"),
        ("arguments", "/arguments"),
        ("vhost", "/vhost"),
    ],
};

pub(super) const CONNECTIONS: Columns = Columns {
    usual: &["name", "user", "peer_host", "peer_port", "state"],
    all: &[
        ("name", "/name"),
        ("user", "/user"),
        ("peer_host", "/peer_host"),
        ("peer_port", "/peer_port"),
        ("state", "/state"),
        ("vhost", "/vhost"),
        ("protocol", "/protocol"),
        ("client_properties", "/client_properties"),
        ("consumers", "/consumers"),
    ],
};

pub(super) const CONSUMERS: Columns = Columns {
    usual: &["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count"],
    all: &[
        ("queue_name", "/queue/name"),
        ("channel_pid", "/channel_details/name"),
        ("consumer_tag", "/consumer_tag"),
        ("ack_required", "/ack_required"),
        ("prefetch_count", "/prefetch_count"),
        ("exclusive", "/exclusive"),
        ("active", "/active"),
        ("arguments", "/arguments"),
    ],
};

pub(super) const USERS: Columns =
    Columns { usual: &["user", "tags"], all: &[("user", "/name"), ("tags", "/tags")] };

pub(super) const VHOSTS: Columns = Columns { usual: &["name"], all: &[("name", "/name")] };

pub(super) const PERMISSIONS: Columns = Columns {
    usual: &["user", "configure", "write", "read"],
    all: &[
        ("user", "/user"),
        ("vhost", "/vhost"),
        ("configure", "/configure"),
        ("write", "/write"),
        ("read", "/read"),
    ],
};

pub(super) const USER_PERMISSIONS: Columns =
    Columns { usual: &["vhost", "configure", "write", "read"], all: PERMISSIONS.all };

pub(super) const POLICIES: Columns = Columns {
    usual: &["vhost", "name", "pattern", "apply-to", "definition", "priority"],
    all: &[
        ("vhost", "/vhost"),
        ("name", "/name"),
        ("pattern", "/pattern"),
        ("apply-to", "/apply-to"),
        ("definition", "/definition"),
        ("priority", "/priority"),
    ],
};
