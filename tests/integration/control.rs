//! Every management verb against a real process: what it prints, how it exits, what it changes.

use crate::support::stomp::Stomp;
use crate::support::{Node, Pair};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Words with their quotes as a shell would take them, the exit code, what the output holds.
const STORY: &[(&str, i32, &str)] = &[
    ("ping", 0, "Ping succeeded"),
    // Users.
    ("add_user ann secret", 0, "Adding user \"ann\" ..."),
    ("add_user ann again", 70, "already exists"),
    ("add_user bob ''", 65, "must not be empty"),
    ("authenticate_user ann secret", 0, "Success"),
    ("authenticate_user ann wrong", 65, "failed to authenticate"),
    ("change_password ann changed", 0, ""),
    ("authenticate_user ann secret", 65, "failed"),
    ("authenticate_user ann changed", 0, "Success"),
    ("change_password nobody x", 67, "user 'nobody' does not exist"),
    ("set_user_tags ann monitoring impersonator", 0, ""),
    ("authenticate_user ann changed", 0, "Success"),
    ("list_users", 0, "user\ttags\nann\t[monitoring, impersonator]\nguest\t[administrator]\n"),
    ("list_users -s", 0, "ann\t[monitoring, impersonator]\nguest\t[administrator]\n"),
    ("list_users -f csv user", 0, "user\nann\nguest\n"),
    ("list_users -f json user", 0, "[{\"user\":\"ann\"},{\"user\":\"guest\"}]"),
    ("list_users nonsense", 64, "no column \"nonsense\"; there are user, tags"),
    ("set_user_tags nobody x", 67, "does not exist"),
    // Vhosts.
    ("add_vhost 'a/b c'", 0, "Adding vhost \"a/b c\" ..."),
    ("add_vhost 'a/b c'", 0, ""),
    ("list_vhosts -q", 0, "name\n/\na/b c\n"),
    ("delete_vhost none", 65, "vhost 'none' does not exist"),
    // Permissions.
    ("set_permissions -p 'a/b c' ann '^c' '^w' ''", 0, "in vhost \"a/b c\" ..."),
    ("set_permissions -p none ann a b c", 65, "vhost 'none' does not exist"),
    ("set_permissions nobody a b c", 67, "user 'nobody' does not exist"),
    ("set_permissions ann ( b c", 65, "regex parse error"),
    ("list_permissions -p 'a/b c' -q", 0, "user\tconfigure\twrite\tread\nann\t^c\t^w\t\n"),
    ("list_permissions -s", 0, "guest\t.*\t.*\t.*\n"),
    ("list_user_permissions -s ann", 0, "a/b c\t^c\t^w\t\n"),
    ("list_user_permissions nobody", 67, "does not exist"),
    ("list_permissions -p none", 65, "vhost 'none' does not exist"),
    // Definitions bring queues, an exchange and bindings.
    ("import_definitions DEFINITIONS", 0, "Importing definitions"),
    ("import_definitions DEFINITIONS", 0, LEFT_OUT),
    ("list_policies -s", 0, "/\tmixed\t^m\tall\t{\"max-length\":9}\t0\n"),
    ("clear_policy mirrored", 65, "policy 'mirrored' in vhost '/' does not exist"),
    ("clear_policy mixed", 0, ""),
    ("list_queues -q", 0, "name\tmessages\namq.gen-7f3c\t0\njobs\t0\norders\t0\n"),
    ("list_queues -s vhost name durable arguments", 0, "/\tjobs\ttrue\t{\"x-max-length\":9}\n"),
    ("list_exchanges -s name type durable", 0, "news\tfanout\ttrue\n"),
    ("list_bindings -s", 0, "news\torders\tqueue\tk\t{}\n"),
    ("authenticate_user carol test12", 0, "Success"),
    ("export_definitions -", 0, "\"hashing_algorithm\": \"rabbit_password_hashing_sha256\""),
    ("list_connections -q", 0, ""),
    ("list_consumers -q", 0, ""),
    // Policies.
    ("set_policy short ^or '{\"max-length\":7}' --priority 3 --apply-to queues", 0, "\"short\""),
    ("set_policy bad ^or '{\"max-priority\":7}'", 65, "not recognised"),
    ("set_policy bad ^or nonsense", 65, "no JSON"),
    ("list_policies -s", 0, "/\tshort\t^or\tqueues\t{\"max-length\":7}\t3\n"),
    ("list_queues -s name policy", 0, "jobs\t\norders\tshort\n"),
    ("clear_policy short", 0, ""),
    ("clear_policy short", 65, "policy 'short' in vhost '/' does not exist"),
    // Queues.
    ("purge_queue orders", 0, "Purging queue 'orders' in vhost '/' ..."),
    ("purge_queue none", 65, "no queue 'none' in vhost '/'"),
    ("delete_queue jobs --if-empty --if-unused", 0, "Deleting queue 'jobs'"),
    ("delete_queue jobs", 65, "no queue 'jobs'"),
    ("close_connection 999999 why", 65, "does not exist"),
    ("close_all_connections why", 0, ""),
    ("trace_connection 999999 on", 65, "connection '999999' does not exist"),
    ("trace_connection 1 maybe", 64, "maybe"),
    ("hash_password secret", 0, "m=19456"),
    // It is alone for good.
    ("switchover", 70, "whose slave is in-sync; this is the master, standalone"),
    ("promote", 70, "this node has no peer: its state is standalone"),
    ("resync", 70, "this node has no peer"),
    ("forget_slave --force", 70, "this node has no peer"),
    // And away.
    ("clear_permissions -p 'a/b c' ann", 0, ""),
    ("delete_vhost 'a/b c'", 0, ""),
    ("delete_user ann", 0, "Deleting user \"ann\" ..."),
    ("delete_user ann", 67, "user 'ann' does not exist"),
    ("list_queues --bogus", 64, "--bogus"),
];

