-- Binds a device.
-- KEYS: terms, devices, bound
-- ARGV: device, now in microseconds
-- Returns what became of it.
local terms = redis.call('HMGET', KEYS[1], 'revoked', 'most')
if not terms[1] then return 'unknown' end
if terms[1] == '1' then return 'revoked' end
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 'already' end
if terms[2] ~= '' and redis.call('ZCARD', KEYS[2]) >= tonumber(terms[2]) then return 'full' end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return 'bound'
