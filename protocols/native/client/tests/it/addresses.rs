use std::time::Duration;
use understudy_client::{ConnectOptions, Error, Failover};

fn parse(text: &str) -> Failover {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn places(text: &str) -> Vec<String> {
    parse(text).addresses.iter().map(|a| format!("{}:{}", a.host, a.port)).collect()
}

#[test]
fn every_spelling_of_a_list_is_understood() {
    let two = ["a:61616", "b:1234"];
    for text in [
        "failover:(tcp://a:61616,tcp://b:1234)",
        "failover:(tcp://a:61616,tcp://b:1234)?randomize=false",
        "failover://(tcp://a:61616,tcp://b:1234)?randomize=false",
        "failover:(tcp://a, tcp://b:1234 )?",
        "failover:tcp://a:61616,tcp://b:1234",
        "failover://tcp://a:61616,tcp://b:1234?randomize=false",
        "  tcp://a,tcp://b:1234",
        "failover:(tcp://a?keepAlive=true,tcp://b:1234?soft=1)",
        "failover:(tcp://me:p%29w%2Cd@a,nio://b:1234/vhost)",
    ] {
        assert_eq!(places(text), two, "{text}");
    }
    let bare =
        parse("failover:tcp://a?keepAlive=true,tcp://b?tcpNoDelay=false&randomize=false&x=1");
    let own = bare.addresses.iter().map(|a| (a.keep_alive, a.no_delay));
    assert_eq!(own.collect::<Vec<_>>(), [(true, true), (false, false)]);
    assert_eq!((bare.randomize, bare.unknown_options), (false, vec!["x".to_owned()]));
    assert_eq!(places("tcp://[::1]:7"), ["::1:7"]);
    assert_eq!(places("tcp://[fe80::1]"), ["fe80::1:61616"]);
}

#[test]
fn logins_and_vhosts_are_decoded() {
    let list = parse("failover:(tcp://me:p%40ss%2F@a:1/%2Forders,tcp://b,tcp://c/,tcp://d/x)");
    let [a, b, c, d] = &list.addresses[..] else { panic!("four") };
    assert_eq!((a.user.as_deref(), a.password.as_deref()), (Some("me"), Some("p@ss/")));
    assert_eq!(a.vhost.as_deref(), Some("/orders"));
    assert_eq!((&b.user, &b.vhost, &c.vhost), (&None, &None, &None));
    assert_eq!(d.vhost.as_deref(), Some("x"));
}

#[test]
fn passwords_are_not_shown() {
    let list = parse("failover:(tcp://me:hunter2@a)");
    assert_eq!(list.addresses[0].password.as_deref(), Some("hunter2"));
    let options = ConnectOptions { password: Some("hunter2".into()), ..Default::default() };
    let shown = format!("{list:?} {options:?}");
    assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_defaults_are_activemqs() {
    let list = parse("failover:(tcp://a)");
    assert!(list.randomize && list.use_exponential_back_off);
    assert_eq!(list.initial_reconnect_delay, Duration::from_millis(10));
    assert_eq!(list.max_reconnect_delay, Duration::from_secs(30));
    assert_eq!(list.back_off_multiplier, 2.0);
    assert_eq!((list.max_reconnect_attempts, list.startup_max_reconnect_attempts), (-1, -1));
    assert_eq!((list.timeout, list.warn_after_reconnect_attempts), (None, 10));
    assert_eq!(parse("tcp://a").max_reconnect_attempts, 0, "no failover was asked for");
    assert_eq!(parse("tcp://a,tcp://b").max_reconnect_attempts, -1);
}

#[test]
fn options_go_where_they_belong() {
    let list = parse(
        "failover:(tcp://a?connectionTimeout=5&tcpNoDelay=false,tcp://b)?randomize=false\
         &initialReconnectDelay=100&maxReconnectDelay=200&useExponentialBackOff=false\
         &backOffMultiplier=1.5&maxReconnectAttempts=3&startupMaxReconnectAttempts=0&timeout=3000\
         &warnAfterReconnectAttempts=-1&trackMessages=true&maxCacheSize=1&nested.keepAlive=true\
         &nested.wireFormat.maxInactivityDuration=400&backup=true&nested.soTimeout=1&transport.timeout=7",
    );
    let [a, b] = &list.addresses[..] else { panic!("two") };
    assert_eq!(a.connection_timeout, Some(Duration::from_millis(5)));
    assert_eq!((a.no_delay, b.no_delay, b.connection_timeout), (false, true, None));
    assert!(a.keep_alive && b.keep_alive);
    assert_eq!(b.inactivity_max, Some(Duration::from_millis(400)));
    assert!(!list.randomize && !list.use_exponential_back_off);
    assert_eq!(list.initial_reconnect_delay, Duration::from_millis(100));
    assert_eq!(list.max_reconnect_delay, Duration::from_millis(200));
    assert_eq!(list.back_off_multiplier, 1.5);
    assert_eq!((list.max_reconnect_attempts, list.startup_max_reconnect_attempts), (3, 0));
    assert_eq!(list.timeout, Some(Duration::from_millis(7)));
    assert_eq!(list.warn_after_reconnect_attempts, 0);
    assert_eq!(list.ineffective_options, ["backup", "nested.soTimeout"]);
    assert_eq!(parse("failover:(tcp://a?soft=1)?shuffle=1").unknown_options, ["soft", "shuffle"]);
    assert!(list.update_uris_supported && !list.priority_backup);
    let list = parse(
        "failover:(tcp://a,tcp://b)?priorityBackup=true&priorityURIs=tcp://b,ssl://c\
         &updateURIsSupported=false&nested.wireFormat.maxFrameSize=1048576",
    );
    assert!(list.priority_backup && !list.update_uris_supported);
    assert_eq!(list.priority_uris, ["b:61616", "c:61617"]);
    assert_eq!(list.addresses[1].frame_bytes_max, Some(1_048_576));
    assert_eq!(parse("failover:(tcp://a)?reconnectDelayExponent=3").back_off_multiplier, 3.0);
    for none in ["failover:(tcp://a)?timeout=-1", "failover:(tcp://a)?timeout=0"] {
        assert_eq!(parse(none).timeout, None, "{none}");
    }
    let list = parse(
        "failover:(tcp://a?keepAlive=TRUE&tcpNoDelay=False)?randomize=False&priorityBackup=True",
    );
    assert!(list.addresses[0].keep_alive && !list.addresses[0].no_delay);
    assert!(!list.randomize && list.priority_backup);
}

#[test]
fn tls_addresses_name_their_files() {
    let list = parse(
        "failover:(ssl://a,tls://b:7)?nested.cacertfile=%2Fca.pem&nested.certfile=me.pem\
         &nested.keyfile=me.key&nested.server_name_indication=broker",
    );
    let [a, b] = &list.addresses[..] else { panic!("two") };
    assert_eq!((a.tls, a.port, b.tls, b.port), (true, 61_617, true, 7));
    assert_eq!(a.ca_file.as_deref(), Some("/ca.pem"));
    assert_eq!(b.certificate_file.as_deref(), Some("me.pem"));
    assert_eq!(b.key_file.as_deref(), Some("me.key"));
    assert_eq!(b.server_name.as_deref(), Some("broker"));
    assert!(!parse("tcp://a").addresses[0].tls);
}

#[test]
fn what_cannot_be_understood_is_said() {
    for text in [
        "",
        "a:61616",
        "http://a",
        "ssl://a:port",
        "failover:(tcp://a)?priorityURIs=b",
        "tcp://",
        "tcp://:61616",
        "tcp://a:port",
        "tcp://a:70000",
        "tcp://[::1",
        "tcp://a%zz@b",
        "tcp://a/%f",
        "failover:",
        "failover:()",
        "failover:(tcp://a",
        "failover:(tcp://a)randomize=false",
        "failover:(tcp://a)?randomize=maybe",
        "failover:(tcp://a)?timeout=soon",
        "failover:(tcp://a)?initialReconnectDelay=-1",
        "failover:(tcp://a)?backOffMultiplier=0.5",
        "failover:(tcp://a)?backOffMultiplier=NaN",
        "failover:(tcp://a?keepAlive=1)",
    ] {
        let error = text.parse::<Failover>().expect_err(text);
        assert!(matches!(error, Error::Address(_)), "{text}: {error}");
    }
}
