-- Makes a new store that is being filled, unless there is one.
-- KEYS: meta
-- ARGV: schema, check value of the key, the key itself or ''
-- Returns the check value of the store that is there now.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'key_check', ARGV[2], 'key', ARGV[3], 'unfinished', 1)
end
return redis.call('HGET', KEYS[1], 'key_check')
