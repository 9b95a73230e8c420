//! CONNECT to DISCONNECT, heart-beats and ERROR.

use crate::common::{Peer, body, options, plain, publish, token};
use understudy_model::{
    Effect, LoginOutcome, Protocol, RefusalKind, Request, Session, Text, Token,
};
use understudy_stomp::StompOptions;

#[test]
fn connected_has_rabbitmqs_headers_in_their_order() {
    let mut peer = Peer::new(options());
    peer.feed("CONNECT\nlogin:guest\npasscode: guest\nclient-id:c\n\n\n\0");
    let login = peer.out.login.clone().unwrap();
    assert_eq!((&*login.user, &login.password[..]), ("guest", &b"guest"[..]));
    peer.login_accepted();
    let Request::Connect(connect) = peer.request() else { panic!("no connect") };
    assert_eq!((&*connect.vhost, &*connect.user, &*connect.client_name), ("/", "guest", "c"));
    assert_eq!(connect.protocol, Protocol::Stomp);
    assert_eq!(peer.written(), "");
    peer.answer(connect.token);
    let wanted =
        "CONNECTED\nserver:Understudy/0.1\nsession:session-s\nheart-beat:0,0\nversion:1.0\n\n\0";
    assert_eq!(peer.written(), wanted);
}

#[test]
fn the_version_host_and_heart_beats_are_negotiated() {
    let mut peer = Peer::new(options());
    peer.feed("STOMP\r\naccept-version:1.1,1.2\r\nhost:v:1\r\nheart-beat:2000,500\r\n");
    peer.feed("login:u\r\npasscode: a\\t:b\r\n\r\n\0");
    assert_eq!(&peer.out.login.as_ref().unwrap().password[..], br" a\t:b");
    peer.login_accepted();
    let Request::Connect(connect) = peer.request() else { panic!("no connect") };
    assert_eq!(connect.vhost, "v:1");
    peer.answer(connect.token);
    assert!(peer.written().ends_with("\nheart-beat:500,2000\nversion:1.2\n\n\0"));
}

#[test]
fn what_comes_before_connected_is_kept() {
    let mut peer = Peer::new(options());
    peer.feed("CONNECT\nlogin:u\npasscode:p\n\n\0\nSEND\ndestination:/queue/a\n\nfirst\0SE");
    peer.login_accepted();
    let Request::Connect(connect) = peer.request() else { panic!("no connect") };
    peer.feed("ND\ndestination:/queue/a\n\nsec");
    assert_eq!(peer.requests(), []);
    peer.answer(connect.token);
    assert_eq!(body(&publish(peer.request())), b"first");
    peer.feed("ond\0");
    assert_eq!(body(&publish(peer.request())), b"second");
}

#[test]
fn a_bad_connect_says_why() {
    let mut peer = Peer::new(options());
    peer.feed("CONNECT\nlogin:u\npasscode:p\nhost:h\n\n\0");
    peer.session.on_login(0, LoginOutcome::Refused, &mut peer.out);
    peer.assert_error("Bad CONNECT", "Access refused for user 'u'\n");
    assert!(peer.out.complaint.is_some());

    let mut peer = Peer::new(options());
    peer.feed("CONNECT\nlogin:u\npasscode:p\nhost:h\n\n\0");
    peer.login_accepted();
    let token = token(&peer.request()).unwrap();
    peer.refuse(token, RefusalKind::NotAllowed, "vhost h not found");
    peer.assert_error("Bad CONNECT", "Virtual host 'h' access denied");

    for headers in ["", "login:u\n", "passcode:p\n"] {
        let mut peer = Peer::new(options());
        peer.feed(&format!("CONNECT\n{headers}\n\0"));
        peer.assert_error_message("Bad CONNECT");
        assert_eq!(peer.out.login, None);
    }

    let mut peer = Peer::new(options());
    peer.feed("CONNECT\nlogin:u\npasscode:p\naccept-version:9.1\n\n\0");
    peer.assert_error("Version mismatch", "Supported versions are 1.0,1.1,1.2\n");

    let mut peer = Peer::new(options());
    peer.feed("SEND\ndestination:/queue/a\n\n\0");
    peer.assert_error_message("Illegal command");
    let mut peer = Peer::open("1.2");
    peer.feed("CONNECT\nlogin:u\npasscode:p\n\n\0");
    peer.assert_error_message("Illegal command");
}

#[test]
fn after_an_error_nothing_is_read() {
    let mut peer = Peer::open("1.0");
    peer.feed("WRONGCOMMAND\ndestination:a\n\n\0SEND\ndestination:/queue/a\n\n\0");
    peer.assert_error("Bad command", "Could not interpret command \"WRONGCOMMAND\"\n");
    assert_eq!(peer.requests(), []);
    peer.feed("SEND\ndestination:/queue/a\n\n\0");
    peer.effect(Effect::Confirm { channel: 0, through: 1 });
    assert_eq!((peer.requests(), peer.written()), (vec![], String::new()));
    assert_eq!(peer.session.deadline_ms(), None);
}

