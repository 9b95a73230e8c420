//! The methods written by hand, byte for byte against `amq-protocol`.

use super::*;
use crate::codec::{self, ContentHeader, DeliveryTag, Origin, PublishMethod};
use amq_protocol::types::{AMQPValue, ShortString};
use proptest::prelude::*;
use std::collections::BTreeMap;
use understudy_model::{Properties, WriteBuffer};

fn short() -> impl Strategy<Value = String> {
    "[a-z.#*äß]{0,60}"
}

fn generated(number: u16, method: basic::AMQPMethod) -> Vec<u8> {
    bytes_of(&AMQPFrame::Method(number, AMQPClass::Basic(method)))
}

fn payload(frame: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&frame[7..frame.len() - 1])
}

/// Values of every type that both codecs know.
fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<i32>().prop_map(|n| AMQPValue::Float(n as f32)),
        any::<i32>().prop_map(|n| AMQPValue::Double(n.into())),
        short().prop_map(|text| AMQPValue::LongString(text.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|values| AMQPValue::FieldArray(values.into())),
            prop::collection::btree_map(short(), inner, 0..5)
                .prop_map(|fields| AMQPValue::FieldTable(field_table(fields))),
        ]
    })
}

fn field_table(fields: BTreeMap<String, AMQPValue>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.as_str().into(), value);
    }
    table
}

prop_compose! {
    fn properties()(
        texts in prop::collection::vec(prop::option::of(short()), 10),
        headers in prop::option::of(prop::collection::btree_map(short(), value(), 0..6)),
        octets in prop::collection::vec(prop::option::of(any::<u8>()), 2),
        timestamp in prop::option::of(any::<u64>()),
    ) -> basic::AMQPProperties {
        type Properties = basic::AMQPProperties;
        type Set = fn(Properties, ShortString) -> Properties;
        let text_setters: [Set; 10] = [
            Properties::with_content_type, Properties::with_content_encoding,
            Properties::with_correlation_id, Properties::with_reply_to,
            Properties::with_expiration, Properties::with_message_id, Properties::with_type,
            Properties::with_user_id, Properties::with_app_id, Properties::with_cluster_id,
        ];
        let mut made = Properties::default();
        for (set, text) in text_setters.iter().zip(texts) {
            made = text.into_iter().fold(made, |made, text| set(made, text.as_str().into()));
        }
        for (set, octet) in [Properties::with_delivery_mode, Properties::with_priority].iter().zip(octets) {
            made = octet.into_iter().fold(made, set);
        }
        made = timestamp.into_iter().fold(made, Properties::with_timestamp);
        headers.into_iter().fold(made, |made, headers| made.with_headers(field_table(headers)))
    }
}

