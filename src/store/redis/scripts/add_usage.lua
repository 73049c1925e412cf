-- Adds a batch of usage, once.
-- KEYS: batches, hours, months, marks in order, months of marks, days of marks, names of marks,
--   and for each record of the batch the key of its counts
-- ARGV: batch, then operations with their arguments:
--   record KEY-INDEX SPAN(0|1) START | sum KEY-INDEX NAME VALUE | peak KEY-INDEX NAME VALUE
--   | mark MEMBER MONTH OPENED REFUSED | name MEMBER NAME
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
-- Each gateway repeats only its last batch.
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1001)
local at = 2
while ARGV[at] do
  local operation = ARGV[at]
  if operation == 'record' then
    redis.call('ZADD', KEYS[2 + ARGV[at + 2]], ARGV[at + 3], ARGV[at + 3])
    at = at + 4
  elseif operation == 'sum' then
    redis.call('HINCRBY', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3])
    at = at + 4
  elseif operation == 'peak' then
    local known = redis.call('HGET', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2])
    if not known or tonumber(ARGV[at + 3]) > tonumber(known) then
      redis.call('HSET', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3])
    end
    at = at + 4
  elseif operation == 'mark' then
    local member, opened, refused = ARGV[at + 1], ARGV[at + 3], ARGV[at + 4]
    local known = redis.call('HGET', KEYS[6], member)
    if known then
      local before_opened, before_refused = string.match(known, '^(%d+) (%d+)$')
      opened = bit.bor(opened, before_opened)
      refused = bit.bor(refused, before_refused)
    end
    redis.call('ZADD', KEYS[4], 0, member)
    redis.call('ZADD', KEYS[5], ARGV[at + 2], member)
    redis.call('HSET', KEYS[6], member, opened .. ' ' .. refused)
    at = at + 5
  else
    redis.call('HSET', KEYS[7], ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  end
end
return 1
