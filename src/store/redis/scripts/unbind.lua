-- Frees a device, with its entry in the audit log where that is in reach.
-- KEYS: terms, devices, bound[, audit]
-- ARGV: device, entry
-- Returns -1 for a licence that is not there, 0 for a device that was not bound, else 1.
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
if KEYS[4] then redis.call('RPUSH', KEYS[4], ARGV[2]) end
return 1
