//! `understudy bench` against real nodes: every protocol, every kind of load, and that its
//! verification sees a loss.

use crate::certificates::Tls;
use crate::support::{Node, Pair, free_address};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

fn bench(url: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
    command.args(["bench", "--url", url, "--json"]).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn result(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no result: {error}"))
}

/// The result of a run that must go well.
fn good(url: &str, arguments: &str) -> Value {
    let output = bench(url, arguments).output().unwrap();
    let result = result(&output);
    assert!(output.status.success(), "{url} {arguments}: {result:#}");
    assert_eq!(result["verification"]["good"], true, "{result:#}");
    result
}

fn urls(node: &Node) -> [String; 3] {
    let ports = &node.ports;
    [
        format!("amqp://guest:guest@{}/%2f", ports.amqp),
        format!("stomp://{}", ports.stomp),
        format!("tcp://{}", ports.native),
    ]
}

/// The same under TLS.
fn secure_urls(tls: &Tls) -> [String; 3] {
    [
        format!("amqps://guest:guest@localhost:{}/%2f", tls.amqp_port),
        format!("stomp+ssl://localhost:{}", tls.stomp_port),
        format!("ssl://localhost:{}", tls.native_port),
    ]
}

#[test]
fn every_protocol_carries_every_load_and_all_of_it_is_accounted_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let pid = node.pid();
    // Arguments, messages published, messages received.
    let loads = [
        ("--messages 3000 --warm-up 100", 3_000, 3_000),
        (
            "--messages 3000 --producers 3 --consumers 2 --queues 5 --window 7 --ack individual --ack-every 9",
            3_000,
            3_000,
        ),
        ("--messages 2000 --transient --window 0 --ack auto --size 100 --prefetch 0", 2_000, 2_000),
        (
            "--messages 500 --rate 2000 --size 300000 --window 20 --prefetch 10 --ack-every 1",
            500,
            500,
        ),
        ("--messages 400 --fanout --queues 3 --consumers 3", 400, 1_200),
    ];
    for url in urls(&node) {
        for (arguments, published, received) in loads {
            let arguments = format!("{arguments} --server-pid {pid} --quiet");
            let result = good(&url, &arguments);
            let phase = &result["phases"][0];
            assert_eq!(phase["published"], published, "{url} {arguments}: {phase:#}");
            assert_eq!(phase["confirmed"], published);
            assert_eq!(phase["received"], received);
            assert!(phase["end_to_end_us"]["p50"].as_f64().unwrap() > 0.0);
            assert!(phase["servers"][0]["resident_bytes_peak"].as_u64().unwrap() > 0);
        }
        let result = good(&url, "--messages 2000 --phases fill,drain --name phases --quiet");
        assert_eq!(result["phases"][0]["confirmed"], 2_000);
        assert_eq!(result["phases"][0]["received"], 0);
        assert_eq!(result["phases"][1]["received"], 2_000);
        let paced = "--rate 1000000 --window 1 --name paced --quiet";
        let all = good(&url, &format!("{paced} --messages 20"));
        assert_eq!(all["phases"][0]["due_not_sent"], 0);
        let cut_off = good(&url, &format!("{paced} --duration 0.5"));
        let cut_off = cut_off["phases"][0]["due_not_sent"].as_u64().unwrap();
        assert!(cut_off > 1_000, "{cut_off}");
        let result = good(&url, "--messages 100 --size 5 --name short --quiet");
        assert_eq!(result["phases"][0]["received"], 100);
        assert_eq!(result["verification"]["verified"], false);
    }
}

#[test]
fn a_reader_of_the_result_that_has_gone_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let mut child = bench(&urls(&node)[0], "--messages 10 --quiet").spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_contradicts_itself_is_told_before_anything_is_done() {
    let nobody = "amqp://127.0.0.1:1";
    for (arguments, why) in [
        ("--producers 0", "at least 1"),
        ("--rate 0", "--rate is above 0"),
        ("--size 10 --rate 5", "--size is at least"),
        ("--ack-every 50 --prefetch 49", "beyond --prefetch"),
        ("--queue-argument x", "NAME=VALUE"),
        ("--server-pid 4294967295", "--server-pid 4294967295"),
        ("--phases flood", "invalid value 'flood'"),
    ] {
        let output = bench(nobody, arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments}: {error}");
        assert!(error.contains(why), "{arguments}: {error}");
    }
    let output = bench(nobody, "--messages 1 --quiet").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[test]
fn a_loss_is_seen_and_a_refusal_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let [amqp, stomp, native] = urls(&node);
    good(&amqp, "--phases fill --messages 100 --run 7 --name lossy --quiet");
    // Three are taken away.
    let taken = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["consume", "--url", &native, "--queue", "lossy-0", "--ack", "--count", "3"])
        .output()
        .unwrap();
    assert!(taken.status.success());
    let drain = "--phases drain --messages 100 --run 7 --name lossy --patience 1 --quiet";
    let output = bench(&amqp, drain).output().unwrap();
    let result = result(&output);
    assert!(!output.status.success());
    assert_eq!(result["verification"]["lost"], 3, "{result:#}");
    assert_eq!(result["phases"][0]["received"], 97);

    for url in [amqp, stomp, native] {
        let wrong = url.replace("://", "://nobody:wrong@").replace("@guest:guest", "");
        let output = bench(&wrong, "--messages 1 --quiet").output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{wrong}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("the broker says"), "{wrong}: {error}");
    }
}

