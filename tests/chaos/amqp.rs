//! AMQP 0-9-1 by lapin.

use crate::clients::{Consumer, Outcome, Publisher, Received};
use crate::support::USER;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};
use std::collections::VecDeque;
use tokio_stream::StreamExt;

const PREFETCH: u16 = 20;

fn told(error: lapin::Error) -> String {
    error.to_string()
}

async fn channel(addresses: &[String], queue: &str) -> Outcome<(Connection, Channel)> {
    let mut why = String::new();
    for address in addresses {
        let uri = format!("amqp://{USER}:{USER}@{address}/%2f?heartbeat=2");
        match Connection::connect(&uri, ConnectionProperties::default()).await {
            Ok(connection) => {
                let channel = connection.create_channel().await.map_err(told)?;
                let durable = QueueDeclareOptions { durable: true, ..Default::default() };
                let declare = channel.queue_declare(queue.into(), durable, FieldTable::default());
                declare.await.map_err(told)?;
                return Ok((connection, channel));
            }
            Err(error) => why = told(error),
        }
    }
    Err(why)
}

pub(crate) struct AmqpPublisher {
    _connection: Connection,
    channel: Channel,
    queue: String,
    confirms: VecDeque<PublisherConfirm>,
}

impl Publisher for AmqpPublisher {
    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let (connection, channel) = channel(addresses, queue).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(told)?;
        Ok(Self {
            _connection: connection,
            channel,
            queue: queue.to_owned(),
            confirms: VecDeque::new(),
        })
    }

    async fn send(&mut self, body: Vec<u8>) -> Outcome<()> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let queue = self.queue.as_str().into();
        let options = BasicPublishOptions::default();
        let publish = self.channel.basic_publish("".into(), queue, options, &body, properties);
        self.confirms.push_back(publish.await.map_err(told)?);
        Ok(())
    }

    async fn confirmed(&mut self) -> Outcome<()> {
        let oldest = self.confirms.pop_front().ok_or("nothing to be confirmed")?;
        match oldest.await.map_err(told)?.is_ack() {
            true => Ok(()),
            false => Err("nack".to_owned()),
        }
    }
}

pub(crate) struct AmqpConsumer {
    _connection: Connection,
    _channel: Channel,
    consumer: lapin::Consumer,
}

impl Consumer for AmqpConsumer {
    type Handle = lapin::message::Delivery;

    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let (connection, channel) = channel(addresses, queue).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(told)?;
        let options = BasicConsumeOptions::default();
        let consume =
            channel.basic_consume(queue.into(), "chaos".into(), options, FieldTable::default());
        let consumer = consume.await.map_err(told)?;
        Ok(Self { _connection: connection, _channel: channel, consumer })
    }

    async fn receive(&mut self) -> Outcome<Received<Self::Handle>> {
        let next = self.consumer.next().await.ok_or("the consumer has ended")?;
        let mut delivery = next.map_err(told)?;
        let body = std::mem::take(&mut delivery.data);
        Ok(Received { body, redelivered: delivery.redelivered, handle: delivery })
    }

    async fn settle(&mut self, delivery: Self::Handle) -> Outcome<()> {
        delivery.ack(BasicAckOptions::default()).await.map(|_| ()).map_err(told)
    }

    async fn settle_for_good(&mut self, delivery: Self::Handle) -> Outcome<bool> {
        self.settle(delivery).await.map(|()| false)
    }

    async fn give_back(&mut self, delivery: Self::Handle) -> Outcome<()> {
        let requeue = BasicNackOptions { requeue: true, ..Default::default() };
        delivery.nack(requeue).await.map(|_| ()).map_err(told)
    }
}
