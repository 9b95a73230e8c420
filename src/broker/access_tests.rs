//! Permissions, users, vhosts and policies through decide and apply, as a node runs them.

use crate::test_world::World;
use crate::{Broker, ConfiguredUser, Limits, Query};
use bytes::Bytes;
use understudy_model::{
    ApplyTo, Bind, Change, Connect, ConnectionId, Consume, ConsumerNumber, Credit, DeclareExchange,
    DeclareQueue, DeleteExchange, DeleteQueue, Effect, Get, Manage, PermissionRecord, PolicyRecord,
    Properties, Protocol, Publish, PurgeQueue, Request, Table, Text, Token, UserRecord, Value,
};

const ADMIN: ConnectionId = ConnectionId(1);
const ANN: ConnectionId = ConnectionId(2);

fn text(text: &str) -> Text {
    Text::from(text)
}

impl World {
    fn with_ann() -> Self {
        let mut world = Self::empty();
        let guest = user("guest", &[]);
        let ann = ConfiguredUser { record: user("ann", &[]), permissions: Some(vec![]) };
        world.run(|broker, decided| broker.seed(&[ann], &guest, decided));
        world.connect(ADMIN, Protocol::Management, "", "");
        world
    }

    fn change(&mut self, change: Change) -> Vec<Effect> {
        let manage = Manage { token: Token(9), change };
        let effects = self.ask(ADMIN, &Request::Manage(Box::new(manage)));
        assert!(
            effects.iter().any(|e| matches!(e, Effect::Reply { result: Ok(_), .. })),
            "{effects:?}"
        );
        effects
    }

    fn permit(&mut self, vhost: &str, configure: &str, write: &str, read: &str) {
        self.change(Change::PutPermission(PermissionRecord {
            user: text("ann"),
            vhost: text(vhost),
            configure: text(configure),
            write: text(write),
            read: text(read),
        }));
    }
}

fn user(name: &str, tags: &[&str]) -> UserRecord {
    let tags = tags.iter().map(|tag| text(tag)).collect();
    UserRecord { name: text(name), password_hash: text("sha256:x"), tags }
}

fn declare(name: &str, arguments: &[(&str, &str)]) -> Request {
    let mut table = Table::default();
    arguments.iter().for_each(|(key, value)| table.push(key, Value::text(value)));
    let arguments = table.to_bytes();
    Request::DeclareQueue(DeclareQueue { name: text(name), durable: true, arguments, ..d() })
}

fn d<T: Default>() -> T {
    T::default()
}

fn publish(exchange: &str, user_id: Option<&str>) -> Request {
    let properties = Properties { user_id: user_id.map(text), ..d() }.to_bytes();
    Request::Publish(Publish { exchange: text(exchange), properties, confirm: Some(1), ..d() })
}

fn exchange(name: &str, arguments: &[(&str, &str)]) -> Request {
    let mut table = Table::default();
    arguments.iter().for_each(|(key, value)| table.push(key, Value::text(value)));
    let (kind, arguments) = (text("fanout"), table.to_bytes());
    Request::DeclareExchange(DeclareExchange { name: text(name), kind, arguments, ..d() })
}

fn bind(source: &str, destination: &str, to_exchange: bool) -> Bind {
    Bind { source: text(source), destination: text(destination), to_exchange, ..d() }
}

fn consume(queue: &str) -> Request {
    Request::Consume(Consume {
        token: Token(3),
        consumer: ConsumerNumber(1),
        channel: 1,
        queue: text(queue),
        ack: d(),
        exclusive: false,
        priority: 0,
        credit: Credit::Prefetch(1),
        ..Consume::default()
    })
}

/// Operations as ann, and what each must be refused with if she may configure `c…`, write `w…` and
/// read `r…` only. Empty: nothing refuses her.
fn table() -> Vec<(&'static str, Request, &'static str)> {
    let passive = DeclareQueue { name: text("cq"), passive: true, ..d() };
    let get = |name: &str| Request::Get(Get { queue: text(name), ..d() });
    let purge = |name: &str| Request::PurgeQueue(PurgeQueue { name: text(name), ..d() });
    let delete = |name: &str| Request::DeleteQueue(DeleteQueue { name: text(name), ..d() });
    let delete_x = |name: &str| Request::DeleteExchange(DeleteExchange { name: text(name), ..d() });
    vec![
        ("declare", declare("cq", &[]), ""),
        ("declare", declare("xq", &[]), "queue 'xq'"),
        ("declare server-named", declare("", &[]), "queue 'amq.gen-"),
        ("passive", Request::DeclareQueue(passive), ""),
        ("dead letters: read", declare("cd", &[("x-dead-letter-exchange", "wx")]), "queue 'cd'"),
        ("dead letters: write", declare("crd", &[("x-dead-letter-exchange", "x")]), "exchange 'x'"),
        ("declare exchange", exchange("cx", &[]), ""),
        ("declare exchange", exchange("x", &[]), "exchange 'x'"),
        ("alternate: read", exchange("cy", &[("alternate-exchange", "wx")]), "exchange 'cy'"),
        ("alternate: write", exchange("crx", &[("alternate-exchange", "x")]), "exchange 'x'"),
        ("bind: write queue", Request::Bind(bind("rx", "cq", false)), "queue 'cq'"),
        ("bind: read source", Request::Bind(bind("cx", "wq", false)), "exchange 'cx'"),
        ("bind exchange: write", Request::Bind(bind("rx", "cx", true)), "exchange 'cx'"),
        ("bind exchange: read", Request::Bind(bind("cx", "wx", true)), "exchange 'cx'"),
        ("unbind: write queue", Request::Unbind(bind("rx", "cq", false)), "queue 'cq'"),
        ("publish", publish("cx", None), "exchange 'cx'"),
        ("publish default", publish("", None), "exchange 'amq.default'"),
        ("get", get("cq"), "queue 'cq'"),
        ("consume", consume("cq"), "queue 'cq'"),
        ("purge", purge("cq"), "queue 'cq'"),
        ("delete", delete("wq"), "queue 'wq'"),
        ("delete exchange", delete_x("wx"), "exchange 'wx'"),
        ("delete exchange", delete_x("cx"), ""),
        ("delete", delete("cq"), ""),
    ]
}