/// `carol`'s hash is the example of RabbitMQ's documentation.
const DEFINITIONS: &str = r#"{
  "users": [{"name": "carol", "tags": "management", "limits": {"max-connections": 9}, "hashing_algorithm":
    "rabbit_password_hashing_sha256",
    "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"}],
  "vhosts": [{"name": "/"}],
  "permissions": [{"user": "carol", "vhost": "/", "configure": "", "write": "", "read": "^orders"}],
  "queues": [
    {"name": "orders", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}},
    {"name": "jobs", "vhost": "/", "durable": true, "auto_delete": false,
     "arguments": {"x-max-length": 9}},
    {"name": "amq.gen-7f3c", "vhost": "/", "durable": false, "auto_delete": false, "arguments": {}}],
  "exchanges": [{"name": "news", "vhost": "/", "type": "fanout", "durable": true,
     "auto_delete": false, "internal": false, "arguments": {}}],
  "bindings": [{"source": "news", "vhost": "/", "destination": "orders",
     "destination_type": "queue", "routing_key": "k", "arguments": {}}],
  "policies": [
    {"name": "mirrored", "vhost": "/", "pattern": "", "definition": {"ha-mode": "all"}},
    {"name": "mixed", "vhost": "/", "pattern": "^m", "apply-to": "all", "priority": 0,
     "definition": {"ha-mode": "all", "max-length": 9}}],
  "topic_permissions": [
    {"user": "carol", "vhost": "/", "exchange": "amq.topic", "write": "^a", "read": ".*"}],
  "global_parameters": [{"name": "internal_cluster_id", "value": "rabbitmq-cluster-id-42"}]
}"#;
const LEFT_OUT: &str = "understudy: left out: topic_permissions: 1
understudy: left out: limits of user \"carol\"
understudy: left out: ha-* of policy \"mirrored\" in vhost \"/\": a pair replicates every queue
understudy: left out: ha-* of policy \"mixed\" in vhost \"/\": a pair replicates every queue
";

/// Words, with single quotes around those that hold spaces or are empty.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

