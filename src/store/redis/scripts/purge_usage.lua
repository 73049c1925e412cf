-- Forgets old usage, some at a time.
-- KEYS: hours, months, marks in order, months of marks, days of marks, names of marks
-- ARGV: prefix of the counts' keys, first instant that hours are kept from, of months, first month
--   that marks are kept from, names too (0 or 1), the most of each
-- Returns how much was forgotten.
local gone = 0
for span = 0, 1 do
  local old = redis.call('ZRANGE', KEYS[1 + span], '-inf', '(' .. ARGV[2 + span], 'BYSCORE', 'LIMIT',
    0, ARGV[6])
  for _, start in ipairs(old) do
    redis.call('UNLINK', ARGV[1] .. span .. ':' .. start)
    redis.call('ZREM', KEYS[1 + span], start)
    gone = gone + 1
  end
end
local marks = redis.call('ZRANGE', KEYS[4], '-inf', '(' .. ARGV[4], 'BYSCORE', 'LIMIT', 0, ARGV[6])
for _, mark in ipairs(marks) do
  redis.call('ZREM', KEYS[3], mark)
  redis.call('ZREM', KEYS[4], mark)
  redis.call('HDEL', KEYS[5], mark)
  redis.call('HDEL', KEYS[6], mark)
  gone = gone + 1
end
if ARGV[5] == '1' then
  local names = redis.call('HSCAN', KEYS[6], 0, 'COUNT', ARGV[6])[2]
  for at = 1, #names, 2 do
    redis.call('HDEL', KEYS[6], names[at])
    gone = gone + 1
  end
end
return gone
