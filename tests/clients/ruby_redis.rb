# redis-rb as applications use it: ruby_redis.rb PORT.
require 'redis'

port = ARGV[0].to_i
check = ->(holds) { holds or raise 'wrong' }
done = ->(what) { puts "ok #{what}"; $stdout.flush }
puts "version #{Redis::VERSION} with Ruby #{RUBY_VERSION}"
redis = Redis.new(port: port, db: 6, id: 'matrix')

page = "\0\xff".b * 50_000
check.(redis.set('page', page, ex: 60, nx: true) && redis.get('page').b == page && redis.ttl('page') == 60)
check.(!redis.set('page', 'y', nx: true) && redis.set('short', 'x', px: 30) == 'OK')
sleep 0.05
check.(redis.get('short').nil? && !redis.exists?('short'))
done.('cache')

check.([redis.incr('n'), redis.incrby('n', 9), redis.decr('n'), redis.incrbyfloat('n', 0.5)] == [1, 10, 9, 9.5])
done.('counters')

replies = redis.pipelined { |p| 1000.times { |i| p.set("k#{i}", i); p.get("k#{i}") } }
check.(replies.size == 2000 && replies.last == '999' && redis.mget('k1', 'none') == ['1', nil])
check.(redis.scan_each(match: 'k99*').to_a.uniq.size == 11)
done.('pipeline and scan')

check.(redis.multi { |t| t.set('t', 1); t.incr('t') } == ['OK', 2])
changed = redis.watch('t') do
  Redis.new(port: port, db: 6).set('t', 10)
  redis.multi { |t| t.set('t', 3) }
end
check.(changed.nil? && redis.get('t') == '10')
begin
  redis.set('word', 'x') && redis.incr('word')
  raise 'wrong'
rescue Redis::CommandError => e
  check.(e.message == 'ERR value is not an integer or out of range')
end
done.('transaction')

heard = []
subscriber = Thread.new do
  Redis.new(port: port).subscribe('news', 'end') do |on|
    on.message do |channel, message|
      heard << [channel, message]
      raise StopIteration if channel == 'end'
    end
  end
rescue StopIteration
  nil
end
sleep 0.005 until redis.publish('news', 'hello') == 1
redis.publish('end', '')
subscriber.join(10)
check.(heard == [['news', 'hello'], ['end', '']])
check.(redis.info['redis_version'] && redis.call('DELIFEQ', 't', '10') == 1)
done.('pub/sub, info, raw commands')