fn control(data_dir: &Path, arguments: &[String], input: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(arguments)
        .arg("-D")
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

pub(crate) fn run(data_dir: &Path, line: &str) -> (i32, String) {
    control(data_dir, &words(line), "")
}

#[test]
fn every_verb_says_and_does_what_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let data = directory.path().join("standalone");
    let definitions = directory.path().join("definitions.json");
    std::fs::write(&definitions, DEFINITIONS).unwrap();
    for (line, code, wanted) in STORY {
        let line = line.replace("DEFINITIONS", definitions.to_str().unwrap());
        let (found, said) = run(&data, &line);
        assert_eq!(found, *code, "{line}: {said}");
        assert!(said.contains(wanted), "{line}: {said:?} lacks {wanted:?}");
    }
    let (code, said) = control(&data, &words("add_user dora"), "from stdin\n");
    assert_eq!(code, 0, "{said}");
    assert_eq!(run(&data, "authenticate_user dora 'from stdin'").0, 0);
    // What was done is in the log: it is still there after a crash.
    node.kill();
    assert_eq!(run(&data, "list_users").0, 69);
    node.start_serving();
    let (_, said) = run(&data, "list_users -s");
    assert_eq!(said, "carol\t[management]\ndora\t[]\nguest\t[administrator]\n");
}

#[test]
fn a_pair_shares_users_and_only_its_master_changes_them() {
    let mut pair = Pair::in_sync();
    let (master, slave) =
        (pair.directory.path().join("master"), pair.directory.path().join("slave"));
    assert_eq!(run(&master, "add_user ann secret").0, 0);
    assert_eq!(run(&master, "set_permissions ann '' '' '^o'").0, 0);
    let (code, said) = run(&slave, "add_user bob secret");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("changes are made on the master"), "{said}");
    // The slave applies what is committed a little later than the master answers.
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while run(&slave, "list_permissions -s").1 != "ann\t\t\t^o\nguest\t.*\t.*\t.*\n" {
        assert!(std::time::Instant::now() < until, "{}", run(&slave, "list_permissions -s").1);
    }
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == serde_json::Value::Bool(true));
    for line in ["authenticate_user ann secret", "add_user bob secret", "delete_user ann"] {
        let (code, said) = run(&slave, line);
        assert_eq!(code, 0, "{line}: {said}");
    }
}

const MESSAGE: &str =
    r#"{"routing_key": "ann.q", "payload": "tea", "properties": {"headers": {"a": 1}}}"#;
const TO_GR: &str = r#"{"routing_key": "gr", "payload": "bad"}"#;
const REJECTING: &str =
    r#"{"arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "gd"}}"#;
const REJECT: &str = r#"{"ackmode": "reject_requeue_false"}"#;
const TAKE: &str = r#"{"count": 5, "ackmode": "ack_requeue_false"}"#;

fn http(address: &str, method: &str, path: &str, user: &str, body: &str) -> (u16, String) {
    use base64::Engine;
    let login = base64::engine::general_purpose::STANDARD.encode(user);
    let length = body.len();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn a_connection_is_traced_from_on_to_off_and_never_its_login() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let data = directory.path().join("standalone");
    let mut late = Stomp::open(&node.ports.stomp);
    late.send_part("CONNECT\naccept-version:1.2\n");
    let mut stomp = Stomp::connect(&node.ports.stomp);
    let mut send = |body: &str| {
        stomp.send(&format!("SEND\ndestination:/queue/q\nreceipt:of-{body}\n\n{body}"));
        assert_eq!(stomp.receive().command, "RECEIPT");
    };
    send("before");
    // Numbers can be guessed: one that is not logged in cannot be traced all the same.
    let (_, name) = run(&data, "list_connections -s name");
    let name = name.trim();
    for guess in (0..32).map(|guess| guess.to_string()) {
        let path = format!("/api/connections/{guess}/trace");
        let wanted = if guess == name { 204 } else { 404 };
        assert_eq!(http(&node.ports.http, "PUT", &path, "guest:guest", "").0, wanted, "{guess}");
    }
    assert_eq!(run(&data, &format!("trace_connection {name} off")).0, 0);
    send("between");
    let (code, said) = run(&data, &format!("trace_connection {name} on"));
    assert_eq!((code, said.trim()), (0, format!("Tracing connection {name} ...").as_str()));
    send("traced");
    late.send("host:/\nlogin:guest\npasscode:guest\n\n");
    assert_eq!(late.receive().command, "CONNECTED");
    // What is read next is read after the last receipt's line was logged.
    send("again");
    assert_eq!(run(&data, &format!("trace_connection {name} off")).0, 0);
    send("after");
    let log = node.log();
    let line = |text: &str| log.lines().find(|line| line.contains(text));
    let read =
        line(r"read: SEND\ndestination:/queue/q\nreceipt:of-traced\n\ntraced\x00").expect(&log);
    assert!(read.contains(&format!("connection={name} bytes=")), "{read}");
    line(r"written: RECEIPT\nreceipt-id:of-traced\n\n\x00").expect(&log);
    line("receipt:of-again").expect(&log);
    for unseen in ["of-before", "of-between", "of-after", "passcode"] {
        assert_eq!(line(unseen), None);
    }
    node.terminate();
}