#[test]
fn an_error_names_the_frames_receipt() {
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\nreceipt:r:1\n\n\0");
    let written = peer.written();
    assert!(written.contains("\nreceipt-id:r\\c1\n"), "{written}");
    assert!(written.starts_with("ERROR\nmessage:Missing destination\n"));

    let mut peer = Peer::open("1.2");
    peer.feed("SUBSCRIBE\nid:1\nreceipt:r\ndestination:/exchange/nope\n\n\0");
    let bind = peer.requests().iter().find_map(|r| match r {
        Request::Bind(bind) => Some(bind.token),
        _ => None,
    });
    peer.refuse(bind.unwrap(), RefusalKind::NotFound, "no exchange 'nope' in vhost '/'");
    let written = peer.written();
    assert!(written.starts_with("ERROR\nmessage:not_found\n"));
    assert!(written.contains("\nreceipt-id:r\n"));
    assert!(written.ends_with("\n\nNOT_FOUND - no exchange 'nope' in vhost '/'\n\0"));
}

#[test]
fn the_receipt_of_a_frame_that_cannot_be_read_is_found() {
    for (frame, message) in [
        ("SEND\nno colon\nreceipt:r\n\nx\0", "Malformed frame"),
        ("SEND\nreceipt:r\na:\\t\n\nx\0", "Malformed frame"),
        ("SEND\nreceipt:r\ncontent-length:1\n\nxy\0", "Malformed frame"),
        ("SEND\ncontent-length:-1\nreceipt:r\n\nx\0", "Invalid header"),
        ("SEND\ncontent-length:100001\nreceipt:r\n\nx", "Frame too large"),
    ] {
        let mut peer = Peer::open("1.2");
        peer.feed(frame);
        let written = peer.written();
        assert!(written.starts_with(&format!("ERROR\nmessage:{message}\n")), "{written}");
        assert!(written.contains("\nreceipt-id:r\n"), "{written}");
        assert!(peer.out.close);
    }
}

#[test]
fn disconnect_waits_for_all_that_went_before() {
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:/queue/a\nreceipt:1\n\nx\0DISCONNECT\nreceipt:bye\n\n\0junk");
    let requests = peer.requests();
    assert!(matches!(requests[..], [Request::Publish(_), Request::Barrier { .. }]));
    assert!(!peer.out.close);
    peer.effect(Effect::Confirm { channel: 0, through: 1 });
    peer.answer(token(&requests[1]).unwrap());
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:1\n\n\0RECEIPT\nreceipt-id:bye\n\n\0");
    assert!(peer.out.close && peer.out.complaint.is_none());

    let mut peer = Peer::open("1.0");
    peer.feed("DISCONNECT\n\n\0");
    peer.answer_all();
    assert_eq!(peer.written(), "");
    assert!(peer.out.close);
}

#[test]
fn the_node_may_close_the_connection() {
    let mut peer = Peer::open("1.2");
    peer.effect(Effect::Close { reason: Text::from("no longer master") });
    peer.assert_error("connection-forced", "no longer master\n");
    assert_eq!(peer.out.complaint, None);
}

#[test]
fn an_unfinished_handshake_times_out() {
    for feed in ["", "CONN", "CONNECT\nlogin:u\npasscode:p\n\n\0"] {
        let mut peer = Peer::new(options());
        peer.feed(feed);
        assert_eq!(peer.session.deadline_ms(), Some(11_000));
        peer.session.on_timer(10_999, &mut peer.out);
        assert!(!peer.out.close);
        peer.session.on_timer(11_000, &mut peer.out);
        assert!(peer.out.close && peer.out.complaint.is_some());
        // The login's outcome may come too late.
        peer.session.on_login(11_001, LoginOutcome::Refused, &mut peer.out);
        assert_eq!(peer.written(), "");
    }
}

fn beating() -> Peer {
    let mut peer = Peer::new(StompOptions { heartbeat_grace: 2.0, ..options() });
    peer.feed("CONNECT\naccept-version:1.2\nlogin:u\npasscode:p\nheart-beat:4000,4000\n\n\0");
    peer.login_accepted();
    peer.answer_all();
    peer.written();
    peer
}

#[test]
fn the_server_beats_when_it_has_nothing_else_to_say() {
    let mut peer = beating();
    assert_eq!(peer.session.deadline_ms(), Some(4_000));
    peer.session.on_timer(3_999, &mut peer.out);
    assert_eq!(peer.written(), "");
    peer.session.on_timer(4_000, &mut peer.out);
    assert_eq!(peer.written(), "\n");
    assert_eq!(peer.session.deadline_ms(), Some(7_000));
    peer.now_ms = 6_000;
    peer.feed("BEGIN\ntransaction:t\nreceipt:r\n\n\0");
    assert_eq!(peer.session.deadline_ms(), Some(9_000));
    let consumer = peer.subscribe("id:1\ndestination:/queue/a");
    peer.now_ms = 8_000;
    peer.deliver(consumer, 1, &plain("a", b"x"));
    assert_eq!(peer.session.deadline_ms(), Some(11_000));
}

#[test]
fn a_silent_client_is_dropped_after_its_grace() {
    let mut peer = beating();
    peer.now_ms = 5_000;
    peer.feed("\n");
    for now in [8_000, 11_000, 12_999] {
        peer.session.on_timer(now, &mut peer.out);
        assert!(!peer.out.close, "{now}");
    }
    peer.session.on_timer(13_000, &mut peer.out);
    assert!(peer.out.close && peer.out.complaint.is_some());
}

#[test]
fn unexpected_replies_do_no_harm() {
    let mut peer = Peer::open("1.2");
    peer.answer(Token(999));
    peer.effect(Effect::Blocked { reason: Text::from("disk"), held: true });
    peer.effect(Effect::Unblocked);
    peer.effect(Effect::Confirm { channel: 0, through: 5 });
    assert_eq!(peer.written(), "");
    assert!(!peer.out.close);
}
