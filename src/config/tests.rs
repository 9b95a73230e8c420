use super::given::Given;
use super::{BackendKind, ConfigError, Flags, Role, Secret, Settings, load};
use std::io::Write;
use std::path::Path;

fn from_file(
    text: &str,
    environment: &[(&str, &str)],
    set: &[&str],
) -> Result<Settings, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let flags = Flags {
        config: Some(file.path().to_owned()),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
        ..Flags::default()
    };
    let owned = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load(&flags, owned)
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn conf(path: &str) -> Settings {
    let flags = Flags { config: Some(repository(path)), ..Flags::default() };
    load(&flags, []).unwrap()
}

#[test]
fn the_standalone_file_shows_every_option_with_its_default() {
    let text = std::fs::read_to_string(repository("conf/standalone.toml")).unwrap();
    let file: Given = config::Config::builder()
        .add_source(config::File::from_str(&text, config::FileFormat::Toml))
        .build()
        .unwrap()
        .try_deserialize()
        .unwrap();
    assert_eq!(file, Given::default());
    let typed = serde_json::to_value(Given::default()).unwrap();
    for (section, keys) in typed.as_object().unwrap() {
        for key in keys.as_object().into_iter().flatten() {
            let line = format!("\n{} = ", key.0);
            assert!(text.contains(&line), "conf/standalone.toml lacks {section}.{}", key.0);
        }
    }
}

#[test]
fn the_pair_files_make_a_pair() {
    let (master, slave) = (conf("conf/master.toml"), conf("conf/slave.toml"));
    assert_eq!((master.role, slave.role), (Role::Master, Role::Slave));
    assert_eq!(master.replication.backend, BackendKind::Pair);
    assert_eq!(slave.replication.master_address, master.listen.replication);
    assert_eq!(master.replication.password, slave.replication.password);
    assert_ne!(master.data_dir, slave.data_dir);
}

#[test]
fn later_layers_win() {
    let file = "[broker]\nname = \"file\"\n[limits]\nconnections_max = 5\n";
    let environment = [("UNDERSTUDY__LIMITS__CONNECTIONS_MAX", "6"), ("OTHER", "x")];
    let settings = from_file(file, &environment, &[]).unwrap();
    assert_eq!((settings.name.as_str(), settings.limits.connections_max), ("file", 6));
    let settings = from_file(file, &environment, &["limits.connections_max=7"]).unwrap();
    assert_eq!(settings.limits.connections_max, 7);
    assert_eq!(load(&Flags::default(), []).unwrap().listen.amqp.unwrap(), "127.0.0.1:5672");
}

