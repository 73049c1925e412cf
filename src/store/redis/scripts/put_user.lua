-- Counts a user until an expiry; a later one stays.
-- KEYS: terms, expiries of the class's users, facts of them, meta, reserve of the class
-- ARGV: user, expiry and now in seconds, anonymous (0 or 1)
-- Returns -1 for a licence that is not there, 0 for a user who was counted already, else how many are.
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
local known = before > tonumber(ARGV[3])
local place
if known then
  place = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^%d+')
end
-- Who is counted anew is counted behind everybody else.
place = place or redis.call('HINCRBY', KEYS[4], 'places', 1)
if tonumber(ARGV[2]) > before then
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
  -- An open under way is no longer counted besides.
  redis.call('ZADD', KEYS[5], 'XX', ARGV[2], ARGV[1])
end
redis.call('HSET', KEYS[3], ARGV[1], place .. ' ' .. ARGV[4])
-- Never the same number twice, even if the last writes were lost and others came since.
local time = redis.call('TIME')
local passed = time[1] * 1000000 + time[2] - (redis.call('HGET', KEYS[4], 'users') or 0)
redis.call('HINCRBY', KEYS[4], 'users', math.max(passed, 1))
return known and 0 or redis.call('ZCOUNT', KEYS[2], '(' .. ARGV[3], '+inf')
