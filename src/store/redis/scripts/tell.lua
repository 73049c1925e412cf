-- Tells the other gateways of a change that is no licence's or app's.
-- KEYS: version, changed
-- ARGV: channel, what
local version = redis.call('INCR', KEYS[1])
redis.call('ZADD', KEYS[2], version, ARGV[2])
redis.call('PUBLISH', ARGV[1], version)
return 1
