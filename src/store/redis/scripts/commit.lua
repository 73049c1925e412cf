-- Writes one change of licences and apps, all of it, if nobody else changed anything since it was
-- made up.
-- KEYS: version, licences, keys, apps, audit, changed, behind
-- ARGV: channel, expected version, then operations with their arguments:
--   licence ID RECORD | key HASH ID | nokey HASH | app ID RECORD | noapp ID | note ENTRY | tell WHAT
-- Returns 1, or 0 if the version is another.
local present = redis.call('GET', KEYS[1]) or '0'
if present ~= ARGV[2] then return 0 end
local version = redis.call('INCR', KEYS[1])
local at = 3
while ARGV[at] do
  local operation = ARGV[at]
  if operation == 'licence' then
    redis.call('HSET', KEYS[2], ARGV[at + 1], ARGV[at + 2])
    redis.call('ZADD', KEYS[6], version, 'licence ' .. ARGV[at + 1])
    redis.call('ZADD', KEYS[7], version, ARGV[at + 1])
    at = at + 3
  elseif operation == 'key' then
    redis.call('HSET', KEYS[3], ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif operation == 'nokey' then
    redis.call('HDEL', KEYS[3], ARGV[at + 1])
    at = at + 2
  elseif operation == 'app' then
    redis.call('HSET', KEYS[4], ARGV[at + 1], ARGV[at + 2])
    redis.call('ZADD', KEYS[6], version, 'apps')
    at = at + 3
  elseif operation == 'noapp' then
    redis.call('HDEL', KEYS[4], ARGV[at + 1])
    redis.call('ZADD', KEYS[6], version, 'apps')
    at = at + 2
  elseif operation == 'note' then
    redis.call('RPUSH', KEYS[5], ARGV[at + 1])
    at = at + 2
  elseif operation == 'tell' then
    redis.call('ZADD', KEYS[6], version, ARGV[at + 1])
    at = at + 2
  else
    return redis.error_reply('ERR unknown operation ' .. operation)
  end
end
redis.call('PUBLISH', ARGV[1], version)
return 1
