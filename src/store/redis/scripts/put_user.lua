-- Counts a user until an expiry; a later one stays.
-- KEYS: terms, expiries of the class's users, facts of them, meta
-- ARGV: user, expiry and now in seconds, anonymous (0 or 1)
-- Returns 0 for a licence that is not there, else 1.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
local place
if known and tonumber(known) > tonumber(ARGV[3]) then
  place = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^%d+')
end
-- Who is counted anew is counted behind everybody else.
place = place or redis.call('HINCRBY', KEYS[4], 'places', 1)
redis.call('ZADD', KEYS[2], 'GT', ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], place .. ' ' .. ARGV[4])
redis.call('HINCRBY', KEYS[4], 'users', 1)
return 1
