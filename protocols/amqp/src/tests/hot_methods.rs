//! The methods written by hand, byte for byte against `amq-protocol`.

use super::*;
use crate::codec::{self, ContentHeader, DeliveryTag, Origin, PublishMethod};
use proptest::prelude::*;
use understudy_model::WriteBuffer;

fn short() -> impl Strategy<Value = String> {
    "[a-z.#*äß]{0,60}"
}

fn generated(number: u16, method: basic::AMQPMethod) -> Vec<u8> {
    bytes_of(&AMQPFrame::Method(number, AMQPClass::Basic(method)))
}

fn payload(frame: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&frame[7..frame.len() - 1])
}

proptest! {
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
