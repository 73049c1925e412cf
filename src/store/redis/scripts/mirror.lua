-- Tells a licence's own slot what it needs to know of the licence; an older word does nothing.
-- KEYS: terms
-- ARGV: version of the record, revoked (0 or 1), most devices ('' = unlimited)
local known = redis.call('HGET', KEYS[1], 'version')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'revoked', ARGV[2], 'most', ARGV[3])
return 1
