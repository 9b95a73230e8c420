# What the failover recipes in Ruby count; see counting.py.
require "json"
require "timeout"

COUNT = 200
PATIENCE_S = 60
$stdout.sync = true

class Counting
  def initialize
    @sent = @confirmed = 0
    @received = Queue.new
    @all = []
    @without_s = 0.0
  end

  # The block is true when the body is confirmed.
  def publish_all
    (0...COUNT).each do |number|
      puts "KILL" if number == COUNT / 2
      loop do
        @sent += 1
        break if yield number.to_s
        sleep 0.005
      end
      now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      @without_s = [@without_s, now - (@last || now)].max
      @last = now
      @confirmed += 1
    end
  end

  def take(body)
    @received << Integer(body)
  end

  def report
    Timeout.timeout(PATIENCE_S) { @all << @received.pop until @all.uniq.size == COUNT }
  rescue Timeout::Error
    # What is missing is told below.
  ensure
    unique = @all.uniq
    puts JSON.generate(sent: @sent, confirmed: @confirmed, received: @all.size,
                       duplicates: @all.size - unique.size, lost: (0...COUNT).to_a - unique,
                       without_service_s: @without_s.round(3))
  end
end
