# ruby-stomp: `failover:(stomp://user:password@host:port,…)?options`; the client connects again and
# subscribes again by itself.
require "stomp"
require_relative "counting"

DESTINATION = "/queue/failover.ruby"
nodes = ARGV.map { |port| "stomp://guest:guest@127.0.0.1:#{port}" }
uri = "failover:(#{nodes.join(',')})?randomize=false&initialReconnectDelay=10" \
      "&maxReconnectDelay=100&maxReconnectAttempts=1000"
counting = Counting.new
client = Stomp::Client.new(uri)
client.subscribe(DESTINATION, id: "1", ack: "client") do |message|
  client.acknowledge(message)
  counting.take(message.body)
end
counting.publish_all do |body|
  answered = Queue.new
  client.publish(DESTINATION, body, persistent: "true") { |receipt| answered << receipt }
  Timeout.timeout(2) { answered.pop }
rescue Timeout::Error, Stomp::Error::NoCurrentConnection
  # Lost with its connection.
  false
end
counting.report
client.close
