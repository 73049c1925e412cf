-- Stops counting a user, with the entry in the audit log where that is in reach.
-- KEYS: terms, expiries of the class's users, facts of them, meta, reserve of the class[, audit]
-- ARGV: user, entry
-- Returns -1 for a licence that is not there, 0 if the user was not known, else 1.
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
-- An open under way stays in reserve, and is counted there from now on.
redis.call('ZADD', KEYS[5], 'XX', 0, ARGV[1])
-- Never the same number twice, even if the last writes were lost and others came since.
local time = redis.call('TIME')
local passed = time[1] * 1000000 + time[2] - (redis.call('HGET', KEYS[4], 'users') or 0)
redis.call('HINCRBY', KEYS[4], 'users', math.max(passed, 1))
if KEYS[6] then redis.call('RPUSH', KEYS[6], ARGV[2]) end
return 1
