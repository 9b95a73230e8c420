//! stomp-parser 0.8 as a second opinion, on what both must agree about: one whole SEND of STOMP 1.2
//! with headers that are there once and not empty. ARCHITECTURE.md says why not more, and why it
//! is not the codec.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use stomp_parser::client::ClientFrame;
use stomp_parser::headers::{DecodableValue, HeaderValue};

fn limits() -> Limits {
    Limits { message_bytes_max: 10_000, header_bytes_max: 20_000, headers_max: 100 }
}

/// Escaped as 1.2 wants it.
fn value() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z0-9 /._é-]{1,8}",
        1 => Just("\\n".to_owned()),
        1 => Just("\\r".to_owned()),
        1 => Just("\\c".to_owned()),
        1 => Just("\\\\".to_owned()),
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn both_read_the_same(
        headers in proptest::collection::btree_map("x-[a-z]{1,8}", value(), 0..6),
        destination in value(),
        receipt in proptest::option::of(value()),
        body in proptest::collection::vec(1u8.., 0..200),
        crlf: bool,
        cut in 0usize..400,
    ) {
        let eol = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("SEND{eol}destination:{destination}{eol}");
        for (name, value) in &headers {
            text.push_str(&format!("{name}:{value}{eol}"));
        }
        if let Some(receipt) = &receipt {
            text.push_str(&format!("receipt:{receipt}{eol}"));
        }
        text.push_str(eol);
        let mut bytes = text.into_bytes();
        bytes.extend(&body);
        bytes.push(0);

        let cut = cut.min(bytes.len());
        let mut input = BytesMut::from(&bytes[..cut]);
        let mut decoder = Decoder { version: Version::V12, ..Decoder::new(limits()) };
        let first = decoder.next(&mut input).unwrap();
        input.extend_from_slice(&bytes[cut..]);
        let ours = first.or_else(|| decoder.next(&mut input).unwrap()).unwrap();

        let ClientFrame::Send(theirs) = ClientFrame::try_from(bytes).unwrap() else { panic!() };
        prop_assert_eq!(
            ours.headers.get("destination").map(ToString::to_string),
            Some(theirs.destination().decoded_value().unwrap().to_string())
        );
        prop_assert_eq!(
            ours.headers.get("receipt").map(ToString::to_string),
            theirs.receipt().map(|value| value.decoded_value().unwrap().to_string())
        );
        let custom: BTreeMap<String, String> = theirs
            .custom
            .iter()
            .map(|value| {
                (value.header_name().to_owned(), value.decoded_value().unwrap().to_string())
            })
            .collect();
        let of_ours = ours.headers.iter().filter(|(name, _)| name.starts_with("x-"));
        let of_ours = of_ours.map(|(name, value)| (name.to_string(), value.to_string()));
        prop_assert_eq!(of_ours.collect::<BTreeMap<_, _>>(), custom);
        prop_assert_eq!(&ours.body[..], theirs.body().unwrap_or_default());
    }
}