/// The load, once it has shown that messages flow.
fn started(mut load: Child) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut progress = BufReader::new(load.stderr.take().unwrap());
    let mut line = String::new();
    assert!(progress.read_line(&mut line).unwrap() > 0, "the load ended early");
    assert!(line.contains("confirmed"), "{line}");
    (load, progress)
}

#[test]
fn every_protocol_carries_its_load_under_tls() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    let tls = Tls::make(directory.path(), &mut node);
    node.start_serving();
    let [ca, certificate, key] = tls.client_files.each_ref().map(|file| file.display());
    let loads = [
        "--messages 3000 --producers 2 --consumers 2 --queues 3 --window 100",
        "--messages 300 --size 300000 --window 20 --prefetch 10 --ack-every 1",
        "--messages 1000 --phases fill,drain --ack individual",
    ];
    for url in secure_urls(&tls) {
        for load in loads {
            let result = good(&format!("{url}?cacertfile={ca}"), &format!("{load} --quiet"));
            assert_eq!(result["tls"], true, "{result:#}");
        }
        // The certificate says who it is.
        let anonymous = url.replace("guest:guest@", "").replace("://", "://:@");
        let files = format!("cacertfile={ca}&certfile={certificate}&keyfile={key}");
        good(&format!("{anonymous}?{files}"), "--messages 500 --quiet");

        let nobody = format!("{}://{}", url.split("://").next().unwrap(), free_address());
        for (wrong, code, why) in [
            (format!("{anonymous}?cacertfile={ca}"), 69, "the broker says"),
            (format!("{url}?cacertfile={ca}&server_name_indication=elsewhere"), 69, "certificate"),
            (format!("{url}?cacertfile={certificate}"), 69, "certificate"),
            // Nor does it wait for the others of the list.
            (
                format!("failover:({url},{nobody})?nested.cacertfile={certificate}"),
                69,
                "certificate",
            ),
            (url.clone(), 64, "cacertfile"),
        ] {
            let output = bench(&wrong, "--messages 1 --quiet").output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{wrong}");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
    let no_tls_there = [
        format!("amqps://{}?cacertfile={ca}", node.ports.amqp),
        format!("stomp+ssl://{}?cacertfile={ca}", node.ports.stomp),
        format!("ssl://{}?cacertfile={ca}", node.ports.native),
    ];
    for url in no_tls_there {
        let output = bench(&url, "--messages 1 --patience 2 --quiet").output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{url}");
    }
}

/// Loads of all protocols, each through its list of two; the master is killed meanwhile.
fn goes_on_at_the_new_master(mut pair: Pair, lists: [String; 3]) {
    let loads = lists.into_iter().zip(["a", "b", "c"]).map(|(list, name)| {
        let arguments = format!("--name {name} --messages 4000 --rate 1000 --window 100");
        (name, started(bench(&list, &arguments).spawn().unwrap()))
    });
    let loads: Vec<_> = loads.collect();
    pair.master.kill();
    for (name, (load, mut progress)) in loads {
        // Read to the end, so that it never waits for us.
        std::io::copy(&mut progress, &mut std::io::sink()).unwrap();
        let output = load.wait_with_output().unwrap();
        let result = result(&output);
        assert!(output.status.success(), "{result:#}");
        assert_eq!(result["verification"]["lost"], 0, "{result:#}");
        assert_eq!(result["phases"][0]["confirmed"], 4_000, "{result:#}");
        assert!(result["phases"][0]["reconnects"].as_u64().unwrap() >= 2, "{result:#}");
        let again = result["phases"][0]["sent_again"].as_u64().unwrap();
        assert_eq!(result["phases"][0]["published"], 4_000 + again, "{result:#}");
        // The native one is stored once, however often it is sent.
        let stored_twice = &result["verification"]["duplicates_not_flagged_redelivered"];
        assert!(name != "c" || stored_twice == 0, "{result:#}");
    }
}

#[test]
fn a_load_goes_on_at_the_new_master_and_nothing_confirmed_is_lost() {
    let pair = Pair::in_sync();
    let [one, two] = [urls(&pair.master), urls(&pair.slave)];
    let lists = [0, 1, 2].map(|which| format!("failover:({},{})", one[which], two[which]));
    goes_on_at_the_new_master(pair, lists);
}

#[test]
fn a_load_under_tls_goes_on_at_the_new_master_too() {
    let mut pair = Pair::new("", "");
    let directory = pair.directory.path().to_owned();
    // The files of the second are those of both.
    let [one, two] = [&mut pair.master, &mut pair.slave].map(|node| Tls::make(&directory, node));
    pair.start_in_sync();
    let ca = two.client_files[0].display();
    let [one, two] = [secure_urls(&one), secure_urls(&two)];
    let lists = [0, 1, 2]
        .map(|which| format!("failover:({},{})?nested.cacertfile={ca}", one[which], two[which]));
    goes_on_at_the_new_master(pair, lists);
}
