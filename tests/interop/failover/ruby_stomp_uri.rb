# ruby-stomp: `failover:(stomp://user:password@host:port,…)?options`; the client connects again and
# subscribes again by itself.
require "stomp"
require_relative "counting"

DESTINATION = "/queue/failover.ruby"
nodes = ARGV.map { |port| "stomp://guest:guest@127.1:#{port}" }
uri = "failover:(#{nodes.join(',')})?randomize=false&initialReconnectDelay=10&maxReconnectDelay=100"
counting = Counting.new
connect = lambda do
  client = Stomp::Client.new(uri)
  client.subscribe(DESTINATION, id: "1", ack: "client") do |message|
    client.acknowledge(message)
    counting.take(message.body)
  end
  client
end
client = connect.call
failures = 0
counting.publish_all do |body|
  answered = Queue.new
  client.publish(DESTINATION, body, persistent: "true") { |receipt| answered << receipt }
  Timeout.timeout(2) { answered.pop }
  failures = 0
  true
rescue Timeout::Error, Stomp::Error::NoCurrentConnection
  # Lost with its connection. A publish that finds it broken may end the thread that listens and
  # connects again: then the client is of no use any more.
  failures += 1
  if failures % 3 == 0
    begin
      Timeout.timeout(1) { client.close }
    rescue StandardError
      # It is given up.
    end
    client = connect.call
  end
  false
end
counting.report
client.close
