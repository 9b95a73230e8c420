use super::*;
use crate::{AckMode, SubscribeOptions, command::Finish, subscription::Event};
use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};
use understudy_native::{
    AlreadyCommitted, Cancelled, Confirm, Decoder, Done, Get, GetEmpty, Got, Login, Moved, Nack,
    Open, Publish, Refused, Removed, Return, Returned, Settle,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn engine() -> Engine {
    let (commands, _) = mpsc::unbounded_channel();
    let (generation, ended) = (Arc::new(AtomicU64::new(1)), Arc::default());
    let link = Link { commands, generation, ended };
    let mut engine = Engine::new(&link, Arc::new(Semaphore::new(0)), Some(TIMEOUT));
    engine.on_connected(HelloOk { frame_bytes_max: 1_000, ..HelloOk::default() });
    engine
}

fn written(engine: &mut Engine) -> Vec<Frame> {
    engine.flush_run();
    let mut bytes = BytesMut::from(&engine.out.take_all()[..]);
    let decoder = Decoder { frame_bytes_max: 1_000, text_bytes_max: 255 };
    std::iter::from_fn(|| decoder.next(&mut bytes).unwrap()).collect()
}

fn held(made: Instant) -> Held {
    Held { weight: 1, commit: None, made }
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
    engine.on_command(Command::Request { make, repeat: false, made: Instant::now(), answer });
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
    let made = Instant::now();
    engine.on_command(Command::Subscribe(Subscribe { queue, options, made, events, ready: None }));
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
    let held = held(Instant::now());
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
    let (made, ready) = (Instant::now(), Some(ready));
    engine.on_command(Command::Subscribe(Subscribe { queue, options, made, events, ready }));
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
    let (publish, held) = (Publish::default(), held(Instant::now()));
    engine.on_command(Command::Publish(vec![NewPublish { publish, held, done }]));
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
    engine.on_lost(&lost, Instant::now());
    let (answer, mut answered) = oneshot::channel();
    let make = Box::new(|request| Cancel { request, consumer: 1 }.into());
    engine.on_command(Command::Request { make, repeat: false, made: Instant::now(), answer });
    engine.on_connected(HelloOk { frame_bytes_max: 1_000, ..HelloOk::default() });
    assert_eq!(written(&mut engine).len(), 1);
    assert!(answered.try_recv().is_err());
    engine.on_lost(&lost, Instant::now());
    assert!(matches!(answered.try_recv(), Ok(Err(Error::ConnectionLost(_)))));
}

/// A publish, a request, a subscription and a transaction that were all made at once.
struct Asked {
    published: oneshot::Receiver<Result<crate::unconfirmed::Stored, Error>>,
    answered: oneshot::Receiver<Result<(u64, Frame), Error>>,
    subscribed: oneshot::Receiver<Result<u32, Error>>,
    committed: oneshot::Receiver<Result<crate::unconfirmed::Stored, Error>>,
}

impl Asked {
    fn new(engine: &mut Engine, made: Instant) -> Self {
        let (done, published) = oneshot::channel();
        let publish = Publish::default();
        let publish = NewPublish { publish, held: held(made), done };
        engine.on_command(Command::Publish(vec![publish]));
        let (answer, answered) = oneshot::channel();
        let make = Box::new(|request| Cancel { request, consumer: 1 }.into());
        engine.on_command(Command::Request { make, repeat: true, made, answer });
        let ((events, _), (ready, subscribed)) = (mpsc::unbounded_channel(), oneshot::channel());
        let (options, queue) = (SubscribeOptions::default(), Text::from_static("q"));
        let ready = Some(ready);
        engine.on_command(Command::Subscribe(Subscribe { queue, options, made, events, ready }));
        let (done, committed) = oneshot::channel();
        let (transaction, held) = (Transaction::default(), held(made));
        let (generation, places) = (None, Vec::new());
        engine.on_command(Command::Transaction { transaction, held, generation, places, done });
        Self { published, answered, subscribed, committed }
    }

    /// What it all failed with; none: it waits.
    fn failures(&mut self) -> [Option<Error>; 4] {
        [
            self.published.try_recv().ok().map(Result::unwrap_err),
            self.answered.try_recv().ok().map(Result::unwrap_err),
            self.subscribed.try_recv().ok().map(Result::unwrap_err),
            self.committed.try_recv().ok().map(Result::unwrap_err),
        ]
    }
}

const WAITING: [Option<Error>; 4] = [const { None }; 4];

#[test]
fn each_waits_its_own_timeout_without_a_connection() {
    let late = || Some(Error::Timeout);
    let mut engine = engine();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut sent = Asked::new(&mut engine, at(0));
    engine.on_lost(&Error::ConnectionLost(String::new()), at(10));
    assert_eq!(engine.next_timeout(), Some(at(70)), "no timeout runs with a connection");
    let mut waiting = Asked::new(&mut engine, at(50));
    engine.time_out(at(69));
    assert_eq!((sent.failures(), waiting.failures()), (WAITING, WAITING));
    engine.time_out(at(70));
    assert_eq!(sent.failures(), [late(), late(), late(), Some(Error::InDoubt)]);
    assert_eq!((waiting.failures(), engine.next_timeout()), (WAITING, Some(at(110))));
    engine.time_out(at(110));
    assert_eq!(waiting.failures(), [late(), late(), late(), late()]);
    assert_eq!(engine.next_timeout(), None);
    // The one after the last is no worse off than the first.
    let mut later = Asked::new(&mut engine, at(200));
    engine.time_out(at(259));
    assert_eq!((later.failures(), engine.next_timeout()), (WAITING, Some(at(260))));
    engine.on_connected(HelloOk { frame_bytes_max: 1_000, ..HelloOk::default() });
    let written = written(&mut engine);
    assert_eq!(written.len(), 4, "those given up are not sent: {written:?}");
}

#[test]
fn what_is_asked_of_an_ended_client_is_told_why() {
    let mut engine = engine();
    let why = Error::NoConnection("the last attempt".into());
    engine.end(&why);
    let told = || Some(why.clone());
    let failures = Asked::new(&mut engine, Instant::now()).failures();
    assert_eq!(failures, [told(), told(), told(), told()]);
    assert!(engine.is_idle());
}
