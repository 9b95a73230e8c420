//! Client libraries of other languages, as their users have them, against a real pair: a suite
//! of basics, then publishing with confirms while the master is killed with SIGKILL.
//!
//! What they need is installed, pinned, under `target/interop`. Where a language is missing the
//! test says SKIPPED and the package that would bring it; `.ci/run` fails on that.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/mod.rs"]
mod support;

mod failover;
mod lapin_suite;
mod native_examples;
mod native_python;
mod rounds;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use support::{Pair, Ports};

const PIP_PACKAGES: [&str; 4] =
    ["pika==1.3.2", "stomp.py==8.1.2", "aio-pika==9.5.5", "celery==5.4.0"];
const NPM_PACKAGES: [&str; 6] = [
    "amqplib@0.10.4",
    "amqp-connection-manager@4.1.14",
    "rabbitmq-client@5.0.8",
    "@stomp/stompjs@7.0.0",
    "ws@8.18.0",
    "stompit@1.0.0",
];

/// Debian's librabbitmq-client-java and what it needs.
const JARS: [&str; 3] = [
    "/usr/share/java/amqp-client.jar",
    "/usr/share/java/slf4j-api.jar",
    "/usr/share/java/slf4j-nop.jar",
];
/// Debian's golang-github-rabbitmq-amqp091-go-dev, with its tests.
const AMQP091_GO: &str = "/usr/share/gocode/src/github.com/rabbitmq/amqp091-go";
/// Ends well if Debian's php-amqplib is there.
const PHP_AMQPLIB: &str = "exit((int) !stream_resolve_include_path('PhpAmqpLib/autoload.php'));";

/// Seconds, for coreutils' timeout.
const SUITE_S_MAX: &str = "600";

/// Installing is done once, whichever test comes first.
static INSTALL: Mutex<()> = Mutex::new(());

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

/// A suite that hangs is ended with all that it has started, and told as such.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=10", SUITE_S_MAX]).arg(command.get_program());
    // What a suite imports from beside it leaves nothing there.
    limited.env("PYTHONDONTWRITEBYTECODE", "1");
    limited.args(command.get_args()).stdin(Stdio::null());
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited
}