#[test]
fn the_http_api_keeps_to_tags_and_permissions() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let data = directory.path().join("standalone");
    for line in [
        "add_user ann a",
        "set_user_tags ann management",
        "set_permissions ann ^ann ^ann ^ann",
        "add_user pol p",
        "set_user_tags pol policymaker",
        "set_permissions pol '' '' ''",
        "add_user mon m",
        "set_user_tags mon monitoring",
        "add_user none n",
        "add_vhost hidden",
    ] {
        let (code, said) = run(&data, line);
        assert_eq!(code, 0, "{line}: {said}");
    }
    let policy = r#"{"pattern": "^ann", "definition": {"max-length": 5}, "apply-to": "queues"}"#;
    let all = r#"{"configure": ".*", "write": ".*", "read": ".*"}"#;
    for (user, method, path, body, status, wanted) in [
        ("guest:guest", "GET", "/api/whoami", "", 200, "administrator"),
        ("guest:wrong", "GET", "/api/whoami", "", 401, "Login failed"),
        ("none:n", "GET", "/api/overview", "", 401, "Not management user"),
        ("ann:a", "GET", "/api/overview", "", 200, "object_totals"),
        ("ann:a", "GET", "/api/users", "", 401, "Not administrator user"),
        ("ann:a", "GET", "/api/vhosts", "", 200, "\"name\":\"/\""),
        ("ann:a", "GET", "/api/queues/hidden", "", 401, "not authorised"),
        ("mon:m", "GET", "/api/queues/hidden", "", 200, "[]"),
        ("mon:m", "PUT", "/api/vhosts/v", "", 401, "Not administrator user"),
        ("mon:m", "PUT", "/api/connections/1/trace", "", 401, "Not administrator user"),
        ("ann:a", "PUT", "/api/queues/%2F/ann.q", "{}", 201, ""),
        ("ann:a", "PUT", "/api/queues/%2F/ann.q", "{}", 204, ""),
        ("ann:a", "PUT", "/api/queues/%2F/other", "{}", 401, "refused for user 'ann'"),
        ("ann:a", "PUT", "/api/queues/%2F/ann.q", r#"{"durable": false}"#, 400, "inequivalent"),
        ("ann:a", "PUT", "/api/exchanges/%2F/ann.x", r#"{"type": "topic"}"#, 201, ""),
        ("ann:a", "POST", "/api/bindings/%2F/e/ann.x/q/ann.q", r#"{"routing_key": "k"}"#, 201, ""),
        ("ann:a", "GET", "/api/queues/%2F/ann.q/bindings", "", 200, "\"routing_key\":\"k\""),
        ("ann:a", "GET", "/api/exchanges/%2F/ann.x/bindings/source", "", 200, "\"ann.q\""),
        ("ann:a", "GET", "/api/exchanges/%2F/ann.x/bindings/destination", "", 200, "[]"),
        (
            "ann:a",
            "POST",
            "/api/bindings/%2F/e/ann.x/q/ann.q",
            r#"{"routing_key": "a.#~ b"}"#,
            201,
            "",
        ),
        (
            "ann:a",
            "GET",
            "/api/queues/%2F/ann.q/bindings",
            "",
            200,
            "\"properties_key\":\"a.%23%7E+b\"",
        ),
        ("ann:a", "DELETE", "/api/bindings/%2F/e/ann.x/q/ann.q/a.%2523%257E%2Bb", "", 204, ""),
        ("ann:a", "DELETE", "/api/bindings/%2F/e/ann.x/q/ann.q/k", "", 204, ""),
        ("ann:a", "DELETE", "/api/bindings/%2F/e/ann.x/q/ann.q/k", "", 404, "not_found"),
        ("ann:a", "GET", "/api/exchanges/%2F/ann.x/bindings/source", "", 200, "[]"),
        ("ann:a", "GET", "/api/exchanges/%2F/ann.x/bindings/middle", "", 404, "not_found"),
        ("ann:a", "GET", "/api/queues?page=1&name=ann", "", 200, "\"item_count\":1"),
        ("ann:a", "GET", "/api/queues?page=x", "", 400, "\"error\":\"bad_request\""),
        ("ann:a", "PATCH", "/api/queues/%2F/ann.q", "", 405, "Method Not Allowed"),
        ("ann:a", "PUT", "/api/policies/%2F/p", policy, 401, "Not policymaker user"),
        ("pol:p", "PUT", "/api/policies/%2F/p", policy, 201, ""),
        ("pol:p", "PUT", "/api/policies/hidden/p", policy, 401, "not authorised"),
        ("ann:a", "GET", "/api/queues/%2F/ann.q", "", 200, "\"policy\":\"p\""),
        ("ann:a", "POST", "/api/exchanges/%2F/ann.x/publish", MESSAGE, 200, "{\"routed\":false}"),
        ("ann:a", "POST", "/api/exchanges/%2F/amq.default/publish", MESSAGE, 401, "refused"),
        ("guest:guest", "POST", "/api/exchanges/%2F/amq.default/publish", MESSAGE, 200, "true"),
        ("ann:a", "POST", "/api/queues/%2F/ann.q/get", "{}", 200, "\"payload\":\"tea\""),
        ("ann:a", "POST", "/api/queues/%2F/ann.q/get", TAKE, 200, "\"redelivered\":true"),
        ("ann:a", "POST", "/api/queues/%2F/ann.q/get", "{}", 200, "[]"),
        ("guest:guest", "PUT", "/api/queues/%2F/gd", "{}", 201, ""),
        ("guest:guest", "PUT", "/api/queues/%2F/gr", REJECTING, 201, ""),
        ("guest:guest", "POST", "/api/exchanges/%2F/amq.default/publish", TO_GR, 200, "true"),
        ("guest:guest", "POST", "/api/queues/%2F/gr/get", REJECT, 200, "bad"),
        ("guest:guest", "POST", "/api/queues/%2F/gd/get", "{}", 200, "\"reason\":\"rejected\""),
        (
            "guest:guest",
            "POST",
            "/api/queues/%2F/gd/get",
            r#"{"ackmode": "x"}"#,
            400,
            "reject_requeue",
        ),
        ("ann:a", "POST", "/api/queues/%2F/none/get", "{}", 401, "refused for user 'ann'"),
        ("ann:a", "DELETE", "/api/queues/%2F/ann.q", "", 204, ""),
        ("ann:a", "DELETE", "/api/exchanges/%2F/ann.x", "", 204, ""),
        ("guest:guest", "PUT", "/api/permissions/hidden/ann", all, 201, ""),
        ("guest:guest", "PUT", "/api/permissions/hidden/ann", "{", 400, "not JSON"),
        ("guest:guest", "PUT", "/api/users/eve", r#"{"password": "e"}"#, 400, "tags is missing"),
        ("guest:guest", "GET", "/api/definitions", "", 200, "\"users\""),
        ("mon:m", "GET", "/api/health/checks/alarms", "", 200, "ok"),
        ("mon:m", "GET", "/api/health/checks/is-master", "", 200, "ok"),
        ("mon:m", "GET", "/api/health/checks/protocol-listener/amqp", "", 200, "ok"),
        ("mon:m", "GET", "/api/health/checks/port-listener/1", "", 503, "failed"),
    ] {
        let (found, said) = http(&node.ports.http, method, path, user, body);
        assert_eq!(found, status, "{user} {method} {path}: {said}");
        assert!(said.contains(wanted), "{user} {method} {path}: {said}");
    }
}
