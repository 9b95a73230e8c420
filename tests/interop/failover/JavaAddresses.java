// RabbitMQ's Java client: a list of addresses, gone through by itself; channels, queues and consumers
// are made anew on the same objects. 5.0.0 does not begin that when it is a write that finds the
// connection broken, so a connection that stays closed is replaced here.

import com.rabbitmq.client.*;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class JavaAddresses {
    static final int COUNT = 200;
    static final String QUEUE = "failover.java";

    static final long RECOVERY_NS = 3_000_000_000L;

    final ConnectionFactory factory = new ConnectionFactory();
    final Address[] addresses;
    final BlockingQueue<Integer> arrived = new LinkedBlockingQueue<>();
    Connection connection;
    Channel publisher;

    JavaAddresses(String[] ports) {
        StringJoiner list = new StringJoiner(",");
        for (String port : ports) list.add("127.0.0.1:" + port);
        addresses = Address.parseAddresses(list.toString());
        factory.setNetworkRecoveryInterval(50);
        factory.setConnectionTimeout(2_000);
        factory.setRequestedHeartbeat(5);
    }

    void connect() throws Exception {
        connection = factory.newConnection(addresses);
        Channel consumer = connection.createChannel();
        consumer.basicQos(50);
        consumer.queueDeclare(QUEUE, true, false, false, null);
        consumer.basicConsume(QUEUE, false, new DefaultConsumer(consumer) {
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties p, byte[] body)
                    throws IOException {
                arrived.add(Integer.valueOf(new String(body, StandardCharsets.UTF_8)));
                getChannel().basicAck(envelope.getDeliveryTag(), false);
            }
        });
        publisher = connection.createChannel();
        publisher.confirmSelect();
    }

    /** After an error: time for the client's own recovery, then a new connection. */
    void recover(long sinceNs) throws Exception {
        Thread.sleep(5);
        if (System.nanoTime() - sinceNs > RECOVERY_NS && !connection.isOpen()) {
            connection.abort();
            connect();
        }
    }

    public static void main(String[] ports) throws Exception {
        new JavaAddresses(ports).run();
    }

    void run() throws Exception {
        connect();
        int sent = 0;
        long longest = 0, last = 0;
        for (int number = 0; number < COUNT; number++) {
            if (number == COUNT / 2) System.out.println("KILL");
            for (long begin = System.nanoTime();;) {
                sent += 1;
                try {
                    byte[] body = String.valueOf(number).getBytes(StandardCharsets.UTF_8);
                    publisher.basicPublish("", QUEUE, MessageProperties.PERSISTENT_BASIC, body);
                    publisher.waitForConfirmsOrDie(60_000);
                    break;
                } catch (IOException | ShutdownSignalException error) {
                    recover(begin);
                }
            }
            long now = System.nanoTime();
            if (last > 0) longest = Math.max(longest, now - last);
            last = now;
        }
        Set<Integer> unique = new TreeSet<>();
        int received = 0;
        while (unique.size() < COUNT) {
            Integer next = arrived.poll(60, TimeUnit.SECONDS);
            if (next == null) break;
            received += 1;
            unique.add(next);
        }
        List<Integer> lost = new ArrayList<>();
        for (int number = 0; number < COUNT; number++) if (!unique.contains(number)) lost.add(number);
        System.out.printf(Locale.ROOT,
            "{\"sent\":%d,\"confirmed\":%d,\"received\":%d,\"duplicates\":%d,\"lost\":%s,\"without_service_s\":%.3f}%n",
            sent, COUNT, received, received - unique.size(), lost, longest / 1e9);
        connection.close(2_000);
    }
}
