# Bunny: `addresses`, gone through by itself; channels, queues and consumers are made anew.
require "bunny"
require_relative "counting"

QUEUE = "failover.bunny"
counting = Counting.new
connection = Bunny.new(
  addresses: ARGV.map { |port| "127.0.0.1:#{port}" }, hosts_shuffle_strategy: ->(hosts) { hosts },
  recover_from_connection_close: true, network_recovery_interval: 0.05, recovery_attempts: nil,
  connection_timeout: 2, continuation_timeout: 2000, heartbeat: 5, logger: Logger.new(IO::NULL)
)
connection.start
consumer = connection.create_channel
consumer.prefetch(50)
consumer.queue(QUEUE, durable: true).subscribe(manual_ack: true) do |delivery, _, body|
  consumer.ack(delivery.delivery_tag)
  counting.take(body)
rescue Bunny::Exception, IOError, SystemCallError
  counting.take(body)
end
publisher = connection.create_channel
publisher.confirm_select
counting.publish_all do |body|
  publisher.default_exchange.publish(body, routing_key: QUEUE, persistent: true)
  Timeout.timeout(2) { publisher.wait_for_confirms }
rescue Bunny::Exception, Timeout::Error, IOError, SystemCallError
  false
end
counting.report
connection.close
