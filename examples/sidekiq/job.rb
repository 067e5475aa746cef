# A job that Sidekiq runs, with nearkey before its Valkey: sidekiq -r ./job.rb
require 'sidekiq'

redis = { url: ENV.fetch('CACHE_URL', 'unix:///run/nearkey/nearkey.sock') }
Sidekiq.configure_server { |config| config.redis = redis }
Sidekiq.configure_client { |config| config.redis = redis }

class AddJob
  include Sidekiq::Job

  def perform(x, y)
    Sidekiq.redis { |it| it.set("sum:#{jid}", x + y, ex: 60) }
  end
end
