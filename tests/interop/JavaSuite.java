// RabbitMQ's Java client against a pair: arguments are the AMQP ports of both nodes, master first.
// The connection recovers by itself, through the list of addresses.

import com.rabbitmq.client.*;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class JavaSuite {
    static final int COUNT = 600;
    static final long PATIENCE_S = 60;
    static Address[] addresses;

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static byte[] bytes(Object value) {
        return value.toString().getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    static Connection connect() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setTopologyRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(20);
        factory.setConnectionTimeout(2_000);
        return factory.newConnection(Arrays.asList(addresses), "java suite");
    }

    interface Step {
        void run(Channel channel) throws Exception;
    }

    /** The step ends its channel with this code; the connection goes on. */
    static void refused(Connection connection, int code, Step step) throws Exception {
        Channel channel = connection.createChannel();
        try {
            step.run(channel);
            channel.basicQos(0);
            throw new AssertionError("not refused with " + code);
        } catch (IOException | ShutdownSignalException error) {
            Throwable cause = error instanceof IOException ? error.getCause() : error;
            check(cause instanceof ShutdownSignalException, "an error of the socket: " + error);
            ShutdownSignalException signal = (ShutdownSignalException) cause;
            check(!signal.isHardError(), "of the connection: " + signal);
            AMQP.Channel.Close close = (AMQP.Channel.Close) signal.getReason();
            check(close.getReplyCode() == code, "wanted " + code + ", got " + close);
        }
    }

    static GetResponse get(Channel channel, String queue) throws Exception {
        return channel.basicGet(queue, true);
    }

    static void topology(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = channel.queueDeclare().getQueue();
        check(queue.startsWith("amq.gen-"), queue);
        channel.exchangeDeclare("java.source", "topic", false, true, null);
        channel.exchangeDeclare("java.target", BuiltinExchangeType.HEADERS, false, true, null);
        channel.exchangeBind("java.target", "java.source", "a.#");
        Map<String, Object> match = new HashMap<>();
        match.put("x-match", "any");
        match.put("colour", "green");
        channel.queueBind(queue, "java.target", "", match);
        channel.confirmSelect();
        Map<String, Object> headers = new HashMap<>();
        headers.put("colour", "green");
        headers.put("list", Arrays.asList(1, 2L, "three"));
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
            .contentType("text/plain").headers(headers).correlationId("c1").messageId("m1")
            .deliveryMode(2).priority(3).timestamp(new Date(1_700_000_000_000L)).build();
        channel.basicPublish("java.source", "a.b", sent, bytes("one"));
        channel.basicPublish("java.source", "b.b", sent, bytes("not bound"));
        channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
        GetResponse got = channel.basicGet(queue, false);
        check(text(got.getBody()).equals("one") && got.getMessageCount() == 0, "one message");
        check(got.getProps().getTimestamp().equals(sent.getTimestamp()), "timestamp");
        check(got.getProps().getHeaders().get("list").toString().equals("[1, 2, three]"), "list");
        channel.basicNack(got.getEnvelope().getDeliveryTag(), false, true);
        got = channel.basicGet(queue, false);
        check(got.getEnvelope().isRedeliver(), "flagged redelivered");
        channel.basicRecover(true);
        check(get(channel, queue) != null, "recovered");
        channel.exchangeUnbind("java.target", "java.source", "a.#");
        refused(connection, 404, gone -> gone.exchangeDeclarePassive("java.source"));
        channel.close();
    }

    static void publishing(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = channel.queueDeclare().getQueue();
        channel.confirmSelect();
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener((code, reason, exchange, key, properties, body) ->
            events.add(code + " " + reason + " " + text(body)));
        channel.addConfirmListener(new ConfirmListener() {
            public void handleAck(long tag, boolean multiple) { events.add("ack " + tag); }
            public void handleNack(long tag, boolean multiple) { events.add("nack " + tag); }
        });
        channel.basicPublish("", "java.nobody", true, null, bytes("x"));
        check("312 NO_ROUTE x".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "returned first");
        check("ack 1".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "then confirmed");
        byte[] large = new byte[1_000_000];
        Arrays.fill(large, (byte) 7);
        channel.basicPublish("", queue, null, large);
        channel.basicPublish("", queue, null, new byte[0]);
        channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
        check(Arrays.equals(get(channel, queue).getBody(), large), "a large body");
        check(get(channel, queue).getBody().length == 0, "an empty body");
        channel.close();

        Channel transacted = connection.createChannel();
        transacted.txSelect();
        transacted.basicPublish("", queue, null, bytes("kept"));
        check(get(transacted, queue) == null, "nothing before the commit");
        transacted.txCommit();
        transacted.basicPublish("", queue, null, bytes("dropped"));
        transacted.txRollback();
        check(text(get(transacted, queue).getBody()).equals("kept"), "committed");
        check(get(transacted, queue) == null, "rolled back");
        transacted.close();
        refused(connection, 406, both -> { both.confirmSelect(); both.txSelect(); });
    }

    static void consuming(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = channel.queueDeclare("java.consumed", false, false, false, null).getQueue();
        for (int n = 0; n < 5; n++) channel.basicPublish("", queue, null, bytes(n));
        channel.basicQos(2);
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        String tag = channel.basicConsume(queue, false, new DefaultConsumer(channel) {
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties p, byte[] body) {
                events.add(envelope.getDeliveryTag() + ":" + text(body));
            }
            public void handleCancel(String tag) { events.add("cancelled by the broker"); }
            public void handleCancelOk(String tag) { events.add("cancel-ok"); }
        });
        check(tag.startsWith("amq.ctag-"), tag);
        check("1:0".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "first");
        check("2:1".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "second");
        check(channel.messageCount(queue) == 3 && channel.consumerCount(queue) == 1, "prefetch");
        channel.basicAck(2, true);
        check("3:2".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "third");
        check("4:3".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "fourth");
        connection.createChannel().queueDelete(queue);
        check("cancelled by the broker".equals(events.poll(PATIENCE_S, TimeUnit.SECONDS)), "told");
        channel.close();

        refused(connection, 404, c -> c.queueDeclarePassive("java.none"));
        refused(connection, 406, c -> c.basicAck(99, false));
        refused(connection, 403, c -> c.queueDeclare("amq.mine", false, false, false, null));
        refused(connection, 406, c -> {
            c.queueDeclare("java.equal", false, true, true, null);
            c.queueDeclare("java.equal", false, true, false, null);
        });
    }

    /** A direct reply, with the client's own class for it. */
    static void calling(Connection connection) throws Exception {
        Channel serving = connection.createChannel();
        String queue = serving.queueDeclare().getQueue();
        RpcServer server = new StringRpcServer(serving, queue) {
            public String handleStringCall(String request, AMQP.BasicProperties reply) {
                return request.toUpperCase(Locale.ROOT);
            }
        };
        Thread thread = new Thread(() -> {
            try { server.mainloop(); } catch (IOException error) { throw new RuntimeException(error); }
        });
        thread.start();
        Channel asking = connection.createChannel();
        RpcClient client = new RpcClient(asking, "", queue, (int) PATIENCE_S * 1000);
        for (String word : new String[] {"one", "two"}) {
            check(client.stringCall(word).equals(word.toUpperCase(Locale.ROOT)), word);
        }
        asking.close();
        serving.close();
        thread.join();
    }

    /** Publishes with confirms while the master is killed; the same connection goes on. */
    static void takeover(Connection connection) throws Exception {
        String queue = "interop.java";
        Channel channel = connection.createChannel();
        channel.confirmSelect();
        channel.queueDeclare(queue, true, false, false, null);
        AMQP.BasicProperties persistent = MessageProperties.PERSISTENT_BASIC;
        int number = 0;
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
        while (number < COUNT) {
            try {
                channel.basicPublish("", queue, persistent, bytes(number));
                channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
                number += 1;
                if (number == COUNT / 2) {
                    System.out.println("KILL");
                    System.out.flush();
                }
            } catch (IOException | ShutdownSignalException error) {
                check(System.nanoTime() < deadline, "not recovered: " + error);
                Thread.sleep(5);
            }
        }
        Set<Integer> unique = new TreeSet<>();
        BlockingQueue<Integer> arrived = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, new DefaultConsumer(channel) {
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties p, byte[] body)
                    throws IOException {
                getChannel().basicAck(envelope.getDeliveryTag(), false);
                arrived.add(Integer.valueOf(text(body)));
            }
        });
        int received = 0;
        while (unique.size() < COUNT) {
            Integer next = arrived.poll(PATIENCE_S, TimeUnit.SECONDS);
            if (next == null) break;
            received += 1;
            unique.add(next);
        }
        List<Integer> lost = new ArrayList<>();
        for (int n = 0; n < COUNT; n++) if (!unique.contains(n)) lost.add(n);
        System.out.printf("{\"confirmed\": %d, \"received\": %d, \"lost\": %s, \"duplicates\": %d}%n",
            number, received, lost, received - unique.size());
    }

    public static void main(String[] ports) throws Exception {
        addresses = Arrays.stream(ports).map(port -> new Address("127.0.0.1", Integer.parseInt(port)))
            .toArray(Address[]::new);
        Connection connection = connect();
        topology(connection);
        publishing(connection);
        consuming(connection);
        calling(connection);
        takeover(connection);
        connection.close(2_000);
    }
}
