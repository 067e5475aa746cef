# Sends a job to Sidekiq, and waits for what it stores.
require 'timeout'
require_relative 'job'

def result_of(jid)
  Timeout.timeout(30) do
    loop do
      sum = Sidekiq.redis { |it| it.get("sum:#{jid}") }
      return sum if sum
      sleep 0.05
    end
  end
end

puts "at once: #{result_of(AddJob.perform_async(2, 3))}"
puts "later: #{result_of(AddJob.perform_in(1, 20, 30))}"
