# Bunny against a pair: arguments are the AMQP ports of both nodes, master first. The connection
# recovers by itself, through the list of hosts.
require "bunny"
require "json"
require "set"
require "timeout"

PORTS = ARGV.map(&:to_i)
COUNT = 600
PATIENCE_S = 60

def check(holds, what)
  raise what unless holds
end

def connect
  Bunny.new(
    addresses: PORTS.map { |port| "127.0.0.1:#{port}" }, hosts_shuffle_strategy: ->(hosts) { hosts },
    network_recovery_interval: 0.02, recovery_attempts: nil, connection_timeout: 2,
    # How long a confirm is waited for that the dead master did not send.
    continuation_timeout: 5_000, logger: Logger.new(File::NULL), properties: {connection_name: "bunny suite"}
  ).start
end

# The block ends its channel with this class of error; the connection goes on.
def refused(connection, error)
  channel = connection.create_channel
  yield channel
  raise "#{error} was not raised"
rescue error => refusal
  check(connection.open?, "the connection is closed: #{refusal}")
end

def topology(connection)
  channel = connection.create_channel
  queue = channel.queue("", exclusive: true)
  check(queue.name.start_with?("amq.gen-"), queue.name)
  source = channel.topic("bunny.source", auto_delete: true)
  target = channel.headers("bunny.target", auto_delete: true)
  target.bind(source, routing_key: "a.#")
  queue.bind(target, arguments: {"x-match" => "all", "colour" => "green"})
  channel.confirm_select
  sent = {
    content_type: "text/plain", correlation_id: "c1", message_id: "m1", persistent: true,
    priority: 3, timestamp: 1_700_000_000, headers: {"colour" => "green", "deep" => {"list" => [1, 2.5, "x"]}}
  }
  source.publish("one", **sent, routing_key: "a.b")
  source.publish("not bound", **sent, routing_key: "b.b")
  check(channel.wait_for_confirms, "confirmed")
  delivery, properties, body = queue.pop(manual_ack: true)
  check(body == "one" && properties[:headers] == sent[:headers], properties.inspect)
  check(properties[:timestamp].to_i == 1_700_000_000 && properties[:priority] == 3, "properties")
  channel.nack(delivery.delivery_tag, false, true)
  delivery, = queue.pop(manual_ack: true)
  check(delivery.redelivered?, "flagged redelivered")
  channel.ack(delivery.delivery_tag)
  check(queue.pop == [nil, nil, nil], "empty")
  large = "\x07" * 1_000_000
  queue.publish(large)
  queue.publish("")
  check(channel.wait_for_confirms, "confirmed")
  check(queue.pop[2] == large && queue.pop[2] == "", "a large and an empty body")
  returned = Queue.new
  exchange = channel.default_exchange
  exchange.on_return { |info, _, text| returned << [info.reply_code, info.reply_text, text] }
  exchange.publish("x", routing_key: "bunny.nobody", mandatory: true)
  check(returned.pop == [312, "NO_ROUTE", "x"], "returned")
  channel.close
end

def transactions(connection)
  channel = connection.create_channel
  queue = channel.queue("", exclusive: true)
  channel.tx_select
  queue.publish("kept")
  check(queue.message_count.zero?, "nothing before the commit")
  channel.tx_commit
  queue.publish("dropped")
  channel.tx_rollback
  check(queue.pop[2] == "kept" && queue.pop[2].nil?, "one message")
  channel.close
end

def consuming(connection)
  channel = connection.create_channel
  queue = channel.queue("bunny.consumed", auto_delete: false)
  queue.purge
  5.times { |n| queue.publish(n.to_s) }
  channel.prefetch(2)
  events = Queue.new
  consumer = Bunny::Consumer.new(channel, queue, channel.generate_consumer_tag, false)
  consumer.on_delivery { |delivery, _, body| events << [delivery.delivery_tag.to_i, body] }
  consumer.on_cancellation { events << :cancelled }
  tag = queue.subscribe_with(consumer).consumer_tag
  check(!tag.empty?, "a tag")
  check([events.pop, events.pop] == [[1, "0"], [2, "1"]], "the first two")
  check(queue.status == {message_count: 3, consumer_count: 1}, queue.status.inspect)
  channel.ack(2, true)
  check([events.pop, events.pop] == [[3, "2"], [4, "3"]], "the next two")
  connection.create_channel.queue_delete(queue.name)
  check(events.pop == :cancelled, "told of the queue's end")
  channel.close
  refused(connection, Bunny::NotFound) { |c| c.queue("bunny.none", passive: true) }
  refused(connection, Bunny::AccessRefused) { |c| c.queue("amq.mine") }
  refused(connection, Bunny::PreconditionFailed) do |c|
    c.queue("bunny.equal", exclusive: true, auto_delete: true)
    connection.create_channel.queue("bunny.equal", exclusive: true, auto_delete: false)
  end
end

def take_over(connection)
  name = "interop.bunny"
  channel = nil
  number = 0
  while number < COUNT
    begin
      unless channel&.open?
        channel = connection.create_channel
        channel.confirm_select
        channel.queue(name, durable: true)
      end
      channel.default_exchange.publish(number.to_s, routing_key: name, persistent: true)
      raise Bunny::ConnectionClosedError.new("not confirmed") unless channel.wait_for_confirms
      number += 1
      if number == COUNT / 2
        puts "KILL"
        $stdout.flush
      end
    rescue Bunny::Exception, IOError, SystemCallError, Timeout::Error
      sleep 0.005
    end
  end
  arrived = Queue.new
  channel.queue(name, durable: true).subscribe(manual_ack: true) do |delivery, _, body|
    channel.ack(delivery.delivery_tag)
    arrived << body.to_i
  end
  received = 0
  unique = Set.new
  Timeout.timeout(PATIENCE_S) do
    while unique.size < COUNT
      unique << arrived.pop
      received += 1
    end
  end
  lost = (0...COUNT).reject { |n| unique.include?(n) }
  puts JSON.dump(confirmed: number, received: received, lost: lost, duplicates: received - unique.size)
end

connection = connect
Timeout.timeout(PATIENCE_S) do
  topology(connection)
  transactions(connection)
  consuming(connection)
end
take_over(connection)
connection.close
