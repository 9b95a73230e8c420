use super::*;

const LIMITS: Limits =
    Limits { message_bytes_max: 1_000, header_bytes_max: 20_000, headers_max: 4 };

fn decoder(version: Version) -> Decoder {
    Decoder { version, ..Decoder::new(LIMITS) }
}

fn one(bytes: &[u8], version: Version) -> Result<Option<Frame>, StompError> {
    decoder(version).next(&mut BytesMut::from(bytes))
}

fn header(frame: &Frame, name: &str) -> String {
    frame.headers.get(name).map(|value| value.to_string()).unwrap_or_default()
}

fn message(result: Result<Option<Frame>, StompError>) -> String {
    result.expect_err("refused").message.into_owned()
}

#[test]
fn a_frame_is_the_same_however_it_arrives() {
    let bytes: &[u8] =
        b"\n\r\n\0SEND\r\ndestination:/queue/a\r\ncontent-length:3\r\n\r\na\0b\0\n\n\
        \0ACK \nid:x\\cy\ncontent-length:77\n\n\0\nBEGIN\n\n\0";
    for cut in 0..bytes.len() {
        let mut decoder = decoder(Version::V12);
        let mut input = BytesMut::from(&bytes[..cut]);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            frames.push(frame);
        }
        for byte in &bytes[cut..] {
            input.extend_from_slice(&[*byte]);
            while let Some(frame) = decoder.next(&mut input).unwrap() {
                frames.push(frame);
            }
        }
        let commands: Vec<_> = frames.iter().map(|f| f.command.clone()).collect();
        assert_eq!(commands, [Command::Send, Command::Ack, Command::Begin]);
        assert_eq!(&frames[0].body[..], b"a\0b");
        assert_eq!(header(&frames[0], "destination"), "/queue/a");
        assert_eq!(header(&frames[1], "id"), "x:y");
        assert!(input.is_empty());
    }
}

#[test]
fn the_body_is_a_slice_of_the_input() {
    let mut input = BytesMut::from(&b"SEND\n\n0123456789\0"[..]);
    let body_at = input.as_ptr() as usize + 6;
    let frame = decoder(Version::V12).next(&mut input).unwrap().unwrap();
    assert_eq!(frame.body.as_ptr() as usize, body_at);
}

#[test]
fn waiting_for_a_long_body_does_not_scan_it_again() {
    let mut decoder = decoder(Version::V12);
    let mut input = BytesMut::from(&b"SEND\n\nabc"[..]);
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(matches!(decoder.scan, Scan::Body { scanned: 3, .. }));
    input.extend_from_slice(b"d\0");
    assert_eq!(&decoder.next(&mut input).unwrap().unwrap().body[..], b"abcd");

    let mut input = BytesMut::from(&b"SEND\nname:val"[..]);
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(matches!(decoder.scan, Scan::Head { scanned: 13, line_start: 5, lines: 1 }));
}

#[test]
fn the_first_of_repeated_headers_counts_and_colons_in_values_are_kept() {
    let frame = one(b"SEND\na:1\na:2\nurl:http://x\n\n\0", Version::V12).unwrap().unwrap();
    assert_eq!(header(&frame, "a"), "1");
    assert_eq!(header(&frame, "url"), "http://x");
}

#[test]
fn headers_are_read_by_version() {
    let bytes = b"SEND\na: x\\cy\n\n\0";
    assert_eq!(header(&one(bytes, Version::V10).unwrap().unwrap(), "a"), r"x\cy");
    assert_eq!(header(&one(bytes, Version::V11).unwrap().unwrap(), "a"), " x:y");
    let connect = b"CONNECT\npasscode: a\\t:b\n\n\0";
    assert_eq!(header(&one(connect, Version::V12).unwrap().unwrap(), "passcode"), r" a\t:b");
}

#[test]
fn what_is_malformed_is_refused() {
    for bytes in [
        &b"SEND\nno colon\n\n\0"[..],
        b"SEND\na:b\0",
        b"SEND\na:\xff\n\n\0",
        b"SEND\na:\\t\n\n\0",
        b"SEND\ncontent-length:2\n\nabc\0",
    ] {
        assert_eq!(message(one(bytes, Version::V12)), "Malformed frame");
    }
    for length in ["x", "-1", "99999999999999999999999"] {
        let bytes = format!("SEND\ncontent-length:{length}\n\n\0");
        assert_eq!(message(one(bytes.as_bytes(), Version::V12)), "Invalid header");
    }
}

#[test]
fn limits_hold_before_the_frame_is_whole() {
    assert_eq!(message(one(b"SEND\na:1\nb:1\nc:1\nd:1\ne:1\n", Version::V12)), "Malformed frame");
    assert!(one(b"SEND\na:1\nb:1\nc:1\nd:1\n\n\0", Version::V12).unwrap().is_some());
    assert_eq!(message(one(b"SEND\ncontent-length:1001\n\n", Version::V12)), "Frame too large");
    assert!(one(b"SEND\ncontent-length:1000\n\n", Version::V12).unwrap().is_none());
    let endless = [&b"SEND\n\n"[..], &[b'x'; 1_001]].concat();
    assert_eq!(message(one(&endless, Version::V12)), "Frame too large");
    let longest = [&b"SEND\n\n"[..], &[b'x'; 1_000], b"\0"].concat();
    assert_eq!(one(&longest, Version::V12).unwrap().unwrap().body.len(), 1_000);
    assert_eq!(message(one(&[b'x'; LINE_BYTES_MAX + 1], Version::V12)), "Frame too large");
    let line = [&[b'a'; 9_000][..], b":b\n"].concat();
    let head = [b"SEND\n", &line[..], &line[..], &line[..]].concat();
    assert_eq!(message(one(&head, Version::V12)), "Frame too large");
}
