# ruby-stomp against a pair: arguments are the STOMP ports of both nodes, master first.
require "stomp"
require "json"
require "timeout"

COUNT = 600
$stdout.sync = true

# The client's own list of brokers, which it goes through when a connection breaks.
def client
  hosts = ARGV.map { |port| { host: "127.0.0.1", port: Integer(port), login: "guest", passcode: "guest" } }
  Stomp::Client.new(
    hosts: hosts, reliable: true, randomize: false, initial_reconnect_delay: 0.01,
    max_reconnect_delay: 0.05, max_reconnect_attempts: 2000,
    connect_headers: { "accept-version" => "1.2", "host" => "/" }
  )
end

def check(right, what)
  abort("wrong: #{what}") unless right
end

# Waits for `count` messages, each acked.
def read(client, destination, count)
  messages = Queue.new
  client.subscribe(destination, id: destination, ack: "client-individual") do |message|
    client.acknowledge(message)
    messages << message
  end
  got = Timeout.timeout(30) { Array.new(count) { messages.pop } }
  client.unsubscribe(destination, id: destination)
  got
end

# Answered when both nodes have it; false if that did not happen in time.
def send_safely(client, destination, body, headers = {})
  answered = Queue.new
  client.publish(destination, body, headers) { |receipt| answered << receipt }
  Timeout.timeout(3) { answered.pop }
  true
rescue Timeout::Error, Stomp::Error::NoCurrentConnection
  # Lost with its connection, which the client's own thread is making anew.
  false
end

def basics
  one = client
  destination = "/queue/interop-ruby-basics"
  headers = { "colour" => "a:b\nd", "content-type" => "text/plain", "priority" => "4" }
  check(send_safely(one, destination, "one", headers), "receipt")
  check(send_safely(one, destination, "\0" * 500_000), "receipt of a large message")
  first, large = read(one, destination, 2)
  check(first.body == "one", first.body)
  check(first.headers["colour"] == "a:b\nd", first.headers)
  check(first.headers["priority"] == "4", first.headers)
  check(large.body == "\0" * 500_000, "NULs survive")
  one.begin("aborted")
  one.publish(destination, "aborted", transaction: "aborted")
  one.abort("aborted")
  one.begin("committed")
  one.publish(destination, "committed", transaction: "committed")
  one.commit("committed")
  check(read(one, destination, 1).map(&:body) == ["committed"], "transactions")
  one.close
end

# A publish that finds the connection broken may end the thread that listens (1.4.10): then the
# client neither connects again nor closes.
def give_up(client)
  Timeout.timeout(1) { client.close }
rescue StandardError
  nil
end

def takeover
  one = client
  destination = "/queue/interop-ruby"
  number = sent = failures = 0
  while number < COUNT
    sent += 1
    if send_safely(one, destination, number.to_s, "persistent" => "true")
      number += 1
      failures = 0
      puts "KILL" if number == COUNT / 2
    elsif (failures += 1) % 3 == 0
      give_up(one)
      one = client
    end
  end
  give_up(one)
  two = client
  messages = Queue.new
  two.subscribe(destination, id: "1", ack: "client-individual") do |message|
    two.acknowledge(message)
    messages << Integer(message.body)
  end
  received = []
  Timeout.timeout(30) { received << messages.pop until received.uniq.size == COUNT }
  two.close
  lost = (0...COUNT).to_a - received
  duplicates = received.size - received.uniq.size
  puts JSON.generate(sent: sent, confirmed: number, received: received.size, lost: lost, duplicates: duplicates)
end

basics
takeover