#[test]
fn wrong_settings_name_the_key_and_what_would_be_right() {
    for (file, set, key, hint) in [
        ("[broker]\nnam = \"x\"\n", "", "broker.nam", "expected one of data_dir, name, role"),
        ("[brokr]\nname = \"x\"\n", "", "brokr", "expected one of amqp, arbiter, broker"),
        ("[broker]\nname = 1\nname = 2\n", "", "TOML", "duplicate key"),
        ("[limits]\nconnections_max = \"many\"\n", "", "limits.connections_max", "invalid"),
        ("[broker]\nrole = \"leader\"\n", "", "broker.role", "neither master nor slave"),
        ("[listen]\namqp = \"nowhere\"\n", "", "listen.amqp", "host:port"),
        ("[broker]\nrole = \"slave\"\n", "", "broker.role", "backend"),
        ("[replication]\nwait_for_slave = true\n", "", "replication.wait_for_slave", "backend"),
        ("[replication]\nbackend = \"pair\"\n", "", "replication.user", "both nodes"),
        (
            "[replication]\nmaster_uri = \"tcp://other:62001\"\n",
            "",
            "replication.master_uri",
            "backend = \"pair\"",
        ),
        (
            "[replication]\nwaitForSlave = true\nwait_for_slave = true\n",
            "",
            "replication.wait_for_slave",
            "waitForSlave",
        ),
        (
            "[listen]\namqp = \"127.0.0.1:5672\"\nstomp = \"127.0.0.1:5672\"\n",
            "",
            "listen.stomp",
            "listen.amqp",
        ),
        ("", "broker.role", "--set broker.role", "section.key=value"),
        ("", "log.format=xml", "log.format", "json"),
        ("", "log.level=inf", "log.level", "expected error"),
        ("", "log.level=info,peer", "log.level", "expected error"),
        ("", "log.level=info,peer=loud", "log.level", "expected error"),
        ("", "broker.name=", "broker.name", "empty"),
        ("[replication]\nbeat_ms = 0.5\n", "", "replication.beat_ms", "whole number"),
        ("[amqp]\nheartbeat_s = 60.0\n", "", "amqp.heartbeat_s", "whole number"),
        ("", "amqp.heartbeat_s=0.5", "amqp.heartbeat_s", "invalid"),
        ("", "stomp.dialect=openmq", "stomp.dialect", "activemq"),
        ("", "stomp.dialect_tls=", "stomp.dialect_tls", "activemq"),
        ("", "storage.alarm_policy=drop", "storage.alarm_policy", "\"reject\""),
        ("[[users]]\nname = \"u\"\n", "", "users.password", "either a password"),
        ("[[users]]\nnam = \"u\"\n", "", "users.nam", "password_hash"),
        (
            "[[users]]\nname = \"u\"\npassword = \"a\"\n[[users]]\nname = \"u\"\npassword = \"b\"\n",
            "",
            "users.name",
            "twice",
        ),
    ] {
        let set: Vec<&str> = if set.is_empty() { vec![] } else { vec![set] };
        let error = from_file(file, &[], &set).unwrap_err();
        assert_eq!(error.key, key, "{error}");
        assert!(error.problem.contains(hint), "{error}");
        assert!(!error.origin.is_empty(), "{error}");
    }
    let error = from_file("[broker]\nnam = 1\n", &[], &[]).unwrap_err();
    assert!(error.origin.contains("tmp"), "the file is named: {error}");
}

#[test]
fn a_wrong_value_is_blamed_on_the_layer_that_gave_it() {
    let file = "[log]\nformat = \"json\"\n[limits]\nconnections_max = 5\n";
    let variable = [("UNDERSTUDY__LOG__FORMAT", "xml")];
    let error = from_file(file, &variable, &[]).unwrap_err();
    assert_eq!((error.key.as_str(), error.origin.as_str()), ("log.format", variable[0].0));
    let error = from_file(file, &[], &["log.format=xml"]).unwrap_err();
    assert_eq!((error.key.as_str(), error.origin.as_str()), ("log.format", "--set"));
    let variable = [("UNDERSTUDY__LIMITS__CONNECTIONS_MAX", "many")];
    let error = from_file(file, &variable, &[]).unwrap_err();
    assert_eq!(error.key, "limits.connections_max");
    assert_eq!(error.origin, variable[0].0);
    let flags = Flags { role: Some("king".into()), ..Flags::default() };
    assert_eq!(load(&flags, []).unwrap_err().origin, "--role");
}

#[test]
fn the_seeds_own_spellings_are_understood() {
    let file = "[broker]\nrole = \"slave\"\n[replication]\nbackend = \"pair\"\n\
        masterConnectorURI = \"tcp://127.0.0.1:62001\"\nshutdownOnMasterFailure = true\n\
        waitForSlave = true\nshutdownOnSlaveFailure = true\nuserName = \"u\"\npassword = \"p\"\n\
        [[users]]\nname = \"a\"\npassword = \"b\"\ntags = [\"administrator\"]\n";
    let settings = from_file(file, &[], &[]).unwrap();
    let replication = settings.replication;
    assert_eq!(replication.master_address.unwrap(), "127.0.0.1:62001");
    assert!(replication.shutdown_on_master_failure && replication.shutdown_on_slave_failure);
    assert!(replication.wait_for_slave);
    assert_eq!(replication.user, "u");
    assert_eq!(settings.users[0].secret, Secret::Password("b".into()));
}
