-- Makes a new store, unless there is one.
-- KEYS: meta
-- ARGV: schema, check value of the key, the key itself or ''
-- Returns the schema, check value and key of the store that is there now, and whether it is only
-- partly filled.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'key_check', ARGV[2], 'key', ARGV[3])
end
local found = redis.call('HMGET', KEYS[1], 'schema', 'key_check', 'key')
found[4] = redis.call('HEXISTS', KEYS[1], 'unfinished')
return found
