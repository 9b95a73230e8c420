use super::*;
use crate::SubscribeOptions;
use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};
use understudy_native::{
    AlreadyCommitted, Cancelled, Confirm, Decoder, Done, Get, GetEmpty, Got, Login, Moved, Nack,
    Open, Publish, Refused, Removed, Return, Returned, Settle,
};

fn engine() -> Engine {
    let (commands, _) = mpsc::unbounded_channel();
    let link = Link { commands, generation: Arc::new(AtomicU64::new(1)) };
    let mut engine = Engine::new(&link, Arc::new(Semaphore::new(0)));
    engine.on_connected(HelloOk { frame_bytes_max: 1_000, ..HelloOk::default() });
    engine
}

fn written(engine: &mut Engine) -> Vec<Frame> {
    engine.flush_run();
    let mut bytes = BytesMut::from(&engine.out.take_all()[..]);
    let decoder = Decoder { frame_bytes_max: 1_000, text_bytes_max: 255 };
    std::iter::from_fn(|| decoder.next(&mut bytes).unwrap()).collect()
}

fn finish(lsn: u64, verb: Verb, generation: u64) -> Command {
    Command::Finish(Finish {
        verb,
        generation,
        consumer: 1,
        queue: 7,
        lsn,
        number: lsn,
        through: false,
        answer: None,
    })
}

#[test]
fn settles_of_a_run_go_out_as_one_frame() {
    let mut engine = engine();
    for lsn in [4, 5, 9] {
        engine.on_command(finish(lsn, Verb::Settle, 1));
    }
    engine.on_command(finish(10, Verb::Return, 1));
    engine.on_command(finish(11, Verb::Settle, 2));
    let of = |lsns| Deliveries { consumer: 1, queue: 7, lsns };
    let settle = Settle { request: 0, deliveries: of(vec![4, 5, 9]) };
    let back = Return { request: 0, deliveries: of(vec![10]) };
    assert_eq!(written(&mut engine), [settle.into(), Frame::from(back)]);
}

#[test]
fn a_message_that_nobody_waits_for_any_more_goes_back() {
    let mut engine = engine();
    let (answer, answered) = oneshot::channel();
    let queue = Text::from_static("q");
    let make =
        Box::new(move |request| Get { request, queue: queue.clone(), ack: AckMode::Manual }.into());
    engine.on_command(Command::Request { make, repeat: false, answer });
    let [Frame::Get(get)] = &written(&mut engine)[..] else { panic!("get") };
    let request = get.request;
    drop(answered);
    let delivery = Deliver { queue: 7, lsn: 9, ..Deliver::default() };
    engine.on_frame(Got { request, remaining: 0, delivery }.into()).unwrap();
    let deliveries = Deliveries { consumer: 0, queue: 7, lsns: vec![9] };
    assert_eq!(written(&mut engine), [Return { request: 0, deliveries }.into()]);
}

/// Consumer 1, its messages with the LSNs of their numbers.
fn delivered(engine: &mut Engine, count: u64) -> mpsc::UnboundedReceiver<Event> {
    let (events, inbox) = mpsc::unbounded_channel();
    let (options, queue) = (SubscribeOptions::default(), Text::from_static("q"));
    engine.on_command(Command::Subscribe(Subscribe { queue, options, events, ready: None }));
    for lsn in 1..=count {
        let deliver = Deliver { consumer: 1, queue: 7, lsn, ..Deliver::default() };
        engine.on_frame(deliver.into()).unwrap();
    }
    written(engine);
    inbox
}

