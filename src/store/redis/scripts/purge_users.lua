-- Forgets users who expired long ago.
-- KEYS: expiries and facts of the class's users
-- ARGV: instant before which, in seconds; the most
-- Returns how many.
local gone = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, user in ipairs(gone) do
  redis.call('ZREM', KEYS[1], user)
  redis.call('HDEL', KEYS[2], user)
end
return #gone