fn run_quietly(command: &mut Command) {
    let output = limited(command).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn skipped(test: &str, package: &str) {
    println!("SKIPPED {test}: install Debian's {package}");
}

/// The Python of a virtual environment with the packages, or none without Python.
fn python() -> Option<PathBuf> {
    let _one = INSTALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_installed("python3") {
        return None;
    }
    let venv = home().join("venv");
    let python = venv.join("bin/python");
    let done = venv.join("installed");
    if std::fs::read_to_string(&done).unwrap_or_default() != PIP_PACKAGES.join(" ") {
        std::fs::create_dir_all(home()).unwrap();
        run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run_quietly(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(PIP_PACKAGES),
        );
        std::fs::write(done, PIP_PACKAGES.join(" ")).unwrap();
    }
    Some(python)
}

/// The folder with `node_modules`, or none without Node.js.
fn node_modules() -> Option<PathBuf> {
    let _one = INSTALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_installed("node") || !is_installed("npm") {
        return None;
    }
    let folder = home().join("node");
    let done = folder.join("installed");
    if std::fs::read_to_string(&done).unwrap_or_default() != NPM_PACKAGES.join(" ") {
        std::fs::create_dir_all(&folder).unwrap();
        run_quietly(
            Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
                .arg(&folder)
                .args(NPM_PACKAGES),
        );
        std::fs::write(done, NPM_PACKAGES.join(" ")).unwrap();
    }
    Some(folder)
}

/// Runs a suite; kills the master when it says so, and checks what it counted.
fn run_suite(suite: Command, pair: &mut Pair) {
    let mut child = limited(&suite).stdout(Stdio::piped()).spawn().unwrap();
    let mut counted = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "KILL" {
            pair.master.kill();
        } else if let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) {
            println!("{line}");
            counted = Some(value);
        }
    }
    assert!(child.wait().unwrap().success(), "{suite:?} failed");
    let counted = counted.expect("the suite counts");
    assert_eq!(counted["lost"], serde_json::json!([]), "{counted}");
    // One message at a time is in flight, so at most that one can have been stored twice; or once for
    // each time that it was sent, where a client no longer reads its receipts.
    let number = |key: &str| counted[key].as_u64();
    let sent_again = number("sent").map_or(1, |sent| sent - number("confirmed").unwrap());
    assert!(number("duplicates").unwrap() <= sent_again.max(1), "{counted}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

fn arguments(pair: &Pair, address: impl Fn(&Ports) -> &String) -> [String; 2] {
    [&pair.master.ports, &pair.slave.ports].map(|ports| Ports::port(address(ports)).to_string())
}

#[test]
fn pika() {
    let Some(python) = python() else { return skipped("pika", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("pika_suite.py")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

#[test]
fn pika_rules() {
    let Some(python) = python() else { return skipped("pika_rules", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("pika_rules.py")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// An ack and publishes to several queues are one, also over a takeover.
#[test]
fn pika_transactions() {
    let Some(python) = python() else { return skipped("pika_transactions", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("pika_transactions.py")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// connection.blocked and unblocked, from a store that runs full.
#[test]
fn pika_blocked() {
    let Some(python) = python() else { return skipped("pika_blocked", "python3-venv") };
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    node.configure(
        "[limits]\ninflight_bytes_max = 4194304\n\
         [storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\n",
    );
    node.start_serving();
    let port = Ports::port(&node.ports.amqp).to_string();
    run_quietly(Command::new(python).arg(script("pika_blocked.py")).arg(port));
}

/// Refused publishes and transactions, from a store that runs full.
#[test]
fn pika_alarm() {
    let Some(python) = python() else { return skipped("pika_alarm", "python3-venv") };
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    node.configure(
        "[limits]\ninflight_bytes_max = 4194304\n\
         [storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\nalarm_policy = \"reject\"\n",
    );
    node.start_serving();
    let port = Ports::port(&node.ports.amqp).to_string();
    run_quietly(Command::new(python).arg(script("pika_alarm.py")).arg(port));
}

#[test]
fn aio_pika() {
    let Some(python) = python() else { return skipped("aio_pika", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("aio_pika_suite.py")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// A real worker of Celery, with retries and a chord.
#[test]
fn celery() {
    let Some(python) = python() else { return skipped("celery", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("celery_suite.py")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// Every error that clients match on, and what they never send: frames by hand.
#[test]
fn amqp_errors() {
    let Some(python) = python() else { return skipped("amqp_errors", "python3-venv") };
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    node.start_serving();
    let port = Ports::port(&node.ports.amqp).to_string();
    run_quietly(Command::new(python).arg(script("errors.py")).arg(port));
}

/// @stomp/stompjs in Node, with a takeover.
#[test]
fn stompjs() {
    let Some(folder) = node_modules() else { return skipped("stompjs", "nodejs and npm") };
    let mut pair = Pair::new("", "");
    let ports = [&mut pair.master, &mut pair.slave].map(|node| {
        let address = Ports::free().stomp;
        node.listen(&format!("stomp_ws = \"{address}\"\n"));
        Ports::port(&address).to_string()
    });
    pair.start_in_sync();
    let mut suite = Command::new("node");
    suite.env("NODE_PATH", folder.join("node_modules"));
    suite.arg(script("stompjs_suite.js")).args(ports);
    run_suite(suite, &mut pair);
}

/// @stomp/stompjs in a page of a headless Chromium, in clear.
#[test]
fn stompjs_in_a_browser() {
    let Some(folder) = node_modules() else { return skipped("browser", "nodejs and npm") };
    if !is_installed("chromium") {
        return skipped("stompjs_in_a_browser", "chromium");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    let ports = Ports::free();
    node.listen(&format!("stomp_ws = \"{}\"\n", ports.stomp));
    node.start_serving();
    let mut suite = Command::new("node");
    suite.env("NODE_PATH", folder.join("node_modules"));
    suite.arg(script("stompjs_page.js")).arg(Ports::port(&ports.stomp).to_string());
    suite.arg(folder.join("node_modules/@stomp/stompjs/bundles/stomp.umd.min.js"));
    suite.arg(directory.path().join("profile"));
    assert!(suite.status().unwrap().success(), "{}", node.log());
}

/// pika and stomp.py under TLS, with and without a certificate of their own.
#[test]
fn python_tls() {
    let Some(python) = python() else { return skipped("python_tls", "python3-venv") };
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    let tls = certificates::Tls::make(directory.path(), &mut node);
    node.start_serving();
    let mut suite = Command::new(python);
    suite
        .arg(script("tls_suite.py"))
        .args([&tls.amqp_port, &tls.stomp_port])
        .args(&tls.client_files);
    assert!(suite.status().unwrap().success(), "{}", node.log());
}

#[test]
fn stomp_py() {
    let Some(python) = python() else { return skipped("stomp_py", "python3-venv") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new(python);
    suite.arg(script("stomp_suite.py")).args(arguments(&pair, |ports| &ports.stomp));
    run_suite(suite, &mut pair);
}

#[test]
fn amqplib() {
    let Some(folder) = node_modules() else { return skipped("amqplib", "nodejs and npm") };
    let mut pair = Pair::in_sync();
    let mut suite = Command::new("node");
    suite
        .env("NODE_PATH", folder.join("node_modules"))
        .arg(script("amqplib_suite.js"))
        .args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// Debian's Java client, compiled here; its connection recovers through its list of addresses.
#[test]
fn java() {
    let [client, logging, silent] = JARS;
    if !is_installed("javac") || !is_installed("java") {
        return skipped("java", "default-jdk-headless");
    }
    if !Path::new(client).exists() {
        return skipped("java", "librabbitmq-client-java");
    }
    let classes = tempfile::tempdir().unwrap();
    run_quietly(
        Command::new("javac")
            .args(["-cp", client, "-d"])
            .arg(classes.path())
            .arg(script("JavaSuite.java")),
    );
    let mut pair = Pair::in_sync();
    let mut suite = Command::new("java");
    suite
        .arg("-cp")
        .arg([&classes.path().to_string_lossy(), client, logging, silent].join(":"))
        .arg("JavaSuite")
        .args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

#[test]
fn bunny() {
    if !runs("ruby", &["-rbunny", "-e", ""]) {
        return skipped("bunny", "ruby-bunny");
    }
    let mut pair = Pair::in_sync();
    let mut suite = Command::new("ruby");
    suite.arg(script("bunny_suite.rb")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

#[test]
fn php_amqplib() {
    if !runs("php", &["-r", PHP_AMQPLIB]) {
        return skipped("php_amqplib", "php-cli and php-amqplib");
    }
    let mut pair = Pair::in_sync();
    let mut suite = Command::new("php");
    suite.arg(script("amqplib_suite.php")).args(arguments(&pair, |ports| &ports.amqp));
    run_suite(suite, &mut pair);
}

/// Suites that client libraries bring along. `UNDERSTUDY_PUBLIC_SUITES=all` for those that take
/// minutes, too.
#[test]
fn public_suites() {
    if !is_installed("python3") {
        return skipped("public_suites", "python3-venv");
    }
    if !is_installed("npm") {
        return skipped("public_suites", "nodejs and npm");
    }
    if !runs("go", &["version"]) || !Path::new(AMQP091_GO).exists() {
        return skipped("public_suites", "golang-go and golang-github-rabbitmq-amqp091-go-dev");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut node = support::Node::standalone(directory.path());
    node.start_serving();
    let suites = match std::env::var("UNDERSTUDY_PUBLIC_SUITES") {
        Ok(given) => given,
        Err(_) => "py-amqp amqplib amqp091-go".to_owned(),
    };
    let mut run = Command::new("python3");
    run.arg(script("public_suites/run.py")).arg(home().join("public_suites"));
    run.arg(Ports::port(&node.ports.amqp).to_string()).args(suites.split(' '));
    assert!(limited(&run).status().unwrap().success(), "{}", node.log());
}

#[test]
fn stompit() {
    let Some(folder) = node_modules() else { return skipped("stompit", "nodejs and npm") };
    let mut suite = Command::new("node");
    suite.env("NODE_PATH", folder.join("node_modules")).arg(script("stompit_suite.js"));
    run_stomp_suite(suite);
}

#[test]
fn ruby_stomp() {
    if !runs("ruby", &["-rstomp", "-e", ""]) {
        return skipped("ruby_stomp", "ruby-stomp");
    }
    let mut suite = Command::new("ruby");
    suite.arg(script("ruby_stomp_suite.rb"));
    run_stomp_suite(suite);
}

#[test]
fn net_stomp() {
    if !runs("perl", &["-MNet::Stomp", "-e", ""]) {
        return skipped("net_stomp", "libnet-stomp-perl");
    }
    let mut suite = Command::new("perl");
    suite.arg(script("net_stomp_suite.pl"));
    run_stomp_suite(suite);
}

#[test]
fn php_stomp() {
    if !runs("php", &["-r", "exit(class_exists('Stomp') ? 0 : 1);"]) {
        return skipped("php_stomp", "php-cli and php-stomp");
    }
    let mut suite = Command::new("php");
    suite.arg(script("php_stomp_suite.php"));
    run_stomp_suite(suite);
}

fn run_stomp_suite(mut suite: Command) {
    let mut pair = Pair::in_sync();
    suite.args(arguments(&pair, |ports| &ports.stomp));
    run_suite(suite, &mut pair);
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let run =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}