#[test]
fn every_operation_needs_what_rabbitmq_says() {
    let mut world = World::with_ann();
    world.permit("/", "^c", "^w", "^(cr|r)");
    assert_eq!(world.connect(ANN, Protocol::Amqp, "ann", "/"), "");
    for (what, request, wanted) in table() {
        let said = world.said(ANN, &request);
        if wanted.is_empty() {
            assert_eq!(said, "", "{what}");
            continue;
        }
        assert!(said.starts_with(&format!("403 access to {wanted}")), "{what}: {said}");
        assert!(said.ends_with("in vhost '/' refused for user 'ann'"), "{what}: {said}");
    }
}

#[test]
fn a_vhost_is_entered_with_a_permission_only() {
    let mut world = World::with_ann();
    let refused = "530 access to vhost '/' refused for user 'ann'";
    assert_eq!(world.connect(ANN, Protocol::Stomp, "ann", "/"), refused);
    assert_eq!(world.connect(ANN, Protocol::Stomp, "ann", "none"), "530 vhost none not found");
    world.permit("/", "", "", "");
    assert_eq!(world.connect(ANN, Protocol::Stomp, "ann", "/"), "");
    assert!(world.said(ANN, &declare("q", &[])).starts_with("403"));
    // Who asks for another in place of a missing one gets that, but none in place of a forbidden one.
    world.change(Change::PutVhost { name: text("forbidden") });
    let mut connect = |vhost: &str| {
        let connect = Connect {
            token: Token(1),
            protocol: Protocol::Stomp,
            vhost: text(vhost),
            vhost_else: Some(text("/")),
            user: text("ann"),
            client_name: text(""),
            producer: None,
        };
        world.said(ANN, &Request::Connect(connect))
    };
    assert_eq!(connect("none"), "");
    assert_eq!(connect("forbidden"), "530 access to vhost 'forbidden' refused for user 'ann'");
    // No client makes such a request; one that did would get nowhere.
    let manage = Manage { token: Token(1), change: Change::PutVhost { name: text("v") } };
    assert!(world.said(ANN, &Request::Manage(Box::new(manage))).starts_with("403"));
}

#[test]
fn a_change_of_permission_holds_from_the_next_operation() {
    let mut world = World::with_ann();
    world.permit("/", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "/");
    assert_eq!(world.said(ANN, &publish("amq.topic", None)), "");
    world.permit("/", ".*", "^other$", ".*");
    assert!(world.said(ANN, &publish("amq.topic", None)).contains("'amq.topic'"));
    world.change(Change::ClearPermission { user: text("ann"), vhost: text("/") });
    assert!(world.said(ANN, &publish("other", None)).starts_with("403"));
}

#[test]
fn a_user_id_must_be_the_publishers_unless_it_impersonates() {
    let mut world = World::with_ann();
    world.permit("/", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "/");
    let somebody = publish("amq.fanout", Some("somebody"));
    let wanted = "406 user_id property set to 'somebody' but authenticated user was 'ann'";
    for _ in 0..2 {
        assert_eq!(world.said(ANN, &publish("amq.fanout", Some("ann"))), "");
        // The route is cached by now; the check is not.
        assert_eq!(world.said(ANN, &somebody), wanted);
    }
    world.change(Change::PutUser(user("ann", &["impersonator"])));
    assert_eq!(world.said(ANN, &somebody), "");
}