proptest! {
    /// Theirs is read here and written again, to the byte, and what is written here they read.
    #[test]
    fn properties_and_tables_are_read_and_written(number: u16, properties in properties()) {
        let header =
            AMQPContentHeader { class_id: 60, body_size: 5, properties: properties.clone() };
        let theirs = bytes_of(&AMQPFrame::Header(number, header));
        let read = ContentHeader::decode(payload(&theirs)).unwrap();
        let ours = Properties::decode(&read.properties).unwrap();
        let kind = properties.kind().as_ref().map(|kind| Text::from(kind.as_str()));
        prop_assert_eq!(&ours.kind, &kind);
        prop_assert_eq!(ours.priority, *properties.priority());
        let mut written = BytesMut::new();
        codec::put_content_header(&mut written, number, 5, &ours.to_bytes());
        prop_assert_eq!(&written[..], &theirs[..]);
        let (rest, parsed) = parse_frame(&written[..]).unwrap();
        prop_assert!(rest.is_empty());
        let AMQPFrame::Header(_, parsed) = parsed else { panic!() };
        prop_assert_eq!(parsed.properties, properties);
    }

    #[test]
    fn publish_is_read(
        exchange in short(), key in short(), mandatory: bool, immediate: bool, cut in 0..20_usize,
    ) {
        let publish = basic::Publish {
            exchange: exchange.as_str().into(),
            routing_key: key.as_str().into(),
            mandatory,
            immediate,
        };
        let payload = payload(&generated(1, basic::AMQPMethod::Publish(publish)));
        let read = PublishMethod::decode(&payload).unwrap();
        prop_assert_eq!((&read.exchange[..], &read.routing_key[..]), (&exchange[..], &key[..]));
        prop_assert_eq!((read.mandatory, read.immediate), (mandatory, immediate));
        let cut = payload.slice(..payload.len().saturating_sub(cut + 1));
        prop_assert!(PublishMethod::decode(&cut).is_err());
    }

    #[test]
    fn acks_are_read_and_written(number: u16, tag: u64, multiple: bool, requeue: bool) {
        let ack = basic::Ack { delivery_tag: tag, multiple };
        let ack = generated(number, basic::AMQPMethod::Ack(ack));
        let mut written = BytesMut::new();
        codec::put_ack(&mut written, number, tag, multiple);
        prop_assert_eq!(&written[..], &ack[..]);
        let bits = u8::from(multiple);
        prop_assert_eq!(codec::decode_tag_and_bits(&payload(&ack)), Ok((tag, bits)));

        let nack = basic::Nack { delivery_tag: tag, multiple, requeue };
        let nack = generated(number, basic::AMQPMethod::Nack(nack));
        let bits = u8::from(multiple) | u8::from(requeue) << 1;
        prop_assert_eq!(codec::decode_tag_and_bits(&payload(&nack)), Ok((tag, bits)));
        let nack = basic::Nack { delivery_tag: tag, multiple: false, requeue: false };
        let mut written = BytesMut::new();
        codec::put_nack(&mut written, number, tag);
        prop_assert_eq!(&written[..], &generated(number, basic::AMQPMethod::Nack(nack))[..]);

        let reject = basic::Reject { delivery_tag: tag, requeue };
        let reject = generated(number, basic::AMQPMethod::Reject(reject));
        let bits = u8::from(requeue);
        prop_assert_eq!(codec::decode_tag_and_bits(&payload(&reject)), Ok((tag, bits)));
    }

    #[test]
    fn deliver_get_ok_and_return_are_written(
        number: u16, ctag in short(), tag: u64, redelivered: bool, exchange in short(),
        key in short(), count: u32,
    ) {
        let origin = Origin { exchange: &exchange, routing_key: &key };
        let delivery = DeliveryTag { tag, redelivered };
        let (exchange, routing_key) = (exchange.as_str().into(), key.as_str().into());
        let deliver = basic::Deliver {
            consumer_tag: ctag.as_str().into(), delivery_tag: tag, redelivered, exchange,
            routing_key,
        };
        let mut written = BytesMut::new();
        codec::put_deliver(&mut written, number, &ctag, delivery, origin);
        prop_assert_eq!(
            &written[..],
            &generated(number, basic::AMQPMethod::Deliver(deliver.clone()))[..]
        );

        let (exchange, routing_key) = (deliver.exchange.clone(), deliver.routing_key.clone());
        let get_ok = basic::GetOk {
            delivery_tag: tag, redelivered, exchange, routing_key, message_count: count,
        };
        let mut written = BytesMut::new();
        codec::put_get_ok(&mut written, number, delivery, origin, count);
        prop_assert_eq!(&written[..], &generated(number, basic::AMQPMethod::GetOk(get_ok))[..]);

        let returned = basic::Return {
            reply_code: 312, reply_text: "NO_ROUTE".into(), exchange: deliver.exchange,
            routing_key: deliver.routing_key,
        };
        let mut written = BytesMut::new();
        codec::put_return(&mut written, number, 312, "NO_ROUTE", origin);
        prop_assert_eq!(&written[..], &generated(number, basic::AMQPMethod::Return(returned))[..]);
    }

    #[test]
    fn content_is_read_and_written(
        number: u16, kind in short(), priority: u8,
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9_000), 0..4),
    ) {
        let properties = basic::AMQPProperties::default()
            .with_type(kind.as_str().into())
            .with_priority(priority);
        let body: Vec<u8> = pieces.concat();
        let body_size = body.len() as u64;
        let header = AMQPContentHeader { class_id: 60, body_size, properties };
        let mut expected = bytes_of(&AMQPFrame::Header(number, header));
        let read = ContentHeader::decode(payload(&expected)).unwrap();
        prop_assert_eq!((read.class, read.body_bytes), (60, body_size));
        for part in body.chunks(4_096 - 8) {
            expected.extend(bytes_of(&AMQPFrame::Body(number, part.to_vec())));
        }
        let pieces: Vec<_> = pieces.into_iter().map(Bytes::from).collect();
        let mut written = WriteBuffer::default();
        codec::put_content_header(written.tail(), number, body.len(), &read.properties);
        let parts = pieces.iter().map(|piece| (piece, &piece[..]));
        codec::put_body(&mut written, number, 4_096, body.len(), parts);
        prop_assert_eq!(&written.take_all()[..], &expected[..]);
    }
}
