use super::*;
use amq_protocol::types::AMQPValue;
use understudy_model::{Connect, Protocol};

#[test]
fn a_client_logs_in_and_opens_a_vhost() {
    let mut client = Client::new();
    client.send_bytes(&HEADER[..5]);
    assert!(client.out.write.is_empty());
    client.send_bytes(&HEADER[5..]);
    let [AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Start(start)))] =
        &client.frames()[..]
    else {
        panic!("no start")
    };
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!(start.mechanisms.as_bytes(), b"PLAIN AMQPLAIN");
    let properties = start.server_properties.inner();
    assert_eq!(properties["product"], AMQPValue::LongString("Understudy".into()));
    let AMQPValue::FieldTable(capabilities) = &properties["capabilities"] else { panic!() };
    assert_eq!(capabilities.inner().len(), 9);
    assert!(capabilities.inner().values().all(|value| *value == AMQPValue::Boolean(true)));

    client.send(0, start_ok(all_capabilities()));
    let login = client.out.login.take().unwrap();
    assert_eq!((&login.user[..], &login.password[..]), ("guest", &b"secret"[..]));
    client.accept_login("guest", &[]);
    let tune = connection::Tune { channel_max: 2_047, frame_max: 131_072, heartbeat: 60 };
    let tune = AMQPClass::Connection(connection::AMQPMethod::Tune(tune));
    assert_eq!(client.frames(), [method(0, tune)]);

    client.send(0, tune_ok(0, 0, 0));
    client.send(0, connection_open("/"));
    let requests = client.requests();
    let connect = Connect {
        token: Token(1),
        protocol: Protocol::Amqp,
        vhost: "/".into(),
        vhost_else: None,
        user: "guest".into(),
        client_name: "me".into(),
        producer: None,
    };
    assert_eq!(requests, [Request::Connect(connect)]);
    assert!(client.out.write.is_empty());
    client.effects([done(Token(1))]);
    let open_ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
    assert_eq!(client.frames(), [method(0, AMQPClass::Connection(open_ok))]);
}

#[test]
fn another_protocol_is_told_ours_and_hung_up_on() {
    for header in [&b"AMQP\x01\x01\x08\x00"[..], b"AMQP\0\x01\0\0", b"GET / HTTP/1.1\r\n"] {
        let mut client = Client::new();
        client.send_bytes(header);
        assert_eq!(&client.written()[..], HEADER);
        assert!(client.out.close && client.out.complaint.is_some());
    }
}

#[test]
fn a_refused_login_is_told_to_those_who_understand() {
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                For details see the broker logfile.";
    let refuse = |capabilities| {
        let mut client = Client::new();
        client.send_bytes(HEADER);
        client.send(0, start_ok(capabilities));
        client.forget();
        client.session.on_login(0, LoginOutcome::Refused, &mut client.out);
        client
    };
    refuse(all_capabilities()).expect_connection_closed(403, text, (0, 0));
    let mut silent = refuse(FieldTable::default());
    assert!(silent.out.close && silent.written().is_empty());
}

#[test]
fn a_missing_vhost_is_not_allowed() {
    let mut client = Client::new();
    client.send_bytes(HEADER);
    client.send(0, start_ok(all_capabilities()));
    client.accept_login("guest", &[]);
    client.send(0, tune_ok(0, 0, 0));
    client.send(0, connection_open("none"));
    let token = client.token();
    client.written();
    client.effects([refused(token, RefusalKind::NotFound, "vhost none not found")]);
    client.expect_connection_closed(530, "NOT_ALLOWED - vhost none not found", (10, 40));
}

#[test]
fn tuning_above_our_limits_is_not_allowed() {
    let mut client = Client::new();
    client.send_bytes(HEADER);
    client.send(0, start_ok(all_capabilities()));
    client.accept_login("guest", &[]);
    client.written();
    client.send(0, tune_ok(0, 1_000, 0));
    let text = "NOT_ALLOWED - negotiated frame_max = 1000 is lower than the minimum allowed \
                value (4096)";
    client.expect_connection_closed(530, text, (10, 31));
}

#[test]
fn methods_out_of_order_and_a_slow_handshake_end_the_connection() {
    let mut client = Client::new();
    client.send_bytes(HEADER);
    client.written();
    client.send(0, connection_open("/"));
    let text = "CHANNEL_ERROR - unexpected method in connection state starting";
    client.expect_connection_closed(504, text, (10, 40));

    let mut slow = Client::new();
    slow.send_bytes(HEADER);
    assert_eq!(slow.session.deadline_ms(), Some(10_000));
    slow.timer(9_999);
    assert!(!slow.out.close);
    slow.timer(10_000);
    assert!(slow.out.close && slow.session.deadline_ms().is_none());
}

#[test]
fn the_clients_close_is_answered_when_its_work_is_committed() {
    let mut client = Client::with_channel();
    client.send_bytes(&plain_publish(1, "q", b"x"));
    let close = connection::AMQPMethod::Close(connection::Close::default());
    client.send(0, AMQPClass::Connection(close));
    let requests = client.requests();
    let [Request::Publish(_), Request::Barrier { token }] = requests[..] else { panic!() };
    assert!(client.out.write.is_empty());
    client.effects([Effect::Unblocked, done(token)]);
    let close_ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
    assert_eq!(client.frames(), [method(0, AMQPClass::Connection(close_ok))]);
    assert!(client.out.close && client.out.client_closes);
}

#[test]
fn a_forced_close_says_why() {
    let mut client = Client::with_channel();
    client.effects([Effect::Close { reason: "node stops".into() }, Effect::Unblocked]);
    let close = connection::AMQPMethod::Close(connection::Close {
        reply_code: 320,
        reply_text: "CONNECTION_FORCED - node stops".into(),
        class_id: 0,
        method_id: 0,
    });
    assert_eq!(client.frames(), [method(0, AMQPClass::Connection(close))]);
    assert!(client.out.close && client.out.complaint.is_none());
}

#[test]
fn heartbeats_go_out_when_idle_and_silence_ends_the_connection() {
    let mut client = Client::open();
    assert_eq!(client.session.deadline_ms(), Some(30_000));
    client.timer(29_999);
    assert!(client.out.write.is_empty());
    client.timer(30_000);
    assert_eq!(client.frames(), [AMQPFrame::Heartbeat]);
    assert_eq!(client.session.deadline_ms(), Some(60_000));
    client.now_ms = 50_000;
    client.send_bytes(&bytes_of(&AMQPFrame::Heartbeat));
    client.timer(169_999);
    assert!(!client.out.close);
    client.timer(170_000);
    assert!(client.out.close);
    assert!(client.out.complaint.as_ref().unwrap().contains("missed heartbeats"));
}

#[test]
fn blocking_and_secrets_are_told() {
    let mut client = Client::open();
    let told = Effect::Blocked { reason: "low on disk".into(), held: true };
    client.effects([told, Effect::Unblocked]);
    let blocked = connection::Blocked { reason: "low on disk".into() };
    let expected = [
        connection::AMQPMethod::Blocked(blocked),
        connection::AMQPMethod::Unblocked(connection::Unblocked {}),
    ];
    let expected = expected.map(|told| method(0, AMQPClass::Connection(told)));
    assert_eq!(client.frames(), expected);
    let update = connection::UpdateSecret { new_secret: "s".into(), reason: "r".into() };
    client.send(0, AMQPClass::Connection(connection::AMQPMethod::UpdateSecret(update)));
    let answer = connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {});
    assert_eq!(client.frames(), [method(0, AMQPClass::Connection(answer))]);
}