#[test]
fn what_a_transaction_settles_is_not_settled_again_nor_remembered() {
    let mut engine = engine();
    let _inbox = delivered(&mut engine, 5);
    let (done, _answered) = oneshot::channel();
    let of = |lsns| Deliveries { consumer: 1, queue: 7, lsns };
    let transaction = Transaction { settles: vec![of(vec![1, 3])], ..Transaction::default() };
    let held = Held { weight: 1, commit: None };
    let (generation, places) = (Some(1), vec![(1, 1), (1, 3)]);
    engine.on_command(Command::Transaction { transaction, held, generation, places, done });
    let Command::Finish(through) = finish(4, Verb::Settle, 1) else { panic!("a finish") };
    engine.on_command(Command::Finish(Finish { through: true, ..through }));
    let settle = Settle { request: 0, deliveries: of(vec![2, 4]) };
    assert_eq!(written(&mut engine)[1..], [Frame::from(settle)]);

    engine.on_command(Command::Unsubscribe { consumer: 1 });
    assert_eq!(engine.outstanding.len(), 1, "the fifth may still be finished");
    engine.on_command(finish(5, Verb::Settle, 1));
    assert!(engine.outstanding.is_empty());
}

#[test]
fn a_subscription_nobody_took_is_cancelled_and_its_deliveries_go_back() {
    let mut engine = engine();
    let (events, inbox) = mpsc::unbounded_channel();
    let (ready, subscribed) = oneshot::channel();
    let options = SubscribeOptions::default();
    let queue = Text::from_static("q");
    engine.on_command(Command::Subscribe(Subscribe { queue, options, events, ready: Some(ready) }));
    let [Frame::Consume(consume)] = &written(&mut engine)[..] else { panic!("consume") };
    engine.on_frame(Done { request: consume.request }.into()).unwrap();
    // The answer came, and then the caller's future was dropped.
    drop((inbox, subscribed));
    let deliver = Deliver { consumer: 1, queue: 7, lsn: 9, ..Deliver::default() };
    engine.on_frame(deliver.into()).unwrap();
    let written = written(&mut engine);
    assert!(matches!(&written[0], Frame::Cancel(cancel) if cancel.consumer == 1));
    assert!(matches!(&written[1], Frame::Return(back) if back.deliveries.lsns == [9]));
}

#[test]
fn what_a_broken_broker_says_is_taken_or_refused() {
    let mut engine = engine();
    let _inbox = delivered(&mut engine, 1);
    let (done, mut answered) = oneshot::channel();
    let publish = Publish::default();
    engine.on_command(Command::Publish(vec![NewPublish { publish, weight: 1, done }]));
    let text = Text::from_static("?");
    for request in [0, 1, 3, u64::MAX] {
        for frame in [
            Frame::from(Done { request }),
            AlreadyCommitted { request }.into(),
            Removed { request, messages: u32::MAX }.into(),
            GetEmpty { request }.into(),
            Refused { request, code: 0, text: text.clone() }.into(),
            Nack { sequence: request.wrapping_add(1) }.into(),
            Returned { code: 0, ..Returned::default() }.into(),
            Deliver { consumer: request as u32, lsn: request, ..Deliver::default() }.into(),
            Cancelled { consumer: request as u32 }.into(),
            Moved { addresses: ",://,ssl://[".into() }.into(),
        ] {
            engine.on_frame(frame).unwrap();
        }
    }
    assert!(answered.try_recv().is_ok(), "nacked");
    engine.on_frame(Confirm { through: u64::MAX }.into()).unwrap();
    assert!(engine.unconfirmed.is_empty());
    let strange = [Frame::from(Login::default()), Open::default().into(), Credit::default().into()];
    for frame in strange {
        assert!(matches!(engine.on_frame(frame), Err(Error::Protocol(_))));
    }
}

#[test]
fn what_must_not_be_asked_twice_is_asked_once_whenever_it_goes_out() {
    let mut engine = engine();
    let lost = Error::ConnectionLost(String::new());
    engine.on_lost(&lost);
    let (answer, mut answered) = oneshot::channel();
    let make = Box::new(|request| Cancel { request, consumer: 1 }.into());
    engine.on_command(Command::Request { make, repeat: false, answer });
    engine.on_connected(HelloOk { frame_bytes_max: 1_000, ..HelloOk::default() });
    assert_eq!(written(&mut engine).len(), 1);
    assert!(answered.try_recv().is_err());
    engine.on_lost(&lost);
    assert!(matches!(answered.try_recv(), Ok(Err(Error::ConnectionLost(_)))));
}