#[test]
fn a_deleted_user_or_vhost_takes_its_connections_along() {
    let mut world = World::with_ann();
    world.change(Change::PutVhost { name: text("v") });
    world.permit("v", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "v");
    world.ask(ANN, &declare("q", &[]));
    let effects = world.change(Change::DeleteVhost { name: text("v") });
    assert!(effects.contains(&Effect::Close { reason: text("vhost 'v' is deleted") }));
    assert!(world.broker.list_queues(&Query { rows_max: 9, ..d() }).rows.is_empty());
    assert!(world.broker.accounts().permissions.is_empty());
    world.permit("/", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "/");
    let effects = world.change(Change::DeleteUser { name: text("ann") });
    assert!(effects.contains(&Effect::Close { reason: text("user 'ann' is deleted") }));
    assert!(world.said(ANN, &declare("q", &[])).starts_with("403"));
}

fn alternate_policy(pattern: &str) -> PolicyRecord {
    let mut definition = Table::default();
    definition.push("alternate-exchange", Value::text("amq.fanout"));
    PolicyRecord {
        vhost: text("/"),
        name: text("ae"),
        pattern: text(pattern),
        apply_to: ApplyTo::Exchanges,
        priority: 1,
        definition: definition.to_bytes(),
    }
}

#[test]
fn a_policy_gives_exchanges_an_alternate_and_takes_it_back() {
    let mut world = World::with_ann();
    world.permit("/", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "/");
    world.ask(ANN, &declare("q", &[]));
    world.ask(ANN, &Request::Bind(bind("amq.fanout", "q", false)));
    let ready = |world: &World| world.broker.counts().ready;
    world.ask(ANN, &publish("amq.direct", None));
    assert_eq!(ready(&world), 0);
    world.change(Change::PutPolicy(alternate_policy("^amq.direct$")));
    world.ask(ANN, &publish("amq.direct", None));
    assert_eq!(ready(&world), 1);
    world.change(Change::ClearPolicy { vhost: text("/"), name: text("ae") });
    world.ask(ANN, &publish("amq.direct", None));
    assert_eq!(ready(&world), 1);
}

#[test]
fn saved_state_keeps_permissions_and_policies() {
    let mut world = World::with_ann();
    world.permit("/", "^c", "", ".*");
    world.change(Change::PutPolicy(alternate_policy("^amq")));
    let slices = world.broker.save_all(7).into_iter();
    let slices: Vec<(Bytes, Bytes)> = slices.filter_map(|(k, v)| Some((k, v?))).collect();
    let (loaded, _) = Broker::load(Limits::default(), &slices).unwrap();
    let (old, new) = (world.broker.accounts(), loaded.accounts());
    assert_eq!(format!("{old:?}"), format!("{new:?}"));
    assert_eq!(new.permissions.len() + new.policies.len(), 2);
}

#[test]
fn wrong_changes_are_refused_in_words() {
    let mut world = World::with_ann();
    let permission = |user: &str, vhost: &str, pattern: &str| {
        let [configure, write, read] = [text(pattern), text(""), text("")];
        let (user, vhost) = (text(user), text(vhost));
        Change::PutPermission(PermissionRecord { user, vhost, configure, write, read })
    };
    for (change, wanted) in [
        (permission("nobody", "/", ""), "404 user 'nobody' does not exist"),
        (permission("ann", "v", ""), "404 vhost 'v' does not exist"),
        (permission("ann", "/", "("), "406 regex parse error"),
        (Change::DeleteUser { name: text("nobody") }, "404 user"),
        (Change::DeleteVhost { name: text("v") }, "404 vhost"),
        (Change::PutVhost { name: text("") }, "406 a name has 1 to 255 bytes"),
        (Change::ClearPolicy { vhost: text("/"), name: text("p") }, "404 policy 'p'"),
        (Change::PutPolicy(alternate_policy("(")), "406 pattern is invalid"),
    ] {
        let manage = Manage { token: Token(1), change };
        let said = world.said(ADMIN, &Request::Manage(Box::new(manage)));
        assert!(said.starts_with(wanted), "{said}");
    }
}

#[test]
fn pages_of_any_size_list_the_same() {
    let mut world = World::with_ann();
    world.permit("/", ".*", ".*", ".*");
    world.connect(ANN, Protocol::Amqp, "ann", "/");
    for n in 0..7 {
        world.ask(ANN, &declare(&format!("q{n}"), &[]));
        world.ask(ANN, &Request::Bind(bind("amq.fanout", &format!("q{n}"), false)));
    }
    for rows_max in [1, 2, 3, 100] {
        let (mut queues, mut bindings) = (Vec::new(), Vec::new());
        let mut query = Query { rows_max, ..d() };
        loop {
            let page = world.broker.list_queues(&query);
            queues.extend(page.rows.into_iter().map(|row| row.spec.name.to_string()));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(queues, ["q0", "q1", "q2", "q3", "q4", "q5", "q6"]);
        loop {
            let page = world.broker.list_bindings(&query);
            bindings.extend(page.rows.into_iter().map(|row| row.destination.to_string()));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(bindings, queues);
    }
    let one = Query { name: Some(text("q3")), vhost: Some(text("/")), rows_max: 9, ..d() };
    assert_eq!(world.broker.list_queues(&one).rows.len(), 1);
}
